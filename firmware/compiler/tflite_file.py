"""A .tflite file while it is being written: tensors, buffers and operators, numbered in order of appearance.

What each operator becomes is `tflite_emit.py`'s, the bytes of it all `tflite_write.py`'s.
"""

from typing import Any, NamedTuple

import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.graph import Graph, Quantization


class Record(dict):
    """A table to be written: kind and fields by name."""

    def __init__(self, kind: str, **fields: Any) -> None:
        super().__init__(fields)
        self.kind = kind


class Options(NamedTuple):
    kind: str
    fields: dict[str, Any]


class FileBuilder:
    """Buffer 0 is empty, as TFLite demands."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors: list[Record] = []
        self.buffers = [Record("Buffer")]
        self.codes: list[str] = []
        self.operators: list[Record] = []
        self.index: dict[str, int] = {}  # tensors of the graph by name

    def activation(self, name: str) -> int:
        """Append a tensor of the graph."""
        tensor = self.graph.tensors[name]
        self.index[name] = self.tensor(name, (1, *tensor.shape), schema.INT8, tensor.quant)
        return self.index[name]

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int,
        quant: Quantization | np.ndarray | None,
        axis: int = 0,
        data: np.ndarray | None = None,
    ) -> int:
        """Append a tensor; `quant` is per tensor, or scales per channel along `axis` with zero points 0."""
        record = Record("Tensor", shape=np.array(shape, np.int32), type=kind, buffer=0, name=name)
        if quant is not None:
            per_tensor = isinstance(quant, Quantization)
            scales, points = ([quant.scale], [quant.zero_point]) if per_tensor else (quant, np.zeros(len(quant)))
            record["quantization"] = Record(
                "QuantizationParameters",
                scale=np.asarray(scales, np.float32),
                zero_point=np.asarray(points, np.int64),
                quantized_dimension=axis,
            )
        if data is not None:
            record["buffer"] = len(self.buffers)
            self.buffers.append(Record("Buffer", data=np.frombuffer(data.tobytes(), np.uint8)))
        self.tensors.append(record)
        return len(self.tensors) - 1

    def operator(self, name: str, inputs: list[int], output: int, options: Options | None) -> None:
        """Append an operator; `options` is None for kinds that have none."""
        if name not in self.codes:
            self.codes.append(name)
        record = Record(
            "Operator",
            opcode_index=self.codes.index(name),
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
        )
        if options is not None:
            record["builtin_options_type"] = schema.OPTIONS_TYPE[options.kind]
            record["builtin_options"] = Record(options.kind, **options.fields)
        self.operators.append(record)

    def constant(
        self, name: str, values: np.ndarray, kind: int, quant: Quantization | np.ndarray | None = None, axis: int = 0
    ) -> int:
        """Append a tensor that holds `values`."""
        return self.tensor(name, values.shape, kind, quant, axis, values)
