"""The bytes of a .tflite file -> plain records, checked one by one; what they mean as a network is `tflite_read.py`'s."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.flatbuffer import FlatbufferError, Table
from firmware.compiler.graph import GraphError, Quantization, Shape

MAX_SIDE = 65_535  # of any dimension; SPEC.md has 16 bits for it
DTYPES = {schema.INT8: np.dtype("i1"), schema.INT32: np.dtype("<i4"), schema.INT64: np.dtype("<i8")}
MAX_MESSAGE = 1500
MAX_CONSTANT_BYTES = 1 << 28  # all constants of one network together; shared buffers count each time


class TfliteError(GraphError):
    """A file that is no readable .tflite, or a network that this project does not run. Names culprit and way out.

    The message is one line of readable length, whatever the names in the file are.
    """

    def __init__(self, message: str) -> None:
        line = "".join(letter if letter.isprintable() else "?" for letter in message)
        super().__init__(line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE // 2]} ... {line[-MAX_MESSAGE // 2 :]}")


class FileTensor(NamedTuple):
    """A tensor of the file. `data` is None for activations."""

    index: int
    name: str
    shape: tuple[int, ...]
    type: int
    scales: np.ndarray  # float32
    zero_points: np.ndarray  # int64
    axis: int  # that scales run along when there are several
    data: np.ndarray | None  # bytes

    def __str__(self) -> str:
        return f"'{self.short_name or self.index}'"

    @property
    def short_name(self) -> str:
        """Converters join the names of everything that they fused with semicolons; the first says enough."""
        return self.name.split(";")[0]

    @property
    def type_name(self) -> str:
        return schema.TYPE_NAMES[self.type] if 0 <= self.type < len(schema.TYPE_NAMES) else f"type {self.type}"

    def constant(self) -> np.ndarray:
        """The values of a constant, shaped. Raises TfliteError when it is none or its size is wrong."""
        dtype = DTYPES.get(self.type)
        if self.data is None or dtype is None:
            raise TfliteError(f"tensor {self} ({self.type_name}) should hold constants of type int8, int32 or int64")
        expected = int(np.prod(self.shape, dtype=object)) * dtype.itemsize
        if len(self.data) != expected:
            raise TfliteError(f"tensor {self} is {self.shape} {self.type_name}: {expected} B, its buffer has {len(self.data)}")
        return np.frombuffer(self.data.tobytes(), dtype).reshape(self.shape)


class FileOperator(NamedTuple):
    """An operator of the file; inputs and outputs are tensor indices, -1 for an input that is left out."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_type: int
    record: Table

    def options(self, kind: str) -> Table | None:
        """The operator's settings; None when the file leaves them out (then all are defaults)."""
        return self.record.table("builtin_options", kind) if self.options_type == schema.OPTIONS_TYPE[kind] else None


