"""Run predictors over a data set and score them. Knows pictures, truth and detections; no torch, no files, no devices.

Integer predictors (int8, tflite, host, emulator) promise the same bytes. `evaluate_together` runs them side by side and
compares every head map and every box with those of the first one that is a truth.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from datasets.annotations import Sample
from detection.detections import Detections
from detection.metrics.common import Evaluator, Metrics
from detection.metrics.resample import bootstrap


@dataclass(frozen=True)
class RawOutput:
    """What an integer predictor computed for one picture, before any float."""

    heads: Mapping[str, np.ndarray]  # tensor name -> int8 (h, w, n); empty where a predictor keeps none
    boxes: np.ndarray  # int32 (n, 6): x1, y1, x2, y2 in 1/16 network pixels, score in 1/32768, label; best first


class Prediction(NamedTuple):
    """What a predictor says about one picture."""

    detections: Detections
    raw: RawOutput | None = None  # integer predictors only
    instructions: int | None = None  # where a machine counted them


class Predictor(Protocol):
    """Pictures -> detections, in pixels of the originals."""

    name: str
    batch: int  # how many pictures it likes at once
    height: int  # of the network's input, pixels
    width: int

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]: ...

    def __call__(self, image: np.ndarray, width: int, height: int) -> Detections:
        """uint8 (h, w, 3) RGB picture, perhaps a shrunk copy of a width x height original."""
        ...


Predict = Callable[[np.ndarray, int, int], Detections]
Progress = Callable[[int, int], None]  # (images done, images in all)


@dataclass(frozen=True)
class Difference:
    """The first place where a predictor does not equal the truth."""

    image_id: str
    predictor: str
    truth: str
    tensor: str  # head map by name, or "boxes"
    index: tuple[int, ...] | None  # None: another shape, or missing
    expected: str
    found: str

    def __str__(self) -> str:
        place = f"{self.tensor}{list(self.index)}" if self.index is not None else f"shape of {self.tensor}"
        return (
            f"image '{self.image_id}': {place} is {self.expected} in {self.truth} and {self.found} in {self.predictor}"
        )


@dataclass(frozen=True)
class Evaluation:
    """One predictor on one data set."""

    name: str
    metrics: Metrics
    images: int
    seconds: float  # inside the predictor: letterbox, network, decode; not reading the picture
    instructions: float | None = None  # mean a picture
    compared: int = 0  # pictures whose bytes were compared with `truth`
    unequal: int = 0  # of these, pictures with any difference
    truth: str | None = None  # name of the predictor compared with
    difference: Difference | None = None  # the first one
    resampled: Mapping[str, np.ndarray] = field(default_factory=dict)  # value name -> (resamples,); see metrics/resample.py

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds > 0 else float("nan")


def evaluate(
    predict: Predict,
    dataset: Sequence[Sample],
    evaluators: Sequence[Evaluator],
    progress: Progress | None = None,
    name: str = "",
) -> Evaluation:
    """Show every picture of `dataset` to `predict` and score the answers: the short way, for one predictor."""
    seconds = 0.0
    for done, sample in enumerate(dataset, start=1):
        start = time.perf_counter()
        detections = predict(sample.image, sample.width, sample.height)
        seconds += time.perf_counter() - start
        for evaluator in evaluators:
            evaluator.add(sample.image_id, sample.truth, detections)
        if progress:
            progress(done, len(dataset))
    return Evaluation(name or getattr(predict, "name", ""), merged(evaluators), len(dataset), seconds)


def evaluate_together(
    predictors: Sequence[Predictor],
    dataset: Sequence[Sample],
    new_evaluators: Callable[[], Sequence[Evaluator]],
    progress: Progress | None = None,
    resamples: int = 0,
) -> list[Evaluation]:
    """Run predictors side by side, score each one, and compare the bytes of all integer ones with the first of them.

    Returns one `Evaluation` a predictor, in their order. Differences are reported, not raised. With `resamples` every
    value is also bootstrapped over images, the same resamples for every predictor.
    """
    evaluators = [new_evaluators() for _ in predictors]
    results = [Evaluation(p.name, Metrics({}, 0), 0, 0.0) for p in predictors]
    for samples in batches(dataset, max((p.batch for p in predictors), default=1)):
        truth: tuple[str, list[Prediction]] | None = None
        for i, predictor in enumerate(predictors):
            start = time.perf_counter()
            predictions = _predict(predictor, samples)
            seconds = time.perf_counter() - start
            for sample, prediction in zip(samples, predictions, strict=True):
                for evaluator in evaluators[i]:
                    evaluator.add(sample.image_id, sample.truth, prediction.detections)
            results[i] = _accumulate(results[i], predictions, seconds)
            if predictions[0].raw is not None:
                if truth is None:
                    truth = predictor.name, predictions
                else:
                    results[i] = _compare(results[i], truth, samples, predictions)
        if progress:
            progress(results[0].images, len(dataset))
    results = [replace(r, metrics=merged(e)) for r, e in zip(results, evaluators, strict=True)]
    return _bootstrapped(results, evaluators, resamples) if resamples else results


def _bootstrapped(
    results: Sequence[Evaluation], evaluators: Sequence[Sequence[Evaluator]], resamples: int
) -> list[Evaluation]:
    """Add resampled values; what found the same bytes as its truth on every picture has the truth's."""
    known: dict[str, Mapping[str, np.ndarray]] = {}
    for result, own in zip(results, evaluators, strict=True):
        same = result.truth in known and result.compared == result.images and not result.unequal
        known[result.name] = known[result.truth] if same else bootstrap(own, result.images, resamples)
    return [replace(result, resampled=known[result.name]) for result in results]


