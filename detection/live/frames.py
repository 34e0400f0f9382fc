"""Where live pictures come from: a webcam, a video, a folder, drawn scenes. Whoever asks gets the newest one.

A webcam is read by a thread that keeps nothing but its last picture. Videos and scenes have a rate of their own and leave
out what the detector is too slow for; a folder shows every picture. All but the webcam begin again at the end.
"""

import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from datasets.config import SceneConfig
from datasets.scenes import draw_scene
from detection.pictures import find_pictures, load_picture
from detection.videos import VideoError, VideoReader, is_video

PATIENCE = 5.0  # seconds without a picture of a webcam before it is said to be gone
FOLDER_RATE = 1.0  # pictures a second
SCENES = "scenes"


class FrameError(ValueError):
    """A source of pictures that does not exist or that has stopped giving any."""


class Frame(NamedTuple):
    """One picture."""

    image: np.ndarray  # uint8 (h, w, 3) RGB
    name: str  # for people: file, number in a video


class Frames(ABC):
    """A stream of pictures without an end."""

    name: str

    @abstractmethod
    def newest(self) -> Frame:
        """The newest picture, after waiting for one that was not given yet. Raises ValueError where there is none."""

    def close(self) -> None:  # noqa: B027  (most have nothing to give back)
        """Give the camera or file back."""


def open_frames(source: str) -> Frames:
    """Webcam number, `scenes`, video, picture or folder. Raises FrameError, PictureError or VideoError when it cannot be read."""
    if source.isdecimal():
        return Webcam(int(source))
    if source == SCENES:
        return Scenes()
    path = Path(source)
    return Video(path) if is_video(path) else Folder(path)


class Webcam(Frames):
    """A camera of this machine, by its number."""

    def __init__(self, number: int) -> None:
        self.name = f"webcam {number}"
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise FrameError(f"{self.name} cannot be opened: is it plugged in, free, and are you in the group 'video'?")
        self._news = threading.Condition()
        self._image: np.ndarray | None = None
        self._count = 0
        self._stop = False
        self._thread = threading.Thread(target=self._read, name=self.name, daemon=True)
        self._thread.start()

    def newest(self) -> Frame:
        with self._news:
            if self._image is None and not self._news.wait_for(lambda: self._image is not None, PATIENCE):
                raise FrameError(f"{self.name} has given no picture for {PATIENCE:.0f} s")
            image, self._image = self._image, None
            number = self._count
        return Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), f"{self.name}, {number}")

    def close(self) -> None:
        self._stop = True
        self._thread.join(PATIENCE)
        self._capture.release()

    def _read(self) -> None:
        while not self._stop:
            there, image = self._capture.read()
            if not there:
                time.sleep(0.1)  # unplugged, perhaps for a moment
                continue
            with self._news:
                self._image, self._count = image, self._count + 1
                self._news.notify()


class _Paced(Frames):
    """Picture number n is due n / rate seconds after the beginning; late ones are left out."""

    rate: float
    skips = True

    def __init__(self) -> None:
        self._start, self._given = 0.0, -1

    @abstractmethod
    def _picture(self, skip: int) -> Frame:
        """The next picture after `skip` others."""

    def newest(self) -> Frame:
        now, due = time.monotonic(), self._given + 1
        late = int((now - self._start) * self.rate) - due
        if due == 0 or late > self.rate or not self.skips and late > 0:  # the first, or it stood still: go on from here
            self._start, late = now - due / self.rate, 0
        late = max(late, 0)
        time.sleep(max(0.0, self._start + (due + late) / self.rate - now))
        self._given = due + late
        return self._picture(late)


class Video(_Paced):
    """A video file at its own speed, over and over."""

    def __init__(self, path: Path) -> None:
        self._reader = VideoReader(path)
        self.name, self.rate, self._number = path.name, self._reader.rate, -1
        super().__init__()

    def _picture(self, skip: int) -> Frame:
        image = self._reader.next(skip)
        self._number += 1 + skip
        if image is None:
            self.close()
            self._reader, self._number = VideoReader(self._reader.path), 0
            image = self._reader.next()
        if image is None:
            raise VideoError(f"{self._reader.path}: can no longer be read")
        return Frame(image, f"{self.name}, {self._number}")

    def close(self) -> None:
        self._reader.close()


class Folder(_Paced):
    """Every picture of a folder, or one picture, over and over; a broken one raises each time it is its turn."""

    rate, skips = FOLDER_RATE, False

    def __init__(self, path: Path) -> None:
        self._paths = [found for found in find_pictures([path]) if not is_video(found)]
        if not self._paths:
            raise FrameError(f"{path}: no pictures in this folder; name one of its videos")
        self.name, self._next = str(path), 0
        super().__init__()

    def _picture(self, skip: int) -> Frame:
        path = self._paths[self._next % len(self._paths)]
        self._next += 1 + skip
        return Frame(load_picture(path).image, path.name)


class Scenes(_Paced):
    """A camera that glides over drawn scenes, to and fro: nothing is needed to try the page."""

    rate = 12.0
    name = SCENES
    steps = 60  # pictures a glide
    width, height = 320, 256

    def __init__(self) -> None:
        self._config = SceneConfig(width=self.width * 2, height=self.height, seed=11, max_objects=9, max_size=0.4)
        self._drawn, self._scene, self._wide, self._number = 0, -1, np.empty(0, np.uint8), -1
        super().__init__()

    def _picture(self, skip: int) -> Frame:
        self._number += 1 + skip
        scene, step = divmod(self._number, self.steps)
        if scene != self._scene:
            self._scene, self._wide = scene, self._draw()
        left = round(self.width * (step / (self.steps - 1) if scene % 2 == 0 else 1 - step / (self.steps - 1)))
        return Frame(np.ascontiguousarray(self._wide[:, left : left + self.width]), f"{self.name}, {self._number}")

    def _draw(self) -> np.ndarray:
        """The next scene in which there is something to see."""
        while True:
            image, truth = draw_scene(self._config, 1, self._drawn)
            self._drawn += 1
            if len(truth.boxes) >= 5:
                return image
