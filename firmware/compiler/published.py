"""Published methods as schedules of our space, to compare with what the search finds and to run: `export.py --schedule NAME`.

* `layer`: every operator whole (TFLM, CMSIS-NN, TinyEngine's default).
* `patch`, MCUNetV2: the first operators in n x n patches that share nothing, so that halos are computed again in rows and in
  columns; the picture is read at random. `patch:4x4@8` are 4 x 4 patches over 8 operators; without numbers, n = 2 .. 4 and the
  stage that together need the least memory, as its search enumerates them.
* `streamnet`, StreamNet's 1-D cache: the same patches, halos kept along one axis. StreamNet keeps columns along a row of
  patches, the runtime rows down a strip: the mirror image, with the same numbers for square pictures.
* `msf`, msf-CNN: chains of operators fused into segments that make one row of their result at a time and compute halo rows
  again, by a path search over the cuts. `msf:1.3` is the least memory with at most 1.3 times the multiply-accumulates.
* `stream`: line buffers through the whole network, nothing computed twice.

All of them run in the C runtime to the byte. What it does not execute (StreamNet's second cache, msf-CNN's cache of columns) is
counted in `benchmarks/paper_tables.py` and nowhere else.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from firmware.compiler.memory import align, apply_schedule
from firmware.compiler.placement import lower_bound
from firmware.compiler.program import Program
from firmware.compiler.schedule import Schedule, ScheduleError, Segment, layer_by_layer, patches, stream
from firmware.compiler.search import Deployment, deploy

FORMS = "auto, layer, stream, patch[:ROWSxCOLS@SPLIT], streamnet[:ROWSxCOLS@SPLIT] or msf[:FACTOR] (as in patch:4x4@8, msf:1.3)"
_FORM = re.compile(r"layer|stream|(patch|streamnet)(:(\d+)x(\d+)@(\d+))?|msf(:\d+(\.\d+)?)?")
NAMES = {  # as the points of a front are labelled
    "layer": "layer by layer",
    "patch": "MCUNetV2 patches",
    "streamnet": "StreamNet 1-D",
    "msf:1.3": "msf-CNN, \u2264 +30 %",
}
PATCHES = (2, 3, 4)  # a side, as MCUNetV2's search tries
MAX_FUSED = 64  # nodes of a fused chain


class Published(NamedTuple):
    """A published method on a program."""

    name: str
    text: str  # for --schedule
    deployment: Deployment


def check_schedule_text(text: str) -> None:
    """Raise ScheduleError unless `text` is one of FORMS; for a door that wants to know before it works for minutes."""
    if text != "auto" and not _FORM.fullmatch(text):
        raise ScheduleError(f"--schedule {text}: write {FORMS}")


def published_schedule(program: Program, text: str) -> Schedule:
    """The schedule that one of FORMS other than `auto` names."""
    check_schedule_text(text)
    method, _, numbers = text.partition(":")
    if method == "layer":
        return layer_by_layer(program)
    if method == "stream":
        return stream(program)
    if method == "msf":
        return Schedule(fused_chains(program, float(numbers or math.inf)).segments)
    staged = patches if method == "patch" else streamed_patches
    if not numbers:
        return _leanest_stage(program, staged)
    rows, columns, split = (int(n) for n in re.split("[x@]", numbers))
    return staged(program, rows, columns, split)


def compare(program: Program, max_candidates: int = 0) -> tuple[Published, ...]:
    """Every published method that the network has a schedule for."""
    found = []
    for text, name in NAMES.items():
        try:
            found.append(Published(name, text, deploy(program, published_schedule(program, text), max_candidates)))
        except ScheduleError:
            continue  # a network without a stage that patches could compute
    return tuple(found)


# Patch stages


def streamed_patches(program: Program, rows: int, columns: int, split: int) -> Schedule:
    """StreamNet's 1-D cache: patches whose rows are kept for the patch below."""
    stage, *rest = patches(program, rows, columns, split).segments
    return Schedule((replace(stage, carry=True), *rest))


def _leanest_stage(program: Program, staged: Callable[[Program, int, int, int], Schedule]) -> Schedule:
    """The patch stage and the number of patches a side that need the least memory, and of these the least work."""
    best: tuple[tuple[int, int], Schedule] | None = None
    for split, side in _stages(program):
        schedule = staged(program, side, side, split)
        scheduled = apply_schedule(program, schedule)
        cost = lower_bound(scheduled.lifetimes, scheduled.overlaps), scheduled.macs
        if best is None or cost < best[0]:
            best = cost, schedule
    if best is None:
        raise ScheduleError("the network has no stage that patches could compute: no single map that all else depends on")
    return best[1]


