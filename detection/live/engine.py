"""The loop of the live demo: newest picture, C runtime, tracker, and off to whoever looks. It waits for nobody.

One thread owns the device and the tracker. It reads `settings`, a frozen object that others replace, and hands each result to
`publish`, which must not block.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field, model_validator

from datasets.strict import StrictModel
from detection.detections import Detections
from detection.live.frames import Frame, Frames
from firmware.compiler.decode import Q4, to_original
from firmware.compiler.preprocess import content_size
from firmware.device import DetectRecord, Device
from firmware.track import ObjectTracker, Tracker, TrackSettings

SHOWN_SIDE = 960  # pixels; larger pictures travel to the page shrunk
RATE_OVER = 20  # pictures that the shown rate is a mean of
AGAIN = (1.0, 2.0, 4.0, 8.0)  # seconds until the next try after a failure
WEAK = 0.5  # share of the shown score with which a followed object is still believed

Share = Annotated[float, Field(ge=0, le=1)]


class Settings(StrictModel):
    """What can be changed while it runs."""

    score: Share = 0.3  # least score of a box that counts
    hidden: frozenset[int] = frozenset()  # labels that nobody wants to see
    paused: bool = False
    tracking: bool = False
    line: tuple[Share, Share, Share, Share] | None = None  # x1, y1, x2, y2 as shares of width and height

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if self.line is not None and self.line[:2] == self.line[2:]:
            raise ValueError("a line needs two ends")
        return self


@dataclass(frozen=True)
class Shot:
    """One picture and all that is known of it."""

    number: int
    frame: Frame
    found: Detections  # in pixels of the picture, best first, down to the model's own threshold
    ids: np.ndarray  # uint32 (n,), 0: not followed
    record: DetectRecord
    seconds: float  # that the device took, by this machine's clock
    rate: float  # pictures a second, lately
    objects: int  # that were ever followed
    crossed: tuple[int, int]  # the line: to its right, to its left

    @cached_property
    def jpeg(self) -> bytes:
        """The picture for the page, its longer side at most SHOWN_SIDE."""
        image = self.frame.image
        factor = SHOWN_SIDE / max(image.shape[:2])
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else image
        return encode_jpeg(small, 80)

    def shown(self, settings: Settings) -> np.ndarray:
        """bool (n,): boxes that count; a followed object stays when it is seen badly."""
        wanted = ~np.isin(self.found.labels, list(settings.hidden))
        return wanted & ((self.found.scores >= settings.score) | (self.ids > 0))


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """uint8 (h, w, 3) RGB as a JPEG file."""
    done, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done  # any uint8 picture can be
    return content.tobytes()


class Engine:
    """Runs from `start` to `stop`. What goes wrong is told by `complain` (None: all is well again) and tried again later."""

    def __init__(
        self,
        device: Device,
        frames: Frames,
        publish: Callable[[Shot], None],
        complain: Callable[[str | None], None],
        settings: Settings,
        track_here: bool = False,
    ) -> None:
        """`track_here`: objects are followed on this machine, also where the device could."""
        self._new_tracker: Callable[[], ObjectTracker] = Tracker if track_here else device.tracker
        self.device, self.frames, self.settings = device, frames, settings
        self._publish, self._complain = publish, complain
        self._height, self._width, _ = device.header.input_shape
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._times: deque[float] = deque(maxlen=RATE_OVER + 1)
        self._number = 0
        self._tracker: ObjectTracker | None = None
        self._tracked: tuple | None = None  # what the tracker was set up for

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float = 5.0) -> None:
        """Ends the loop after its picture; a device that takes longer is left alone."""
        self._stop.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join(patience)
        if not self._thread.is_alive():
            self.frames.close()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            if self.settings.paused:
                self._times.clear()
                self._stop.wait(0.05)
                continue
            try:
                shot = self._step()
            except (ValueError, OSError) as error:
                self._complain(" ".join(str(error).split()))
                self._stop.wait(AGAIN[min(failures, len(AGAIN) - 1)])
                failures += 1
                continue
            if failures:
                self._complain(None)
                failures = 0
            self._publish(shot)

    def _step(self) -> Shot:
        frame, settings = self.frames.newest(), self.settings
        start = time.perf_counter()
        record = self.device.detect_many([frame.image])[0]
        seconds = time.perf_counter() - start
        size = frame.image.shape[1], frame.image.shape[0]
        content = content_size(size, (self._width, self._height))
        found = Detections(*to_original(record.boxes, content, size))
        ids = self._follow(record.boxes, content, settings)
        self._number += 1
        self._times.append(time.monotonic())
        passed = self._times[-1] - self._times[0]
        return Shot(
            number=self._number, frame=frame, found=found, ids=ids, record=record, seconds=seconds,
            rate=(len(self._times) - 1) / passed if passed else 0.0,
            objects=self._tracker.confirmed if self._tracker else 0,
            crossed=self._tracker.crossed if self._tracker else (0, 0),
        )  # fmt: skip

    def _follow(self, boxes: np.ndarray, content: tuple[int, int], settings: Settings) -> np.ndarray:
        """Ids uint32 (n,) of boxes (n, 6) in the network's frame."""
        ids = np.zeros(len(boxes), np.uint32)
        if not settings.tracking:
            self._tracker = self._tracked = None
            return ids
        wanted = np.flatnonzero(~np.isin(boxes[:, 5], list(settings.hidden)))
        ids[wanted] = self._tracker_for(content, settings).update(boxes[wanted])
        return ids

    def _tracker_for(self, content: tuple[int, int], settings: Settings) -> ObjectTracker:
        """The tracker, begun anew when pictures of another shape come, its line moved when that was moved."""
        if self._tracker is None or self._tracked is None or self._tracked[0] != content:
            self._tracker, self._tracked = self._new_tracker(), (content, None, None)
        if self._tracked[1] != settings.score:
            self._tracker.set(TrackSettings(high=settings.score, low=WEAK * settings.score))
        if self._tracked[2] != settings.line:
            limits = (content[0] * Q4, content[1] * Q4) * 2
            line = settings.line and tuple(round(share * limit) for share, limit in zip(settings.line, limits, strict=True))
            self._tracker.set_line(line)
        self._tracked = (content, settings.score, settings.line)
        return self._tracker
