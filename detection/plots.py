"""What a person looks at beside the numbers of a run: curves and pictures, named as Ultralytics' tools name them.

    labels.jpg              objects per class, box sizes in network pixels       at the start
    train_batch0.jpg        the first training pictures, augmented, with truth   at the start
    val_batch0_labels.jpg   validation pictures with truth                       at the start
    results.png             loss terms, mAP50 and learning rate over epochs      after every validation
    val_batch0_pred.jpg     the same validation pictures with detections         after every validation
    PR_curve.png            precision over recall at IoU .5                      after every validation
    events.out.tfevents.*   the columns of results.csv, if TensorBoard is there  after every epoch

matplotlib (Agg) and TensorBoard are loaded on first use. Every file is written whole or not at all. A plot that fails
is a warning: no training run ends because of a picture.
"""

import io
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from datasets.annotations import GroundTruth
from datasets.dataset import Dataset
from datasets.scenes import SceneDataset
from detection.batches import TrainPictures
from detection.detections import Detections
from detection.draw import class_color, draw_detections, draw_truth, tile_pictures
from detection.metrics.resample import plain_curve
from detection.metrics.voc import ap_area, match
from detection.runs import write_bytes
from detection.validate import ValidationSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from detection.trainer import Trainer

PICTURES, COLUMNS = 16, 4  # of a sheet
CELL = 400  # pixels: smaller pictures are enlarged to this for the eye
MIN_SCORE = 0.25  # of detections that are drawn
MOST_NAMED = 20  # classes with a line or a label of their own
SCENES_LOOKED_AT = 500  # generated scenes have to be drawn to be counted
DPI = 110
INK, ACCENT = "#30343b", "#2468b4"


class Curve(NamedTuple):
    """Precision over recall of one class."""

    recall: np.ndarray  # (n,) ascending
    precision: np.ndarray  # (n,) best precision at that recall or beyond
    ap: float  # area


def start_plots(trainer: "Trainer") -> Callable[["Trainer"], None]:
    """Draw what is known before the first iteration; returns what `Trainer.fit` calls after each epoch."""
    if trainer.world.is_main:
        _harmless(lambda: _draw_data(trainer))
    return _EpochPlots()


class _EpochPlots:
    """Called after each epoch, in the main process only."""

    def __init__(self) -> None:
        self._board: Any = None  # opened late: loader processes are forked before its thread exists
        self._opened = False

    def __call__(self, trainer: "Trainer") -> None:
        _harmless(lambda: self._scalars(trainer))
        if trainer.validation is not None:
            _harmless(lambda: _draw_validation(trainer))

    def _scalars(self, trainer: "Trainer") -> None:
        if not self._opened:
            self._board, self._opened = open_board(trainer.run, trainer.epoch), True
        if self._board is None:
            return
        for name, value in trainer.rows[-1].items():
            if name not in ("epoch", "iteration") and not math.isnan(value):
                self._board.add_scalar(name, value, trainer.epoch)
        self._board.flush()


def open_board(run: Path, epoch: int) -> Any:
    """A TensorBoard writer that overwrites what an interrupted run wrote of `epoch` and later, or None."""
    # With this module present TensorBoard uses its own stand-in: TensorFlow must not be loaded beside torch.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run), purge_step=epoch)


def _draw_data(trainer: "Trainer") -> None:
    config = trainer.config
    size = config.input.width, config.input.height
    write_bytes(trainer.run / "labels.jpg", labels_plot(trainer.train_set, size))
    pictures = TrainPictures(trainer.train_set, config)
    batch = [pictures[key].sample for key in trainer.schedule.batch(0)[:PICTURES]]
    sheet = [
        draw_truth(_enlarged(one.image), GroundTruth(one.boxes, one.labels, one.ignore), trainer.classes, size) for one in batch
    ]
    _write_sheet(trainer.run / "train_batch0.jpg", sheet)
    val = trainer.val
    sheet = [draw_truth(_content(val, row), val.truths[row], val.classes, _original(val, row)) for row in _rows(val)]
    _write_sheet(trainer.run / "val_batch0_labels.jpg", sheet)


def _draw_validation(trainer: "Trainer") -> None:
    assert trainer.validation is not None
    val, found = trainer.val, trainer.validation.found
    write_bytes(trainer.run / "results.png", results_plot(trainer.rows, trainer.config.name))
    curves = precision_recall(val.truths, found, val.classes)
    write_bytes(trainer.run / "PR_curve.png", curve_plot(curves, f"epoch {trainer.epoch}, {len(val)} pictures"))
    sheet = [draw_detections(_content(val, row), found[row], val.classes, _original(val, row), MIN_SCORE) for row in _rows(val)]
    _write_sheet(trainer.run / "val_batch0_pred.jpg", sheet)


