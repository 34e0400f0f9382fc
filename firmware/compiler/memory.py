"""What lives when, and a checker that always runs: lifetimes from a schedule, and what an allocator must keep to.

`check_plan` knows nothing of the allocator (placement.py). A tensor that a segment reads
for the last time dies from the top while a result of the segment grows from the top: an `Overlap` says how far apart the
two must begin so that they may share bytes. Time is counted in nodes: a
buffer alive during `[first, stop)` may be touched by those nodes' steps only. Inside a segment of several bands the steps
run again and again, so what must survive a band is alive during the whole segment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from firmware.compiler import ops
from firmware.compiler.geometry import geometry_of
from firmware.compiler.program import Program
from firmware.compiler.schedule import Flow, Rows, Schedule, kept_rows, latches

ALIGNMENT = 4  # kernels may load words


class PlanError(ValueError):
    """A memory plan that breaks a promise, or a schedule that does not cover its program."""


Key = int | tuple[str, int]  # a node's tensor or ring, or what `fresh_key` and LETTERBOX name
LETTERBOX: Key = ("letterbox", 0)  # 32-bit accumulators of the row that is read


def fresh_key(node: int) -> Key:
    """The rows of a latched ring that a band makes."""
    return "fresh", node


def part_of(key: Key) -> tuple[str, int]:
    """("tensor", "fresh" or "letterbox", node) of a buffer."""
    return key if isinstance(key, tuple) else ("tensor", key)


class Lifetime(NamedTuple):
    """A buffer of `size` bytes, alive during steps [first, stop)."""

    key: Key
    first: int
    stop: int
    size: int


class Overlap(NamedTuple):
    """Two buffers that live together may share bytes when `above` begins at least `distance` bytes after `below`."""

    below: int  # node: written from its first byte on
    above: int  # node: no longer needed from its first byte on
    distance: int

    def saving(self, sizes: Mapping[Key, int]) -> int:
        """Bytes that the closest legal placement saves against standing apart."""
        below, above = sizes[self.below], sizes[self.above]
        return max(0, below + above - max(below, max(self.distance, 0) + above))


class Buffer(NamedTuple):
    """How a node's tensor is kept: `rows` x `cols` of it, whole or as a ring; `fresh` rows apart from it."""

    rows: int
    cols: int
    materialised: bool
    fresh: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    offsets: Mapping[Key, int]  # byte in the arena
    arena_size: int
    lower_bound: int  # most bytes alive in one step; no plan can be smaller


