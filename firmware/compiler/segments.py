"""The inner loops of the search, which run thousands of times for every front: in C (segments.c), built when first needed.

Tables of segments are contiguous arrays over (mode, first, stop); modes are in the order of `choices.MODES`.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from firmware.cc import SHARED, compile_c

SOURCE = Path(__file__).with_suffix(".c")
NEVER = np.int64(1) << 60  # the peak and work of what cannot be; a thousand of them still fit
# calm: the one that needs little memory everywhere, not at its worst step alone; apart: the one that leans least on overlaps,
# and whose longest segment, which sets the size of the runtime's state, is short; few: the one of fewest segments
Taste = Literal["calm", "apart", "few"]
_TASTES: dict[Taste, int] = {"calm": 0, "apart": 1, "few": 2}


class _Tables(ctypes.Structure):
    """`tables_t` of segments.c."""

    arrays = ("row_bytes", "reader", "widest", "whole", "savable", "work", "peak", "likely", "latched", "measured", "settled")
    _fields_ = [("count", ctypes.c_int32), ("columns", ctypes.c_int32), *((name, ctypes.c_void_p) for name in arrays)]


class Measures:
    """Tables of one program that flows are measured into; `arrays` as segments.c names and describes them."""

    def __init__(self, count: int, columns: int, **arrays: np.ndarray) -> None:
        for name, array in arrays.items():
            assert array.flags.c_contiguous and array.dtype == (bool if name in ("measured", "settled") else np.int64), name
        self.arrays = arrays  # the struct points into them
        self._tables = _Tables(count, columns, *(arrays[name].ctypes.data for name in _Tables.arrays))
        self._steps = np.empty(count + 1, np.int64)

    def measure(self, push: bool, first: int, rows: np.ndarray, firsts: np.ndarray, stops: np.ndarray) -> None:
        """Peaks of the runs [firsts[i], stops[i]) in every choice of columns, from one flow's `geometry.Rings.table`."""
        runs = firsts.ctypes.data, stops.ctypes.data, len(firsts)
        _library().segments_measure(
            ctypes.byref(self._tables), rows.ctypes.data, first, rows.shape[1], *runs, push, self._steps.ctypes.data
        )


def cheapest_path(
    work: np.ndarray, peaks: np.ndarray, leaning: np.ndarray, taste: Taste, most: int, limit: int
) -> Sequence[tuple[int, int, int]]:
    """(mode, first, stop) of each step of the path of least work, of steps whose `peaks` are at most `limit`; of equals, what
    `taste` likes best, judged by bytes as shares of `most` and, for one taste, by `leaning`; empty where there is none."""
    modes, side = work.shape[:2]
    least, path = np.empty((3, side), np.int64), np.empty((side, 3), np.int32)
    tables = (table.ctypes.data for table in (work, peaks, leaning))
    found = _library().segments_path(side - 1, modes, *tables, _TASTES[taste], most, limit, least.ctypes.data, path.ctypes.data)
    return [tuple(step) for step in path[:found][::-1].tolist()]


@cache
def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(compile_c([SOURCE], SHARED, "segments", ".so")))
    number, wide, pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p
    lib.segments_measure.argtypes = [pointer, pointer, wide, wide, pointer, pointer, number, number, pointer]
    lib.segments_measure.restype = None
    lib.segments_path.argtypes = [number, number, *[pointer] * 3, number, wide, wide, *[pointer] * 2]
    lib.segments_path.restype = number
    return lib
