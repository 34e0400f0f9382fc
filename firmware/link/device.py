"""A device behind the link, with the interface of all devices (firmware/device.py)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from firmware.compiler.preprocess import content_size, letterbox
from firmware.device import DetectRecord, Device, DeviceInfo, RunRecord
from firmware.emulator import DeviceError, Flags, picture_format
from firmware.header import TessHeader, load_tess, read_header
from firmware.link.client import NETWORK_ROWS, Answer, Client
from firmware.link.following import LinkTracker
from firmware.link.ports import open_port
from firmware.link.session import LinkError, Timing
from firmware.track import ObjectTracker

RATES = (2_000_000, 921_600, 460_800)  # bits a second, tried in this order


class LinkDevice(Device):
    """Firmware that serves the link and holds the model that `header` describes.

    Colour pictures are letterboxed here and travel as rows of the network frame; RGB565 frames and grey ones travel as a camera
    stores them and are letterboxed on the device.
    """

    def __init__(self, client: Client, header: TessHeader, size: int):
        self.client = client
        self.header = header
        self._size = size
        self.last: Answer | None = None  # of the last picture that was looked for objects
        self._stack: int | None = None
        self._touched: int | None = None

    @property
    def info(self) -> DeviceInfo:
        facts = self.client.facts
        assert facts is not None
        return DeviceInfo(
            target=facts.board, unit=facts.unit, profile_unit=facts.unit if facts.n_profile else None, clock_hz=facts.clock_hz,
            arena=facts.needed, stack=self._stack, touched=self._touched, text=None, data=None, bss=None, model=self._size,
        )  # fmt: skip

    def run_frames(self, frames: Sequence[np.ndarray]) -> list[RunRecord]:
        records = []
        height, width, _ = self.header.input_shape
        for number in range(len(frames)):
            frame = frames[number]
            self._check_frame(number, frame)
            answer = self._run(frame, NETWORK_ROWS, (width, height), raw=True, boxes=False)
            counted = answer.run if self.info.unit else None
            records.append(RunRecord(answer.heads, counted, *_memory(answer), _profile(answer), answer.repeats))
        return records

    def detect_many(self, images: Sequence[np.ndarray], raw: bool = False) -> list[DetectRecord]:
        self._check_decoder()
        return [self._detect(images[number], raw) for number in range(len(images))]

    def selftest(self) -> None:
        self.client.selftest()

    def tracker(self) -> ObjectTracker:
        facts = self.client.facts
        return LinkTracker(self.client, lambda: self.last) if facts and facts.tracks else super().tracker()

    def close(self) -> None:
        self.client.close()

    def _detect(self, image: np.ndarray, raw: bool) -> DetectRecord:
        height, width, channels = self.header.input_shape
        pixels = picture_format(image, Flags.BOXES)
        if image.dtype == np.uint16:
            answer = self._run(image.astype("<u2").view(np.uint8).reshape(*image.shape, 2), pixels, (0, 0), raw, True)
        elif image.ndim == 2:
            answer = self._run(image[..., None], pixels, (0, 0), raw, True)
        elif channels != 3:
            raise DeviceError(f"model '{self.header.name}' takes {channels} channels: give it grey pictures")
        else:
            content = content_size((image.shape[1], image.shape[0]), (width, height))
            answer = self._run(letterbox(image, height, width), NETWORK_ROWS, content, raw, True)
        counted = self.info.unit is not None
        stack, touched = _memory(answer)
        return DetectRecord(
            boxes=answer.boxes, heads=answer.heads if raw else None, instructions=answer.run + answer.detect if counted else None,
            detect_instructions=answer.detect if counted else None, stack=stack, touched=touched, profile=_profile(answer),
            repeats=answer.repeats,
        )  # fmt: skip

    def _run(self, picture: np.ndarray, pixels: int, content: tuple[int, int], raw: bool, boxes: bool) -> Answer:
        answer = self.client.run(picture, pixels, content, self.header, raw, boxes)
        self.last = answer if boxes else None
        self._stack = max(self._stack or 0, answer.stack) or None
        self._touched = max(self._touched or 0, answer.touched)
        return answer


def _memory(answer: Answer) -> tuple[int | None, int]:
    return answer.stack or None, answer.touched


def _profile(answer: Answer) -> np.ndarray | None:
    return answer.profile if answer.profile.size else None


def open_client(place: str, model: bytes | None, profile: bool = False) -> Client:
    """A client for a place (see open_port), not yet connected, with waiting times that suit it."""
    patient = Timing(retry=1.0, patience=120.0, connect=60.0) if place.partition(":")[0] == "emulator" else Timing()
    return Client(open_port(place, model, profile), patient)


def open_board(tess: bytes | str | Path, place: str, profile: bool = False) -> LinkDevice:
    """A device at `place` that must hold this model.tess, on the fastest rate that works. Raises LinkError otherwise.

    `profile` builds an emulator's firmware so that it counts each node.
    """
    data = load_tess(tess)
    header = read_header(data)
    client = open_client(place, data, profile)
    try:
        facts = client.connect(data)
        if header.max_detections > facts.max_boxes:
            raise LinkError(f"{place}: room for {facts.max_boxes} boxes, the model may find {header.max_detections}")
        any(client.raise_baud(rate) for rate in RATES)
    except BaseException:
        client.close()
        raise
    return LinkDevice(client, header, len(data))