def merged(evaluators: Sequence[Evaluator]) -> Metrics:
    """The values of several evaluators under one roof."""
    values: dict[str, float] = {}
    by_class: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    images = 0
    for metrics in (evaluator.result() for evaluator in evaluators):
        values.update(metrics.values)
        for name, of_class in metrics.by_class.items():
            by_class.setdefault(name, {}).update(of_class)
        notes += [note for note in metrics.notes if note not in notes]
        images = metrics.images
    return Metrics(values, images, by_class, tuple(notes))


def batches(dataset: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    """Consecutive pictures, `size` at a time; the last batch may be shorter."""
    for start in range(0, len(dataset), size):
        yield [dataset[i] for i in range(start, min(start + size, len(dataset)))]


def first_difference(expected: RawOutput, found: RawOutput) -> tuple[str, tuple[int, ...] | None, str, str] | None:
    """(tensor, index, expected value, found value) of the first unequal byte, None when all is equal.

    Head maps are compared when both sides keep them, boxes always. The index is None when shapes differ.
    """
    pairs: list[tuple[str, np.ndarray | None, np.ndarray | None]] = []
    if expected.heads and found.heads:
        names = [*expected.heads, *(name for name in found.heads if name not in expected.heads)]
        pairs = [(name, expected.heads.get(name), found.heads.get(name)) for name in names]
    for name, a, b in [*pairs, ("boxes", expected.boxes, found.boxes)]:
        if a is None or b is None or a.shape != b.shape:
            return name, None, *("missing" if x is None else str(x.shape) for x in (a, b))
        if not np.array_equal(a, b):
            index = tuple(int(v) for v in np.argwhere(a != b)[0])
            return name, index, str(a[index]), str(b[index])
    return None


def _predict(predictor: Predictor, samples: list[Sample]) -> list[Prediction]:
    size = max(predictor.batch, 1)
    found = [p for i in range(0, len(samples), size) for p in predictor.predict(samples[i : i + size])]
    if len(found) != len(samples):
        raise ValueError(f"predictor '{predictor.name}' answered {len(found)} times to {len(samples)} pictures")
    return found


def _accumulate(result: Evaluation, predictions: list[Prediction], seconds: float) -> Evaluation:
    images = result.images + len(predictions)
    counts = [p.instructions for p in predictions if p.instructions is not None]
    instructions = result.instructions
    if len(counts) == len(predictions):
        instructions = ((instructions or 0.0) * result.images + sum(counts)) / images
    return replace(result, images=images, seconds=result.seconds + seconds, instructions=instructions)


def _compare(
    result: Evaluation, truth: tuple[str, list[Prediction]], samples: list[Sample], predictions: list[Prediction]
) -> Evaluation:
    for sample, expected, found in zip(samples, truth[1], predictions, strict=True):
        difference = first_difference(expected.raw, found.raw)
        result = replace(result, compared=result.compared + 1, truth=truth[0])
        if difference:
            first = result.difference or Difference(sample.image_id, result.name, truth[0], *difference)
            result = replace(result, unequal=result.unequal + 1, difference=first)
    return result
