"""From a user's words to one schedule: `auto` or a published method (`published.FORMS`), and a budget that must hold."""

from collections.abc import Sequence

from firmware.compiler.program import Program
from firmware.compiler.published import check_schedule_text, published_schedule
from firmware.compiler.search import Deployment, deploy, search_orders
from firmware.compiler.target import Target


class BudgetError(ValueError):
    """No schedule fits. The message says what is needed, by which segment, and what would fit."""


def choose(
    program: Program, text: str, target: Target, sram: int | None = None, max_candidates: int = 0
) -> tuple[Deployment, tuple[Deployment, ...]]:
    """(the deployment to use, the whole front). `sram` narrows the target's budget, bytes.

    `auto` takes the front's point of fewest instructions that fits; a forced schedule must fit as it is.
    """
    check_schedule_text(text)
    budget = min(target.budget, sram) if sram is not None else target.budget
    front = search_orders(program.graph, max_candidates)
    if text == "auto":
        fitting = [d for d in front if d.cost.peak_sram <= budget]
        if not fitting:
            raise BudgetError(_too_big(front[-1], budget, target, front))
        return min(fitting, key=lambda d: d.cost.instructions), front
    chosen = deploy(program, published_schedule(program, text), max_candidates)
    if chosen.cost.peak_sram > budget:
        raise BudgetError(_too_big(chosen, budget, target, front))
    return chosen, front


def _too_big(deployment: Deployment, budget: int, target: Target, front: Sequence[Deployment]) -> str:
    number, name = peak_segment(deployment)
    fitting = sorted((d for d in front if d.cost.peak_sram <= budget), key=lambda d: d.cost.instructions)
    least = front[-1]
    way_out = (
        f"the front has {fitting[0].cost.peak_sram:,} B at +{fitting[0].cost.recompute:.1%} MACs: --schedule auto"
        if fitting
        else f"the least that any schedule needs is {least.cost.peak_sram:,} B at +{least.cost.recompute:.1%} MACs: "
        "use a smaller input, fewer channels early on, or a bigger target"
    )
    return (
        f"peak_sram is {deployment.cost.peak_sram:,} B at segment {number} ({name}), "
        f"target '{target.name}' leaves {budget:,} B; {way_out}"
    )


def peak_step(deployment: Deployment) -> int:
    """The first node during which a buffer reaches the top of the arena."""
    plan = deployment.plan
    return min(t.first for t in deployment.scheduled.lifetimes if plan.offsets[t.key] + t.size == plan.arena_size)


def peak_segment(deployment: Deployment) -> tuple[int, str]:
    """(number of the segment that sets the peak, name of the node that does)."""
    step = peak_step(deployment)
    number = next(n for n, s in enumerate(deployment.schedule.segments) if s.first <= step < s.stop)
    return number, deployment.scheduled.program.nodes[step].name
