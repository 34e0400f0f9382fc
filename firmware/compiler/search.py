"""The schedule search: the Pareto front of (peak SRAM, multiply-accumulates) over the space of DESIGN.md.

A network's nodes are cut into segments. Which tensors are alive across a cut depends on the cut alone, so what a segment
costs depends on its own two ends and its own mode (`choices.py`). That makes the best peak a shortest path over cuts, with
`max` along the way for bytes and `+` for recomputed work: labels (peak, recomputed MACs) are carried from cut to cut and
dominated ones dropped. The path is exact for the lower bounds of memory (most bytes alive in one step); each end label is
then placed for real (`plan_memory`), and only what survives on real numbers is returned.

Modes are tried from cheap to dear: every run of nodes pushed; then pulled, and in strips, where that could lower the peak.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from firmware.compiler.choices import Choice, Choices
from firmware.compiler.cost import Cost, estimate
from firmware.compiler.memory import MemoryPlan, ScheduledProgram, apply_schedule, check_plan, plan_memory
from firmware.compiler.program import Program
from firmware.compiler.schedule import Schedule, Segment

STRIPS = (2, 3, 4, 6, 8)  # column counts tried
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
    plan = plan_memory(scheduled.lifetimes, scheduled.overlaps)
    check_plan(scheduled.lifetimes, plan, scheduled.overlaps)
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
    choices = Choices(program)
    once = choices.pushed()
    reachable = _best_peak(program, once)
    bound = _best_peak(program, [choices.without_rings(choice) for choice in once])  # no mode can do better
    once += [choices.pulled(c) for c in once if choices.may_matter(c, bound, reachable)]
    reachable = _best_peak(program, once)
    strips = [
        choices.in_strips(choice, columns)
        for choice in once
        if choices.may_matter(choice, bound, reachable)
        for columns in STRIPS
        if columns <= choices.narrowest(choice) // 2
    ]
    found = [deploy(program, Schedule(label.segments()), max_candidates) for label in _shortest(program, [*once, *strips])]
    return _pareto(found)


def _best_peak(program: Program, choices: Iterable[Choice]) -> int:
    """Least peak of any path, bytes."""
    return min(label.peak for label in _shortest(program, choices))


def _shortest(program: Program, choices: Iterable[Choice]) -> list[_Label]:
    """Labels at the last cut that no other label beats in both bytes and work."""
    count = len(program.nodes)
    leaving: list[list[Choice]] = [[] for _ in range(count)]
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
