"""Running predictors over a data set: every picture once, bytes compared, subsets fixed."""

from collections.abc import Sequence

import numpy as np
import pytest

from datasets.annotations import GroundTruth, Sample
from detection.detections import Detections
from detection.evaluate import (
    Prediction,
    RawOutput,
    evaluate,
    evaluate_together,
    first_difference,
)
from detection.metrics.coco import CocoEvaluator
from detection.metrics.voc import VocEvaluator


def dataset(n: int) -> list[Sample]:
    truth = GroundTruth(np.array([[2, 2, 8, 8]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool))
    return [Sample(np.full((10, 10, 3), i, np.uint8), truth, f"image{i}", 10, 10) for i in range(n)]


def perfect() -> Detections:
    return Detections(np.array([[2, 2, 8, 8]], np.float32), np.array([0.5], np.float32), np.zeros(1, np.int64))


class Fake:
    """Finds everything; keeps what it was shown; changes one value of one image when told to."""

    def __init__(self, name: str, batch: int = 1, spoil: str | None = None, raw: bool = True, steps: int | None = None):
        self.name, self.batch, self.spoil, self.raw, self.steps = name, batch, spoil, raw, steps
        self.seen: list[str] = []
        self.calls: list[int] = []

    def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
        self.calls.append(len(samples))
        self.seen += [sample.image_id for sample in samples]
        return [self._one(sample) for sample in samples]

    def _one(self, sample: Sample) -> Prediction:
        heads = {"head8/objectness": np.zeros((2, 3, 1), np.int8), "head8/box": np.zeros((2, 3, 4), np.int8)}
        if self.spoil == sample.image_id:
            heads["head8/box"][1, 2, 3] = -5
        raw = RawOutput(heads, np.zeros((1, 6), np.int32)) if self.raw else None
        return Prediction(perfect(), raw, self.steps)

    def __call__(self, image: np.ndarray, width: int, height: int) -> Detections:
        return perfect()


def test_evaluate_scores_and_times_a_plain_function() -> None:
    progress = []
    evaluators = [VocEvaluator(("a",)), CocoEvaluator(("a",))]
    result = evaluate(lambda *_: perfect(), dataset(5), evaluators, lambda done, total: progress.append((done, total)))
    assert result.metrics.values["voc_ap50_area"] == 1.0
    assert result.metrics.values["coco_ap"] == pytest.approx(1.0)
    assert result.metrics.by_class["a"]["voc_ap50_area"] == 1.0
    assert result.images == result.metrics.images == 5
    assert result.images_per_second > 0
    assert progress == [(i, 5) for i in range(1, 6)]


def test_the_picture_and_its_original_size_reach_the_predictor() -> None:
    seen = []
    evaluate(lambda image, width, height: seen.append((image[0, 0, 0], width, height)) or perfect(), dataset(2), [])
    assert seen == [(0, 10, 10), (1, 10, 10)]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (3, 2)])
def test_together_shows_every_picture_once_in_order(sizes: tuple[int, int]) -> None:
    predictors = [Fake("int8", sizes[0]), Fake("host", sizes[1], steps=7)]
    results = evaluate_together(predictors, dataset(7), lambda: [VocEvaluator(("a",))])
    assert [p.seen for p in predictors] == [[f"image{i}" for i in range(7)]] * 2
    assert max(predictors[1].calls) <= sizes[1]
    assert [r.images for r in results] == [7, 7]
    assert [r.metrics.values["voc_ap50_area"] for r in results] == [1.0, 1.0]
    assert (results[0].instructions, results[1].instructions) == (None, 7.0)
    assert (results[1].compared, results[1].unequal, results[1].truth) == (7, 0, "int8")


def test_first_difference_is_named_and_all_are_counted() -> None:
    predictors = [Fake("float", raw=False), Fake("int8"), Fake("host", spoil="image3"), Fake("emulator", batch=4)]
    results = evaluate_together(predictors, dataset(6), lambda: [])
    assert [r.unequal for r in results] == [0, 0, 1, 0]
    assert [r.compared for r in results] == [0, 0, 6, 6]
    assert str(results[2].difference) == "image 'image3': head8/box[1, 2, 3] is 0 in int8 and -5 in host"
    assert results[3].difference is None


def test_first_difference_of_values_shapes_and_names() -> None:
    heads = {"a": np.zeros((2, 2), np.int8)}
    boxes = np.zeros((1, 6), np.int32)
    same = RawOutput(heads, boxes)
    assert first_difference(same, RawOutput(dict(heads), boxes.copy())) is None
    assert first_difference(same, RawOutput({}, boxes)) is None  # a predictor without head maps
    assert first_difference(same, RawOutput({}, np.zeros((2, 6), np.int32))) == ("boxes", None, "(1, 6)", "(2, 6)")
    assert first_difference(same, RawOutput({"b": heads["a"]}, boxes)) == ("a", None, "(2, 2)", "missing")
    other = RawOutput(heads, np.array([[0, 0, 0, 0, 9, 0]], np.int32))
    assert first_difference(same, other) == ("boxes", (0, 4), "0", "9")


def test_a_predictor_that_loses_pictures_is_named() -> None:
    class Lossy(Fake):
        def predict(self, samples: Sequence[Sample]) -> list[Prediction]:
            return super().predict(samples)[:-1]

    with pytest.raises(ValueError, match="'emulator' answered 3 times to 4 pictures"):
        evaluate_together([Lossy("emulator", 4)], dataset(4), lambda: [])