def _stages(program: Program) -> Iterator[tuple[int, int]]:
    """(operators, patches a side) of every stage that ends in one map, which is all that the rest of the network reads."""
    for i, node in enumerate(program.nodes):
        if node.kind == "sink":
            return  # an output has left
        crossing = [j for j in range(i + 1) if program.last_reader[j] > i]
        if node.op is not None and crossing == [i]:
            yield from ((node.op + 1, side) for side in PATCHES if side <= min(node.shape.h, node.shape.w))


# Fused chains


class FusedPath(NamedTuple):
    """Fused chains one behind the other."""

    peak: int  # bytes, the least that any placement needs
    work: int  # multiply-accumulates done again
    segments: tuple[Segment, ...]


def fused_chains(program: Program, factor: float = math.inf, as_counted: bool = False) -> FusedPath:
    """The least memory with at most `factor` times the multiply-accumulates: the Pareto paths over all cuts, as msf-CNN's P1.

    Raises ScheduleError where `factor` is less than 1.
    """
    if factor < 1:
        raise ScheduleError(f"--schedule msf:{factor:g}: the network itself has 1 times its multiply-accumulates")
    paths: list[list[FusedPath]] = [[] for _ in range(len(program.nodes) + 1)]
    paths[0] = [FusedPath(0, 0, ())]
    for stop in range(1, len(program.nodes) + 1):
        reached = [
            FusedPath(max(path.peak, peak), path.work + work, (*path.segments, segment))
            for segment, peak, work in chains_to(program, stop, as_counted)
            for path in paths[segment.first]
            if path.work + work <= (factor - 1) * program.macs
        ]
        for path in sorted(reached, key=lambda path: path[:2]):
            if not paths[stop] or path.work < paths[stop][-1].work:
                paths[stop].append(path)
    return paths[-1][0]


def chains_to(program: Program, stop: int, as_counted: bool = False) -> Iterator[tuple[Segment, int, int]]:
    """(segment, bytes, multiply-accumulates done again) of every chain that ends before node `stop`, the shortest first.

    A chain's result is all of it that others read. Its input and its result are whole; of what lies between there are the rows
    that one row of the result needs, as wide as the map. With `as_counted`, as msf-CNN counts: as wide as the window that reads
    them, and nothing for the picture.
    """
    nodes, last = program.nodes, stop - 1
    free = 0 if as_counted else None  # node whose bytes do not count
    rows = np.arange(nodes[last].shape.h, dtype=np.int64)
    lows, highs = {last: rows}, {last: rows + 1}
    result = align(nodes[last].size) if program.last_reader[last] >= stop else align(nodes[last].row_bytes)
    result = 0 if last == free else result
    alive, work = np.zeros(stop, np.int64), 0
    yield Segment(last, stop), _entering(program, last, free) + result, 0
    for first in range(last - 1, max(-1, last - MAX_FUSED), -1):
        if program.last_reader[first] >= stop or nodes[first].kind == "sink":
            return
        reads = program.reads[first]
        needs = [(y.in_lo(lows[reader]), y.in_hi(highs[reader]), lows[reader] < highs[reader]) for reader, y, _ in reads]
        nothing = nodes[first].shape.h, 0  # of padding alone, nothing is needed
        lows[first] = np.minimum.reduce([np.where(real & (low < high), low, nothing[0]) for low, high, real in needs])
        highs[first] = np.maximum.reduce([np.where(real & (low < high), high, nothing[1]) for low, high, real in needs])
        count = (highs[first] - lows[first]).clip(0)
        width = min(nodes[first].shape.w, max(x.kernel for _, _, x in reads)) if as_counted else nodes[first].shape.w
        if first != free:
            alive[first : program.last_reader[first] + 1] += align(max(1, int(count.max())) * width * nodes[first].shape.c)
        work += (int(count.sum()) - nodes[first].shape.h) * nodes[first].shape.w * nodes[first].macs_per_cell
        yield Segment(first, stop, carry=False), _entering(program, first, free) + result + int(alive.max()), max(0, work)


def _entering(program: Program, first: int, free: int | None) -> int:
    """Bytes of the tensors made before `first` that are still wanted there."""
    return sum(align(program.nodes[j].size) for j in range(first) if j != free and program.last_reader[j] >= first)
