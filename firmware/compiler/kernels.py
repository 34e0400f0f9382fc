"""int8 kernels in numpy: the truth that C kernels are compared with.

A kernel is prepared once per operator (weights cast, multipliers computed) and then called with the exact input window
of an output region, padding already filled in. Sums are exact integers: float32 matrix products are used only where
every partial sum stays below 2**24, float64 otherwise.
"""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from firmware.compiler import kernels_pixel, requantize
from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    GraphError,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Op,
    Pad,
    Quantization,
    Reshape,
    ResizeNearest,
    Slice,
    Softmax,
    Sub,
    Transpose,
    operand_quantizations,
)
from firmware.compiler.kernels_pixel import Kernel

BLOCK_ELEMENTS = 1 << 15  # of an accumulator: int64 temporaries of a block stay in the L2 cache


def prepare(graph: Graph, op: Op) -> Kernel:
    """The kernel of an operator of a verified graph."""
    shape = graph.tensors[op.inputs[0]].shape
    sources = [graph.tensors[name].quant for name in op.inputs]
    target = graph.tensors[op.output].quant
    match op.params:
        case Conv2D() | FullyConnected():
            return _Convolution(op.params, sources[0], target)
        case DepthwiseConv2D():
            return _Depthwise(op.params, sources[0], target)
        case Add() | Sub() | Mul():
            return kernels_pixel.Pairwise(op.params, *operand_quantizations(graph.tensors, op), target)
        case Lookup():
            return kernels_pixel.OneByOne(op.params, sources[0], target)
        case MaxPool2D():
            return kernels_pixel.MaxPooling(op.params)
        case AveragePool2D():
            return kernels_pixel.AveragePooling(op.params, shape)
        case Mean():
            return kernels_pixel.Averaging(op.params, shape, sources[0], target)
        case Softmax():
            return kernels_pixel.Softmaximum(op.params, sources[0])
        case Concat():
            return kernels_pixel.Joining(op.params, [graph.tensors[name].shape for name in op.inputs])
    moves = {
        ResizeNearest: kernels_pixel.Upsampling,
        Slice: kernels_pixel.Cutting,
        Pad: kernels_pixel.Padding,
        Reshape: kernels_pixel.Reshaping,
        Transpose: kernels_pixel.Turning,
    }
    if type(op.params) not in moves:
        raise GraphError(f"no kernel for operator kind {op.kind}")
    return moves[type(op.params)](op.params)


def _exact_float(weights: np.ndarray, axes: tuple[int, ...]) -> type:
    """The float type in which sum(int8 input * weight) is exact in any order of addition."""
    bound = 128 * int(np.abs(weights.astype(np.int64)).sum(axis=axes).max())
    return np.float32 if bound < 2**24 else np.float64


def _requantizer(
    params: Conv2D | DepthwiseConv2D | FullyConnected, sums: np.ndarray, source: Quantization, target: Quantization
) -> requantize.Requantizer:
    """Requantizer of sum(x * w): the input's zero point goes into the bias, `sums` int64 (c,) being sum(w)."""
    reals = requantize.accumulator_multipliers(params, source.scale, target.scale)
    bias = params.weights.bias.astype(np.int64) - source.zero_point * sums
    return requantize.Requantizer.build(reals, bias, target.zero_point, params.clamp)


def _row_blocks(out: np.ndarray) -> Iterator[slice]:
    rows = max(1, BLOCK_ELEMENTS // max(1, out.shape[1] * out.shape[2]))
    for first in range(0, out.shape[0], rows):
        yield slice(first, min(first + rows, out.shape[0]))


class _Convolution(Kernel):
    def __init__(self, params: Conv2D | FullyConnected, source: Quantization, target: Quantization) -> None:
        values = params.weights.values  # (c_out, k_h, k_w, c_in)
        self.fill = source.zero_point
        self._kernel = values.shape[1:3]
        self._stride = params.window.stride if isinstance(params, Conv2D) else (1, 1)
        self._matrix = np.ascontiguousarray(values.reshape(len(values), -1).T, _exact_float(values, (1, 2, 3)))
        sums = values.astype(np.int64).sum(axis=(1, 2, 3))
        self._requantize = _requantizer(params, sums, source, target)

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
        self._requantize = _requantizer(params, sums, source, target)

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
