"""Rules of the operators. A docstring is the rule in the user's words and becomes the error text and the documentation.

Each function takes (graph, op) and returns what breaks the rule, or None. `ops.py` says which rules an operator has;
they run in that order, so that a later rule may rely on an earlier one.
"""

import math
from collections.abc import Callable

import numpy as np

from firmware.compiler import requantize, tables
from firmware.compiler.graph import (
    Conv2D,
    FullyConnected,
    Graph,
    Op,
    Padding,
    Quantization,
    operand_quantizations,
    same_padding,
)

Constraint = Callable[[Graph, Op], str | None]

MAX_KERNEL, MAX_STRIDE, MAX_FACTOR = 16, 16, 16
MAX_MEAN, MAX_CLASSES, MAX_SIDE = 1 << 22, 4095, 65_535
LEAST_SCALE = 2.0**-24  # of functions that compute in fixed point


def _input(graph: Graph, op: Op) -> Quantization:
    return graph.tensors[op.inputs[0]].quant


def _output(graph: Graph, op: Op) -> Quantization:
    return graph.tensors[op.output].quant


def constraint_geometry(graph: Graph, op: Op) -> str | None:
    """Kernel sides are 1 to 16, strides 1 to 16, and padding is at least 0 and less than the kernel on each side."""
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
    shape = graph.tensors[op.inputs[0]].shape
    if isinstance(params, Conv2D | FullyConnected):
        count = weights.values.shape[0] if weights.values.ndim else 0
        kernel = params.window.kernel if isinstance(params, Conv2D) else shape[:2]
        expected: tuple[int, ...] = (count, *kernel, channels)
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
    summed = tuple(range(1, 4)) if isinstance(op.params, Conv2D | FullyConnected) else (0, 1)
    largest = max(127 - quant.zero_point, quant.zero_point + 128)
    bound = np.abs(weights.values.astype(np.int64)).sum(axis=summed) * largest + np.abs(weights.bias.astype(np.int64))
    reals = requantize.accumulator_multipliers(op.params, quant.scale, _output(graph, op).scale)
    if not (reals < 2.0**31).all():
        return f"requantising factor {reals.max():.3g}"
    left = np.maximum(requantize.quantize_multipliers(reals)[1], 0)
    bad = np.flatnonzero(bound > requantize.INT32_MAX >> left)
    if bad.size:
        return f"channel {bad[0]} reaches {bound[bad[0]]} and is scaled by {reals[bad[0]]:.3g}"
    return None


def constraint_map_size(graph: Graph, op: Op) -> str | None:
    """The feature map that is read has at most 16 rows and 16 columns."""
    shape = graph.tensors[op.inputs[0]].shape
    return None if max(shape[:2]) <= MAX_KERNEL else f"{shape.h}x{shape.w}"


def constraint_operand(graph: Graph, op: Op) -> str | None:
    """There are two inputs, or one and a constant int8 for each of its channels."""
    operand = op.params.operand
    if operand is None:
        return None if len(op.inputs) == 2 else "one input and no constant"
    channels = graph.tensors[op.inputs[0]].shape.c
    if len(op.inputs) != 1 or len(operand.values) != channels:
        return f"{len(op.inputs)} inputs and {len(operand.values)} constants for {channels} channels"
    if not all(-128 <= value <= 127 for value in operand.values):
        return f"constants {min(operand.values)}..{max(operand.values)}"
    return None if _is_good(operand.quant) else f"constants with {operand.quant}"


def _is_good(quant: Quantization) -> bool:
    """As `verify` demands of a tensor's."""
    scale = quant.scale
    return bool(np.isfinite(scale) and scale > 0 and float(np.float32(scale)) == scale and -128 <= quant.zero_point <= 127)


def constraint_broadcast(graph: Graph, op: Op) -> str | None:
    """Rows, columns and channels of the two inputs are equal in number, or one of the inputs has 1, which then serves all."""
    shapes = [graph.tensors[name].shape for name in op.inputs]
    fits = all(min(sizes) == max(sizes) or min(sizes) == 1 for sizes in zip(*shapes, strict=True))
    return None if fits else " and ".join(str(tuple(shape)) for shape in shapes)


def constraint_product_scale(graph: Graph, op: Op) -> str | None:
    """The product of the input scales is less than 2**14 times the output scale."""
    first, second = (quant.scale for quant in operand_quantizations(graph.tensors, op))
    ratio = first * second / _output(graph, op).scale
    return None if ratio < 2**14 else f"{ratio:.3g} times"


def constraint_add_scales(graph: Graph, op: Op) -> str | None:
    """The larger input scale is less than 2**19 times the output scale."""
    ratio = max(quant.scale for quant in operand_quantizations(graph.tensors, op)) / _output(graph, op).scale
    return None if ratio < 2**19 else f"{ratio:.3g} times"


def constraint_same_quantization(graph: Graph, op: Op) -> str | None:
    """Inputs and output share one scale and zero point."""
    after = _output(graph, op)
    for before in (graph.tensors[name].quant for name in op.inputs):
        if before != after:
            return f"{before.scale:.6g}, {before.zero_point} becomes {after.scale:.6g}, {after.zero_point}"
    return None


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


