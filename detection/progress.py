"""What a person sees while a network trains: a live bar in a terminal, one line an epoch everywhere."""

import math
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

_LOSSES = (
    ("box", "train/box_loss"),
    ("obj", "train/obj_loss"),
    ("cls", "train/cls_loss"),
    ("teacher", "train/teacher_loss"),
    ("its boxes", "train/teacher_box_loss"),
)


class Progress:
    """Live progress of a run; silent in all processes but the main one."""

    def __init__(self, epochs: int, steps: int, visible: bool) -> None:
        self.epochs, self.steps = epochs, steps
        self.console = Console(quiet=not visible, soft_wrap=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self.bar = Bar(*columns, console=self.console, transient=True, disable=not (visible and self.console.is_terminal))
        self.task = self.bar.add_task("", total=steps, note="")
        self.images_per_s = math.nan
        self._loss = math.nan
        self._images, self._since = 0, time.monotonic()

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, iteration: int, seconds: float, loss: float, ap: float, images: int) -> None:
        """After an iteration; `seconds` is the training time so far."""
        self._loss = loss if math.isnan(self._loss) else 0.98 * self._loss + 0.02 * loss
        self._images += images
        self.images_per_s = self._images / max(time.monotonic() - self._since, 1e-9)
        epoch, done = divmod(iteration - 1, self.steps)
        left = seconds / iteration * (self.epochs * self.steps - iteration)
        note = f"loss {self._loss:.3f}  mAP50 {_or_dash(ap)}  {self.images_per_s:.0f} img/s  left {duration(left)}"
        self.bar.update(self.task, description=f"epoch {epoch + 1}/{self.epochs}", completed=done + 1, note=note)

    def validation(self, total: int) -> Callable[[int], None]:
        """Called with the number of pictures just done."""
        task = self.bar.add_task("validation", total=total, note="")

        def advance(count: int) -> None:
            self.bar.advance(task, count)
            if self.bar.tasks[-1].finished:
                self.bar.remove_task(task)

        return advance

    def report(self, row: Mapping[str, float]) -> None:
        """One line for a finished epoch."""
        left = row["time"] / row["epoch"] * (self.epochs - row["epoch"])
        losses = "  ".join(
            f"{name} {row[key]:.3f}"
            for name, key in _LOSSES
            if not math.isnan(row[key])
        )
        self.console.print(
            f"epoch {row['epoch']:.0f}/{self.epochs}  {losses}  mAP50 {_or_dash(row['metrics/mAP50(B)'])}  "
            f"lr {row['lr/pg0']:.2e}  {row['images_per_s']:.0f} img/s  "
            f"{duration(row['time'])} gone, {duration(left)} left"
        )

    def begin_epoch(self) -> None:
        """Speed is measured from here: validation, checkpoints and plots lie behind."""
        self._images, self._since = 0, time.monotonic()


def duration(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _or_dash(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
