"""Graph -> .tflite bytes: exactly the operators and tensors of the graph, exact scales, the same bytes every time.

Padding that equals TensorFlow's SAME or VALID is written as such; any other becomes a PAD operator (PADV2 with -128
before a maximum), which `tflite_read` folds back.
"""

import json
from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.graph import Graph, Quantization
from firmware.compiler.tflite_emit import EMIT, VERSIONS
from firmware.compiler.tflite_file import FileBuilder, Options, Record
from firmware.compiler.verify import verify


def write_tflite(graph: Graph, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The graph as a .tflite file; `metadata` (JSON-able) is kept in it under the name "tessera".

    Raises GraphError when the graph breaks a rule.
    """
    model = _model(FileBuilder(verify(graph)))
    if metadata is not None:
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        model["metadata"] = [Record("Metadata", name=schema.METADATA_NAME, buffer=len(model["buffers"]))]
        model["buffers"].append(Record("Buffer", data=np.frombuffer(text, np.uint8)))
    builder = flatbuffers.Builder(sum(len(b.get("data", ())) for b in model["buffers"]) + 65536)
    builder.Finish(_serialize(builder, model), file_identifier=schema.FILE_IDENTIFIER)
    return bytes(builder.Output())


def _model(file: FileBuilder) -> Record:
    graph = file.graph
    first = _input(file)
    for op in graph.ops:
        EMIT[type(op.params)](file, op)
    subgraph = Record(
        "SubGraph",
        tensors=file.tensors,
        inputs=np.array([first], np.int32),
        outputs=np.array([file.index[name] for name in graph.outputs], np.int32),
        operators=file.operators,
        name=graph.name,
    )
    codes = [
        Record(
            "OperatorCode",
            deprecated_builtin_code=min(schema.OPERATOR_CODES[name], 127),
            version=VERSIONS[name],
            builtin_code=schema.OPERATOR_CODES[name],
        )
        for name in file.codes
    ]
    return Record(
        "Model",
        version=schema.FORMAT_VERSION,
        operator_codes=codes,
        subgraphs=[subgraph],
        description="Tessera",
        buffers=file.buffers,
    )


def _input(file: FileBuilder) -> int:
    tensor = file.graph.tensors[file.graph.input]
    if not file.graph.input_is_uint8:
        return file.activation(tensor.name)
    quant = Quantization(tensor.quant.scale, tensor.quant.zero_point + 128)
    first = file.tensor(f"{tensor.name}/uint8", (1, *tensor.shape), schema.UINT8, quant)
    inside = file.activation(tensor.name)
    file.operator("QUANTIZE", [first], inside, Options("QuantizeOptions", {}))
    return first


def _serialize(builder: flatbuffers.Builder, record: Record) -> int:
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
        elif isinstance(value, Record):
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
    "f32": flatbuffers.Builder.PrependFloat32Slot,
    "bool": flatbuffers.Builder.PrependBoolSlot,
}


def _vector(builder: flatbuffers.Builder, values: np.ndarray, alignment: int) -> int:
    data = values.tobytes()
    builder.StartVector(1, len(data), max(4, alignment))
    builder.head = builder.head - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    builder.vectorNumElems = len(values)
    return builder.EndVector()
