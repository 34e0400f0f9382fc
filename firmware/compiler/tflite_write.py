"""Graph -> .tflite bytes: exactly the operators and tensors of the graph, exact scales, the same bytes every time.

Padding that equals TensorFlow's SAME or VALID is written as such; any other becomes a PAD operator (PADV2 with -128
before a maximum), which `tflite_read` folds back.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import flatbuffers
import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.graph import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    Graph,
    MaxPool2D,
    Op,
    Padding,
    Quantization,
    ResizeNearest,
    Shape,
    Weights,
    Window,
)
from firmware.compiler.verify import verify

VERSIONS = {  # the first version of each operator that knows int8
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "ADD": 2,
    "MAX_POOL_2D": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2,
    "PAD": 2,
    "PADV2": 2,
    "QUANTIZE": 1,
}


def write_tflite(graph: Graph, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The graph as a .tflite file; `metadata` (JSON-able) is kept in it under the name "tessera".

    Raises GraphError when the graph breaks a rule.
    """
    file = _File(verify(graph))
    model = file.model()
    if metadata is not None:
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        model["metadata"] = [_Record("Metadata", name=schema.METADATA_NAME, buffer=len(model["buffers"]))]
        model["buffers"].append(_Record("Buffer", data=np.frombuffer(text, np.uint8)))
    builder = flatbuffers.Builder(sum(len(b.get("data", ())) for b in model["buffers"]) + 65536)
    builder.Finish(_serialize(builder, model), file_identifier=schema.FILE_IDENTIFIER)
    return bytes(builder.Output())


