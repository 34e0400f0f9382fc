"""What a detector finds, without the pictures that it finds it in: their objects and boxes alone on empty sheets.

Pictures of a data set may seldom be passed on. Where its objects lie, and what was found of them, shows as well what a
detector is good at, and fits on a model's card.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datasets.annotations import Sample
from datasets.dataset import Dataset
from detection.detections import Detections
from detection.evaluate import Predictor
from detection.metrics.voc import FALSE_ALARM, hits
from detection.plots import ACCENT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IOU = 0.5
FOUND, MISSED, IGNORED, WRONG, NEITHER, LINE = "#cfe0f1", "#f4a259", "#eceef0", "#c0392b", "#9aa0a8", "#b8bdc4"
COLUMNS, CELL, DPI = 4, 2.1, 120  # of the sheet; inches a picture; dots an inch
SMALL, TINY = 7, 5.5  # points of text


def examples_plot(predictor: Predictor, samples: Dataset, min_score: float, title: str) -> bytes:
    """PNG with an empty frame a picture: its objects, by whether they are found at IoU .5, and boxes from `min_score` upwards.
    Where there are several classes an object's is written in its lower right corner, a box's in the upper left one.

    A box on an object that the protocol ignores is neither right nor wrong. The numbers above a frame count the others.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = -(-len(samples) // COLUMNS)
    figure = Figure((COLUMNS * CELL, rows * CELL + 0.6), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axis in axes[len(samples) :]:
        axis.set_axis_off()
    names = samples.classes if len(samples.classes) > 1 else None
    for axis, sample in zip(axes, samples, strict=False):
        detections = predictor.predict([sample])[0].detections
        sure = detections.scores >= min_score
        _sheet(axis, sample, Detections(detections.boxes[sure], detections.scores[sure], detections.labels[sure]), names)
    figure.suptitle(title, fontsize=SMALL + 1, color=INK)
    legend = [
        *(Patch(facecolor=colour, label=what) for colour, what in ((FOUND, "found"), (MISSED, "missed"), (IGNORED, "ignored"))),
        *(Patch(fill=False, edgecolor=colour, label=what) for colour, what in ((ACCENT, "box"), (WRONG, "false alarm"))),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), frameon=False, fontsize=SMALL, labelcolor=INK)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _sheet(axis: "Axes", sample: Sample, detections: Detections, names: Sequence[str] | None) -> None:
    truth, of = sample.truth, hits(sample.truth, detections, IOU)
    found = np.isin(np.arange(len(truth.boxes)), of)
    areas = np.prod(truth.boxes[:, 2:] - truth.boxes[:, :2], axis=1)
    for index in np.argsort(-areas, kind="stable"):  # small ones on top of large ones
        colour = IGNORED if truth.ignore[index] else FOUND if found[index] else MISSED
        _box(axis, truth.boxes[index], facecolor=colour, linewidth=0)
        if names:
            axis.text(*truth.boxes[index][2:], names[truth.labels[index]], fontsize=TINY, color=INK, ha="right", clip_on=True)
    for box, label, row in zip(detections.boxes, detections.labels, of, strict=True):
        colour = ACCENT if row >= 0 else WRONG if row == FALSE_ALARM else NEITHER
        _box(axis, box, fill=False, edgecolor=colour, linewidth=0.8)
        if names:
            axis.text(*box[:2], names[label], fontsize=TINY, color=colour, va="top", clip_on=True)
    axis.set(xlim=(0, sample.width), ylim=(sample.height, 0), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set(color=LINE, linewidth=0.6)
    counts = f"{found.sum()} of {(~truth.ignore).sum()} found, {(of == FALSE_ALARM).sum()} false"
    axis.set_title(counts, fontsize=SMALL, color=INK, pad=3)


def _box(axis: "Axes", box: np.ndarray, **style: object) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = (float(value) for value in box)
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))