def results_plot(rows: Sequence[Mapping[str, float]], title: str, seams: Sequence[int] = ()) -> bytes:
    """PNG of the columns of results.csv over epochs. `seams`: where runs of other settings were joined; the last has the best."""
    figure, (losses, quality, rate) = _axes(3)
    epochs = np.array([row["epoch"] for row in rows])
    for color, name, column in (
        (ACCENT, "box", "train/box_loss"),
        ("#d1632b", "objectness", "train/obj_loss"),
        ("#3b8f5c", "class", "train/cls_loss"),
        ("#8a5bb5", "teacher", "train/teacher_loss"),
        ("#c39be0", "teacher's boxes", "train/teacher_box_loss"),
    ):
        values = _column(rows, column)
        if np.isfinite(values).any():
            losses.plot(epochs, values, color=color, label=name, **_marks(len(rows)))
    losses.set_title("training loss")
    losses.set_ylim(bottom=0)
    losses.legend(frameon=False)
    ap = _column(rows, "metrics/mAP50(B)")
    known = np.isfinite(ap)
    quality.set_title("validation mAP50")
    quality.set_ylim(0, 1)
    if known.any():
        quality.plot(epochs[known], ap[known], color=ACCENT, **_marks(int(known.sum())))
        last = known & (epochs > max(seams, default=0))
        best = int(np.argmax(np.where(last if last.any() else known, ap, -1)))
        quality.plot(epochs[best], ap[best], "o", color=ACCENT, markersize=6)
        quality.set_title(f"validation mAP50, best {ap[best]:.3f} (epoch {epochs[best]:.0f})")
    rate.plot(epochs, _column(rows, "lr/pg0"), color=INK, **_marks(len(rows)))
    rate.set_title("learning rate")
    rate.set_ylim(bottom=0)
    for axes in (losses, quality, rate):
        axes.set_xlabel("epoch")
        axes.set_xlim(0, epochs[-1] * 1.03)
        axes.xaxis.get_major_locator().set_params(integer=True)
        for seam in seams:
            axes.axvline(seam + 0.5, color=INK, linewidth=0.8, linestyle=":")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return _rendered(figure, "png")


def labels_plot(dataset: Dataset, size: tuple[int, int]) -> bytes:
    """JPEG: objects per class; width and height, and mean side of the boxes in pixels of a (width, height) network input."""
    chosen = _looked_at(dataset)
    counts, sizes = np.zeros((2, len(dataset.classes)), np.int64), []
    for index in chosen:
        truth, (width, height) = dataset.truth(index), dataset.size(index)
        for row, part in zip(counts, (~truth.ignore, truth.ignore), strict=True):
            row += np.bincount(truth.labels[part], minlength=len(row))
        sizes.append((truth.boxes[:, 2:] - truth.boxes[:, :2]) * min(size[0] / width, size[1] / height))
    boxes = np.maximum(np.concatenate(sizes), 0.1) if sizes else np.zeros((0, 2))
    figure, (classes, shapes, sides) = _axes(3)
    _class_bars(classes, dataset.classes, counts)
    shapes.set_title(f"box width and height at {size[0]} x {size[1]} input")
    sides.set_title("box side, square root of area")
    for axes in (shapes, sides):
        axes.set_xscale("log")
    if len(boxes):
        low, high = max(boxes.min() * 0.8, 0.5), boxes.max() * 1.25
        edges = np.geomspace(low, high, 40)
        shapes.hist2d(*np.clip(boxes, low, high).T, bins=(edges, edges), cmap="Blues", cmin=1)
        sides.hist(np.clip(np.sqrt(boxes.prod(1)), low, high), bins=edges, color=ACCENT)
    shapes.set_yscale("log")
    shapes.set_xlabel("width, px")
    shapes.set_ylabel("height, px")
    sides.set_xlabel("side, px")
    sides.set_ylabel("boxes")
    for axis in (shapes.xaxis, shapes.yaxis, sides.xaxis):
        _plain_ticks(axis)
    of = f"{len(chosen):,}" if len(chosen) == len(dataset) else f"{len(chosen):,} of {len(dataset):,}"
    figure.suptitle(f"{int(counts.sum()):,} boxes in {of} training pictures", x=0.01, ha="left", fontweight="bold")
    return _rendered(figure, "jpg")


def precision_recall(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: Sequence[str]) -> dict[str, Curve]:
    """A curve for each class that occurs; matching as in metrics/voc.py, IoU .5."""
    matched = [match(truth, one, 0.5) for truth, one in zip(truths, found, strict=True)]
    objects = sum((np.bincount(t.labels[~t.ignore], minlength=len(classes)) for t in truths), np.zeros(len(classes), np.int64))
    if not matched:
        return {}
    scores, labels, hits = (np.concatenate(parts) for parts in zip(*matched, strict=True))
    order = np.argsort(-scores, kind="stable")
    labels, hits = labels[order], hits[order]
    return {name: _curve(hits[labels == i], int(objects[i])) for i, name in enumerate(classes) if objects[i]}


