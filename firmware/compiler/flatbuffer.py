"""A FlatBuffers reader that trusts nothing: every offset and length is checked before it is followed.

The official Python package checks nothing, so a damaged file ends in an IndexError, a struct.error or a wrong answer.
Here it ends in FlatbufferError. There is no recursion, and vectors of tables are bounded.
"""

import struct
from collections.abc import Mapping

import numpy as np

MAX_TABLES = 20_000  # in one vector; real networks have some hundred operators

_SCALARS = {
    "i8": np.dtype("<i1"),
    "u8": np.dtype("<u1"),
    "bool": np.dtype("<u1"),
    "i32": np.dtype("<i4"),
    "u32": np.dtype("<u4"),
    "i64": np.dtype("<i8"),
    "u64": np.dtype("<u8"),
    "f32": np.dtype("<f4"),
}


class FlatbufferError(ValueError):
    """The bytes are not what they claim to be."""


class Table:
    """One table: fields by name, as `schema[kind]` lists them (name -> (slot, type))."""

    def __init__(self, data: bytes, position: int, kind: str, schema: Mapping[str, Mapping[str, tuple[int, str]]]):
        self._data, self._position, self._kind, self._schema = data, position, kind, schema
        vtable = position - self._number("<i", position)
        self._vtable, self._vtable_size = vtable, self._number("<H", vtable)
        if self._vtable_size < 4 or self._vtable_size % 2 or vtable + self._vtable_size > len(data):
            raise self._error("has a damaged field list")

    @staticmethod
    def root(data: bytes, kind: str, schema: Mapping[str, Mapping[str, tuple[int, str]]]) -> "Table":
        """The outermost table of a file."""
        if len(data) < 8:
            raise FlatbufferError(f"{len(data)} bytes are too few for a file")
        return Table(data, struct.unpack_from("<I", data)[0], kind, schema)

    def number(self, name: str, default: int | float = 0) -> int | float | bool:
        """A scalar field."""
        slot, kind = self._field(name)
        position = self._field_position(slot)
        if position is None:
            return default
        dtype = _SCALARS[kind]
        self._check(position, dtype.itemsize, name)
        return np.frombuffer(self._data, dtype, 1, position)[0].item()

    def numbers(self, name: str) -> np.ndarray | None:
        """A vector of scalars as a read-only view; None when absent."""
        slot, kind = self._field(name)
        dtype = _SCALARS[kind[1:-1]]
        found = self._vector(slot, dtype.itemsize, name)
        return None if found is None else np.frombuffer(self._data, dtype, found[1], found[0])

    def text(self, name: str) -> str:
        """A string; empty when absent, damaged letters replaced."""
        found = self._vector(self._field(name)[0], 1, name)
        return "" if found is None else self._data[found[0] : found[0] + found[1]].decode("utf-8", "replace")

    def table(self, name: str, kind: str | None = None) -> "Table | None":
        """A sub-table, None when absent; `kind` is needed for members of a union."""
        slot, declared = self._field(name)
        position = self._field_position(slot)
        return None if position is None else self._follow(position, kind or declared)

    def tables(self, name: str) -> list["Table"]:
        """A vector of tables; empty when absent."""
        slot, kind = self._field(name)
        found = self._vector(slot, 4, name)
        if found is None:
            return []
        if found[1] > MAX_TABLES:
            raise self._error(f"claims {found[1]} {name}, more than {MAX_TABLES}")
        return [self._follow(found[0] + 4 * index, kind[1:-1]) for index in range(found[1])]

    def _field(self, name: str) -> tuple[int, str]:
        return self._schema[self._kind][name]

    def _field_position(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = self._number("<H", self._vtable + entry)
        return self._position + offset if offset else None

    def _vector(self, slot: int, item_size: int, name: str) -> tuple[int, int] | None:
        """(position of the first element, count)."""
        position = self._field_position(slot)
        if position is None:
            return None
        start = position + self._number("<I", position)
        count = self._number("<I", start)
        self._check(start + 4, count * item_size, name)
        return start + 4, count

    def _follow(self, position: int, kind: str) -> "Table":
        return Table(self._data, position + self._number("<I", position), kind, self._schema)

    def _number(self, code: str, position: int) -> int:
        self._check(position, struct.calcsize(code), "offset")
        return struct.unpack_from(code, self._data, position)[0]

    def _check(self, position: int, size: int, what: str) -> None:
        if position < 0 or position + size > len(self._data):
            raise self._error(f"has its {what} at bytes {position}..{position + size}, the file has {len(self._data)}")

    def _error(self, problem: str) -> FlatbufferError:
        return FlatbufferError(f"{self._kind} {problem}: the file is cut off or damaged")
