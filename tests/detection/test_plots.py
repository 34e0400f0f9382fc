"""Curves and pictures of a run: what they show, and that none of them can end a training."""

import io
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.annotations import GroundTruth
from detection import plots
from detection.detections import Detections
from detection.distributed import World
from detection.metrics.voc import ap50


class Truths:
    """A data set that is asked for truth and size only: decoding pictures to count boxes would take minutes."""

    def __init__(self, classes: tuple[str, ...], truths: list[GroundTruth]) -> None:
        self.classes, self.truths = classes, truths

    def __len__(self) -> int:
        return len(self.truths)

    def truth(self, index: int) -> GroundTruth:
        return self.truths[index]

    def size(self, index: int) -> tuple[int, int]:
        return 640, 480


def truth_of(rng: np.random.Generator, count: int, classes: int) -> GroundTruth:
    corner, size = rng.uniform(0, 300, (count, 2)), rng.uniform(1, 100, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    return GroundTruth(boxes, rng.integers(0, classes, count), rng.random(count) < 0.2)


def found_for(rng: np.random.Generator, truth: GroundTruth) -> Detections:
    """Some objects, some of them moved away or of another class; scores often equal."""
    kept = rng.permutation(len(truth.boxes))[: rng.integers(0, len(truth.boxes) + 1)]
    boxes = truth.boxes[kept] + rng.choice([0, 0, 200], (len(kept), 1)).astype(np.float32)
    scores = -np.sort(-rng.integers(1, 5, len(kept)) / 5).astype(np.float32)
    return Detections(boxes, scores, np.where(rng.random(len(kept)) < 0.8, truth.labels[kept], 0))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_curves_enclose_the_ap_that_training_reports(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = ("a", "b", "c")
    truths = [truth_of(rng, int(rng.integers(0, 6)), 3) for _ in range(4)]
    found = [found_for(rng, truth) for truth in truths]
    curves = plots.precision_recall(truths, found, classes)
    mean = ap50(zip(truths, found, strict=True), classes)
    assert math.isnan(mean) if not curves else np.isclose(mean, np.mean([curve.ap for curve in curves.values()]))
    for curve in curves.values():
        assert (np.diff(curve.recall) >= 0).all() and (np.diff(curve.precision) <= 0).all()
        assert np.isclose(np.sum(np.diff(curve.recall) * curve.precision[1:]), curve.ap)


def test_plots_of_little_and_of_much_are_pictures() -> None:
    rng = np.random.default_rng(0)
    many = tuple(f"class {i}" for i in range(30))
    truths = [truth_of(rng, 40, 30) for _ in range(5)]
    perfect = [Detections(t.boxes, np.linspace(1, 0.5, len(t.boxes), dtype=np.float32), t.labels) for t in truths]
    row = {"epoch": 1.0, "train/box_loss": 0.5, "train/obj_loss": 0.5, "train/cls_loss": math.nan, "lr/pg0": 0.1}
    pictures = [
        plots.results_plot([row], "one epoch, not validated"),
        plots.results_plot([row | {"epoch": n, "metrics/mAP50(B)": math.nan if n % 5 else n / 50} for n in range(1, 50)], "x"),
        plots.labels_plot(Truths(("face",), [GroundTruth.empty()]), (320, 240)),
        plots.labels_plot(Truths(many, truths), (320, 240)),
        plots.curve_plot({}, "nothing to find"),
        plots.curve_plot(plots.precision_recall(truths, perfect, many), "thirty classes"),
    ]
    for content in pictures:
        with Image.open(io.BytesIO(content)) as image:
            assert image.width > 500 and len(np.unique(np.asarray(image.convert("L")))) > 10


def test_small_pictures_are_enlarged_and_large_ones_left(tmp_path: Path) -> None:
    small = plots._enlarged(np.full((96, 96, 3), 200, np.uint8))
    large = np.zeros((500, 300, 3), np.uint8)
    assert small.shape == (plots.CELL, plots.CELL, 3) and plots._enlarged(large) is large
    plots._write_sheet(tmp_path / "a.jpg", [np.full((40, 40, 3), (250, 0, 0), np.uint8)] * 5)
    sheet = cv2.imread(str(tmp_path / "a.jpg"))
    assert sheet.shape == (84, 172, 3)
    assert sheet[20, 20, 2] > 200 > 60 > sheet[20, 20, 0]  # red stayed red (OpenCV reads BGR)


def test_a_plot_that_fails_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = SimpleNamespace(world=World(), run=tmp_path)  # lacks everything that plots need
    plots.start_plots(trainer)
    err = capsys.readouterr().err
    assert err.startswith("warning: plots: AttributeError") and err.count("\n") == 1
    plots.start_plots(SimpleNamespace(world=World(rank=1, size=2)))  # only one process draws
    assert capsys.readouterr().err == ""


def test_tensorboard_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    assert plots.open_board(tmp_path, 1) is None and not list(tmp_path.iterdir())


def test_tensorboard_scalars_without_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    after_epoch = plots._EpochPlots()
    for epoch in (1, 2):
        rows = [{"epoch": epoch, "iteration": 9 * epoch, "train/box_loss": 0.5 / epoch, "metrics/mAP50(B)": math.nan}]
        after_epoch(SimpleNamespace(run=tmp_path, epoch=epoch, rows=rows, validation=None))
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = tmp_path.glob("events.out.tfevents.*")
    values = [(e.step, v.tag) for e in EventFileLoader(str(file)).Load() for v in e.summary.value]
    assert values == [(1, "train/box_loss"), (2, "train/box_loss")]
    assert "tensorflow" not in sys.modules
