"""Which input positions an output position needs, along rows or along columns: the arithmetic of every schedule.

Rows and columns are independent, so a region is one `Axis` each, and every input of an operator has its own. All intervals
are half-open. SPEC.md section 1 says the same, and the C runtime does it on its own.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Position = TypeVar("Position", int, np.ndarray)  # one row (or column) number, or an integer array of them


@dataclass(frozen=True)
class Axis:
    """How output positions of one operator depend on the positions of one of its inputs.

    Output o reads inputs [o * stride - pad_before, o * stride - pad_before + kernel), or o // factor when factor > 1;
    positions outside of [0, size_in) are padding. A stride of 0 means that every output reads all inputs. Methods work
    elementwise on numpy integer arrays too.
    """

    size_in: int
    size_out: int
    kernel: int = 1
    stride: int = 1
    pad_before: int = 0
    factor: int = 1

    def start(self, out_lo: Position) -> Position:
        """First input position of the window of output `out_lo`; may lie in the padding (negative)."""
        return self._scaled(out_lo) - self.pad_before

    def stop(self, out_hi: Position) -> Position:
        """One past the last input position that outputs before `out_hi` read; may lie in the padding."""
        return self._scaled(out_hi - 1) + (self.kernel - self.pad_before)

    def _scaled(self, out: Position) -> Position:
        source = out if self.factor == 1 else out // self.factor  # division is dear, and schedules ask for millions
        return source if self.stride == 1 else source * self.stride

    def in_lo(self, out_lo: Position) -> Position:
        """`start`, clipped to the input: the first position that outputs from `out_lo` on really read."""
        return _clip(self.start(out_lo), self.size_in)

    def in_hi(self, out_hi: Position) -> Position:
        """`stop`, clipped to the input; nothing (0) is needed for nothing (out_hi <= 0)."""
        return _clip(self.stop(out_hi), self.size_in) * (out_hi > 0)

    def computable(self, in_hi: Position) -> Position:
        """How many leading outputs inputs [0, in_hi) suffice for: the largest m with self.in_hi(m) <= in_hi."""
        if self.stride == 0:
            return self.size_out * (in_hi >= self.size_in)
        last = in_hi + (self.pad_before - self.kernel)
        whole = (last if self.stride == 1 else last // self.stride) + 1
        count = _clip(whole * self.factor, self.size_out)
        return _where(in_hi >= self.size_in, self.size_out, count)


def identity_axis(size: int) -> Axis:
    """Output o reads input o."""
    return Axis(size, size)


def whole_axis(size_in: int, size_out: int) -> Axis:
    """Every output reads the whole input."""
    return Axis(size_in, size_out, kernel=size_in, stride=0)


def pixel_axis(size_in: int, size_out: int) -> Axis:
    """Output o reads input o; where the sizes differ (a mean, a broadcast input) it reads all of it."""
    return identity_axis(size_in) if size_in == size_out else whole_axis(size_in, size_out)


def _clip(value: Position, size: int) -> Position:
    return np.minimum(np.maximum(value, 0), size) if isinstance(value, np.ndarray) else min(max(value, 0), size)


def _where(condition: bool | np.ndarray, if_true: int, if_false: Position) -> Position:
    return np.where(condition, if_true, if_false) if isinstance(condition, np.ndarray) else (
        if_true if condition else if_false
    )
