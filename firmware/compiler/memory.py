"""Where every buffer lives: lifetimes from a schedule, offsets from an allocator, and a checker that always runs.

`plan_memory` knows intervals only, no operators; `check_plan` knows nothing of the allocator. Time is counted in nodes: a
buffer alive during `[first, stop)` may be touched by those nodes' steps only. Inside a segment of several bands the steps
run again and again, so what must survive a band is alive during the whole segment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from firmware.compiler.program import Program
from firmware.compiler.schedule import Flow, Schedule, segment_flow

ALIGNMENT = 4  # kernels may load words


class PlanError(ValueError):
    """A memory plan that breaks a promise, or a schedule that does not cover its program."""


class Lifetime(NamedTuple):
    """A buffer of `size` bytes, alive during steps [first, stop)."""

    node: int
    first: int
    stop: int
    size: int


class Buffer(NamedTuple):
    """How a node's tensor is kept: `rows` x `cols` of it, whole or as a ring."""

    rows: int
    cols: int
    materialised: bool


@dataclass(frozen=True)
class MemoryPlan:
    offsets: Mapping[int, int]  # node -> byte in the arena
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
        """True when each row of the picture is read once, top to bottom."""
        flow = self.flows[0]
        return flow.segment.columns == 1 and bool((flow.begin[1:, 0] >= flow.target[:-1, 0]).all())


def apply_schedule(program: Program, schedule: Schedule) -> ScheduledProgram:
    """Work out flows, buffers and lifetimes; PlanError when the segments do not cover the nodes in order."""
    position = 0
    for segment in schedule.segments:
        if segment.first != position or segment.stop <= segment.first:
            raise PlanError(f"segment [{segment.first}:{segment.stop}] should begin at node {position}")
        position = segment.stop
    if position != len(program.nodes):
        raise PlanError(f"the schedule ends at node {position}, the program has {len(program.nodes)}")
    flows = tuple(segment_flow(program, s) for s in schedule.segments)
    flow_of = {i: flow for flow in flows for i in flow.segment.nodes}
    buffers: list[Buffer | None] = []
    lifetimes = []
    for i in range(len(program.nodes)):
        buffer = _buffer(program, flow_of[i], i)
        buffers.append(buffer)
        if buffer is not None:
            first, stop = _alive(program, flow_of, i, buffer)
            size = buffer.rows * buffer.cols * program.nodes[i].shape.c
            lifetimes.append(Lifetime(i, first, stop, align(size)))
    return ScheduledProgram(program, schedule, flows, tuple(buffers), tuple(lifetimes))


def align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _buffer(program: Program, flow: Flow, node: int) -> Buffer | None:
    shape = program.nodes[node].shape
    if program.nodes[node].kind == "sink":
        return None
    if program.last_reader[node] >= flow.segment.stop:
        return Buffer(shape.h, shape.w, True)
    local = node - flow.segment.first
    return Buffer(int(flow.ring_rows[local]), int(flow.ring_cols[local]), False)


def _alive(program: Program, flow_of: Mapping[int, Flow], node: int, buffer: Buffer) -> tuple[int, int]:
    """Steps [first, stop) during which a node's buffer must be left alone."""
    made, reader = flow_of[node], program.last_reader[node]
    if not buffer.materialised:
        if made.once or made.transient[node - made.segment.first]:
            return node, reader + 1
        return made.segment.first, made.segment.stop  # the next band needs some of its rows
    read = flow_of[reader]
    return (node if made.once else made.segment.first), (reader + 1 if read.once else read.segment.stop)


def lower_bound(lifetimes: Sequence[Lifetime]) -> int:
    """Most bytes alive in any step."""
    return max((sum(b.size for b in lifetimes if b.first <= a.first < b.stop) for a in lifetimes), default=0)


def plan_memory(lifetimes: Sequence[Lifetime]) -> MemoryPlan:
    """Place every buffer at the lowest offset that its contemporaries leave free; the best of several orders wins."""
    bound = lower_bound(lifetimes)
    orders = (
        lambda t: (-t.size, t.first),
        lambda t: (-(t.stop - t.first) * t.size, t.first),
        lambda t: (t.first, -t.size),
        lambda t: (-(t.stop - t.first), -t.size),
        lambda t: (-t.stop, -t.size),
    )
    best: dict[int, int] | None = None
    best_size = 0
    for order in orders:
        offsets = _first_fit(sorted(lifetimes, key=order))
        size = max((offsets[t.node] + t.size for t in lifetimes), default=0)
        if best is None or size < best_size:
            best, best_size = offsets, size
        if best_size == bound:
            break
    best, best_size = _promote(lifetimes, best or {}, best_size, bound)
    return MemoryPlan(best, best_size, bound)


def _promote(lifetimes: Sequence[Lifetime], offsets: dict[int, int], size: int, bound: int) -> tuple[dict[int, int], int]:
    """Hill climbing: whoever sticks out at the top goes first in the next try. Deterministic, at most 200 tries."""
    order = sorted(lifetimes, key=lambda t: (-t.size, t.first))
    current, seen = offsets, set()
    for _ in range(200):
        if size <= bound or not order:
            break
        top = max(order, key=lambda t: (current[t.node] + t.size, t.node))
        order = [top, *(t for t in order if t.node != top.node)]
        key = tuple(t.node for t in order)
        if key in seen:
            break
        seen.add(key)
        current = _first_fit(order)
        reached = max(current[t.node] + t.size for t in order)
        if reached < size:
            offsets, size = current, reached
    return offsets, size


def _first_fit(order: Sequence[Lifetime]) -> dict[int, int]:
    offsets: dict[int, int] = {}
    placed: list[Lifetime] = []
    for buffer in order:
        offset = 0
        taken = sorted((offsets[p.node], p.size) for p in placed if p.first < buffer.stop and buffer.first < p.stop)
        for start, size in taken:
            if start - offset >= buffer.size:
                break
            offset = max(offset, start + size)
        offsets[buffer.node] = offset
        placed.append(buffer)
    return offsets


def check_plan(lifetimes: Sequence[Lifetime], plan: MemoryPlan) -> None:
    """Raise PlanError unless every buffer is placed, aligned, inside the arena and apart from all that live beside it."""
    for a in lifetimes:
        if a.node not in plan.offsets:
            raise PlanError(f"buffer of node {a.node} has no place")
        offset = plan.offsets[a.node]
        if offset % ALIGNMENT or offset < 0 or offset + a.size > plan.arena_size:
            raise PlanError(f"buffer of node {a.node} at [{offset}, {offset + a.size}) in an arena of {plan.arena_size} B")
    for n, a in enumerate(lifetimes):
        for b in lifetimes[n + 1 :]:
            together = a.first < b.stop and b.first < a.stop
            x, y = plan.offsets[a.node], plan.offsets[b.node]
            if together and x < y + b.size and y < x + a.size:
                raise PlanError(
                    f"buffers of nodes {a.node} [{x}, {x + a.size}) and {b.node} [{y}, {y + b.size}) overlap while alive"
                )
