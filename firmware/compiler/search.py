"""The schedule search: the Pareto front of (peak SRAM, multiply-accumulates, instructions) over the space of DESIGN.md.

A network's nodes are cut into segments. Which tensors are alive across a cut depends on the cut alone, so what a segment
costs depends on its own two ends and its own mode (`choices.py`). The cheapest schedule within a limit of memory is then a
shortest path over cuts, and the front is a walk of ever lower limits. Paths are exact for bounds of memory (most bytes alive in
one step); each is then placed for real (`plan_memory`), and only what survives on real numbers is returned. Placement does not
always reach its bound, so the front is walked by several tastes, and some schedules of equal work are placed.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from firmware.compiler.choices import Choices
from firmware.compiler.cost import Cost, estimate, fixed_sram, sram
from firmware.compiler.graph import Graph
from firmware.compiler.memory import MemoryPlan, ScheduledProgram, apply_schedule, check_plan
from firmware.compiler.orders import orders
from firmware.compiler.placement import plan_memory
from firmware.compiler.program import Program, build_program
from firmware.compiler.schedule import Schedule, Segment
from firmware.compiler.segments import NEVER, Taste, cheapest_path


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
    return _deployed(scheduled, plan_memory(scheduled.lifetimes, scheduled.overlaps), max_candidates)


def _deployed(scheduled: ScheduledProgram, plan: MemoryPlan, max_candidates: int) -> Deployment:
    check_plan(scheduled.lifetimes, plan, scheduled.overlaps)
    return Deployment(scheduled, plan, estimate(scheduled, plan, max_candidates))


def _deploy_within(program: Program, schedule: Schedule, max_candidates: int, limit: int) -> Deployment | None:
    """`deploy` with the first plan that takes at most `limit` bytes of `peak_sram`; None where none is found."""
    scheduled = apply_schedule(program, schedule)
    room = limit - sram(scheduled, 0, max_candidates).peak
    plan = plan_memory(scheduled.lifetimes, scheduled.overlaps, room // 16 * 16)
    if sram(scheduled, plan.arena_size, max_candidates).peak > limit:
        return None
    return _deployed(scheduled, plan, max_candidates)


class _Walk(NamedTuple):
    """What a search goes by: whose work and whose peaks, and which of several schedules of the same work comes first."""

    work: np.ndarray  # choices.work or choices.instructions
    grain: int  # work that differs by less is the same
    peaks: np.ndarray  # choices.peak or choices.likely
    taste: Taste


@dataclass(frozen=True)
class _Path:
    """A schedule as the search sees it."""

    segments: tuple[Segment, ...]
    peak: int  # bytes, by the walk's table
    bound: int  # bytes, no placement needs less
    work: int  # by the walk's table, in grains
    macs: int  # multiply-accumulates that are done again
    instructions: int  # by the model


ALIKE = 0.005  # instructions that differ by a smaller share are the same: the model knows no better
SLACK = 32  # a schedule whose bound is so small a part above the least may need less when it is placed
_ANY = int(NEVER) // 2


def search_front(program: Program, max_candidates: int = 0) -> tuple[Deployment, ...]:
    """All schedules worth having, most memory first: none takes the bytes, multiply-accumulates and instructions of another."""
    return _front(Choices(program), max_candidates)


def search_orders(graph: Graph, max_candidates: int = 0) -> tuple[Deployment, ...]:
    """`search_front` of the best order in which the graph's operators can run."""
    return _front(_best_order(graph), max_candidates)


def _front(choices: Choices, max_candidates: int) -> tuple[Deployment, ...]:
    program, fixed = choices.program, fixed_sram(max_candidates)
    found: dict[Schedule, Deployment] = {}
    for walk in (*_walks(choices), _fast_walk(choices)):
        limit = _ANY
        while paths := _leanest(choices, walk, limit):
            for path in paths:
                schedule, best = Schedule(path.segments), (path.bound + fixed, program.macs + path.macs, path.instructions)
                if schedule not in found and not any(_beats(d.cost, *best) for d in found.values()):
                    found[schedule] = deploy(program, schedule, max_candidates)
            limit = paths[0].peak - 1
    return _pareto(list(found.values()))


def best_order(graph: Graph) -> Program:
    """The program of the order of operators whose schedules need least memory, by their bounds; the given order among equals."""
    return _best_order(graph).program


def _best_order(graph: Graph) -> Choices:
    choices = [Choices(build_program(order)) for order in orders(graph)]
    if len(choices) == 1:
        return choices[0]
    fronts = [_bounds(one) for one in choices]
    levels = sorted({work for front in fronts for work, _ in front})
    scores = [sum(math.log(min(b for w, b in front if w <= level)) for level in levels) for front in fronts]
    return choices[scores.index(min(scores))]


def _bounds(choices: Choices) -> list[tuple[int, int]]:
    """(work, least bound in bytes) of the front, nothing placed."""
    found, limit, walk = [], _ANY, _walks(choices)[0]
    while paths := _leanest(choices, walk, limit):
        found.append((paths[0].work, paths[0].bound))
        limit = paths[0].peak - 1
    return found