def constraint_usual_padding(graph: Graph, op: Op) -> str | None:
    """Padding is none, or what TensorFlow's SAME means: a .tflite can say nothing else for an average."""
    window = op.params.window
    usual = same_padding(graph.tensors[op.inputs[0]].shape, window.kernel, window.stride)
    return None if window.padding in (Padding(), usual) else f"{tuple(window.padding)}, SAME is {tuple(usual)}"


def constraint_mean(graph: Graph, op: Op) -> str | None:
    """The mean is taken over rows, columns, channels or several of them, of at most 2**22 values, and 2**22 times the output
    scale is more than the input scale times the number of values."""
    shape, axes = graph.tensors[op.inputs[0]].shape, op.params.axes
    if not any(axes):
        return "over none of them"
    count = math.prod(size for size, summed in zip(shape, axes, strict=True) if summed)
    if count > MAX_MEAN:
        return f"{count} values"
    ratio = _input(graph, op).scale / _output(graph, op).scale
    return None if ratio * count < 2**22 else f"{ratio:.3g} times, {count} values"


def constraint_softmax(graph: Graph, op: Op) -> str | None:
    """The input has at most 4,095 channels, beta times its scale is at least 2**-24 and less than 32, and the output has scale
    1/256 and zero point -128."""
    quant, factor = _input(graph, op), float(np.float32(op.params.beta)) * _input(graph, op).scale
    if graph.tensors[op.inputs[0]].shape.c > MAX_CLASSES:
        return f"{graph.tensors[op.inputs[0]].shape.c} channels"
    if not LEAST_SCALE <= factor < 32:
        return f"beta {op.params.beta} and scale {quant.scale:.3g}"
    return None if _output(graph, op) == tables.SOFTMAX_QUANTIZATION else f"{_output(graph, op)}"


def constraint_function(graph: Graph, op: Op) -> str | None:
    """The function is RELU, RELU6, LEAKY_RELU, HARD_SWISH, LOGISTIC, TANH or QUANTIZE, or ADD, SUB or MUL with one int8 constant
    for all values."""
    operand = op.params.operand
    if operand is None:
        return None if op.params.function in tables.FUNCTIONS else op.params.function
    if op.params.function not in tables.PAIRS or not -128 <= operand.value <= 127:
        return f"{op.params.function} with {operand.value}"
    return None if _is_good(operand.quant) else f"a constant with {operand.quant}"


def constraint_function_scales(graph: Graph, op: Op) -> str | None:
    """RELU6 changes neither scale nor zero point; LOGISTIC makes scale 1/256, zero point -128 and TANH 1/128, 0, both of input
    scales from 2**-24 to 2**3; other functions scale by less than 2**14, HARD_SWISH by at most 2**7, and sums with a constant
    have scales less than 2**19 times the output scale."""
    params, before, after = op.params, _input(graph, op), _output(graph, op)
    ratio = before.scale / after.scale
    if params.function in tables.OUTPUT_QUANTIZATION:
        if after != tables.OUTPUT_QUANTIZATION[params.function]:
            return f"{params.function} makes {after}"
        return None if LEAST_SCALE <= before.scale <= 8 else f"{params.function} of scale {before.scale:.3g}"
    if params.function == "RELU6" and before != after:
        return f"{before} becomes {after}"
    limit = {"HARD_SWISH": 128 * 0.999, "ADD": 2**19, "SUB": 2**19}.get(params.function, 2**14)
    factors = [ratio, ratio * abs(params.alpha)]
    if params.operand is not None:
        scale = params.operand.quant.scale
        factors = [ratio * scale] if params.function == "MUL" else [ratio, scale / after.scale]
    return None if max(factors) < limit else f"{params.function} scales by {max(factors):.3g}"


def constraint_joinable(graph: Graph, op: Op) -> str | None:
    """Inputs are joined along rows, columns or channels, and equal in the two others."""
    shapes, axis = [graph.tensors[name].shape for name in op.inputs], op.params.axis
    if axis not in (0, 1, 2):
        return f"axis {axis}"
    others = {tuple(size for dim, size in enumerate(shape) if dim != axis) for shape in shapes}
    return None if len(others) == 1 else " and ".join(str(tuple(shape)) for shape in shapes)


def constraint_order(graph: Graph, op: Op) -> str | None:
    """Each of the three sides is named once."""
    return None if sorted(op.params.order) == [0, 1, 2] else f"{op.params.order}"


def constraint_inside(graph: Graph, op: Op) -> str | None:
    """The part that is taken lies inside of the input and is not empty."""
    shape, start, taken = graph.tensors[op.inputs[0]].shape, op.params.start, op.params.shape
    inside = all(0 <= a and n >= 1 and a + n <= size for a, n, size in zip(start, taken, shape, strict=True))
    return None if inside else f"{tuple(taken)} from {tuple(start)} of {tuple(shape)}"


def constraint_padding(graph: Graph, op: Op) -> str | None:
    """Padding is at least 0 on each side and at most 255 above and to the left, and its value is an int8."""
    padding, value = op.params.padding, op.params.value
    good = min(padding) >= 0 and max(padding.top, padding.left) <= 255 and max(padding) < MAX_SIDE // 2 and -128 <= value <= 127
    return None if good else f"{tuple(padding)} of {value}"


def constraint_same_size(graph: Graph, op: Op) -> str | None:
    """Input and output have the same number of values."""
    shape = graph.tensors[op.inputs[0]].shape
    return None if shape.size == op.params.shape.size else f"{tuple(shape)} and {tuple(op.params.shape)}"
