"""The schedule search: the Pareto front of (peak SRAM, multiply-accumulates) over the space of DESIGN.md.

A network's nodes are cut into segments. Which tensors are alive across a cut depends on the cut alone, so what a segment
costs depends on its own two ends and its own mode. That makes the best peak a shortest path over cuts, with `max` along the
way for bytes and `+` for recomputed work: labels (peak, recomputed MACs) are carried from cut to cut and dominated ones
dropped. The path is exact for the lower bounds of memory (most bytes alive in one step); each end label is then placed for
real (`plan_memory`), and only what survives on real numbers is returned.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from firmware.compiler.cost import Cost, estimate
from firmware.compiler.memory import MemoryPlan, ScheduledProgram, apply_schedule, check_plan, plan_memory
from firmware.compiler.program import Program
from firmware.compiler.schedule import Flow, Schedule, Segment, segment_flow

STRIPS = (2, 3, 4, 6, 8)  # column counts tried where rings are what costs
MAX_LABELS = 24  # kept at a cut; the front of a real network has fewer


@dataclass(frozen=True)
class Deployment:
    """One complete answer: a program, its schedule, where everything lives, and what it costs."""

    scheduled: ScheduledProgram
    plan: MemoryPlan
    cost: Cost

    @property
    def schedule(self) -> Schedule:
        return self.scheduled.schedule


def deploy(program: Program, schedule: Schedule, max_candidates: int = 0) -> Deployment:
    """Place a schedule in memory and count its cost; the plan is checked, always."""
    scheduled = apply_schedule(program, schedule)
    plan = plan_memory(scheduled.lifetimes)
    check_plan(scheduled.lifetimes, plan)
    return Deployment(scheduled, plan, estimate(scheduled, plan, max_candidates))


@dataclass(frozen=True)
class _Label:
    peak: int  # bytes, lower bound
    extra: int  # recomputed multiply-accumulates
    segment: Segment | None
    before: "_Label | None"

    def segments(self) -> tuple[Segment, ...]:
        found, label = [], self
        while label is not None and label.segment is not None:
            found.append(label.segment)
            label = label.before
        return tuple(reversed(found))


def search_front(program: Program, max_candidates: int = 0) -> tuple[Deployment, ...]:
    """All schedules worth having, least memory last; never more memory for more work."""
    streams = dict(_stream_costs(program))
    frugal = _shortest(program, streams.values())
    if not frugal:
        return ()
    limit = min(label.peak for label in frugal)
    strips = _strip_costs(program, streams, limit)
    labels = _shortest(program, [*streams.values(), *strips])
    found = [deploy(program, Schedule(label.segments()), max_candidates) for label in labels]
    return _pareto(found)


@dataclass(frozen=True)
class _Choice:
    """A segment with its cost."""

    segment: Segment
    peak: int
    rings: int  # of the peak, the bytes that more strips could shrink
    extra: int


def _crossing(program: Program) -> list[int]:
    """For each node n, bytes of tensors made before n and read by n or later."""
    nodes = program.nodes
    return [
        sum(_aligned(nodes[j].size) for j in range(n) if program.last_reader[j] >= n) for n in range(len(nodes) + 1)
    ]


def _aligned(size: int) -> int:
    return -(-size // 4) * 4


def _choice(program: Program, crossing: list[int], segment: Segment) -> _Choice:
    flow = segment_flow(program, segment)
    whole_bytes, carried, transient = _local_bytes(program, flow)
    rings = carried + transient
    extra = sum(
        (int(cells) - node.shape.h * node.shape.w) * node.macs_per_cell
        for cells, node in zip(flow.cells(), program.nodes[segment.first : segment.stop], strict=True)
    )
    return _Choice(segment, crossing[segment.first] + whole_bytes + rings, rings, max(0, extra))


def _local_bytes(program: Program, flow: Flow) -> tuple[int, int, int]:
    """Bytes of a segment's own tensors: (whole, rings alive all along, most bytes of transient rings at one step)."""
    segment, whole_bytes, carried = flow.segment, 0, 0
    alive = [0] * (segment.stop - segment.first + 1)
    for i in segment.nodes:
        node, local, reader = program.nodes[i], i - segment.first, program.last_reader[i]
        if node.kind == "sink":
            continue
        if reader >= segment.stop:
            whole_bytes += _aligned(node.size)
            continue
        size = _aligned(int(flow.ring_rows[local]) * int(flow.ring_cols[local]) * node.shape.c)
        if flow.once or flow.transient[local]:
            alive[local] += size
            alive[reader + 1 - segment.first] -= size
        else:
            carried += size
    most = total = 0
    for change in alive:
        total += change
        most = max(most, total)
    return whole_bytes, carried, most


def _stream_costs(program: Program) -> Iterator[tuple[tuple[int, int], _Choice]]:
    """Every run of nodes, row by row with carry, pulled or pushed; single nodes whole. Nothing is computed twice."""
    crossing, count = _crossing(program), len(program.nodes)
    for first in range(count):
        yield (first, first + 1), _choice(program, crossing, Segment(first, first + 1, rows=program.nodes[first].shape.h))
        for stop in range(first + 2, count + 1):
            ways = [_choice(program, crossing, Segment(first, stop, push=push)) for push in (False, True)]
            yield (first, stop), min(ways, key=lambda choice: choice.peak)


def _strip_costs(program: Program, streams: dict[tuple[int, int], _Choice], limit: int) -> Iterator[_Choice]:
    """Strips for the runs where rings matter: what is whole must leave room below the best peak without recomputation."""
    crossing = _crossing(program)
    for (first, stop), choice in streams.items():
        if stop - first < 3 or choice.peak - choice.rings >= limit or 4 * choice.rings < limit:
            continue
        narrowest = min(node.shape.w for node in program.nodes[first:stop])
        for columns in STRIPS:
            if columns <= narrowest // 2:
                yield _choice(program, crossing, replace(choice.segment, columns=columns))


def _shortest(program: Program, choices: Iterable[_Choice]) -> list[_Label]:
    """Labels at the last cut that no other label beats in both bytes and work."""
    count = len(program.nodes)
    leaving: list[list[_Choice]] = [[] for _ in range(count)]
    for choice in choices:
        leaving[choice.segment.first].append(choice)
    labels: list[list[_Label]] = [[] for _ in range(count + 1)]
    labels[0] = [_Label(0, 0, None, None)]
    for position in range(count):
        labels[position] = _undominated(labels[position])
        for label in labels[position]:
            for choice in leaving[position]:
                reached = _Label(max(label.peak, choice.peak), label.extra + choice.extra, choice.segment, label)
                labels[choice.segment.stop].append(reached)
    return _undominated(labels[count])


def _undominated(labels: list[_Label]) -> list[_Label]:
    """Less memory only for more work; among equals the one with fewer segments behind it comes first."""
    kept: list[_Label] = []
    for label in sorted(labels, key=lambda x: (x.extra, x.peak)):
        if not kept or label.peak < kept[-1].peak:
            kept.append(label)
    return kept[:MAX_LABELS]


def _pareto(found: list[Deployment]) -> tuple[Deployment, ...]:
    kept: list[Deployment] = []
    for deployment in sorted(found, key=lambda d: (d.cost.scheduled_macs, d.cost.peak_sram)):
        if not kept or deployment.cost.peak_sram < kept[-1].cost.peak_sram:
            kept.append(deployment)
    return tuple(kept)