class File(NamedTuple):
    name: str
    tensors: list[FileTensor]
    operators: list[FileOperator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def named(self, names: Sequence[str]) -> tuple[int, ...]:
        """Indices of the tensors that operators make under these names, or short names."""
        made = [self.tensors[index] for operator in reversed(self.operators) for index in operator.outputs]
        found = {tensor.short_name: tensor.index for tensor in made} | {tensor.name: tensor.index for tensor in made}
        for name in names:
            if name not in found:
                raise TfliteError(f"no operator makes a tensor named '{name}'")
        return tuple(found[name] for name in names)


def parse(data: bytes) -> File:
    """Read the first and only subgraph. Raises TfliteError whatever the bytes are."""
    try:
        return _parse(data)
    except FlatbufferError as error:
        raise TfliteError(str(error)) from error


def parse_metadata(data: bytes, name: str) -> bytes | None:
    """Bytes kept under a name in the file's metadata, None when there are none. Raises TfliteError."""
    try:
        model = _root(data)
        buffers = model.tables("buffers")
        for entry in model.tables("metadata"):
            if entry.text("name") == name:
                return _buffer(buffers, entry.number("buffer"), f"metadata '{name}'").tobytes()
        return None
    except FlatbufferError as error:
        raise TfliteError(str(error)) from error


def _root(data: bytes) -> Table:
    if data[4:8] != schema.FILE_IDENTIFIER:
        raise TfliteError("this is no .tflite file: it does not start with the mark TFL3 at byte 4")
    model = Table.root(data, "Model", schema.TABLES)
    if model.number("version") != schema.FORMAT_VERSION:
        raise TfliteError(f"schema version {model.number('version')} is unknown, expected {schema.FORMAT_VERSION}")
    return model


def _parse(data: bytes) -> File:
    model = _root(data)
    subgraphs = model.tables("subgraphs")
    if len(subgraphs) != 1:
        raise TfliteError(f"the file has {len(subgraphs)} subgraphs, only one is supported (no control flow)")
    graph, buffers = subgraphs[0], model.tables("buffers")
    kinds = [_operator_kind(code) for code in model.tables("operator_codes")]
    tensors = [_tensor(index, table, buffers) for index, table in enumerate(graph.tables("tensors"))]
    if sum(len(tensor.data) for tensor in tensors if tensor.data is not None) > MAX_CONSTANT_BYTES:
        raise TfliteError(f"the network's constants exceed {MAX_CONSTANT_BYTES} B")
    operators = [_operator(index, table, kinds, len(tensors)) for index, table in enumerate(graph.tables("operators"))]
    inputs = _indices(graph, "inputs", len(tensors), "the network")
    outputs = _indices(graph, "outputs", len(tensors), "the network")
    return File(graph.text("name"), tensors, operators, inputs, outputs)


def _operator_kind(code: Table) -> str:
    number = max(code.number("deprecated_builtin_code"), code.number("builtin_code"))
    name = schema.OPERATOR_NAMES[number] if 0 <= number < len(schema.OPERATOR_NAMES) else f"operator {number}"
    return f"CUSTOM {code.text('custom_code')}" if name == "CUSTOM" else name


def _tensor(index: int, table: Table, buffers: list[Table]) -> FileTensor:
    name = table.text("name")
    shape = table.numbers("shape")
    sides = () if shape is None else tuple(int(side) for side in shape)
    who = f"tensor '{name or index}'"
    if len(sides) > 8 or any(not 0 <= side <= MAX_SIDE for side in sides):
        raise TfliteError(f"{who} has shape {sides[:9]}: at most 8 sides, each 0 to {MAX_SIDE}")
    quantization = table.table("quantization")
    scales = points = None
    axis = 0
    if quantization is not None:
        if quantization.number("details_type"):
            raise TfliteError(f"{who} has custom quantisation")
        scales, points = quantization.numbers("scale"), quantization.numbers("zero_point")
        axis = quantization.number("quantized_dimension")
    if table.table("sparsity") is not None:
        raise TfliteError(f"{who} is sparse; densify the model first")
    if table.number("is_variable"):
        raise TfliteError(f"{who} is a variable; only networks without state are supported")
    data = _buffer(buffers, table.number("buffer"), who)
    return FileTensor(
        index,
        name,
        sides,
        table.number("type"),
        np.zeros(0, np.float32) if scales is None else scales.astype(np.float32),
        np.zeros(0, np.int64) if points is None else points.astype(np.int64),
        axis,
        data if len(data) else None,
    )


def _buffer(buffers: list[Table], index: int, who: str) -> np.ndarray:
    if index >= len(buffers):
        raise TfliteError(f"{who} refers to buffer {index}, the file has {len(buffers)}")
    if buffers[index].number("offset") or buffers[index].number("size"):
        raise TfliteError(f"{who} keeps its constants outside of the flatbuffer; write the model with buffers inside")
    data = buffers[index].numbers("data")
    return np.zeros(0, np.uint8) if data is None else data


def _operator(index: int, table: Table, kinds: list[str], tensor_count: int) -> FileOperator:
    code = table.number("opcode_index")
    if code >= len(kinds):
        raise TfliteError(f"operator #{index} has kind {code}, the file lists {len(kinds)} kinds")
    who = f"{kinds[code]} (#{index})"
    inputs = _indices(table, "inputs", tensor_count, who, optional=True)
    outputs = _indices(table, "outputs", tensor_count, who)
    return FileOperator(index, kinds[code], inputs, outputs, table.number("builtin_options_type"), table)


def _indices(table: Table, field: str, count: int, who: str, optional: bool = False) -> tuple[int, ...]:
    values = table.numbers(field)
    indices = () if values is None else tuple(int(value) for value in values[:1000])
    for index in indices:
        if not (-1 if optional else 0) <= index < count:
            raise TfliteError(f"{who} has {field[:-1]} {index}, the file has {count} tensors")
    return indices


def feature_shape(tensor: FileTensor) -> Shape:
    """Shape of an activation. Raises TfliteError unless it is (1, height, width, channels)."""
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or 0 in tensor.shape:
        raise TfliteError(f"tensor {tensor} is {tensor.shape}: expected (1, height, width, channels)")
    return Shape(*tensor.shape[1:])


def quantization(tensor: FileTensor) -> Quantization:
    """Scale and zero point of an int8 activation. Raises TfliteError for anything else."""
    if tensor.type != schema.INT8 or len(tensor.scales) != 1 or len(tensor.zero_points) != 1:
        raise TfliteError(f"tensor {tensor} is {tensor.type_name} with {len(tensor.scales)} scales: expected int8 with one")
    return Quantization(float(tensor.scales[0]), int(tensor.zero_points[0]))


def shifted_by_128(signed: FileTensor, unsigned: FileTensor) -> bool:
    """True when both stand for the same numbers, 128 apart."""
    if len(signed.scales) != 1 or len(unsigned.scales) != 1 or len(signed.zero_points) != 1 or len(unsigned.zero_points) != 1:
        return False
    return signed.scales[0] == unsigned.scales[0] and signed.zero_points[0] + 128 == unsigned.zero_points[0]
