"""AP by the size that the network sees: hand-made cases around one range's border."""

import numpy as np
import pytest

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.common import MetricsError
from detection.metrics.sizes import RANGES, SizeEvaluator
from detection.metrics.voc import VocEvaluator

SMALL, MEDIUM = [0, 0, 40, 40], [200, 200, 280, 280]  # sides 40 and 80: 20 and 40 at half the scale


def truth_of(*boxes, ignore=None) -> GroundTruth:
    n = len(boxes)
    flags = np.zeros(n, bool) if ignore is None else np.array(ignore, bool)
    return GroundTruth(np.array(boxes, np.float32).reshape(-1, 4), np.zeros(n, np.int64), flags)


def found_of(*boxes) -> Detections:
    """Scores fall in the order given."""
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, np.zeros(len(boxes), np.int64))


def evaluate(truth: GroundTruth, found: Detections, scale: float = 0.5) -> dict[str, float]:
    evaluator = SizeEvaluator(("a",), {"x": scale})
    evaluator.add("x", truth, found)
    return {name.removeprefix("input_ap50_"): value for name, value in evaluator.result().values.items()}


def test_an_object_counts_in_one_range_only() -> None:
    values = evaluate(truth_of(SMALL, MEDIUM), found_of(SMALL))
    assert (values["small"], values["medium"]) == (1.0, 0.0)
    assert np.isnan(values["tiny"]) and np.isnan(values["large"])


def test_size_is_that_at_the_networks_input() -> None:
    for scale, name in ((0.25, "tiny"), (0.5, "small"), (1.0, "medium"), (2.4, "large")):
        values = evaluate(truth_of(SMALL), found_of(SMALL), scale)
        assert [n for n, value in values.items() if value == 1.0] == [name]


def test_borders_belong_to_the_upper_range() -> None:
    assert [low for low, _ in list(RANGES.values())[1:]] == [high for _, high in list(RANGES.values())[:-1]]
    assert evaluate(truth_of([0, 0, 32, 32]), found_of(), 1.0)["medium"] == 0.0
    assert np.isnan(evaluate(truth_of([0, 0, 32, 32]), found_of(), 1.0)["small"])


def test_detections_on_objects_of_another_size_are_ignored() -> None:
    # The best two detections lie on the medium object, one of them as a double and of a small object's size or not.
    values = evaluate(truth_of(SMALL, MEDIUM), found_of(MEDIUM, MEDIUM, SMALL))
    assert values["small"] == 1.0
    assert values["medium"] == 1.0


def test_a_false_alarm_costs_where_its_own_size_belongs() -> None:
    values = evaluate(truth_of(SMALL, MEDIUM), found_of([500, 500, 540, 540], SMALL, MEDIUM))
    assert values["small"] == pytest.approx(0.5)
    assert values["medium"] == 1.0


def test_a_double_costs_whatever_its_size() -> None:
    # Overlap .5 with the object of side 20 at the input: side 14.1, which is "tiny", and still the object's second detection.
    values = evaluate(truth_of(SMALL, [100, 0, 140, 40]), found_of(SMALL, [0, 0, 28.3, 28.3], [100, 0, 140, 40]))
    assert values["small"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_ignored_objects_stay_ignored() -> None:
    values = evaluate(truth_of(SMALL, [100, 0, 140, 40], ignore=[True, False]), found_of(SMALL, [100, 0, 140, 40]))
    assert values["small"] == 1.0


def test_where_all_objects_are_of_one_size_it_is_plain_ap50() -> None:
    rng = np.random.default_rng(0)
    sized, plain = SizeEvaluator(("a",), {str(i): 1.0 for i in range(20)}), VocEvaluator(("a",))
    for i in range(20):
        corner = rng.integers(0, 60, (6, 2))
        boxes = np.hstack([corner, corner + rng.integers(17, 31, (6, 2))])
        pair = truth_of(*boxes[:3]), found_of(*boxes[2:])
        sized.add(str(i), *pair)
        plain.add(str(i), *pair)
    assert sized.result().values["input_ap50_small"] == plain.result().values["voc_ap50_area"]
    assert 0 < plain.result().values["voc_ap50_area"] < 1


def test_a_picture_without_a_scale_is_named() -> None:
    with pytest.raises(MetricsError, match="'y' has no scale"):
        SizeEvaluator(("a",), {"x": 1.0}).add("y", truth_of(), found_of())
