"""What each operator of a Graph is in a .tflite file: one function by params type, in EMIT."""

from collections.abc import Callable

import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Op,
    Pad,
    Padding,
    Reshape,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Transpose,
    Weights,
    Window,
    same_padding,
)
from firmware.compiler.tflite_file import FileBuilder, Options

VERSIONS = {  # the first version of each operator that knows int8
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "ADD": 2,
    "SUB": 2,
    "MUL": 2,
    "MAX_POOL_2D": 2,
    "AVERAGE_POOL_2D": 2,
    "MEAN": 2,
    "SOFTMAX": 2,
    "RELU": 2,
    "RELU6": 2,
    "LEAKY_RELU": 2,
    "HARD_SWISH": 1,
    "LOGISTIC": 2,
    "TANH": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "CONCATENATION": 2,
    "STRIDED_SLICE": 2,
    "PAD": 2,
    "PADV2": 2,
    "RESHAPE": 1,
    "TRANSPOSE": 2,
    "QUANTIZE": 2,
}
PAIR_OPTIONS = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}


def _weights(file: FileBuilder, op: Op, weights: Weights, values: np.ndarray, axis: int, scales: np.ndarray) -> list[int]:
    source = file.graph.tensors[op.inputs[0]].quant
    bias_scales = (source.scale * scales.astype(np.float64)).astype(np.float32)
    return [
        file.constant(f"{op.output}/weights", values, schema.INT8, scales, axis),
        file.constant(f"{op.output}/bias", weights.bias.astype("<i4"), schema.INT32, bias_scales),
    ]


def _pad(file: FileBuilder, source: str, padding: Padding, value: int, name: str, output: int | None = None) -> int:
    """PAD, or PADV2 where `value` is not the zero point; makes `output`, or a tensor of its own."""
    tensor = file.graph.tensors[source]
    sides = np.array([(0, 0), padding[0::2], padding[1::2], (0, 0)], "<i4")
    inputs = [file.index[source], file.constant(f"{name}/paddings", sides, schema.INT32)]
    kind, options = "PAD", "PadOptions"
    if value != tensor.quant.zero_point:
        kind, options = "PADV2", "PadV2Options"
        inputs.append(file.constant(f"{name}/pad_value", np.array([value], np.int8), schema.INT8, tensor.quant))
    if output is None:
        shape = tensor.shape
        size = (1, shape.h + padding.top + padding.bottom, shape.w + padding.left + padding.right, shape.c)
        output = file.tensor(f"{name}/padded", size, schema.INT8, tensor.quant)
    file.operator(kind, inputs, output, Options(options, {}))
    return output


def _padded(file: FileBuilder, op: Op, window: Window, value: int | None = None) -> tuple[int, int]:
    """(tensor to read, SAME or VALID): the operator's input, behind a PAD where neither says it.

    `value` is the int8 to pad with; None is the zero point.
    """
    tensor = file.graph.tensors[op.inputs[0]]
    if window.padding == same_padding(tensor.shape, window.kernel, window.stride):
        return file.index[tensor.name], schema.SAME
    if not any(window.padding):
        return file.index[tensor.name], schema.VALID
    value = tensor.quant.zero_point if value is None else value
    return _pad(file, tensor.name, window.padding, value, op.output), schema.VALID


def _window_fields(window: Window, padding: int, activation: str) -> dict[str, int]:
    return {
        "padding": padding,
        "stride_h": window.stride[0],
        "stride_w": window.stride[1],
        "fused_activation_function": schema.ACTIVATIONS.index(activation),
    }


def _convolution(file: FileBuilder, op: Op) -> None:
    params: Conv2D = op.params
    source, padding = _padded(file, op, params.window)
    constants = _weights(file, op, params.weights, params.weights.values, 0, params.weights.scales)
    fields = _window_fields(params.window, padding, params.clamp.name)
    options = Options("Conv2DOptions", fields | {"dilation_w_factor": 1, "dilation_h_factor": 1})
    file.operator("CONV_2D", [source, *constants], file.activation(op.output), options)


