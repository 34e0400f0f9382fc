"""The schedule search: the Pareto front of (peak SRAM, multiply-accumulates) over the space of DESIGN.md.

A network's nodes are cut into segments. Which tensors are alive across a cut depends on the cut alone, so what a segment
costs depends on its own two ends and its own mode (`choices.py`). The cheapest schedule within a limit of memory is then a
shortest path over cuts, and the front is a walk of ever lower limits. Paths are exact for bounds of memory (most bytes alive in
one step); each is then placed for real (`plan_memory`), and only what survives on real numbers is returned. Placement does not
always reach its bound, so the front is walked by several tastes, and some schedules of equal work are placed.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from firmware.compiler.choices import NEVER, Choices
from firmware.compiler.cost import Cost, estimate
from firmware.compiler.memory import MemoryPlan, ScheduledProgram, apply_schedule, check_plan, plan_memory
from firmware.compiler.program import Program
from firmware.compiler.schedule import Schedule, Segment


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
    plan = plan_memory(scheduled.lifetimes, scheduled.overlaps)
    check_plan(scheduled.lifetimes, plan, scheduled.overlaps)
    return Deployment(scheduled, plan, estimate(scheduled, plan, max_candidates))


class _Walk(NamedTuple):
    """What a search goes by: whose peaks, and which of several schedules of the same work comes first."""

    peaks: np.ndarray  # choices.peak or choices.likely
    # calm: the one that needs little memory everywhere, not at its worst step alone; apart: the one that leans least on overlaps,
    # and whose longest segment, which sets the size of the runtime's state, is short; few: the one of fewest segments
    taste: Literal["calm", "apart", "few"]


@dataclass(frozen=True)
class _Path:
    """A schedule as the search sees it."""

    segments: tuple[Segment, ...]
    peak: int  # bytes, by the walk's table
    work: int  # multiply-accumulates that are done again


PLACED = 2  # schedules of the same work that are placed, where the leanest does not reach its bound


def search_front(program: Program, max_candidates: int = 0) -> tuple[Deployment, ...]:
    """All schedules worth having, least memory last; never more memory for more work."""
    choices = Choices(program)
    found: dict[Schedule, Deployment] = {}
    walks = (
        _Walk(choices.peak, "calm"),
        _Walk(choices.likely, "calm"),
        _Walk(choices.peak, "apart"),
        _Walk(choices.peak, "few"),
    )
    for walk in walks:
        limit = int(NEVER) - 1
        while path := _cheapest(choices, walk, limit):
            paths = _leaner(choices, walk, path)
            for lean in paths[:PLACED]:
                schedule = Schedule(lean.segments)
                if schedule not in found:
                    found[schedule] = deploy(program, schedule, max_candidates)
                if found[schedule].plan.tight:
                    break
            limit = paths[0].peak - 1
    return _pareto(list(found.values()))


def _leaner(choices: Choices, walk: _Walk, path: _Path) -> list[_Path]:
    """The path and all that need less memory for the same work, the leanest first."""
    paths = [path]
    while (leaner := _cheapest(choices, walk, paths[-1].peak - 1)) and leaner.work == path.work:
        paths.append(leaner)
    return paths[::-1]


def _cheapest(choices: Choices, walk: _Walk, limit: int) -> _Path | None:
    """The least work of any path whose segments all stay within `limit` bytes; None where there is none.

    A lazy shortest path: take the path that would be best if all bounds were true, settle what it uses, and repeat until no
    part of it is a mere bound. Then it is best in truth, for bounds never exceed what they stand for.
    """
    while path := _shortest(choices, walk, limit):
        unsettled = [step for step in path if not choices.settled(*step)]
        if not unsettled:
            peak = max(int(walk.peaks[step]) for step in path)
            segments = tuple(choices.segment(*step, spare=peak - int(walk.peaks[step])) for step in path)
            return _Path(segments, peak, sum(int(choices.work[step]) for step in path))
        for step in unsettled:
            choices.settle(*step, limit)
    return None


_FINE = 1 << 20  # parts of one multiply-accumulate in which equals are told apart


def _shortest(choices: Choices, walk: _Walk, limit: int) -> list[tuple[int, int, int]] | None:
    """(mode, first, stop) of each segment of the path of least work that seems to stay within `limit`."""
    count, fits = choices.count, walk.peaks <= limit
    price = np.where(fits, choices.work, 0) * _FINE + 1
    if walk.taste == "calm" and fits.any():  # bytes by nodes, as a share of the most that there could be
        peaks = np.where(fits, walk.peaks, 0)
        price += peaks * choices.lengths * (_FINE // 2) // (int(peaks.max() or 1) * count)
    if walk.taste == "apart" and fits.any():  # bytes that overlaps save, as a share of the most; and no segment too long
        saved = np.where(fits, choices.likely - choices.peak, 0)
        price += saved * (_FINE // 2) // (int(saved.max() or 1) * count) + choices.lengths**2 // 16
    price = np.where(fits, price, NEVER)
    edge = price.min(axis=0)
    best, came_from = np.zeros(count + 1, np.int64), [0] * (count + 1)
    for stop in range(1, count + 1):
        reached = best[:stop] + edge[:stop, stop]
        came_from[stop] = int(reached.argmin())
        best[stop] = min(reached[came_from[stop]], NEVER)
    if best[-1] >= NEVER:
        return None
    path, stop = [], count
    while stop:
        first = came_from[stop]
        path.append((int(price[:, first, stop].argmin()), first, stop))
        stop = first
    return path[::-1]


def _pareto(found: list[Deployment]) -> tuple[Deployment, ...]:
    kept: list[Deployment] = []
    for deployment in sorted(found, key=lambda d: (d.cost.scheduled_macs, d.cost.peak_sram)):
        if not kept or deployment.cost.peak_sram < kept[-1].cost.peak_sram:
            kept.append(deployment)
    return tuple(kept)