def fits(program: Program, limit: int, max_candidates: int = 0) -> Deployment | None:
    """The schedule of fewest multiply-accumulates whose `peak_sram` is at most `limit` bytes; None where the search finds none.

    For a search over architectures: it settles and places only what the limit asks for, and programs that differ in channels
    alone share their flows. It goes the front's ways from the limit on and takes the first plan that fits, so it does as little
    work as any point of the front within `limit` (perhaps in more bytes), but for points that lean on overlaps beyond what
    `likely` peaks an eighth above the limit allow.
    """
    choices = Choices(program)
    room = limit - fixed_sram(max_candidates)
    first, *others = _walks(choices)

    def level(walk: _Walk, limit: int) -> list[_Waiting]:
        paths = _leanest(choices, walk, limit)
        return [_Waiting(paths[0].macs, paths, lambda: level(walk, paths[0].peak - 1))] if paths else []

    def other_walks() -> list[_Waiting]:
        slack = [0 if other.peaks is choices.peak else room // 8 for other in others]  # peaks that are likely, not least
        found = [level(other, room + more) for other, more in zip(others, slack, strict=True)]
        return [*itertools.chain(*found), _Waiting(least + 1, [], by_instructions)]

    def by_instructions() -> list[_Waiting]:
        return [_Waiting(path.macs, [path], list) for path in _all_within(choices, _fast_walk(choices), room)]

    waiting = level(first, room)
    if waiting:
        least = waiting[0].macs  # no schedule that fits does less again
        waiting.append(_Waiting(least, [], other_walks))
    while waiting:
        waiting.sort(key=lambda w: w.macs)
        _, paths, further = waiting.pop(0)
        if found := _first_within(program, paths, max_candidates, limit):
            return found
        waiting += further()
    return None


class _Waiting(NamedTuple):
    """Paths that `fits` has not tried yet."""

    macs: int  # that are done again, at the least
    paths: list[_Path]
    further: Callable[[], "list[_Waiting]"]  # what to try later where none of them fits


def _all_within(choices: Choices, walk: _Walk, limit: int) -> Iterator[_Path]:
    """A walk of falling limits to its end, for its paths are in no order of multiply-accumulates."""
    while paths := _leanest(choices, walk, limit):
        yield from paths
        limit = paths[0].peak - 1


def _first_within(program: Program, paths: list[_Path], max_candidates: int, limit: int) -> Deployment | None:
    for path in paths:
        if path.bound + fixed_sram(max_candidates) <= limit:
            found = _deploy_within(program, Schedule(path.segments), max_candidates, limit)
            if found:
                return found
    return None


def _walks(choices: Choices) -> tuple[_Walk, ...]:
    return (
        _Walk(choices.work, 1, choices.peak, "calm"),
        _Walk(choices.work, 1, choices.likely, "calm"),
        _Walk(choices.work, 1, choices.peak, "apart"),
        _Walk(choices.work, 1, choices.peak, "few"),
    )


def _fast_walk(choices: Choices) -> _Walk:
    """The one that counts instructions."""
    grain = round(choices.instructions[0].diagonal(1).sum() * ALIKE)  # a share of the network's, node by node
    return _Walk(choices.instructions, max(1, grain), choices.peak, "calm")


def _leanest(choices: Choices, walk: _Walk, limit: int) -> list[_Path]:
    """Of all paths of the least work that `limit` bytes allow: the one that needs the fewest bytes, and the best within a little
    more; empty where no path stays within the limit."""
    path = _cheapest(choices, walk, limit)
    if path is None:
        return []
    while (leaner := _cheapest(choices, walk, path.peak - 1)) and leaner.work == path.work:
        path = leaner
    other = _cheapest(choices, walk, path.peak + path.peak // SLACK)
    return [path] if other is None or other.work < path.work else [path, other]


def _cheapest(choices: Choices, walk: _Walk, limit: int) -> _Path | None:
    """The least work of any path whose segments all stay within `limit` bytes; None where there is none.

    A lazy shortest path: take the path that would be best if all bounds were true, settle what it uses, and repeat until no
    part of it is a mere bound. Then it is best in truth, for bounds never exceed what they stand for.
    """
    most = choices.most * choices.count
    while path := cheapest_path(walk.work, walk.peaks, choices.leaning, walk.taste, most, limit):
        unsettled = [step for step in path if not choices.settled(*step)]
        if not unsettled:
            peak, bound = (max(int(table[step]) for step in path) for table in (walk.peaks, choices.peak))
            segments = tuple(choices.segment(*step, spare=peak - int(walk.peaks[step])) for step in path)
            work, macs, instructions = (
                sum(int(table[step]) for step in path) for table in (walk.work, choices.work, choices.instructions)
            )
            return _Path(segments, peak, bound, work // walk.grain, macs, instructions)
        for mode, first, stop in unsettled:
            choices.settle(mode, first, stop, limit)
    return None


def _beats(cost: Cost, peak: int, macs: int, instructions: int) -> bool:
    """True when a schedule that costs the other numbers has nothing to offer: no less memory, nor less work of either kind."""
    return cost.peak_sram <= peak and cost.scheduled_macs <= macs and cost.instructions <= instructions * (1 + ALIKE)


def _pareto(found: list[Deployment]) -> tuple[Deployment, ...]:
    """What no other beats, most memory first."""
    kept: list[Deployment] = []
    for new in sorted(found, key=lambda d: (d.cost.scheduled_macs, d.cost.peak_sram, d.cost.instructions)):
        cost = new.cost
        if not any(_beats(old.cost, cost.peak_sram, cost.scheduled_macs, cost.instructions) for old in kept):
            kept.append(new)
    return tuple(sorted(kept, key=lambda d: (-d.cost.peak_sram, d.cost.instructions)))