def _depthwise(file: FileBuilder, op: Op) -> None:
    params: DepthwiseConv2D = op.params
    source, padding = _padded(file, op, params.window)
    constants = _weights(file, op, params.weights, params.weights.values[None], 3, params.weights.scales)
    fields = _window_fields(params.window, padding, params.clamp.name)
    fields |= {"depth_multiplier": params.multiplier, "dilation_w_factor": 1, "dilation_h_factor": 1}
    options = Options("DepthwiseConv2DOptions", fields)
    file.operator("DEPTHWISE_CONV_2D", [source, *constants], file.activation(op.output), options)


def _fully_connected(file: FileBuilder, op: Op) -> None:
    params: FullyConnected = op.params
    tensor, weights = file.graph.tensors[op.inputs[0]], params.weights
    source = file.index[tensor.name]
    if max(tensor.shape[:2]) > 1:
        source = _reshape(file, tensor.name, Shape(1, 1, tensor.shape.size), op.output)
    scales = weights.scales[:1] if len(np.unique(weights.scales)) == 1 else weights.scales
    constants = _weights(file, op, weights, weights.values.reshape(len(weights.values), -1), 0, scales)
    fields = {"fused_activation_function": schema.ACTIVATIONS.index(params.clamp.name), "keep_num_dims": 1}
    file.operator("FULLY_CONNECTED", [source, *constants], file.activation(op.output), Options("FullyConnectedOptions", fields))


def _reshape(file: FileBuilder, source: str, shape: Shape, name: str, output: int | None = None) -> int:
    size = np.array([1, *shape], "<i4")
    inputs = [file.index[source], file.constant(f"{name}/shape", size, schema.INT32)]
    if output is None:
        output = file.tensor(f"{name}/flat", (1, *shape), schema.INT8, file.graph.tensors[source].quant)
    file.operator("RESHAPE", inputs, output, Options("ReshapeOptions", {"new_shape": size}))
    return output


def _pair(file: FileBuilder, op: Op) -> None:
    kind, operand = op.kind.upper(), op.params.operand
    fields = {"fused_activation_function": schema.ACTIVATIONS.index(op.params.clamp.name)}
    inputs = [file.index[name] for name in op.inputs]
    if operand is not None:
        values = np.array(operand.values, np.int8).reshape(1, 1, 1, -1)
        constant = file.constant(f"{op.output}/operand", values, schema.INT8, operand.quant)
        inputs.insert(0 if operand.first else 1, constant)
    file.operator(kind, inputs, file.activation(op.output), Options(PAIR_OPTIONS[kind], fields))


def _pooling(file: FileBuilder, op: Op) -> None:
    params: MaxPool2D = op.params
    source, padding = _padded(file, op, params.window, -128)
    _pool(file, op, "MAX_POOL_2D", source, padding)


def _average_pooling(file: FileBuilder, op: Op) -> None:
    shape, window = file.graph.tensors[op.inputs[0]].shape, op.params.window
    same = window.padding == same_padding(shape, window.kernel, window.stride)
    _pool(file, op, "AVERAGE_POOL_2D", file.index[op.inputs[0]], schema.SAME if same else schema.VALID)


def _pool(file: FileBuilder, op: Op, kind: str, source: int, padding: int) -> None:
    window = op.params.window
    fields = _window_fields(window, padding, op.params.clamp.name)
    fields |= {"filter_height": window.kernel[0], "filter_width": window.kernel[1]}
    file.operator(kind, [source], file.activation(op.output), Options("Pool2DOptions", fields))


def _mean(file: FileBuilder, op: Op) -> None:
    params: Mean = op.params
    axes = np.array([dim + 1 for dim in (0, 1, 2) if params.axes[dim]], "<i4")
    inputs = [file.index[op.inputs[0]], file.constant(f"{op.output}/axes", axes, schema.INT32)]
    file.operator("MEAN", inputs, file.activation(op.output), Options("ReducerOptions", {"keep_dims": 1}))


