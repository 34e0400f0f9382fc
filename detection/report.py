"""The report of one run as a single HTML file: pictures inside, no scripts, readable on a phone and by a screen reader.

Plain values in, file out; whoever calls has measured them. The page itself is `report_template.html` beside this file.
"""

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined, TemplateError

_TEMPLATE = Path(__file__).with_name("report_template.html")
_MISSING = "–"
_SIGNATURES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
    (b"<", "image/svg+xml"),
)


class ReportError(ValueError):
    """A report that cannot be written, a picture that cannot be read. The message names the file."""


@dataclass(frozen=True)
class PredictorRow:
    """One predictor's line of the results; None is printed as a dash."""

    name: str  # float, int8, tflite, host, emulator
    mean_ap: float | None = None  # 0..1, by the report's metric
    peak_sram: int | None = None  # bytes
    model_size: int | None = None  # bytes
    macs: int | None = None  # a frame, recomputation included
    recompute: float | None = None  # share of the network's MACs that is done again; 0 is none
    instructions: int | None = None  # a frame, counted by the emulator


@dataclass(frozen=True)
class FrontRow:
    """One point of the schedule front, or a published method beside it."""

    description: str
    peak_sram: int  # bytes
    macs: int
    recompute: float  # share of the network's MACs that is done again
    chosen: bool = False


@dataclass(frozen=True)
class LatencyRow:
    """What one part of the work costs, over all pictures, in the device's unit."""

    name: str
    p50: int
    p95: int
    max: int


@dataclass(frozen=True)
class Latency:
    """What pictures cost on a device."""

    unit: str  # "instructions" or "cycles"
    clock_hz: int | None  # stated by a device that counts cycles: milliseconds are shown
    groups: tuple[tuple[str, tuple[LatencyRow, ...]], ...]  # title, rows; the first row of the first one is the whole
    histogram: "Picture"
    dearest: tuple[tuple[str, int], ...] = ()  # pictures that cost most, and what


@dataclass(frozen=True)
class Picture:
    """An image file; `description` says in words what it shows."""

    path: Path
    description: str


@dataclass(frozen=True)
class ReportData:
    """Everything a report says. Sections whose data is None or empty are left out."""

    title: str
    summary: str = ""
    metric: str = "mAP"  # what mean_ap is, e.g. "WIDER FACE easy AP50"
    headline: tuple[tuple[str, str], ...] = ()  # (what, value with unit): the few numbers to see first
    predictors: tuple[PredictorRow, ...] = ()
    latency: Latency | None = None
    learning_curve: Picture | None = None
    memory_plan: Picture | None = None
    detections: tuple[Picture, ...] = ()
    front: tuple[FrontRow, ...] = ()
    published: tuple[FrontRow, ...] = ()  # published methods on the same network, executable like the front
    environment: tuple[tuple[str, str], ...] = ()  # (what, value)

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Of the predictors' table, those that hold anything: title, field of PredictorRow, filter that shows it."""
        columns = [
            (self.metric, "mean_ap", "percent"), ("Peak SRAM", "peak_sram", "bytes"), ("Model size", "model_size", "bytes"),
            ("MACs", "macs", "millions"), ("Recompute", "recompute", "extra"), ("Instructions", "instructions", "millions"),
        ]  # fmt: skip
        return [column for column in columns if any(getattr(row, column[1]) is not None for row in self.predictors)]


def write_report(path: Path, data: ReportData) -> None:
    """Write `data` as one HTML file, whole or not at all. Raises ReportError for a picture that cannot be read."""
    html = render_report(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_text(html, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def render_report(data: ReportData) -> str:
    """The HTML of a report."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(_FILTERS)
    try:
        return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(data=data)
    except TemplateError as error:
        raise ReportError(f"{_TEMPLATE}: {error}") from error


def embed(path: Path) -> str:
    """A picture file as a data URI; its type is read from its content."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror or error}; the report needs this picture") from error
    mime = next((mime for start, mime in _SIGNATURES if content.startswith(start)), None)
    if mime is None:
        raise ReportError(f"{path}: not a PNG, JPEG, WebP or SVG picture")
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _or_dash(show: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: _MISSING if value is None else show(value)


def _percent_extra(share: float) -> str:
    return f"{100 * share:+.1f} %" if round(1000 * share) else "none"


def _millions(count: float) -> str:
    return f"{count / 1e6:,.2f} M" if count < 1e7 else f"{count / 1e6:,.1f} M"


_FILTERS: dict[str, Callable] = {
    "embed": embed,
    "percent": _or_dash(lambda value: f"{100 * value:.1f} %"),
    "bytes": _or_dash(lambda value: f"{value:,d} B"),
    "millions": _or_dash(_millions),
    "extra": _or_dash(_percent_extra),
    "share": lambda count, whole: f"{100 * count / whole:.1f} %" if whole else _MISSING,
    "count": lambda count: f"{count:,d}",
    "show": lambda value, name: _FILTERS[name](value),
    "ms": lambda count, clock_hz: f"{1000 * count / clock_hz:.2f} ms",
}
