"""One picture or one video in, the same with boxes out, and a line that says what was found."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from datasets.annotations import GroundTruth, Sample
from detection.detections import Detections
from detection.draw import draw_detections
from detection.evaluate import Predictor
from detection.pictures import load_picture, save_picture
from detection.videos import VideoReader, VideoWriter, is_video


@dataclass(frozen=True)
class Annotator:
    """A predictor, and which of its boxes are drawn."""

    predictor: Predictor
    classes: Sequence[str]
    min_score: float

    def __call__(self, path: Path, target: Path) -> str:
        """Write `target`, whole or not at all; what was found. Raises ValueError for a broken picture or video."""
        return self._video(path, target) if is_video(path) else self._picture(path, target)

    def _picture(self, path: Path, target: Path) -> str:
        sample = load_picture(path)
        start = time.perf_counter()
        found, _, instructions = self.predictor.predict([sample])[0]
        elapsed = time.perf_counter() - start
        save_picture(target, self._draw(sample, found))
        count = self._count(found)
        best = f", best {found.scores[0]:.2f} {self.classes[found.labels[0]]}" if count else ""
        cost = f"{1000 * elapsed:.0f} ms" if instructions is None else f"{instructions:,} instructions"
        return f"{_boxes(count)}{best}, {cost}"

    def _video(self, path: Path, target: Path) -> str:
        reader = VideoReader(path)
        count, boxes, start = 0, 0, time.perf_counter()
        console = Console(stderr=True)
        bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        try:
            with VideoWriter(target, reader.rate) as writer, bar:
                frames = bar.track(reader.frames(), total=reader.promised or None, description=path.name)
                while samples := [_sample(path, image) for image in islice(frames, self.predictor.batch)]:
                    for sample, (found, *_) in zip(samples, self.predictor.predict(samples), strict=True):
                        writer.write(self._draw(sample, found))
                        boxes += self._count(found)
                    count += len(samples)
        finally:
            reader.close()
        return f"{count} frames, {_boxes(boxes)}, {count / (time.perf_counter() - start):.1f} frames/s here"

    def _draw(self, sample: Sample, found: Detections) -> np.ndarray:
        return draw_detections(sample.image, found, self.classes, (sample.width, sample.height), self.min_score)

    def _count(self, found: Detections) -> int:
        return int((found.scores >= self.min_score).sum())


def _boxes(count: int) -> str:
    return f"{count} box{'' if count == 1 else 'es'}"


def _sample(path: Path, image: np.ndarray) -> Sample:
    return Sample(image, GroundTruth.empty(), str(path), image.shape[1], image.shape[0])