def _softmax(file: FileBuilder, op: Op) -> None:
    options = Options("SoftmaxOptions", {"beta": op.params.beta})
    file.operator("SOFTMAX", [file.index[op.inputs[0]]], file.activation(op.output), options)


def _lookup(file: FileBuilder, op: Op) -> None:
    params: Lookup = op.params
    source, operand = file.index[op.inputs[0]], params.operand
    if operand is None:
        options = {
            "LEAKY_RELU": Options("LeakyReluOptions", {"alpha": params.alpha}),
            "HARD_SWISH": Options("HardSwishOptions", {}),
            "QUANTIZE": Options("QuantizeOptions", {}),
        }.get(params.function)
        file.operator(params.function, [source], file.activation(op.output), options)
        return
    value = file.constant(f"{op.output}/operand", np.array([operand.value], np.int8), schema.INT8, operand.quant)
    fields = {"fused_activation_function": schema.ACTIVATIONS.index(params.clamp.name)}
    inputs = [value, source] if operand.first else [source, value]
    file.operator(params.function, inputs, file.activation(op.output), Options(PAIR_OPTIONS[params.function], fields))


def _upsampling(file: FileBuilder, op: Op) -> None:
    size = np.array(file.graph.tensors[op.output].shape[:2], "<i4")
    inputs = [file.index[op.inputs[0]], file.constant(f"{op.output}/size", size, schema.INT32)]
    options = Options("ResizeNearestNeighborOptions", {})
    file.operator("RESIZE_NEAREST_NEIGHBOR", inputs, file.activation(op.output), options)


def _concatenation(file: FileBuilder, op: Op) -> None:
    inputs = [file.index[name] for name in op.inputs]
    options = Options("ConcatenationOptions", {"axis": op.params.axis + 1})
    file.operator("CONCATENATION", inputs, file.activation(op.output), options)


def _slice(file: FileBuilder, op: Op) -> None:
    params: Slice = op.params
    start = np.array([0, *params.start], "<i4")
    numbers = {"begin": start, "end": start + np.array([1, *params.shape], "<i4"), "strides": np.ones(4, "<i4")}
    constants = [file.constant(f"{op.output}/{name}", values, schema.INT32) for name, values in numbers.items()]
    options = Options("StridedSliceOptions", {})
    file.operator("STRIDED_SLICE", [file.index[op.inputs[0]], *constants], file.activation(op.output), options)


def _padding(file: FileBuilder, op: Op) -> None:
    _pad(file, op.inputs[0], op.params.padding, op.params.value, op.output, file.activation(op.output))


def _reshaping(file: FileBuilder, op: Op) -> None:
    _reshape(file, op.inputs[0], op.params.shape, op.output, file.activation(op.output))


def _transposing(file: FileBuilder, op: Op) -> None:
    order = np.array([0, *(side + 1 for side in op.params.order)], "<i4")
    inputs = [file.index[op.inputs[0]], file.constant(f"{op.output}/order", order, schema.INT32)]
    file.operator("TRANSPOSE", inputs, file.activation(op.output), Options("TransposeOptions", {}))


EMIT: dict[type, Callable[[FileBuilder, Op], None]] = {
    Conv2D: _convolution,
    DepthwiseConv2D: _depthwise,
    FullyConnected: _fully_connected,
    Add: _pair,
    Sub: _pair,
    Mul: _pair,
    MaxPool2D: _pooling,
    AveragePool2D: _average_pooling,
    Mean: _mean,
    Softmax: _softmax,
    Lookup: _lookup,
    ResizeNearest: _upsampling,
    Concat: _concatenation,
    Slice: _slice,
    Pad: _padding,
    Reshape: _reshaping,
    Transpose: _transposing,
}