def same_padding(shape: Shape, kernel: tuple[int, int], stride: tuple[int, int]) -> Padding:
    """What TensorFlow's SAME means for this input: the odd row or column goes after."""
    before, after = [], []
    for size, k, s in zip(shape, kernel, stride, strict=False):
        total = max(0, (-(-size // s) - 1) * s + k - size)
        before.append(total // 2)
        after.append(total - total // 2)
    return Padding(before[0], before[1], after[0], after[1])


class _Record(dict):
    """A table to be written: kind and fields by name."""

    def __init__(self, kind: str, **fields: Any) -> None:
        super().__init__(fields)
        self.kind = kind


class _Options(NamedTuple):
    kind: str
    fields: dict[str, int]


class _File:
    """Tensors, buffers and operators, numbered in order of appearance. Buffer 0 is empty, as TFLite demands."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tensors: list[_Record] = []
        self._buffers = [_Record("Buffer")]
        self._codes: list[str] = []
        self._operators: list[_Record] = []
        self._index: dict[str, int] = {}
        self._emit = {
            Conv2D: self._convolution,
            DepthwiseConv2D: self._depthwise,
            Add: self._addition,
            MaxPool2D: self._max_pooling,
            ResizeNearest: self._upsampling,
        }

    def model(self) -> _Record:
        graph = self._graph
        first = self._input()
        for op in graph.ops:
            self._emit[type(op.params)](op)
        subgraph = _Record(
            "SubGraph",
            tensors=self._tensors,
            inputs=np.array([first], np.int32),
            outputs=np.array([self._index[name] for name in graph.outputs], np.int32),
            operators=self._operators,
            name=graph.name,
        )
        codes = [
            _Record(
                "OperatorCode",
                deprecated_builtin_code=min(schema.OPERATOR_CODES[name], 127),
                version=VERSIONS[name],
                builtin_code=schema.OPERATOR_CODES[name],
            )
            for name in self._codes
        ]
        return _Record(
            "Model",
            version=schema.FORMAT_VERSION,
            operator_codes=codes,
            subgraphs=[subgraph],
            description="Tessera",
            buffers=self._buffers,
        )

    def _input(self) -> int:
        tensor = self._graph.tensors[self._graph.input]
        if not self._graph.input_is_uint8:
            return self._activation(tensor.name)
        quant = Quantization(tensor.quant.scale, tensor.quant.zero_point + 128)
        first = self._tensor(f"{tensor.name}/uint8", (1, *tensor.shape), schema.UINT8, quant)
        inside = self._activation(tensor.name)
        self._operator("QUANTIZE", [first], inside, _Options("QuantizeOptions", {}))
        return first

    def _activation(self, name: str) -> int:
        tensor = self._graph.tensors[name]
        self._index[name] = self._tensor(name, (1, *tensor.shape), schema.INT8, tensor.quant)
        return self._index[name]

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int,
        quant: Quantization | np.ndarray | None,
        axis: int = 0,
        data: np.ndarray | None = None,
    ) -> int:
        """Append a tensor; `quant` is per tensor, or scales per channel along `axis` with zero points 0."""
        record = _Record("Tensor", shape=np.array(shape, np.int32), type=kind, buffer=0, name=name)
        if quant is not None:
            per_tensor = isinstance(quant, Quantization)
            scales, points = ([quant.scale], [quant.zero_point]) if per_tensor else (quant, np.zeros(len(quant)))
            record["quantization"] = _Record(
                "QuantizationParameters",
                scale=np.asarray(scales, np.float32),
                zero_point=np.asarray(points, np.int64),
                quantized_dimension=axis,
            )
        if data is not None:
            record["buffer"] = len(self._buffers)
            self._buffers.append(_Record("Buffer", data=np.frombuffer(data.tobytes(), np.uint8)))
        self._tensors.append(record)
        return len(self._tensors) - 1

    def _operator(self, name: str, inputs: list[int], output: int, options: _Options) -> None:
        if name not in self._codes:
            self._codes.append(name)
        self._operators.append(
            _Record(
                "Operator",
                opcode_index=self._codes.index(name),
                inputs=np.array(inputs, np.int32),
                outputs=np.array([output], np.int32),
                builtin_options_type=schema.OPTIONS_TYPE[options.kind],
                builtin_options=_Record(options.kind, **options.fields),
            )
        )

    def _constants(self, op: Op, weights: Weights, values: np.ndarray, axis: int) -> list[int]:
        source = self._graph.tensors[op.inputs[0]].quant
        bias_scales = (source.scale * weights.scales.astype(np.float64)).astype(np.float32)
        return [
            self._tensor(f"{op.output}/weights", values.shape, schema.INT8, weights.scales, axis, values),
            self._tensor(f"{op.output}/bias", weights.bias.shape, schema.INT32, bias_scales, 0, weights.bias.astype("<i4")),
        ]

    def _padded(self, op: Op, window: Window, constant: int | None = None) -> tuple[int, int]:
        """(tensor to read, SAME or VALID): the operator's input, behind a PAD where neither says it.

        `constant` is the int8 to pad with; None is the zero point.
        """
        tensor = self._graph.tensors[op.inputs[0]]
        source, padding = self._index[tensor.name], window.padding
        if padding == same_padding(tensor.shape, window.kernel, window.stride):
            return source, schema.SAME
        if not any(padding):
            return source, schema.VALID
        sides = np.array([(0, 0), padding[0::2], padding[1::2], (0, 0)], "<i4")
        inputs = [source, self._tensor(f"{op.output}/paddings", (4, 2), schema.INT32, None, data=sides)]
        if constant is not None:
            value = np.array([constant], np.int8)
            inputs.append(self._tensor(f"{op.output}/pad_value", (1,), schema.INT8, tensor.quant, data=value))
        shape = tensor.shape
        size = (1, shape.h + padding.top + padding.bottom, shape.w + padding.left + padding.right, shape.c)
        padded = self._tensor(f"{op.output}/padded", size, schema.INT8, tensor.quant)
        name, options = ("PAD", "PadOptions") if constant is None else ("PADV2", "PadV2Options")
        self._operator(name, inputs, padded, _Options(options, {}))
        return padded, schema.VALID

    def _window_fields(self, window: Window, padding: int, activation: str) -> dict[str, int]:
        return {
            "padding": padding,
            "stride_h": window.stride[0],
            "stride_w": window.stride[1],
            "fused_activation_function": schema.ACTIVATIONS.index(activation),
        }

    def _convolution(self, op: Op) -> None:
        params: Conv2D = op.params
        source, padding = self._padded(op, params.window)
        constants = self._constants(op, params.weights, params.weights.values, 0)
        fields = self._window_fields(params.window, padding, params.clamp.name)
        options = _Options("Conv2DOptions", fields | {"dilation_w_factor": 1, "dilation_h_factor": 1})
        self._operator("CONV_2D", [source, *constants], self._activation(op.output), options)

    def _depthwise(self, op: Op) -> None:
        params: DepthwiseConv2D = op.params
        source, padding = self._padded(op, params.window)
        constants = self._constants(op, params.weights, params.weights.values[None], 3)
        fields = self._window_fields(params.window, padding, params.clamp.name)
        fields |= {"depth_multiplier": params.multiplier, "dilation_w_factor": 1, "dilation_h_factor": 1}
        options = _Options("DepthwiseConv2DOptions", fields)
        self._operator("DEPTHWISE_CONV_2D", [source, *constants], self._activation(op.output), options)

    def _addition(self, op: Op) -> None:
        options = _Options("AddOptions", {"fused_activation_function": schema.ACTIVATIONS.index(op.params.clamp.name)})
        self._operator("ADD", [self._index[name] for name in op.inputs], self._activation(op.output), options)

    def _max_pooling(self, op: Op) -> None:
        params: MaxPool2D = op.params
        source, padding = self._padded(op, params.window, constant=-128)
        fields = self._window_fields(params.window, padding, params.clamp.name)
        fields |= {"filter_height": params.window.kernel[0], "filter_width": params.window.kernel[1]}
        self._operator("MAX_POOL_2D", [source], self._activation(op.output), _Options("Pool2DOptions", fields))

    def _upsampling(self, op: Op) -> None:
        size = np.array(self._graph.tensors[op.output].shape[:2], "<i4")
        inputs = [self._index[op.inputs[0]], self._tensor(f"{op.output}/size", (2,), schema.INT32, None, data=size)]
        options = _Options("ResizeNearestNeighborOptions", {})
        self._operator("RESIZE_NEAREST_NEIGHBOR", inputs, self._activation(op.output), options)


def _serialize(builder: flatbuffers.Builder, record: _Record) -> int:
    """Write a table after everything that it refers to; its offset."""
    fields = schema.TABLES[record.kind]
    offsets = {}
    for name, value in record.items():
        if isinstance(value, str):
            offsets[name] = builder.CreateString(value)
        elif isinstance(value, np.ndarray):
            offsets[name] = _vector(builder, value, 16 if record.kind == "Buffer" else value.itemsize)
        elif isinstance(value, list):
            items = [_serialize(builder, item) for item in value]
            builder.StartVector(4, len(items), 4)
            for item in reversed(items):
                builder.PrependUOffsetTRelative(item)
            offsets[name] = builder.EndVector()
        elif isinstance(value, _Record):
            offsets[name] = _serialize(builder, value)
    builder.StartObject(len(fields))
    for name, value in record.items():
        slot, kind = fields[name]
        if name in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
        else:
            _PREPEND[kind](builder, slot, value, None)  # written even when it is the default
    return builder.EndObject()


_PREPEND = {
    "i8": flatbuffers.Builder.PrependInt8Slot,
    "u8": flatbuffers.Builder.PrependUint8Slot,
    "i32": flatbuffers.Builder.PrependInt32Slot,
    "u32": flatbuffers.Builder.PrependUint32Slot,
    "bool": flatbuffers.Builder.PrependBoolSlot,
}


def _vector(builder: flatbuffers.Builder, values: np.ndarray, alignment: int) -> int:
    data = values.tobytes()
    builder.StartVector(1, len(data), max(4, alignment))
    builder.head = builder.head - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    builder.vectorNumElems = len(values)
    return builder.EndVector()
