"""Mutations of a .tflite file that know its structure: numbers that the schema names, one by one, wherever they lie."""

import random
from collections.abc import Iterator

from firmware.compiler import tflite_schema as schema
from firmware.compiler.flatbuffer import _SCALARS, FlatbufferError, Table

INTERESTING = (0, 1, 2, 3, 4, 7, 8, 16, 17, 127, 128, 255, 256, 1001, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
OPTIONS = {number: kind for kind, number in schema.OPTIONS_TYPE.items()}
MOST_TABLES = 2000
MOST_ITEMS = 16  # of a vector of numbers

Place = tuple[int, int]  # position and width in bytes


def mutate_tflite(data: bytes, seed: int) -> bytes:
    """The file with up to four numbers changed, or moved from one field to another; unchanged when it cannot be walked."""
    rng, changed = random.Random(seed), bytearray(data)
    try:
        places = list(_places(data))
    except (FlatbufferError, KeyError):
        return data
    for _ in range(rng.randint(1, 4) if places else 0):
        position, width = rng.choice(places)
        value = int.from_bytes(changed[position : position + width], "little")
        changed[position : position + width] = (_another(rng, value, changed, places) % 256**width).to_bytes(width, "little")
    return bytes(changed)


def _another(rng: random.Random, value: int, data: bytearray, places: list[Place]) -> int:
    match rng.randrange(4):
        case 0:
            return rng.choice(INTERESTING)
        case 1:
            return value + rng.randint(-2, 2)
        case 2:
            return value ^ 1 << rng.randrange(64)
        case _:
            position, width = rng.choice(places)
            return int.from_bytes(data[position : position + width], "little")


def _places(data: bytes) -> Iterator[Place]:
    """Every number that a reader may look at: fields, which fields there are, lengths, items."""
    waiting = [Table.root(data, "Model", schema.TABLES)]
    for _ in range(MOST_TABLES):
        if not waiting:
            return
        table = waiting.pop()
        for name, (slot, kind) in schema.TABLES[table._kind].items():
            position = table._field_position(slot)
            if position is None:
                continue
            yield table._vtable + 4 + 2 * slot, 2
            if kind in _SCALARS:
                yield position, _SCALARS[kind].itemsize
            elif kind == "str" or kind[1:-1] in _SCALARS:
                width = 1 if kind == "str" else _SCALARS[kind[1:-1]].itemsize
                start, count = table._vector(slot, width, name)
                yield start - 4, 4
                yield from ((start + width * n, width) for n in range(min(count, MOST_ITEMS)))
            elif kind.startswith("["):
                yield table._vector(slot, 4, name)[0] - 4, 4
                waiting += table.tables(name)
            elif kind != "table":
                waiting.append(table.table(name))
            elif table._kind == "Operator" and (options := OPTIONS.get(table.number("builtin_options_type"))):
                waiting.append(table.table(name, options))
