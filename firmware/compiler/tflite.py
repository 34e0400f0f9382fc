"""Door to .tflite: write, read, metadata, and what it means that two graphs are equal."""

import json
from typing import Any

import numpy as np

from firmware.compiler.graph import Graph, Op, ResizeNearest
from firmware.compiler.tflite_parse import TfliteError, parse_metadata
from firmware.compiler.tflite_read import read_tflite
from firmware.compiler.tflite_schema import METADATA_NAME
from firmware.compiler.tflite_write import write_tflite

__all__ = ["TfliteError", "graphs_equal", "read_metadata", "read_tflite", "write_tflite"]


def read_metadata(data: bytes) -> dict[str, Any] | None:
    """The metadata that `write_tflite` was given, None when the file has none. Raises TfliteError when it is damaged."""
    found = parse_metadata(bytes(data), METADATA_NAME)
    if found is None:
        return None
    try:
        metadata = json.loads(found)
    except (ValueError, RecursionError) as error:
        raise TfliteError(f"metadata '{METADATA_NAME}' is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise TfliteError(f"metadata '{METADATA_NAME}' is {type(metadata).__name__}, expected an object")
    return metadata


def graphs_equal(first: Graph, second: Graph) -> bool:
    """True when tensors, operators, constants and outputs agree; operators' names, which files do not keep, may differ."""
    return (
        dict(first.tensors) == dict(second.tensors)
        and (first.input, first.outputs, first.input_is_uint8) == (second.input, second.outputs, second.input_is_uint8)
        and len(first.ops) == len(second.ops)
        and all(_ops_equal(a, b) for a, b in zip(first.ops, second.ops, strict=True))
    )


def _ops_equal(first: Op, second: Op) -> bool:
    if (first.kind, first.inputs, first.output) != (second.kind, second.inputs, second.output):
        return False
    if isinstance(first.params, ResizeNearest):
        return True  # the shapes, compared already, say what is read where; factor 2 crop 1 of one row is factor 1
    a, b = dict(vars(first.params)), dict(vars(second.params))
    weights = a.pop("weights", None), b.pop("weights", None)
    if a != b:
        return False
    if weights[0] is None:
        return True
    arrays = zip(vars(weights[0]).values(), vars(weights[1]).values(), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)
