"""Validation while training: letterboxed like a chip sees it, boxes in pixels of the original."""

import numpy as np
import pytest
import torch

from datasets.annotations import GroundTruth, Sample
from detection.config import DecodeConfig
from detection.detections import Detections
from detection.validate import ValidationSet, predict, validate
from firmware.compiler.preprocess import content_size, letterbox
from tests.detection.small_detector import make_detector

torch.set_num_threads(1)


class Pictures:
    """Noise of several shapes, each kept at half the size of its original."""

    classes = ("a", "b", "c")

    def __init__(self, sizes: list[tuple[int, int]]) -> None:
        rng = np.random.default_rng(0)
        self.samples = [
            Sample(rng.integers(0, 256, (h, w, 3), np.uint8), GroundTruth.empty(), str(i), 2 * w, 2 * h)
            for i, (w, h) in enumerate(sizes)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def truth(self, index: int) -> GroundTruth:
        return GroundTruth(np.array([[0, 0, 2 + index, 2]], np.float32), np.array([0]), np.array([False]))


NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
SIZES = [(40, 30), (30, 40), (64, 64), (17, 5), (100, 20)]


def test_pictures_are_letterboxed_exactly_and_spread_over_the_split() -> None:
    source = Pictures(SIZES)
    val = ValidationSet(source, 32, 48, 3)
    assert [truth.boxes[0, 2] for truth in val.truths] == [2, 4, 6]  # the first, the middle and the last one
    for row, index in enumerate((0, 2, 4)):
        sample = source[index]
        assert np.array_equal(val.images[row].numpy(), letterbox(sample.image, 32, 48))
        assert tuple(val.content[row].int().tolist()) == content_size(SIZES[index], (48, 32))
        assert val.sizes[row].tolist() == [sample.width, sample.height]
    assert len(ValidationSet(source, 32, 48, 99)) == 5 and len(ValidationSet(source, 32, 48, 0)) == 0


def test_boxes_lie_in_the_original_and_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, val = make_detector(), ValidationSet(Pictures(SIZES), 32, 48, 5)
    config, steps = DecodeConfig(score_threshold=1e-4), []
    whole = list(predict(detector, val, config, steps.append))
    assert steps == [5] and sum(len(one.scores) for one in whole) > 0
    for one, (width, height) in zip(whole, val.sizes.tolist(), strict=True):
        assert (one.boxes >= 0).all() and (one.boxes[:, 2:] <= [width, height]).all() and (np.diff(one.scores) <= 0).all()
    monkeypatch.setattr("detection.validate.BATCH", 2)
    parts = list(predict(detector, val, config, steps.append))
    assert steps == [5, 2, 2, 1]
    assert all(np.allclose(a.boxes, b.boxes, atol=1e-3) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("score", [0.9, 0.06])
def test_perfect_detections_score_one_whatever_their_confidence(monkeypatch: pytest.MonkeyPatch, score: float) -> None:
    val = ValidationSet(Pictures(SIZES), 32, 32, 5)
    perfect = [Detections(t.boxes, np.full(1, score, np.float32), t.labels) for t in val.truths]
    monkeypatch.setattr("detection.validate.predict", lambda *_: iter(perfect))
    result = validate(make_detector(), val, DecodeConfig())
    assert result.ap == 1.0 and result.found == perfect
    monkeypatch.setattr("detection.validate.predict", lambda *_: iter([NOTHING] * 5))
    assert validate(make_detector(), val, DecodeConfig()).ap == 0.0
