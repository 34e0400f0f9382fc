"""A Deployment as the bytes of model.tess: SPEC.md section 4, field by field. Same input, same bytes."""

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from firmware.compiler import tables
from firmware.compiler.decode import DecodeSpec
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
    Op,
    Pad,
    Reshape,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Transpose,
    operand_quantizations,
)
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.kernels_pixel import mean_count
from firmware.compiler.memory import LETTERBOX, fresh_key
from firmware.compiler.program import Program
from firmware.compiler.requantize import Addition, accumulator_multipliers, mean_multiplier, quantize_multipliers
from firmware.compiler.schedule import reference_of
from firmware.compiler.search import Deployment

MAGIC, VERSION, ISA_REFERENCE = b"TESS", 2, 0
HEADER_BYTES, NODE_BYTES = 96, 68
PAD_BYTE = 114
SELFTEST_SEED = 0x7E55E7A
KINDS = {
    "source": 0,
    Conv2D: 1,
    FullyConnected: 1,  # a convolution whose kernel is the whole map
    DepthwiseConv2D: 2,
    Add: 3,
    MaxPool2D: 4,
    ResizeNearest: 5,
    "sink": 6,
    AveragePool2D: 7,
    Mean: 8,
    Softmax: 9,
    Lookup: 10,
    Mul: 11,
    Sub: 12,
    Concat: 13,
    Slice: 14,
    Pad: 15,
    Reshape: 16,
    Transpose: 17,
}
FLAG_SEQUENTIAL = 1  # of the header
FLAG_LATCH = 16  # of a node, for its first input; for the next ones times 2, 4, 8
NONE = 0xFFFF


@dataclass
class _Data:
    """The data section while it grows; equal pieces are stored once."""

    start: int
    content: bytearray = field(default_factory=bytearray)
    known: dict[bytes, int] = field(default_factory=dict)

    def put(self, piece: bytes) -> int:
        """Offset from the start of the file; a multiple of 4."""
        if piece not in self.known:
            self.content.extend(b"\0" * (-len(self.content) % 4))
            self.known[piece] = self.start + len(self.content)
            self.content.extend(piece)
        return self.known[piece]

    def text(self, *texts: str) -> int:
        return self.put(b"".join(t.encode() + b"\0" for t in texts))


def write_image(deployment: Deployment, decode: DecodeSpec | None, tflite_sha256: bytes) -> bytes:
    """The file that a chip runs. `tflite_sha256` (32 bytes) says which model.tflite it came from."""
    program = deployment.scheduled.program
    nodes_at = HEADER_BYTES
    segments_at = _align16(nodes_at + NODE_BYTES * len(program.nodes))
    outputs_at = _align16(segments_at + 16 * len(deployment.schedule.segments))
    decode_at = _align16(outputs_at + 8 * len(program.graph.outputs))
    decode_size = 0 if decode is None else 32 + 24 * len(decode.levels)
    data = _Data(_align16(decode_at + decode_size))
    sections = {
        nodes_at: b"".join(_node(deployment, i, data) for i in range(len(program.nodes))),
        segments_at: b"".join(_segment(program, s) for s in deployment.schedule.segments),
        outputs_at: b"".join(
            struct.pack("<HHI", program.node_of_tensor[name], program.sink_of_output[o], data.text(name))
            for o, name in enumerate(program.graph.outputs)
        ),
    }
    if decode is not None:
        sections[decode_at] = _decode(program, decode, data)
    name_at = data.text(program.graph.name)
    total = _align16(data.start + len(data.content) + 1)  # the section ends with 0, so every string in it ends
    picture = program.nodes[0].shape
    tail = struct.pack(
        "<I3HBB4H",
        deployment.cost.sram.activations,
        *picture,
        PAD_BYTE,
        FLAG_SEQUENTIAL if deployment.scheduled.sequential else 0,
        len(program.nodes),
        len(deployment.schedule.segments),
        len(program.graph.outputs),
        0,
    ) + struct.pack(
        "<9I16s2I",
        nodes_at,
        segments_at,
        outputs_at,
        0 if decode is None else decode_at,
        data.start,
        total - data.start,
        name_at,
        SELFTEST_SEED,
        selftest_checksum(program),
        tflite_sha256[:16],
        deployment.plan.offsets[LETTERBOX],
        0,
    )
    body = bytearray(total - 16)
    body[: len(tail)] = tail
    for at, content in [*sections.items(), (data.start, bytes(data.content))]:
        body[at - 16 : at - 16 + len(content)] = content
    return struct.pack("<4sHHII", MAGIC, VERSION, ISA_REFERENCE, total, zlib.crc32(body)) + bytes(body)


