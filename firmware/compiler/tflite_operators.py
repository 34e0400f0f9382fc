"""What each operator of a .tflite file becomes in a Graph: one function by the operator's name, in READ."""

from collections.abc import Callable

import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    ChannelOperand,
    Concat,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Operand,
    Padding,
    Quantization,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Weights,
)
from firmware.compiler.ops import MAX_INPUTS, output_shape
from firmware.compiler.tflite_emit import PAIR_OPTIONS
from firmware.compiler.tflite_import import (
    Import,
    Padded,
    View,
    arity,
    grown,
    number,
    plain_shape,
    side_size,
    who_is,
)
from firmware.compiler.tflite_parse import FileOperator, FileTensor, TfliteError, quantization, shifted_by_128

PAIRS = {"ADD": Add, "SUB": Sub, "MUL": Mul}


def _check_dilation(operator: FileOperator, options) -> None:
    if any(number(options, name, 1) != 1 for name in ("dilation_h_factor", "dilation_w_factor")):
        raise TfliteError(f"{who_is(operator)} is dilated: only dilation 1 is supported")


def _convolution(net: Import, operator: FileOperator) -> None:
    arity(operator, 2, 3)
    options = operator.options("Conv2DOptions")
    _check_dilation(operator, options)
    values = net.weight_values(operator, 4)
    source, window = net.windowed(operator, options, values.shape[1:3])
    if values.shape[3] != source.shape.c:
        pair = f"{source.shape.c} channels, weights for {values.shape[3]}"
        raise TfliteError(f"{who_is(operator)} is a grouped convolution ({pair}): only depthwise groups are supported")
    net.make(operator, Conv2D(window, net.weights(operator, values, 0), net.clamp(operator, options)), [source])


def _depthwise(net: Import, operator: FileOperator) -> None:
    arity(operator, 2, 3)
    options = operator.options("DepthwiseConv2DOptions")
    _check_dilation(operator, options)
    values = net.weight_values(operator, 4)
    source, window = net.windowed(operator, options, values.shape[1:3])
    multiplier, rest = divmod(values.shape[3], source.shape.c)
    if values.shape[0] != 1 or rest or multiplier < 1:
        raise TfliteError(f"{who_is(operator)} has weights {values.shape} for {source.shape.c} channels")
    weights = net.weights(operator, values, 3)
    weights = Weights(values[0], weights.scales, weights.bias)
    net.make(operator, DepthwiseConv2D(window, weights, net.clamp(operator, options), multiplier), [source])


def _fully_connected(net: Import, operator: FileOperator) -> None:
    """The order of the bytes that it reads is turned into the order of its weights."""
    arity(operator, 2, 3)
    options, who = operator.options("FullyConnectedOptions"), who_is(operator)
    values = net.weight_values(operator, 2)
    view = net.lies(operator.inputs[0], who)
    source = net.tensors[view.name]
    if number(options, "weights_format"):
        raise TfliteError(f"{who} has shuffled weights: export the model for the default kernels")
    if values.shape[1] != source.shape.size:
        raise TfliteError(f"{who} has weights {values.shape} for {tuple(source.shape)}: each must read the whole map")
    letters = "".join(view.sides)
    letters += "".join(letter for letter in "hwc" if letter not in letters)  # of size 1
    ordered = values.reshape(len(values), *(side_size(source, letter) for letter in letters))
    ordered = np.ascontiguousarray(ordered.transpose(0, *(1 + letters.index(letter) for letter in "hwc")))
    weights = net.weights(operator, values, 0)
    net.make(operator, FullyConnected(Weights(ordered, weights.scales, weights.bias), net.clamp(operator, options)), [source])


