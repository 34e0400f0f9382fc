"""The schedule search: the Pareto front of (peak SRAM, multiply-accumulates) over the space of DESIGN.md.

A network's nodes are cut into segments. Which tensors are alive across a cut depends on the cut alone, so what a segment
costs depends on its own two ends and its own mode (`choices.py`). That makes the best peak a shortest path over cuts, with
`max` along the way for bytes and `+` for recomputed work: labels (peak, recomputed MACs) are carried from cut to cut and
dominated ones dropped. The path is exact for the lower bounds of memory (most bytes alive in one step); each end label is
then placed for real (`plan_memory`), and only what survives on real numbers is returned.

Modes are tried from cheap to dear: every run of nodes pushed; then pulled, and in strips, where that could lower the peak.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Path:
    """A schedule as the search sees it."""

    segments: tuple[Segment, ...]
    peak: int  # bytes, lower bound
    work: int  # multiply-accumulates that are done again


PLACED = 2  # schedules of the same work that are placed, where the leanest does not reach its bound


def search_front(program: Program, max_candidates: int = 0) -> tuple[Deployment, ...]:
    """All schedules worth having, least memory last; never more memory for more work."""
    choices = Choices(program)
    found: dict[Schedule, Deployment] = {}
    for peaks in (choices.peak, choices.likely):
        limit = int(NEVER) - 1
        while path := _cheapest(choices, peaks, limit):
            paths = _leaner(choices, peaks, path)
            for lean in paths[:PLACED]:
                schedule = Schedule(lean.segments)
                if schedule not in found:
                    found[schedule] = deploy(program, schedule, max_candidates)
                if found[schedule].plan.tight:
                    break
            limit = paths[0].peak - 1
    return _pareto(list(found.values()))


def _leaner(choices: Choices, peaks: np.ndarray, path: _Path) -> list[_Path]:
    """The path and all that need less memory for the same work, the leanest first."""
    paths = [path]
    while (leaner := _cheapest(choices, peaks, paths[-1].peak - 1)) and leaner.work == path.work:
        paths.append(leaner)
    return paths[::-1]


def _cheapest(choices: Choices, peaks: np.ndarray, limit: int) -> _Path | None:
    """The least work of any path whose segments all stay within `limit` bytes of a table; None where there is none.

    Lazy shortest path: take the path that is best if all bounds were true, settle what it uses, and repeat until nothing of
    it is a mere bound. Then it is best in truth, for bounds never exceed what they stand for.
    """
    while path := _shortest(choices, peaks, limit):
        open_ = [step for step in path if not choices.settled(*step)]
        if not open_:
            peak, work = (total(int(table[step]) for step in path) for total, table in ((max, peaks), (sum, choices.work)))
            return _Path(tuple(choices.segment(*step) for step in path), peak, work)
        for step in open_:
            choices.settle(*step, limit)
    return None


def _shortest(choices: Choices, peaks: np.ndarray, limit: int) -> list[tuple[int, int, int]] | None:
    """(mode, first, stop) of each segment of the path of least work, and of fewest segments among equals."""
    price = np.where(peaks <= limit, choices.work * _FINE + 1, NEVER)
    edge = price.min(axis=0)
    best, came_from = np.zeros(choices.count + 1, np.int64), [0] * (choices.count + 1)
    for stop in range(1, choices.count + 1):
        reached = best[:stop] + edge[:stop, stop]
        came_from[stop] = int(reached.argmin())
        best[stop] = min(reached[came_from[stop]], NEVER)
    if best[-1] >= NEVER:
        return None
    path, stop = [], choices.count
    while stop:
        first = came_from[stop]
        path.append((int(price[:, first, stop].argmin()), first, stop))
        stop = first
    return path[::-1]


_FINE = 2048  # work counts this much more than one segment: there are fewer segments


def _pareto(found: list[Deployment]) -> tuple[Deployment, ...]:
    kept: list[Deployment] = []
    for deployment in sorted(found, key=lambda d: (d.cost.scheduled_macs, d.cost.peak_sram)):
        if not kept or deployment.cost.peak_sram < kept[-1].cost.peak_sram:
            kept.append(deployment)
    return tuple(kept)
