"""Rules of the operators. A docstring is the rule in the user's words and becomes the error text and the documentation.

Each function takes (graph, op) and returns what breaks the rule, or None. `ops.py` says which rules an operator has;
they run in that order, so that a later rule may rely on an earlier one.
"""

from collections.abc import Callable

import numpy as np

from firmware.compiler import requantize
from firmware.compiler.graph import Conv2D, Graph, Op, Quantization

Constraint = Callable[[Graph, Op], str | None]

MAX_KERNEL, MAX_STRIDE, MAX_FACTOR = 64, 16, 16


def _input(graph: Graph, op: Op) -> Quantization:
    return graph.tensors[op.inputs[0]].quant


def _output(graph: Graph, op: Op) -> Quantization:
    return graph.tensors[op.output].quant


def constraint_geometry(graph: Graph, op: Op) -> str | None:
    """Kernel sides are 1 to 64, strides 1 to 16, and padding is at least 0 and less than the kernel on each side."""
    window = op.params.window
    kernel, stride, padding = window.kernel, window.stride, window.padding
    if not all(1 <= side <= MAX_KERNEL for side in kernel):
        return f"kernel {kernel[0]}x{kernel[1]}"
    if not all(1 <= step <= MAX_STRIDE for step in stride):
        return f"stride {stride[0]}x{stride[1]}"
    if not all(0 <= padding[side] < kernel[side % 2] for side in range(4)):
        return f"padding (top, left, bottom, right) {tuple(padding)} with kernel {kernel[0]}x{kernel[1]}"
    shape = graph.tensors[op.inputs[0]].shape
    for dim, axis in enumerate(("rows", "columns")):
        if shape[dim] + padding[dim] + padding[dim + 2] < kernel[dim]:
            return f"{shape[dim]} {axis} with padding are fewer than the kernel's {kernel[dim]}"
    return None


def constraint_weights(graph: Graph, op: Op) -> str | None:
    """Weights are int8, laid out as the kernel and the input's channels demand, with one positive float32 scale and one
    int32 bias per output channel."""
    params, weights = op.params, op.params.weights
    channels = graph.tensors[op.inputs[0]].shape.c
    if isinstance(params, Conv2D):
        count = weights.values.shape[0] if weights.values.ndim else 0
        expected: tuple[int, ...] = (count, *params.window.kernel, channels)
    else:
        if params.multiplier < 1:
            return f"depth multiplier {params.multiplier}"
        count = channels * params.multiplier
        expected = (*params.window.kernel, count)
    if weights.values.dtype != np.int8 or weights.values.shape != expected or count < 1:
        return f"weights {weights.values.dtype} {weights.values.shape}, expected int8 {expected}"
    if weights.bias.dtype != np.int32 or weights.bias.shape != (count,):
        return f"bias {weights.bias.dtype} {weights.bias.shape}, expected int32 ({count},)"
    if weights.scales.dtype != np.float32 or weights.scales.shape != (count,):
        return f"scales {weights.scales.dtype} {weights.scales.shape}, expected float32 ({count},)"
    bad = np.flatnonzero(~(np.isfinite(weights.scales) & (weights.scales > 0)))
    return f"channel {bad[0]} has scale {weights.scales[bad[0]]}" if bad.size else None


def constraint_clamp(graph: Graph, op: Op) -> str | None:
    """The fused activation is NONE, RELU or RELU6, with the quantised limits that TFLite computes for it."""
    clamp = op.params.clamp
    if clamp.name not in ("NONE", "RELU", "RELU6"):
        return f"activation {clamp.name}"
    expected = requantize.clamp_for(clamp.name, _output(graph, op))
    if clamp != expected:
        return f"{clamp.name} clamps to {clamp.low}..{clamp.high}, expected {expected.low}..{expected.high}"
    return None


def constraint_accumulator(graph: Graph, op: Op) -> str | None:
    """Accumulators fit in int32 for every picture, also after the left shift of a requantising factor above 1."""
    weights, quant = op.params.weights, _input(graph, op)
    summed = tuple(range(1, 4)) if isinstance(op.params, Conv2D) else (0, 1)
    largest = max(127 - quant.zero_point, quant.zero_point + 128)
    bound = np.abs(weights.values.astype(np.int64)).sum(axis=summed) * largest + np.abs(weights.bias.astype(np.int64))
    reals = requantize.channel_multipliers(quant.scale, weights.scales, _output(graph, op).scale)
    if not (reals < 2.0**31).all():
        return f"requantising factor {reals.max():.3g}"
    left = np.maximum(requantize.quantize_multipliers(reals)[1], 0)
    bad = np.flatnonzero(bound > requantize.INT32_MAX >> left)
    if bad.size:
        return f"channel {bad[0]} reaches {bound[bad[0]]} and is scaled by {reals[bad[0]]:.3g}"
    return None


def constraint_same_shapes(graph: Graph, op: Op) -> str | None:
    """Both inputs have the same shape: nothing is broadcast."""
    first, second = (graph.tensors[name].shape for name in op.inputs)
    return None if first == second else f"{tuple(first)} and {tuple(second)}"


def constraint_add_scales(graph: Graph, op: Op) -> str | None:
    """The larger input scale is less than 2**19 times the output scale."""
    scales = [graph.tensors[name].quant.scale for name in op.inputs]
    ratio = max(scales) / _output(graph, op).scale
    return None if ratio < 2**19 else f"{ratio:.3g} times"


def constraint_same_quantization(graph: Graph, op: Op) -> str | None:
    """Input and output share one scale and zero point."""
    before, after = _input(graph, op), _output(graph, op)
    if before == after:
        return None
    return f"{before.scale:.6g}, {before.zero_point} becomes {after.scale:.6g}, {after.zero_point}"


def constraint_factor(graph: Graph, op: Op) -> str | None:
    """Factors are whole numbers from 1 to 16, less is cropped than a factor, and TFLite's float32 arithmetic picks row
    out // factor."""
    factor, crop = op.params.factor, op.params.crop
    if not all(1 <= side <= MAX_FACTOR for side in factor):
        return f"factor {factor[0]}x{factor[1]}"
    if not all(0 <= less < side for less, side in zip(crop, factor, strict=True)):
        return f"crop {crop[0]}x{crop[1]}"
    shape = graph.tensors[op.inputs[0]].shape
    for size, side, less in zip(shape, factor, crop, strict=False):
        out = np.arange(size * side - less)
        scale = np.float32(size) / np.float32(size * side - less)
        if not np.array_equal(np.floor(out.astype(np.float32) * scale).astype(np.int64), out // side):
            return f"{size} by {side} less {less}"
    return None