def _pair(net: Import, operator: FileOperator) -> None:
    arity(operator, 2, 2)
    clamp = net.clamp(operator, operator.options(PAIR_OPTIONS[operator.kind]))
    constants = [net.file.tensors[index].data is not None for index in operator.inputs]
    if any(constants):
        return _with_constant(net, operator, constants.index(True), clamp)
    sources = [net.normal(index, who_is(operator)) for index in operator.inputs]
    net.make(operator, PAIRS[operator.kind](clamp), sources)


def _with_constant(net: Import, operator: FileOperator, position: int, clamp) -> None:
    tensor, who = net.file.tensors[operator.inputs[position]], who_is(operator)
    values, other = net.constant(operator, position), operator.inputs[1 - position]
    if values.dtype == np.int8 and values.size == 1:
        operand = Operand(int(values.reshape(-1)[0]), quantization(tensor), position == 0)
        return _same_sides(net, operator, Lookup(operator.kind, operand=operand, clamp=clamp), other)
    source = net.normal(other, who)
    if values.dtype != np.int8 or values.size != source.shape.c or values.shape[-1] != source.shape.c:
        raise TfliteError(
            f"{who} has a constant {tensor} of {tensor.type_name} {tensor.shape} beside a map of {tuple(source.shape)}: "
            "supported are one int8 for all values, or one for each channel"
        )
    channels = ChannelOperand(tuple(values.reshape(-1).tolist()), quantization(tensor), position == 0)
    net.make(operator, PAIRS[operator.kind](clamp, channels), [source])


def _same_sides(
    net: Import, operator: FileOperator, params: Lookup | Softmax, index: int, quant: Quantization | None = None
) -> None:
    """An operator that computes value by value: the output lies as the input does."""
    view = net.view(index, who_is(operator))
    source = net.tensors[view.name]
    net.append(params, [source], net.declare(operator.outputs[0], quant, source.shape, view.sides))


def _function(net: Import, operator: FileOperator) -> None:
    arity(operator, 1, 1)
    options = operator.options("LeakyReluOptions") if operator.kind == "LEAKY_RELU" else None
    _same_sides(net, operator, Lookup(operator.kind, float(number(options, "alpha", 0.0))), operator.inputs[0])


def _softmax(net: Import, operator: FileOperator) -> None:
    arity(operator, 1, 1)
    view = net.view(operator.inputs[0], who_is(operator))
    source = net.tensors[view.name]
    last = "".join(letter for letter in view.sides[-1] if side_size(source, letter) > 1)
    if last != ("c" if source.shape.c > 1 else ""):
        net.normal(operator.inputs[0], who_is(operator))
    beta = number(operator.options("SoftmaxOptions"), "beta", 0.0)
    _same_sides(net, operator, Softmax(float(beta)), operator.inputs[0])


def _max_pooling(net: Import, operator: FileOperator) -> None:
    source, window, clamp = _pool(net, operator, fill=-128)
    net.make(operator, MaxPool2D(window, clamp), [source])


def _average_pooling(net: Import, operator: FileOperator) -> None:
    source, window, clamp = _pool(net, operator, folds=False)
    net.make(operator, AveragePool2D(window, clamp), [source])


def _pool(net: Import, operator: FileOperator, **folding):
    arity(operator, 1, 1)
    options = operator.options("Pool2DOptions")
    kernel = (number(options, "filter_height"), number(options, "filter_width"))
    return *net.windowed(operator, options, kernel, **folding), net.clamp(operator, options)


def _mean(net: Import, operator: FileOperator) -> None:
    arity(operator, 2, 2)
    who = who_is(operator)
    view = net.view(operator.inputs[0], who)
    source, axes = net.tensors[view.name], net.integers(operator, 1)
    if not axes or not all(-len(view.sides) <= axis < len(view.sides) for axis in axes):
        raise TfliteError(f"{who} is over sides {axes[:8]} of {len(view.sides)}")
    keep = number(operator.options("ReducerOptions"), "keep_dims")
    axes = sorted({axis % len(view.sides) for axis in axes})
    letters = "".join(view.sides[axis] for axis in axes)
    if not letters:
        raise TfliteError(f"{who} is over the batch alone: rows, columns and channels are supported")
    sides = [side for n, side in enumerate(view.sides) if keep or n not in axes]
    shape = Shape(*(1 if letter in letters else size for letter, size in zip("hwc", source.shape, strict=True)))
    params = Mean(tuple(letter in letters for letter in "hwc"))
    net.append(params, [source], net.declare(operator.outputs[0], None, shape, sides))


