"""From the values a tensor takes on calibration frames to the range that its int8 form should cover. numpy only."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np

BINS = 2048
Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[str, ...] = get_args(Method)
_PERCENT = 99.99
_SHRINK = np.linspace(1.0, 0.3, 29)  # fractions of the observed limits that the MSE search tries


class Range(NamedTuple):
    """Closed interval of real values."""

    low: float
    high: float

    def within(self, limits: "Range") -> "Range":
        """The part inside `limits`; the nearest limit where there is none."""
        return Range(*(float(np.clip(value, limits.low, limits.high)) for value in self))


class Histogram(NamedTuple):
    """How often values fall into equal bins of `range`, whose ends are the extremes seen."""

    counts: np.ndarray  # (BINS,) float64
    range: Range

    @property
    def centres(self) -> np.ndarray:
        edges = np.linspace(self.range.low, self.range.high, len(self.counts) + 1)
        return (edges[:-1] + edges[1:]) / 2


def choose_range(histogram: Histogram, method: Method) -> Range:
    """The range to quantise by `method`: everything seen, all but the outermost 0.01 % at each end, or the range whose
    int8 values have the least squared error. Always holds 0."""
    if method not in METHODS:
        raise ValueError(f"'{method}' is no way to choose a range; there are {', '.join(METHODS)}")
    return _CHOOSERS[method](histogram)


def _minmax(histogram: Histogram) -> Range:
    return Range(min(histogram.range.low, 0.0), max(histogram.range.high, 0.0))


def _percentile(histogram: Histogram) -> Range:
    whole = _minmax(histogram)
    total = histogram.counts.sum()
    if total == 0 or histogram.range.low == histogram.range.high:
        return whole
    edges = np.linspace(histogram.range.low, histogram.range.high, len(histogram.counts) + 1)
    below = np.concatenate([[0.0], histogram.counts.cumsum()]) / total
    tail = 1 - _PERCENT / 100
    low = edges[np.searchsorted(below, tail, side="right") - 1]
    high = edges[np.searchsorted(below, 1 - tail, side="left")]
    return Range(min(float(low), 0.0), max(float(high), 0.0))


def _mse(histogram: Histogram) -> Range:
    """One end at a time, the other held, twice: the squared error is nearly separable in the two."""
    best = _minmax(histogram)
    seen = histogram.counts > 0
    centres, counts = histogram.centres[seen], histogram.counts[seen]
    if best.low == best.high or not len(centres):
        return best
    lows, highs = best.low * _SHRINK, best.high * _SHRINK
    for _ in range(2):
        highest = highs[np.argmin(_squared_errors(np.full_like(highs, best.low), highs, centres, counts))]
        lowest = lows[np.argmin(_squared_errors(lows, np.full_like(lows, highest), centres, counts))]
        best = Range(float(lowest), float(highest))
    return best


def _squared_errors(lows: np.ndarray, highs: np.ndarray, centres: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(n,): what int8 over [lows[i], highs[i]] loses of `counts` values at `centres`."""
    scales = (highs - lows)[:, None] / 255
    zero_points = np.round(-128 - lows[:, None] / scales)
    steps = np.clip(np.round(centres / scales) + zero_points, -128, 127) - zero_points
    return ((steps * scales - centres) ** 2) @ counts


_CHOOSERS: dict[Method, Callable[[Histogram], Range]] = {"minmax": _minmax, "percentile": _percentile, "mse": _mse}
