"""int8 kernels in numpy: the truth that C kernels are compared with.

A kernel is prepared once per operator (weights cast, multipliers computed) and then called with the exact input window
of an output region, padding already filled in. Sums are exact integers: float32 matrix products are used only where
every partial sum stays below 2**24, float64 otherwise.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from firmware.compiler import requantize
from firmware.compiler.graph import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    Graph,
    GraphError,
    MaxPool2D,
    Op,
    Quantization,
    ResizeNearest,
    Weights,
)

BLOCK_ELEMENTS = 1 << 15  # of an accumulator: int64 temporaries of a block stay in the L2 cache


class Kernel(ABC):
    """One prepared operator. `fill` is what padding holds: int8."""

    fill: int = 0

    @abstractmethod
    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        """Fill `out` (h, w, c) int8 from int8 windows that hold just what it needs.

        `origin` is the (row, column) of out[0, 0] in the whole output; only upsampling depends on it.
        """


def prepare(graph: Graph, op: Op) -> Kernel:
    """The kernel of an operator of a verified graph."""
    sources = [graph.tensors[name].quant for name in op.inputs]
    target = graph.tensors[op.output].quant
    match op.params:
        case Conv2D():
            return _Convolution(op.params, sources[0], target)
        case DepthwiseConv2D():
            return _Depthwise(op.params, sources[0], target)
        case Add():
            return _Addition(op.params, sources, target)
        case MaxPool2D():
            return _MaxPooling(op.params)
        case ResizeNearest():
            return _Upsampling(op.params)
    raise GraphError(f"no kernel for operator kind {op.kind}")


def _exact_float(weights: np.ndarray, axes: tuple[int, ...]) -> type:
    """The float type in which sum(int8 input * weight) is exact in any order of addition."""
    bound = 128 * int(np.abs(weights.astype(np.int64)).sum(axis=axes).max())
    return np.float32 if bound < 2**24 else np.float64


def _requantizer(
    weights: Weights, sums: np.ndarray, source: Quantization, target: Quantization, clamp: requantize.Clamp
) -> requantize.Requantizer:
    """Requantizer of sum(x * w): the input's zero point goes into the bias, `sums` int64 (c,) being sum(w)."""
    reals = requantize.channel_multipliers(source.scale, weights.scales, target.scale)
    bias = weights.bias.astype(np.int64) - source.zero_point * sums
    return requantize.Requantizer.build(reals, bias, target.zero_point, clamp)


def _row_blocks(out: np.ndarray) -> Iterator[slice]:
    rows = max(1, BLOCK_ELEMENTS // max(1, out.shape[1] * out.shape[2]))
    for first in range(0, out.shape[0], rows):
        yield slice(first, min(first + rows, out.shape[0]))


class _Convolution(Kernel):
    def __init__(self, params: Conv2D, source: Quantization, target: Quantization) -> None:
        values = params.weights.values  # (c_out, k_h, k_w, c_in)
        self.fill = source.zero_point
        self._kernel, self._stride = params.window.kernel, params.window.stride
        self._matrix = np.ascontiguousarray(values.reshape(len(values), -1).T, _exact_float(values, (1, 2, 3)))
        sums = values.astype(np.int64).sum(axis=(1, 2, 3))
        self._requantize = _requantizer(params.weights, sums, source, target, params.clamp)

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        (k_h, k_w), (s_h, s_w) = self._kernel, self._stride
        windows = sliding_window_view(inputs[0], (k_h, k_w), axis=(0, 1))[::s_h, ::s_w].transpose(0, 1, 3, 4, 2)
        for rows in _row_blocks(out):
            block = windows[rows].astype(self._matrix.dtype, order="C")  # (rows, w, k_h, k_w, c_in)
            acc = block.reshape(-1, len(self._matrix)) @ self._matrix
            self._requantize(acc.reshape(out[rows].shape), out[rows])


class _Depthwise(Kernel):
    """Multiplies whole rows by one tap at a time; columns are split by phase so that stride 2 is contiguous as well."""

    def __init__(self, params: DepthwiseConv2D, source: Quantization, target: Quantization) -> None:
        values = params.weights.values  # (k_h, k_w, c_out)
        self.fill = source.zero_point
        self._multiplier, self._stride = params.multiplier, params.window.stride
        self._taps = values.astype(_exact_float(values, (0, 1)))
        sums = values.astype(np.int64).sum(axis=(0, 1))
        self._requantize = _requantizer(params.weights, sums, source, target, params.clamp)

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        (k_h, k_w, channels), (s_h, s_w) = self._taps.shape, self._stride
        _, width, _ = out.shape
        row = width * channels
        taps = np.tile(self._taps, (1, 1, width))  # (k_h, k_w, row)
        for rows in _row_blocks(out):
            needed = inputs[0][rows.start * s_h : (rows.stop - 1) * s_h + k_h]
            if self._multiplier > 1:
                needed = np.repeat(needed, self._multiplier, axis=2)
            phases = [needed[:, p::s_w].astype(taps.dtype).reshape(len(needed), -1) for p in range(min(s_w, k_w))]
            acc = np.zeros((rows.stop - rows.start, row), taps.dtype)
            product = np.empty_like(acc)
            for i in range(k_h):
                for j in range(k_w):
                    first = j // s_w * channels
                    values = phases[j % s_w][i : i + (len(acc) - 1) * s_h + 1 : s_h, first : first + row]
                    acc += np.multiply(values, taps[i, j], out=product)
            self._requantize(acc.reshape(out[rows].shape), out[rows])


class _Addition(Kernel):
    """All 65,536 answers in a table (first input, second input)."""

    def __init__(self, params: Add, sources: list[Quantization], target: Quantization) -> None:
        q = np.arange(-128, 128)
        factors = requantize.Addition.build(*(quant.scale for quant in sources), target.scale)
        first, second = (
            requantize.multiply_by_quantized_multiplier((q - quant.zero_point) << factors.left_shift, *factor)
            for quant, factor in zip(sources, factors[:2], strict=True)
        )
        total = requantize.multiply_by_quantized_multiplier(first[:, None] + second[None, :], *factors.out)
        clamped = np.clip(total + target.zero_point, params.clamp.low, params.clamp.high)
        # indexed by bytes, so negative numbers come last: roll -128 away from the front
        self._table = np.roll(clamped, (128, 128), axis=(0, 1)).astype(np.int8).reshape(-1)

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        index = inputs[0].view(np.uint8).astype(np.uint16)
        index <<= 8
        index |= inputs[1].view(np.uint8)
        np.take(self._table, index, out=out, mode="clip")


class _MaxPooling(Kernel):
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


class _Upsampling(Kernel):
    def __init__(self, params: ResizeNearest) -> None:
        self._factor = params.factor

    def __call__(self, inputs: list[np.ndarray], origin: tuple[int, int], out: np.ndarray) -> None:
        rows, cols = (
            np.arange(first, first + size) // factor - first // factor
            for first, size, factor in zip(origin, out.shape, self._factor, strict=False)
        )
        out[...] = inputs[0][rows[:, None], cols[None, :]]