def _upsampling(net: Import, operator: FileOperator) -> None:
    arity(operator, 2, 2)
    source, who = net.normal(operator.inputs[0], who_is(operator)), who_is(operator)
    options = operator.options("ResizeNearestNeighborOptions")
    if number(options, "align_corners"):
        raise TfliteError(f"{who} aligns corners; upsample by whole factors without align_corners")
    # half_pixel_centers asks for row floor((out + 0.5) / factor), which is out // factor for whole factors
    target, size = plain_shape(net.file.tensors[operator.outputs[0]]), net.constant(operator, 1)
    if size.dtype != np.int32 or size.shape != (2,) or size.tolist() != [target.h, target.w]:
        raise TfliteError(f"{who} does not resize to {target.h}x{target.w}, as its output says")
    factor = (-(-target.h // source.shape.h), -(-target.w // source.shape.w))
    crop = (factor[0] * source.shape.h - target.h, factor[1] * source.shape.w - target.w)
    if crop[0] >= factor[0] or crop[1] >= factor[1] or (any(crop) and number(options, "half_pixel_centers")):
        pair = f"{source.shape.h}x{source.shape.w} to {target.h}x{target.w}"
        raise TfliteError(f"{who} resizes {pair}: only whole factors are supported")
    net.make(operator, ResizeNearest(factor, crop), [source])


def _concatenation(net: Import, operator: FileOperator) -> None:
    """More inputs than an operator takes are joined step by step."""
    who, options = who_is(operator), operator.options("ConcatenationOptions")
    sources = [net.normal(index, who) for index in operator.inputs]
    sides = len(net.file.tensors[operator.outputs[0]].shape)
    axis = number(options, "axis") % max(sides, 1) + 3 - sides
    if axis not in (0, 1, 2) or number(options, "fused_activation_function"):
        side = number(options, "axis")
        raise TfliteError(f"{who} is along side {side}: rows, columns and channels can be joined, without an activation")
    params = Concat(axis)
    while len(sources) > MAX_INPUTS:
        first = sources[:MAX_INPUTS]
        shape = output_shape(params, [tensor.shape for tensor in first])
        joined = net.invent(operator, f"{first[0].name}+{len(sources) - MAX_INPUTS}", shape, net.output_quantization(operator))
        net.append(params, first, joined)
        sources = [joined, *sources[MAX_INPUTS:]]
    if len(sources) == 1:
        net.views[operator.outputs[0]] = net.views[operator.inputs[0]]
    else:
        net.make(operator, params, sources)


def _strided_slice(net: Import, operator: FileOperator) -> None:
    arity(operator, 4, 4)
    who, options = who_is(operator), operator.options("StridedSliceOptions")
    source = net.normal(operator.inputs[0], who)
    shape = net.file.tensors[operator.inputs[0]].shape
    begin, end, strides = (net.integers(operator, position) for position in (1, 2, 3))
    if not len(begin) == len(end) == len(strides) == len(shape) or any(step != 1 for step in strides):
        raise TfliteError(
            f"{who} takes steps {strides[:8]}: only slices with stride 1 over all sides are supported; MAX_POOL_2D of 1x1 with "
            "that stride does the same"
        )
    if any(number(options, name) for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask", "offset")):
        raise TfliteError(f"{who} has masks other than begin and end: only those are supported")
    begin_mask, end_mask = number(options, "begin_mask"), number(options, "end_mask")
    start = [0 if begin_mask >> n & 1 else _within(at, size) for n, (at, size) in enumerate(zip(begin, shape, strict=True))]
    stop = [size if end_mask >> n & 1 else _within(at, size) for n, (at, size) in enumerate(zip(end, shape, strict=True))]
    _cut(net, source, operator.outputs[0], start, [b - a for a, b in zip(start, stop, strict=True)])


def _within(at: int, size: int) -> int:
    return min(max(at + size if at < 0 else at, 0), size)


def _cut(net: Import, source, output: int, start: list[int], size: list[int]) -> None:
    """Take `size` values from `start` on along each side of the file's tensor; a slice of everything is nothing."""
    missing = [0] * (4 - len(start))
    part = Slice(tuple([*missing, *start[1:]])[-3:], Shape(*[*(1 for _ in missing), *size[1:]][-3:]))
    net.append(part, [source], net.declare(output))


def _split(net: Import, operator: FileOperator) -> None:
    arity(operator, 2, 2)
    who = who_is(operator)
    source, shape = net.normal(operator.inputs[1], who), list(net.file.tensors[operator.inputs[1]].shape)
    axes, parts = net.integers(operator, 0), len(operator.outputs)
    if len(axes) != 1 or not -len(shape) <= axes[0] < len(shape) or shape[axes[0]] % parts:
        raise TfliteError(f"{who} makes {parts} parts along side {axes[:8]} of {shape}")
    size = [*shape]
    size[axes[0]] //= parts
    for part, output in enumerate(operator.outputs):
        start = [0] * len(shape)
        start[axes[0]] = part * size[axes[0]]
        _cut(net, source, output, start, size)


def _pad(net: Import, operator: FileOperator) -> None:
    """Noted only: a convolution or maximum behind it pads by itself, anybody else makes it an operator."""
    arity(operator, 2, 3)
    who, index = who_is(operator), operator.inputs[0]
    before = net.padded.get(index) if index not in net.views else None
    source = net.normal(before.source if before else index, who)
    sides = net.constant(operator, 1)
    if sides.shape != (4, 2) or sides.dtype.kind != "i" or (sides < 0).any() or sides[[0, 3]].any():
        raise TfliteError(f"{who} must pad rows and columns only, never batch or channels, and never by less than 0")
    value = source.quant.zero_point
    if len(operator.inputs) == 3:
        constant = net.constant(operator, 2)
        if constant.size != 1 or constant.dtype != np.int8:
            raise TfliteError(f"{who} must pad with one int8 value")
        value = int(constant.reshape(-1)[0])
    if before and before.value != value:
        source, before = net.normal(index, who), None
    if net.output_quantization(operator) != source.quant:
        raise TfliteError(f"{who} changes the quantisation of {source.name}")
    (top, bottom), (left, right) = ((int(low), int(high)) for low, high in sides[1:3])
    around = before.padding if before else Padding()
    padding = Padding(*(a + b for a, b in zip(around, (top, left, bottom, right), strict=True)))
    expected = grown(source.shape, padding)
    if plain_shape(net.file.tensors[operator.outputs[0]]) != expected:
        raise TfliteError(f"{who} makes {tuple(expected)}, its output says otherwise")
    net.padded[operator.outputs[0]] = Padded(before.source if before else index, padding, value)


def _reshape(net: Import, operator: FileOperator) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: a view where whole sides are joined, a Reshape where one is cut."""
    arity(operator, 1, 2)
    who, target = who_is(operator), net.file.tensors[operator.outputs[0]]
    view = net.lies(operator.inputs[0], who)
    source = net.tensors[view.name]
    if target.type == schema.INT8 and net.output_quantization(operator) != source.quant:
        raise TfliteError(f"{who} changes the quantisation of {source.name}")
    sides = _regrouped(source, "".join(view.sides), target.shape)
    if sides is None:
        net.reshape(net.in_order(operator.inputs[0], who), operator.outputs[0])
    else:
        moved = view.moved or (len(target.shape) == 4 and plain_shape(target) != source.shape)
        net.views[operator.outputs[0]] = View(view.name, sides, moved)


def _regrouped(source, letters: str, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """The letters of each of the new sides, None when a letter would have to be cut."""
    waiting = [letter for letter in letters if side_size(source, letter) > 1]
    sides = []
    for size in shape:
        side = ""
        while waiting and side_size(source, side) < size:
            side += waiting.pop(0)
        if side_size(source, side) != size:
            return None
        sides.append(side)
    return None if waiting else tuple(sides)


def _transpose(net: Import, operator: FileOperator) -> None:
    arity(operator, 2, 2)
    view, order = net.lies(operator.inputs[0], who_is(operator)), net.integers(operator, 1)
    if sorted(order) != list(range(len(view.sides))):
        raise TfliteError(f"{who_is(operator)} puts sides in the order {order[:8]}")
    net.views[operator.outputs[0]] = View(view.name, tuple(view.sides[n] for n in order), view.moved)


def _quantize(net: Import, operator: FileOperator) -> None:
    """At the edges nothing but another name for the same int8; between two scales a table."""
    arity(operator, 1, 1)
    source, target = net.file.tensors[operator.inputs[0]], net.file.tensors[operator.outputs[0]]
    entering = source.index == net.file.inputs[0] and source.index not in net.views
    if entering and source.type in (schema.FLOAT32, schema.UINT8) and target.type == schema.INT8:
        net.input_is_uint8 = source.type == schema.UINT8
        if source.type == schema.FLOAT32 or shifted_by_128(target, source):
            net.set_input(target.index)
            return
        net.set_input(source.index, _as_int8(source))
    if source.type not in (schema.INT8, schema.UINT8) or target.type not in (schema.INT8, schema.UINT8):
        raise TfliteError(
            f"{who_is(operator)} turns {source.type_name} into {target.type_name}: inside of the network only int8 and uint8 are "
            "supported, float32 at its edges"
        )
    view, after = net.view(source.index, who_is(operator)), _as_int8(target)
    if net.tensors[view.name].quant == after:
        net.views[target.index] = view
    else:
        _same_sides(net, operator, Lookup("QUANTIZE"), source.index, after)


def _as_int8(tensor: FileTensor) -> Quantization:
    """Quantisation of the int8 that stands for an int8 or uint8 tensor."""
    if tensor.type == schema.INT8:
        return quantization(tensor)
    if len(tensor.scales) != 1 or len(tensor.zero_points) != 1:
        raise TfliteError(f"tensor {tensor} is {tensor.type_name} with {len(tensor.scales)} scales: expected one")
    return Quantization(float(tensor.scales[0]), int(tensor.zero_points[0]) - 128)


def _dequantize(net: Import, operator: FileOperator) -> None:
    arity(operator, 1, 1)
    if operator.outputs[0] not in net.outputs:
        raise net.leaves_int8(operator)
    net.views[operator.outputs[0]] = net.view(operator.inputs[0], who_is(operator))


READ: dict[str, Callable[[Import, FileOperator], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _pair,
    "SUB": _pair,
    "MUL": _pair,
    "MAX_POOL_2D": _max_pooling,
    "AVERAGE_POOL_2D": _average_pooling,
    "MEAN": _mean,
    "SOFTMAX": _softmax,
    "RELU": _function,
    "RELU6": _function,
    "LEAKY_RELU": _function,
    "HARD_SWISH": _function,
    "LOGISTIC": _function,
    "TANH": _function,
    "RESIZE_NEAREST_NEIGHBOR": _upsampling,
    "CONCATENATION": _concatenation,
    "STRIDED_SLICE": _strided_slice,
    "SPLIT": _split,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "TRANSPOSE": _transpose,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
}
