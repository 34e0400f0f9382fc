"""A .tflite file, ours or other people's -> Graph.

Read: CONV_2D, DEPTHWISE_CONV_2D, ADD, MAX_POOL_2D, RESIZE_NEAREST_NEIGHBOR, all int8. Folded away: PAD and PADV2 into the
convolution or pooling behind them; QUANTIZE and DEQUANTIZE at the network's edges (the Graph begins and ends in int8).
Everything else is a TfliteError that names the operator. Other networks can be cut: `read_tflite(data, outputs=[...])`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.flatbuffer import FlatbufferError, Table
from firmware.compiler.graph import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    Graph,
    GraphError,
    MaxPool2D,
    Op,
    Padding,
    Params,
    Quantization,
    ResizeNearest,
    Shape,
    Tensor,
    Weights,
    Window,
)
from firmware.compiler.requantize import clamp_for
from firmware.compiler.tflite_parse import (
    File,
    FileOperator,
    TfliteError,
    feature_shape,
    parse,
    quantization,
    shifted_by_128,
)
from firmware.compiler.tflite_write import same_padding
from firmware.compiler.verify import verify

SUPPORTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MAX_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "PAD", "PADV2")


def read_tflite(data: bytes, outputs: Sequence[str] | None = None) -> Graph:
    """The network in a .tflite file, verified.

    `outputs` names tensors to end at instead of the file's own outputs; operators behind them are ignored. Raises
    TfliteError for damaged files and unsupported networks, never anything else.
    """
    file = parse(bytes(data))
    try:
        return verify(_Import(file, file.outputs if outputs is None else file.named(outputs)).graph())
    except (FlatbufferError, GraphError) as error:
        if isinstance(error, TfliteError):
            raise
        raise TfliteError(str(error)) from error


class _Padded(NamedTuple):
    """What a PAD makes: `source` with padding around it, all of one value."""

    source: int
    padding: Padding
    value: int


class _Import:
    def __init__(self, file: File, outputs: tuple[int, ...]) -> None:
        self._file, self._outputs = file, outputs
        self._needed = _ancestors(file, outputs)
        self._alias: dict[int, int] = {}  # output of an edge operator -> the int8 tensor that it stands for
        self._padded: dict[int, _Padded] = {}
        self._names: dict[int, str] = {}
        self._tensors: dict[str, Tensor] = {}
        self._ops: list[Op] = []
        self._input: int | None = None  # the int8 tensor that the network starts with
        self._input_is_uint8 = False
        self._read: dict[str, Callable[[FileOperator], None]] = {
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._depthwise,
            "ADD": self._addition,
            "MAX_POOL_2D": self._max_pooling,
            "RESIZE_NEAREST_NEIGHBOR": self._upsampling,
            "PAD": self._pad,
            "PADV2": self._pad,
            "QUANTIZE": self._quantize,
            "DEQUANTIZE": self._dequantize,
        }

    def graph(self) -> Graph:
        if len(self._file.inputs) != 1:
            raise TfliteError(f"the network has {len(self._file.inputs)} inputs, one picture is supported")
        first = self._file.tensors[self._file.inputs[0]]
        if first.type == schema.INT8:
            self._set_input(first.index)
        for operator in self._file.operators:
            if self._needed.isdisjoint(operator.outputs):
                continue
            if len(operator.outputs) != 1:
                raise TfliteError(f"{_who(operator)} makes {len(operator.outputs)} tensors, one is supported")
            if operator.kind not in self._read:
                raise self._unsupported(operator)
            self._read[operator.kind](operator)
        if self._input is None:
            raise self._bad_input()
        outputs = tuple(self._activation(self._alias.get(index, index), "the network").name for index in self._outputs)
        name = self._names[self._input]
        return Graph(self._tensors, tuple(self._ops), name, outputs, self._input_is_uint8, self._file.name or "model")

    def _bad_input(self) -> TfliteError:
        first = self._file.tensors[self._file.inputs[0]]
        return TfliteError(
            f"the network's input {first} is {first.type_name} and used as such: expected int8, or a QUANTIZE to int8"
        )

    def _unsupported(self, operator: FileOperator) -> TfliteError:
        made = self._file.tensors[operator.outputs[0]]
        sources = [self._file.tensors[self._alias.get(i, i)] for i in operator.inputs if i >= 0]
        ends = [str(t) for t in sources if t.index in self._names]
        cut = f"; to compile what comes before it, cut the network with outputs=[{', '.join(ends)}]" if ends else ""
        return TfliteError(
            f"unsupported operator {operator.kind} (#{operator.index}, makes {made}): supported are {', '.join(SUPPORTED)}{cut}"
        )

    # tensors

    def _set_input(self, index: int) -> None:
        if self._input is not None:
            raise TfliteError(f"tensor {self._file.tensors[index]} is a second int8 form of the network's input")
        self._input = index
        self._add_tensor(index)

    def _add_tensor(self, index: int) -> Tensor:
        """Declare an int8 activation of the file as a tensor of the graph, under a name that is unique."""
        tensor = self._file.tensors[index]
        name = tensor.name or f"tensor{index}"
        while name in self._tensors:
            name += f"#{index}"
        self._names[index] = name
        self._tensors[name] = Tensor(name, feature_shape(tensor), quantization(tensor))
        return self._tensors[name]

    def _activation(self, index: int, who: str) -> Tensor:
        """The graph's tensor for something that an operator reads."""
        if index in self._padded:
            raise TfliteError(f"{who} reads the padded tensor {self._file.tensors[index]}: only convolutions and maxima can")
        if index not in self._names:
            tensor = self._file.tensors[index] if index >= 0 else None
            if index == self._file.inputs[0]:
                raise self._bad_input()
            what = "constants" if tensor is not None and tensor.data is not None else "what nothing has made yet"
            raise TfliteError(f"{who} reads {what}: {tensor or 'a missing tensor'}")
        return self._tensors[self._names[index]]

    def _append(self, operator: FileOperator, params: Params, inputs: tuple[Tensor, ...]) -> None:
        output = self._add_output(operator)
        self._ops.append(Op(output.name, params, tuple(tensor.name for tensor in inputs), output.name))

    def _add_output(self, operator: FileOperator) -> Tensor:
        index = operator.outputs[0]
        if index in self._names:
            raise TfliteError(f"{_who(operator)} makes {self._file.tensors[index]} a second time")
        return self._add_tensor(index)

    def _output_quantization(self, operator: FileOperator) -> Quantization:
        return quantization(self._file.tensors[operator.outputs[0]])

    # operators

    def _convolution(self, operator: FileOperator) -> None:
        _arity(operator, 2, 3)
        options = operator.options("Conv2DOptions")
        _check_dilation(operator, options)
        values = self._weight_values(operator)
        source, window = self._windowed(operator, options, values.shape[1:3])
        if values.shape[3] != source.shape.c:
            pair = f"{source.shape.c} channels, weights for {values.shape[3]}"
            raise TfliteError(f"{_who(operator)} is a grouped convolution ({pair}): only depthwise groups are supported")
        weights = self._weights(operator, values, 0)
        self._append(operator, Conv2D(window, weights, self._clamp(operator, options)), (source,))

    def _depthwise(self, operator: FileOperator) -> None:
        _arity(operator, 2, 3)
        options = operator.options("DepthwiseConv2DOptions")
        _check_dilation(operator, options)
        values = self._weight_values(operator)
        source, window = self._windowed(operator, options, values.shape[1:3])
        multiplier, rest = divmod(values.shape[3], source.shape.c)
        if values.shape[0] != 1 or rest or multiplier < 1:
            raise TfliteError(f"{_who(operator)} has weights {values.shape} for {source.shape.c} channels")
        weights = self._weights(operator, values, 3)
        weights = Weights(values[0], weights.scales, weights.bias)
        self._append(operator, DepthwiseConv2D(window, weights, self._clamp(operator, options), multiplier), (source,))

    def _addition(self, operator: FileOperator) -> None:
        _arity(operator, 2, 2)
        sources = tuple(self._activation(self._alias.get(i, i), _who(operator)) for i in operator.inputs)
        self._append(operator, Add(self._clamp(operator, operator.options("AddOptions"))), sources)

    def _max_pooling(self, operator: FileOperator) -> None:
        _arity(operator, 1, 1)
        options = operator.options("Pool2DOptions")
        kernel = (_number(options, "filter_height"), _number(options, "filter_width"))
        source, window = self._windowed(operator, options, kernel, fill=-128)
        self._append(operator, MaxPool2D(window, self._clamp(operator, options)), (source,))

    def _upsampling(self, operator: FileOperator) -> None:
        _arity(operator, 2, 2)
        source = self._activation(self._alias.get(operator.inputs[0], operator.inputs[0]), _who(operator))
        options = operator.options("ResizeNearestNeighborOptions")
        if _number(options, "align_corners"):
            raise TfliteError(f"{_who(operator)} aligns corners; upsample by whole factors without align_corners")
        # half_pixel_centers asks for row floor((out + 0.5) / factor), which is out // factor for whole factors
        target = feature_shape(self._file.tensors[operator.outputs[0]])
        size = self._constant(operator, 1)
        if size.dtype != np.int32 or size.shape != (2,) or size.tolist() != [target.h, target.w]:
            raise TfliteError(f"{_who(operator)} does not resize to {target.h}x{target.w}, as its output says")
        factor = (-(-target.h // source.shape.h), -(-target.w // source.shape.w))
        crop = (factor[0] * source.shape.h - target.h, factor[1] * source.shape.w - target.w)
        if crop[0] >= factor[0] or crop[1] >= factor[1] or (any(crop) and _number(options, "half_pixel_centers")):
            pair = f"{source.shape.h}x{source.shape.w} to {target.h}x{target.w}"
            raise TfliteError(f"{_who(operator)} resizes {pair}: only whole factors are supported")
        self._append(operator, ResizeNearest(factor, crop), (source,))

    def _pad(self, operator: FileOperator) -> None:
        _arity(operator, 2, 3)
        who, index = _who(operator), self._alias.get(operator.inputs[0], operator.inputs[0])
        before = self._padded.get(index) or _Padded(index, Padding(), 0)
        source = self._activation(before.source, who)
        sides = self._constant(operator, 1)
        if sides.shape != (4, 2) or sides.dtype.kind != "i" or (sides < 0).any() or sides[[0, 3]].any():
            raise TfliteError(f"{who} must pad rows and columns only, never batch or channels, and never by less than 0")
        value = source.quant.zero_point
        if len(operator.inputs) == 3:
            constant = self._constant(operator, 2)
            if constant.size != 1 or constant.dtype != np.int8:
                raise TfliteError(f"{who} must pad with one int8 value")
            value = int(constant.reshape(-1)[0])
        if before.padding != Padding() and before.value != value:
            raise TfliteError(f"{who} pads with {value} around padding of {before.value}: one value is supported")
        if self._output_quantization(operator) != source.quant:
            raise TfliteError(f"{who} changes the quantisation of {source.name}")
        (top, bottom), (left, right) = ((int(low), int(high)) for low, high in sides[1:3])
        padding = Padding(*(a + b for a, b in zip(before.padding, (top, left, bottom, right), strict=True)))
        expected = _grown(source.shape, padding)
        if feature_shape(self._file.tensors[operator.outputs[0]]) != expected:
            raise TfliteError(f"{who} makes {tuple(expected)}, its output says otherwise")
        self._padded[operator.outputs[0]] = _Padded(before.source, padding, value)

    def _quantize(self, operator: FileOperator) -> None:
        _arity(operator, 1, 1)
        source, target = self._file.tensors[operator.inputs[0]], self._file.tensors[operator.outputs[0]]
        entering = source.index == self._file.inputs[0]
        if entering and source.type == schema.FLOAT32 and target.type == schema.INT8:
            self._set_input(target.index)
        elif entering and source.type == schema.UINT8 and target.type == schema.INT8 and shifted_by_128(target, source):
            self._set_input(target.index)
            self._input_is_uint8 = True
        elif source.type == schema.INT8 and target.type == schema.UINT8 and shifted_by_128(source, target):
            self._alias[target.index] = self._alias.get(source.index, source.index)
        elif source.type == target.type == schema.INT8 and quantization(source) == quantization(target):
            self._alias[target.index] = self._alias.get(source.index, source.index)
        else:
            raise TfliteError(
                f"{_who(operator)} turns {source.type_name} into {target.type_name} at another scale or inside of the network: "
                "only the network's edges may, between int8 and float32, or int8 and uint8 at one scale"
            )

    def _dequantize(self, operator: FileOperator) -> None:
        _arity(operator, 1, 1)
        if operator.outputs[0] not in self._outputs:
            raise TfliteError(f"{_who(operator)} leaves int8 inside of the network: only outputs may be float32")
        self._alias[operator.outputs[0]] = self._alias.get(operator.inputs[0], operator.inputs[0])

    # their parts

    def _windowed(
        self, operator: FileOperator, options: Table | None, kernel: Sequence[int], fill: int | None = None
    ) -> tuple[Tensor, Window]:
        """What an operator with a window really reads, and the window with padding in front folded in.

        `fill` is the value that padding must have, the zero point when None.
        """
        index = self._alias.get(operator.inputs[0], operator.inputs[0])
        padded = self._padded.get(index)
        source = self._activation(padded.source if padded else index, _who(operator))
        stride = (_number(options, "stride_h"), _number(options, "stride_w"))
        if min(*stride, *kernel) < 1:
            raise TfliteError(f"{_who(operator)} has kernel {tuple(kernel)}, stride {stride}")
        around = padded.padding if padded else Padding()
        if any(around) and padded.value != (source.quant.zero_point if fill is None else fill):
            raise TfliteError(f"{_who(operator)} follows a PAD with {padded.value}, which is not what its own padding would be")
        mode = _number(options, "padding")
        if mode not in (schema.SAME, schema.VALID):
            raise TfliteError(f"{_who(operator)} has padding mode {mode}")
        own = same_padding(_grown(source.shape, around), tuple(kernel), stride) if mode == schema.SAME else Padding()
        padding = Padding(*(a + b for a, b in zip(around, own, strict=True)))
        return source, Window((int(kernel[0]), int(kernel[1])), stride, padding)

    def _clamp(self, operator: FileOperator, options: Table | None):
        number = _number(options, "fused_activation_function")
        name = schema.ACTIVATIONS[number] if 0 <= number < len(schema.ACTIVATIONS) else f"number {number}"
        if name not in ("NONE", "RELU", "RELU6"):
            raise TfliteError(f"{_who(operator)} has the fused activation {name}: supported are NONE, RELU, RELU6")
        return clamp_for(name, self._output_quantization(operator))

    def _constant(self, operator: FileOperator, position: int) -> np.ndarray:
        index = operator.inputs[position]
        if index < 0 or self._file.tensors[index].data is None:
            raise TfliteError(f"{_who(operator)} needs a constant as input {position}")
        return self._file.tensors[index].constant()

    def _weight_values(self, operator: FileOperator) -> np.ndarray:
        tensor = self._file.tensors[operator.inputs[1]]
        if tensor.type != schema.INT8 or len(tensor.shape) != 4 or 0 in tensor.shape:
            hint = "; uint8 weights have zero points: export the model as int8" if tensor.type == schema.UINT8 else ""
            raise TfliteError(f"{_who(operator)} has weights {tensor} of {tensor.type_name} {tensor.shape}, expected int8{hint}")
        return self._constant(operator, 1)

    def _weights(self, operator: FileOperator, values: np.ndarray, channel_axis: int) -> Weights:
        tensor, channels = self._file.tensors[operator.inputs[1]], values.shape[channel_axis]
        if tensor.zero_points.any() or len(tensor.zero_points) not in (0, len(tensor.scales)):
            raise TfliteError(f"{_who(operator)} has weights with zero points: only symmetric weights are supported")
        if len(tensor.scales) not in (1, channels) or (len(tensor.scales) > 1 and tensor.axis != channel_axis):
            raise TfliteError(f"{_who(operator)} has {len(tensor.scales)} weight scales for {channels} channels")
        bias = np.zeros(channels, np.int32)
        if len(operator.inputs) == 3 and operator.inputs[2] >= 0:
            bias = self._constant(operator, 2).astype(np.int32, copy=False)
            if self._file.tensors[operator.inputs[2]].type != schema.INT32:
                raise TfliteError(f"{_who(operator)} has a bias that is not int32")
        return Weights(values, np.broadcast_to(tensor.scales, (channels,)).copy(), bias)


def _ancestors(file: File, outputs: tuple[int, ...]) -> set[int]:
    """Tensors that the outputs depend on, the outputs included."""
    needed = set(outputs)
    for operator in reversed(file.operators):
        if not needed.isdisjoint(operator.outputs):
            needed.update(operator.inputs)
    return needed


def _who(operator: FileOperator) -> str:
    return f"{operator.kind} (#{operator.index})"


def _arity(operator: FileOperator, least: int, most: int) -> None:
    if not least <= len(operator.inputs) <= most or any(index < 0 for index in operator.inputs[:least]):
        raise TfliteError(f"{_who(operator)} has inputs {operator.inputs[:8]}, expected {least} to {most} tensors")


def _number(options: Table | None, name: str) -> int:
    return options.number(name) if options is not None else 0


def _check_dilation(operator: FileOperator, options: Table | None) -> None:
    for name in ("dilation_h_factor", "dilation_w_factor"):
        if options is not None and options.number(name, 1) != 1:
            raise TfliteError(f"{_who(operator)} is dilated: only dilation 1 is supported")


def _grown(shape: Shape, padding: Padding) -> Shape:
    return Shape(shape.h + padding.top + padding.bottom, shape.w + padding.left + padding.right, shape.c)
