"""int8 kernels in numpy of operators without weights: tables, means, softmax, and those that only move bytes."""

import math
from abc import ABC, abstractmethod

import numpy as np

from firmware.compiler import fixedpoint, requantize, tables
from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    Concat,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Pad,
    Quantization,
    Reshape,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Transpose,
)


class Kernel(ABC):
    """One prepared operator. `fill` is what padding holds: int8."""

    fill: int = 0

    @abstractmethod
    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        """Fill `out` (h, w, c) int8 from int8 windows that hold just what it needs.

        `origin` is the (row, column) of out[0, 0] in the whole output; only kernels that move pixels depend on it.
        """


class Pairwise(Kernel):
    """All 65,536 answers in a table (first input, second input). Inputs are broadcast."""

    def __init__(self, params: Add | Sub | Mul, first: Quantization, second: Quantization, target: Quantization) -> None:
        answers = tables.pair_table(params, first, second, target)
        # indexed by bytes, so negative numbers come last: roll -128 away from the front
        self._table = np.roll(answers, (128, 128), axis=(0, 1)).reshape(-1)
        self._operand = params.operand

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        if self._operand is not None:
            constant = np.array(self._operand.values, np.int8)
            inputs = [constant, *inputs] if self._operand.first else [*inputs, constant]
        first, second = (np.ascontiguousarray(values).view(np.uint8) for values in inputs)
        np.take(self._table, first.astype(np.uint16) << 8 | second, out=out, mode="clip")


class OneByOne(Kernel):
    """All 256 answers in a table."""

    def __init__(self, params: Lookup, source: Quantization, target: Quantization) -> None:
        self._table = np.roll(tables.lookup_table(params, source, target), 128)

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        np.take(self._table, np.ascontiguousarray(inputs[0]).view(np.uint8), out=out, mode="clip")


class MaxPooling(Kernel):
    fill = -128  # never more than what lies inside of the picture, and some of that is in every window

    def __init__(self, params: MaxPool2D) -> None:
        self._window, self._clamp = params.window, params.clamp

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        (k_h, k_w), (s_h, s_w) = self._window.kernel, self._window.stride
        height, width, _ = out.shape
        out[...] = -128
        for i in range(k_h):
            for j in range(k_w):
                np.maximum(out, inputs[0][i::s_h, j::s_w][:height, :width], out=out)
        np.clip(out, self._clamp.low, self._clamp.high, out=out)


class AveragePooling(Kernel):
    """Sums, divided by how many values lie inside of the picture; halves away from zero."""

    def __init__(self, params: AveragePool2D, source: Shape) -> None:
        self._window, self._clamp, self._source = params.window, params.clamp, source

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        (k_h, k_w), (s_h, s_w) = self._window.kernel, self._window.stride
        height, width, _ = out.shape
        total = np.zeros(out.shape, np.int64)
        for i in range(k_h):
            for j in range(k_w):
                total += inputs[0][i::s_h, j::s_w][:height, :width]
        rows, cols = (self._inside(origin[dim], out.shape[dim], dim) for dim in (0, 1))
        count = (rows[:, None] * cols[None, :])[..., None]
        value = np.sign(total) * ((np.abs(total) + count // 2) // count)
        np.clip(value, self._clamp.low, self._clamp.high, out=out, casting="unsafe")

    def _inside(self, first: int, size: int, dim: int) -> np.ndarray:
        """How many rows or columns of each window are no padding."""
        start = np.arange(first, first + size) * self._window.stride[dim] - self._window.padding[dim]
        return np.minimum(start + self._window.kernel[dim], self._source[dim]) - np.maximum(start, 0)


class Averaging(Kernel):
    """Means over whole rows, columns and channels."""

    def __init__(self, params: Mean, shape: Shape, source: Quantization, target: Quantization) -> None:
        self._axes, count = tuple(dim for dim in (0, 1, 2) if params.axes[dim]), mean_count(params, shape)
        self._factor = requantize.mean_multiplier(count, source.scale, target.scale)
        self._offset, self._zero_point = count * source.zero_point, target.zero_point

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        total = inputs[0].sum(axis=self._axes, keepdims=True, dtype=np.int64) - self._offset
        value = requantize.multiply_by_quantized_multiplier(total, *self._factor) + self._zero_point
        np.clip(value, -128, 127, out=out, casting="unsafe")


def mean_count(params: Mean, shape: Shape) -> int:
    """How many values of a map of `shape` one mean is of."""
    return math.prod(size for size, summed in zip(shape, params.axes, strict=True) if summed)


class Softmaximum(Kernel):
    """exp(x - max) / sum of them, in fixed point."""

    def __init__(self, params: Softmax, source: Quantization) -> None:
        self._table = tables.softmax_table(params.beta, source.scale).astype(np.int64)

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        values = inputs[0].astype(np.int64)
        powers = self._table[values - values.max(axis=2, keepdims=True) + 255]
        total = requantize.rounding_divide_by_pot(powers, 12).sum(axis=2, keepdims=True)  # Q12
        bits = np.floor(np.log2(total)).astype(np.int64)  # total = 2**bits * (1 + rest), exact below 2**31
        rest = (total << (31 - bits)) - 2**31
        product = requantize.saturating_rounding_doubling_high_mul(powers, fixedpoint.one_over_one_plus(rest))
        answer = requantize.rounding_divide_by_pot(product, np.minimum(bits + 4, 31)) - 128
        np.clip(answer, -128, 127, out=out, casting="unsafe")


class Upsampling(Kernel):
    def __init__(self, params: ResizeNearest) -> None:
        self._factor = params.factor

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        rows, cols = (
            np.arange(first, first + size) // factor - first // factor
            for first, size, factor in zip(origin, out.shape, self._factor, strict=False)
        )
        out[...] = inputs[0][rows[:, None], cols[None, :]]


class Joining(Kernel):
    """Each window brings padding in the place of the other inputs' rows or columns."""

    def __init__(self, params: Concat, shapes: list[Shape]) -> None:
        self._axis, self._ends = params.axis, np.cumsum([shape[params.axis] for shape in shapes])

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        if self._axis == 2:
            np.concatenate(inputs, axis=2, out=out)
            return
        position = np.arange(out.shape[self._axis]) + origin[self._axis]
        owner = np.searchsorted(self._ends, position, side="right")
        for number, values in enumerate(inputs):
            own = (slice(None),) * self._axis + (owner == number,)
            out[own] = values[own]


class Cutting(Kernel):
    """Rows and columns are cut by the window; channels remain."""

    def __init__(self, params: Slice) -> None:
        self._channels = slice(params.start[2], params.start[2] + params.shape.c)

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        out[...] = inputs[0][..., self._channels]


class Padding(Kernel):
    """The window brings the padding with it."""

    def __init__(self, params: Pad) -> None:
        self.fill = params.value

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        out[...] = inputs[0]


class Turning(Kernel):
    """Sides that stay in their place are cut by the window, the others come whole."""

    def __init__(self, params: Transpose) -> None:
        self._order = params.order

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        rows, cols = (
            slice(None) if self._order[dim] == dim else slice(origin[dim], origin[dim] + out.shape[dim]) for dim in (0, 1)
        )
        out[...] = inputs[0].transpose(self._order)[rows, cols]


class Reshaping(Kernel):
    def __init__(self, params: Reshape) -> None:
        self._shape = params.shape

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        (top, left), (height, width, _) = origin, out.shape
        out[...] = inputs[0].reshape(self._shape)[top : top + height, left : left + width]