def curve_plot(curves: Mapping[str, Curve], title: str) -> bytes:
    """PNG of precision over recall: a line for each class, a thick one for the mean."""
    figure, (axes,) = _axes(1)
    grid = np.linspace(0, 1, 101)
    named = len(curves) <= MOST_NAMED
    for i, (name, curve) in enumerate(curves.items()):
        color = [0.82 * part / 255 for part in class_color(i)] if named else "#b8c4d4"
        axes.plot(curve.recall, curve.precision, color=color, linewidth=1.2, label=f"{name} {curve.ap:.3f}" if named else None)
    if len(curves) > 1 or not named:
        mean = np.mean([_at(curve, grid) for curve in curves.values()], 0)
        ap = float(np.mean([curve.ap for curve in curves.values()]))
        axes.plot(grid, mean, color=INK, linewidth=2.6, label=f"all classes {ap:.3f}")
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_title(f"IoU 0.5, {title}")
    if curves:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), title="AP")
    return _rendered(figure, "png")


def _curve(hits: np.ndarray, objects: int) -> Curve:
    """hits: (n,) bool, best score first."""
    true = np.cumsum(hits)
    precision = true / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    first = best[:1] if len(best) else np.zeros(1)
    recall = np.concatenate([[0.0], true / objects])
    ap = float(ap_area(plain_curve(hits, objects))[0])
    return Curve(np.append(recall, recall[-1]), np.concatenate([first, best, [0.0]]), ap)


def _at(curve: Curve, grid: np.ndarray) -> np.ndarray:
    """Best precision at each recall of `grid` or beyond, 0 where that recall is not reached."""
    place = np.searchsorted(curve.recall[:-1], grid - 1e-9)
    return np.append(curve.precision[:-1], 0.0)[place]


def _class_bars(axes: "Axes", names: Sequence[str], counts: np.ndarray) -> None:
    """counts (2, classes): boxes that count, ignored ones."""
    shown = np.argsort(-counts.sum(0), kind="stable")[:MOST_NAMED]
    place = np.arange(len(shown))
    colors = [[0.82 * part / 255 for part in class_color(int(label))] for label in shown]
    axes.barh(place, counts[0][shown], color=colors, height=0.7)
    axes.barh(place, counts[1][shown], left=counts[0][shown], color="#c9ccd1", height=0.7)
    for y, label in enumerate(shown):
        ignored = f" + {counts[1][label]:,} ignored" if counts[1][label] else ""
        axes.text(counts[:, label].sum(), y, f" {counts[0][label]:,}{ignored}", va="center", color=INK, fontsize=8)
    axes.set_yticks(place, [names[label] for label in shown])
    axes.set_ylim(max(len(shown), 3) - 0.4, -0.6)
    axes.set_xlim(0, 1.45 * max(int(counts.sum(0).max()), 1))
    axes.set_title("boxes" if len(shown) == len(names) else f"boxes, the {len(shown)} largest of {len(names)} classes")


def _looked_at(dataset: Dataset) -> list[int]:
    most = SCENES_LOOKED_AT if isinstance(dataset, SceneDataset) else len(dataset)
    return np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int)).tolist()


def _rows(val: ValidationSet) -> list[int]:
    return np.unique(np.linspace(0, len(val) - 1, min(PICTURES, len(val))).round().astype(int)).tolist()


def _content(val: ValidationSet, row: int) -> np.ndarray:
    """The picture without its padding, enlarged for the eye."""
    width, height = (int(v) for v in val.content[row])
    return _enlarged(val.images[row, :height, :width].numpy())


def _original(val: ValidationSet, row: int) -> tuple[int, int]:
    width, height = (int(v) for v in val.sizes[row])
    return width, height


def _enlarged(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = CELL / max(height, width)
    if scale <= 1:
        return image
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)


def _write_sheet(path: Path, pictures: Sequence[np.ndarray]) -> None:
    sheet = tile_pictures(pictures, COLUMNS)
    done, encoded = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise ValueError(f"{path}: cannot be encoded")
    write_bytes(path, encoded.tobytes())


def _column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    return np.array([row.get(name, math.nan) for row in rows], float)


def _marks(points: int) -> dict[str, Any]:
    """A single point makes no line."""
    return {"marker": "o", "markersize": 3} if points <= 30 else {}


def _axes(count: int) -> tuple["Figure", Sequence["Axes"]]:
    """Side by side, without pyplot: no window system, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * count if count > 1 else 7.2, 4.2 if count == 1 else 3.8), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25)
        one.set_axisbelow(True)
        one.title.set_size(10)
        one.tick_params(labelsize=8)
    return figure, axes


def _plain_ticks(axis: Any) -> None:
    """1 2 5 10 20 50 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _rendered(figure: "Figure", kind: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind)
    return file.getvalue()


def _harmless(draw: Callable[[], None]) -> None:
    """A week of training must not end because of a plot, whatever is wrong with it."""
    try:
        draw()
    except Exception as error:
        print(f"warning: plots: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