def _align16(offset: int) -> int:
    return -(-offset // 16) * 16


def _node(deployment: Deployment, index: int, data: _Data) -> bytes:
    program = deployment.scheduled.program
    graph, node = program.graph, program.nodes[index]
    op = None if node.op is None else graph.ops[node.op]
    tensor = graph.tensors[graph.input if op is None else op.output] if node.kind != "sink" else None
    buffer = deployment.scheduled.buffers[index]
    shape = node.shape if op is None else graph.tensors[op.inputs[0]].shape
    geometry = _geometry(op, shape)
    inputs = [*node.inputs, *[NONE] * (4 - len(node.inputs))]
    return struct.pack(
        "<4B4H3H3b6BbI2Hf4I4HI",
        KINDS[node.kind if op is None else type(op.params)],
        len(node.inputs),
        _flags(deployment, index),
        geometry.multiplier,
        *inputs,
        *node.shape,
        0 if tensor is None else tensor.quant.zero_point,
        *geometry.clamp,
        *geometry.kernel,
        *geometry.stride,
        *geometry.pad,
        geometry.fill,
        0 if buffer is None else deployment.plan.offsets[index],
        0 if buffer is None else buffer.rows,
        0 if buffer is None else buffer.cols,
        0.0 if tensor is None else tensor.quant.scale,
        *_constants(program, op, data),
        *geometry.start,
        0 if buffer is None else buffer.fresh,
        deployment.plan.offsets.get(fresh_key(index), 0),
    )


def _flags(deployment: Deployment, index: int) -> int:
    program, buffers = deployment.scheduled.program, deployment.scheduled.buffers
    flags = 1 if buffers[index] is not None and buffers[index].materialised else 0
    inputs = program.nodes[index].inputs
    for j in dict.fromkeys(inputs):
        if buffers[j].fresh and program.last_reader[j] == index:
            flags |= FLAG_LATCH << inputs.index(j)
    return flags


class _Geometry(NamedTuple):
    """What a node states about its window, or what stands in its place."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)  # before
    clamp: tuple[int, int] = (-128, 127)
    multiplier: int = 0
    fill: int = 0
    start: tuple[int, int, int] = (0, 0, 0)


def _geometry(op: Op | None, source: Shape) -> _Geometry:
    """`source` is the shape of the operator's first input."""
    params = None if op is None else op.params
    match params:
        case Conv2D() | DepthwiseConv2D() | MaxPool2D() | AveragePool2D():
            window, clamp = params.window, (params.clamp.low, params.clamp.high)
            multiplier = params.multiplier if isinstance(params, DepthwiseConv2D) else 0
            return _Geometry(window.kernel, window.stride, window.padding[:2], clamp, multiplier)
        case FullyConnected():
            return _Geometry(source[:2], clamp=(params.clamp.low, params.clamp.high))
        case Add() | Sub() | Mul():
            first, zero_point = (0, 0) if params.operand is None else (params.operand.first, params.operand.quant.zero_point)
            return _Geometry(clamp=(params.clamp.low, params.clamp.high), multiplier=first, fill=zero_point)
        case Concat():
            return _Geometry(start=tuple(int(dim == params.axis) for dim in (0, 1, 2)))
        case Transpose():
            return _Geometry(start=params.order)
        case ResizeNearest():
            return _Geometry(stride=params.factor)
        case Slice():
            return _Geometry(start=params.start)
        case Pad():
            return _Geometry(pad=params.padding[:2], fill=params.value)
    return _Geometry()


def _constants(program: Program, op: Op | None, data: _Data) -> tuple[int, int, int, int]:
    """Offsets of (weights, bias, multipliers, shifts); 0 where there are none."""
    if op is None:
        return 0, 0, 0, 0
    if isinstance(op.params, Conv2D | DepthwiseConv2D | FullyConnected):
        return _weights(program, op, data)
    numbers, operand = _numbers(program, op), getattr(op.params, "operand", None)
    values = data.put(np.array(operand.values, np.int8).tobytes()) if isinstance(operand, ChannelOperand) else 0
    return (0 if numbers is None else data.put(numbers)), values, 0, 0


def _numbers(program: Program, op: Op) -> bytes | None:
    """What stands in the place of weights, None when there is nothing."""
    sources = [program.graph.tensors[name] for name in op.inputs]
    quants, out = [tensor.quant for tensor in sources], program.graph.tensors[op.output].quant
    match op.params:
        case Add() | Sub():
            sums = Addition.build(*(quant.scale for quant in operand_quantizations(program.graph.tensors, op)), out.scale)
            return struct.pack("<7i", *sums.first, *sums.second, *sums.out, sums.left_shift)
        case Mul():
            return struct.pack("<2i", *tables.product_multiplier(*operand_quantizations(program.graph.tensors, op), out))
        case Mean():
            return struct.pack("<2i", *mean_multiplier(mean_count(op.params, sources[0].shape), quants[0].scale, out.scale))
        case Softmax():
            return tables.softmax_table(op.params.beta, quants[0].scale).astype("<i4").tobytes()
        case Lookup():
            return tables.lookup_table(op.params, quants[0], out).tobytes()
    return None


def _weights(program: Program, op: Op, data: _Data) -> tuple[int, int, int, int]:
    tensors, weights = program.graph.tensors, op.params.weights
    reals = accumulator_multipliers(op.params, tensors[op.inputs[0]].quant.scale, tensors[op.output].quant.scale)
    multipliers, shifts = quantize_multipliers(reals)
    return (
        data.put(weights.values.astype(np.int8).tobytes()),
        data.put(weights.bias.astype("<i4").tobytes()),
        data.put(multipliers.astype("<i4").tobytes()),
        data.put(shifts.astype(np.int8).tobytes()),
    )


def _segment(program: Program, segment) -> bytes:
    reference = reference_of(program, segment)
    return struct.pack(
        "<5HBBI", segment.first, segment.stop - segment.first, segment.columns, segment.rows, reference, segment.carry, 0, 0
    )


def _decode(program: Program, decode: DecodeSpec, data: _Data) -> bytes:
    head = struct.pack(
        "<6H5I",
        len(decode.levels),
        decode.num_classes,
        decode.score_threshold,
        decode.iou_threshold,
        decode.max_candidates,
        decode.max_detections,
        data.text(*decode.class_names),
        0,
        0,
        0,
        0,
    )
    first_cell, levels = 0, []
    for level in decode.levels:
        output = program.graph.outputs.index(level.objectness)
        levels.append(
            struct.pack(
                "<2H5I",
                level.stride,
                program.sink_of_output[output],
                first_cell,
                data.put(level.objectness_table.astype("<u2").tobytes()),
                0 if level.class_table is None else data.put(level.class_table.astype("<u2").tobytes()),
                data.put(level.distance_table.astype("<i2").tobytes()),
                0,
            )
        )
        first_cell += level.rows * level.cols
    return head + b"".join(levels)


def selftest_frame(height: int, width: int, channels: int, seed: int = SELFTEST_SEED) -> np.ndarray:
    """The test picture of SPEC.md, uint8 (height, width, channels): xorshift32 noise, each row from its own state."""
    rows = np.arange(height, dtype=np.uint64)
    state = ((seed + rows * 0x9E3779B9) & 0xFFFFFFFF | 1).astype(np.uint32)
    frame = np.empty((height, width * channels), np.uint8)
    for n in range(width * channels):
        state = state ^ (state << np.uint32(13))
        state = state ^ (state >> np.uint32(17))
        state = state ^ (state << np.uint32(5))
        frame[:, n] = state >> np.uint32(24)
    return frame.reshape(height, width, channels)


def output_checksum(outputs: dict[str, np.ndarray], order: tuple[str, ...]) -> int:
    """SPEC.md's checksum of int8 outputs; independent of the order in which rows arrive."""
    total = 0
    for number, name in enumerate(order):
        values = (outputs[name].reshape(-1).astype(np.int64) + 129).astype(np.uint64)
        positions = np.arange(values.size, dtype=np.uint64) + np.uint64(number * 0x01000193)
        weights = (positions * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF) | np.uint64(1)
        total += int((values * weights & np.uint64(0xFFFFFFFF)).sum())
    return total & 0xFFFFFFFF


def selftest_checksum(program: Program) -> int:
    """What the runtime must find for the test picture."""
    frame = selftest_frame(*program.nodes[0].shape)
    return output_checksum(Interpreter(program.graph).run(frame), program.graph.outputs)