@dataclass(frozen=True)
class ScheduledProgram:
    """A program with its schedule worked out: what each segment does, and how each node's tensor is kept."""

    program: Program
    schedule: Schedule
    flows: tuple[Flow, ...]
    buffers: tuple[Buffer | None, ...]  # per node; None for sinks
    lifetimes: tuple[Lifetime, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run, recomputed ones counted."""
        return sum(
            int(cells) * self.program.nodes[i].macs_per_cell
            for flow in self.flows
            for i, cells in zip(flow.segment.nodes, flow.cells(), strict=True)
        )

    @property
    def sequential(self) -> bool:
        """True when each row of the picture is read once, top to bottom, as SPEC.md's flag says it."""
        flow, picture = self.flows[0], self.buffers[0]
        assert picture is not None  # the source is no sink
        return flow.segment.columns == 1 and (flow.segment.carry or picture.materialised or flow.bands == 1)


def apply_schedule(program: Program, schedule: Schedule) -> ScheduledProgram:
    """Work out flows, buffers and lifetimes; PlanError when the segments do not cover the nodes in order."""
    position = 0
    for segment in schedule.segments:
        if segment.first != position or segment.stop <= segment.first:
            raise PlanError(f"segment [{segment.first}:{segment.stop}] should begin at node {position}")
        position = segment.stop
    if position != len(program.nodes):
        raise PlanError(f"the schedule ends at node {position}, the program has {len(program.nodes)}")
    geometry = geometry_of(program)
    flows = tuple(geometry.segment_flow(program, s) for s in schedule.segments)
    flow_of = {i: flow for flow in flows for i in flow.segment.nodes}
    buffers: list[Buffer | None] = []
    lifetimes = []
    for i in range(len(program.nodes)):
        buffer = _buffer(program, flow_of[i], i)
        buffers.append(buffer)
        if buffer is not None:
            lifetimes += _lifetimes(program, flow_of, i, buffer)
    lifetimes.append(Lifetime(LETTERBOX, 0, 1, 4 * buffers[0].cols * program.nodes[0].shape.c))
    overlaps = tuple(o for flow in flows for o in overlaps_of(program, flow))
    return ScheduledProgram(program, schedule, flows, tuple(buffers), tuple(lifetimes), overlaps)


def overlaps_of(program: Program, flow: Flow) -> list[Overlap]:
    """Pairs (result of the segment, tensor that it reads for the last time) that gain by sharing bytes."""
    segment = flow.segment
    if segment.columns > 1 or not segment.carry:
        return []  # the next strip or band reads the tensor from further up again
    begins = {i: flow.begin[:, i - segment.first] for i in segment.nodes}
    targets = {i: flow.target[:, i - segment.first] for i in segment.nodes}
    results = [i for i in flow.terminals if program.nodes[i].kind != "sink"]
    found = []
    for above in dying(program, segment.first, segment.stop):
        reads = [read for read in program.reads[above] if read[0] in begins]
        kept = kept_rows(program, reads, np.full(flow.bands, program.nodes[above].shape.h), begins)
        readers = [reader for reader, _, _ in reads]
        found += [
            Overlap(below, above, overlap_distance(program, below, above, targets[below], kept, readers)) for below in results
        ]
    return [o for o in found if o.saving({i: program.nodes[i].size for i in (o.below, o.above)}) > 0]


def dying(program: Program, first: int, stop: int) -> list[int]:
    """Nodes before `first` whose last reader is one of [first, stop)."""
    return [i for i in range(first) if first <= program.last_reader[i] < stop]


def overlap_distance(program: Program, below: int, above: int, target: Rows, kept: Rows, readers: Sequence[int]) -> int:
    """Bytes of `below` written after a band less bytes of `above` dead before it (before `kept`), the most over all bands.

    `readers` are those of `above` in the segment; one that works in place needs no distance when it is the only one.
    """
    nodes, op = program.nodes, program.nodes[below].op
    if set(readers) == {below} and op is not None and ops.in_place(program.graph, program.graph.ops[op]):
        return 0
    return align(int((target * nodes[below].row_bytes - kept * nodes[above].row_bytes).max()))


def align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _buffer(program: Program, flow: Flow, node: int) -> Buffer | None:
    shape = program.nodes[node].shape
    if program.nodes[node].kind == "sink":
        return None
    if program.last_reader[node] >= flow.segment.stop:
        return Buffer(shape.h, shape.w, True)
    local, cols = node - flow.segment.first, int(flow.ring_cols[node - flow.segment.first])
    rows, kept, fresh = (int(r[local]) for r in flow.alive)
    if flow.segment.latch and latches(program, flow.segment.first, flow.alive)[local]:
        return Buffer(kept, cols, False, fresh)
    return Buffer(rows, cols, False)


def _lifetimes(program: Program, flow_of: Mapping[int, Flow], node: int, buffer: Buffer) -> list[Lifetime]:
    row = buffer.cols * program.nodes[node].shape.c
    found = [Lifetime(node, *_alive(program, flow_of, node, buffer), align(buffer.rows * row))]
    if buffer.fresh:
        found.append(Lifetime(fresh_key(node), node, program.last_reader[node] + 1, align(buffer.fresh * row)))
    return found


def _alive(program: Program, flow_of: Mapping[int, Flow], node: int, buffer: Buffer) -> tuple[int, int]:
    """Steps [first, stop) during which a node's buffer must be left alone."""
    made, reader = flow_of[node], program.last_reader[node]
    if not buffer.materialised:
        if made.once or not made.alive.kept[node - made.segment.first]:
            return node, reader + 1
        return made.segment.first, made.segment.stop  # the next band needs some of its rows
    read = flow_of[reader]
    return (node if made.once else made.segment.first), (reader + 1 if read.once else read.segment.stop)


def check_plan(lifetimes: Sequence[Lifetime], plan: MemoryPlan, overlaps: Sequence[Overlap] = ()) -> None:
    """Raise PlanError unless every buffer is placed, aligned, inside the arena and apart from all that live beside it, or
    as far from them as their overlap asks."""
    distances = {(o.below, o.above): o.distance for o in overlaps}
    for a in lifetimes:
        if a.key not in plan.offsets:
            raise PlanError(f"buffer {a.key} has no place")
        offset = plan.offsets[a.key]
        if offset % ALIGNMENT or offset < 0 or offset + a.size > plan.arena_size:
            raise PlanError(f"buffer {a.key} at [{offset}, {offset + a.size}) in an arena of {plan.arena_size} B")
    for n, a in enumerate(lifetimes):
        for b in lifetimes[n + 1 :]:
            if b.stop <= a.first or a.stop <= b.first:
                continue
            x, y = plan.offsets[a.key], plan.offsets[b.key]
            if y - x >= distances.get((a.key, b.key), a.size) or x - y >= distances.get((b.key, a.key), b.size):
                continue
            if x < y + b.size and y < x + a.size:
                raise PlanError(
                    f"buffers {a.key} [{x}, {x + a.size}) and {b.key} [{y}, {y + b.size}) overlap while alive"
                )
