"""The allocator: an offset for every buffer. It knows intervals only, no operators; `memory.check_plan` does not trust it.

A plan is an order of buffers, each placed at the lowest offset that those before it leave free; a local search betters the order.
That is thousands of tries for every plan, so it is C (placement.c), built when it is first needed.
"""

import ctypes
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from firmware.cc import SHARED, compile_c
from firmware.compiler.memory import Lifetime, MemoryPlan, Overlap, PlanError

IMPROVEMENTS = 150  # tries of the local search, an order
SOURCE = Path(__file__).with_suffix(".c")
_MOST = 1 << 29  # bytes of all buffers together: offsets are 32-bit numbers, and so is where two of them meet

_ORDERS = (
    lambda t: (-t.size, t.first),
    lambda t: (-(t.stop - t.first) * t.size, t.first),
    lambda t: (t.first, -t.size),
    lambda t: (-(t.stop - t.first), -t.size),
    lambda t: (-t.stop, -t.size),
    lambda t: (-t.first, -t.size),
)


def plan_memory(lifetimes: Sequence[Lifetime], overlaps: Sequence[Overlap] = (), enough: int = 0) -> MemoryPlan:
    """Place every buffer; the smallest arena of several first orders and of a local search from each. An arena of `enough` bytes
    ends the search. Same lifetimes, same plan. PlanError for half a gigabyte and more."""
    sizes = np.array([t.size for t in lifetimes], np.int64)
    if sizes.sum() >= _MOST:
        raise PlanError(f"the schedule's buffers are {sizes.sum():,} B together: planned is up to {_MOST:,} B")
    bound = lower_bound(lifetimes, overlaps)
    enough = min(max(bound, enough), _MOST)
    begin, barred = barred_offsets(lifetimes, overlaps)
    best_size, best = None, sizes
    for key in _ORDERS:
        order = sorted(range(len(lifetimes)), key=lambda n: key(lifetimes[n]))
        size, offsets = _improve(order, sizes.astype(np.int32), begin, barred, enough)
        if best_size is None or size < best_size:
            best_size, best = size, offsets
        if best_size <= enough:
            break
    return MemoryPlan({t.key: offset for t, offset in zip(lifetimes, best.tolist(), strict=True)}, best_size, bound)


def lower_bound(lifetimes: Sequence[Lifetime], overlaps: Sequence[Overlap] = ()) -> int:
    """Most bytes alive in any step, all that overlaps could save taken off."""
    first, stop, size = _columns(lifetimes)
    steps = np.unique(first)[:, None]
    alive = (first <= steps) & (steps < stop)
    number, sizes = {t.key: n for n, t in enumerate(lifetimes)}, {t.key: t.size for t in lifetimes}
    saved = np.zeros(len(steps), np.int64)
    for o in overlaps:
        saved += (alive[:, number[o.below]] & alive[:, number[o.above]]) * o.saving(sizes)
    return int(max((alive @ size - saved).max(), size.max()))


def barred_offsets(lifetimes: Sequence[Lifetime], overlaps: Sequence[Overlap]) -> tuple[np.ndarray, np.ndarray]:
    """(begin, barred), int32: what buffer n may not have is rows begin[n] to begin[n + 1] of `barred`, each another buffer that
    lives beside it and the open interval of offsets, counted from that one's, that this one must keep out of."""
    first, stop, size = _columns(lifetimes)
    number = {t.key: n for n, t in enumerate(lifetimes)}
    apart = np.tile(size[:, None], len(size))  # [a, b]: where b, standing above a, may begin at the earliest
    for o in overlaps:
        apart[number[o.below], number[o.above]] = min(size[number[o.below]], o.distance)
    beside = (first[:, None] < stop) & (first < stop[:, None])
    np.fill_diagonal(beside, False)
    this, other = np.nonzero(beside)
    begin = np.concatenate([[0], beside.sum(axis=1).cumsum()])
    return begin.astype(np.int32), np.stack([other, -apart[this, other], apart[other, this]], axis=1).astype(np.int32)


def _columns(lifetimes: Sequence[Lifetime]) -> np.ndarray:
    """(3, lifetimes) first, stop and size."""
    return np.array([t[1:] for t in lifetimes], np.int64).T


def _improve(order: list[int], sizes: np.ndarray, begin: np.ndarray, barred: np.ndarray, enough: int) -> tuple[int, np.ndarray]:
    """(arena, offsets) after a local search over orders: one buffer, more often than not one that reaches the top, moves to
    another turn; equal arenas are accepted so that plateaus are crossed."""
    count, dice = len(order), _dice()
    turns, best, scratch = np.array(order, np.int32), np.empty(count, np.int32), np.empty(6 * count, np.int32)
    arrays = [a.ctypes.data for a in (sizes, begin, barred, dice)]
    results = [a.ctypes.data for a in (turns, best, scratch)]
    return _library().placement_improve(count, *arrays, len(dice), IMPROVEMENTS, enough, *results), best


@cache
def _dice() -> np.ndarray:
    """Random bits, always the same."""
    bits = random.Random(0)
    return np.array([bits.getrandbits(32) for _ in range(4096)], np.uint32)


@cache
def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(compile_c([SOURCE], SHARED, "placement", ".so")))
    number, pointer = ctypes.c_int32, ctypes.c_void_p
    lib.placement_improve.argtypes = [number, *[pointer] * 4, ctypes.c_uint32, number, number, *[pointer] * 3]
    lib.placement_improve.restype = number
    return lib
