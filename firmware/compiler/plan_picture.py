"""plan.png: every buffer of a plan over time, a colour a tensor, the peak marked; beside it the front and published methods."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firmware.compiler.choose import peak_step
from firmware.compiler.memory import part_of
from firmware.compiler.published import Published
from firmware.compiler.search import Deployment

NAMED = 16  # buffers that carry their name where it fits, the largest ones
LOW = 0.035  # of the picture's height: lower buffers carry no name
LETTER_ACROSS, LETTER_UP = 0.0062, 0.013  # of the picture's width and height
GOLDEN = 0.618033988749895  # of the circle of hues from one tensor to the next: neighbours never look alike
INK, FOOT, PEAK, OURS, THEIRS = "#1d2327", "#cfd4d9", "#b3262e", "#0b6b62", "#8a5a00"
CLOSE = 1.25  # ratio of two peaks whose labels would touch


def draw_plan(chosen: Deployment, front: Sequence[Deployment], published: Sequence[Published], path: Path) -> None:
    """Write the memory plan and, beside it, the front as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    memory, tradeoff = figure.subplots(1, 2, width_ratios=(2.4, 1))
    _draw_memory(memory, chosen)
    _draw_front(tradeoff, chosen, front, published)
    figure.savefig(path, format="png")


def _draw_memory(axes: Any, chosen: Deployment) -> None:
    nodes, arena = chosen.scheduled.program.nodes, chosen.plan.arena_size / 1000
    lifetimes = sorted(chosen.scheduled.lifetimes, key=lambda t: -t.size)
    for rank, t in enumerate(lifetimes):
        bottom, height, width = chosen.plan.offsets[t.key] / 1000, t.size / 1000, t.stop - t.first
        part, node = part_of(t.key)
        whole = part == "tensor" and chosen.scheduled.buffers[node].materialised
        axes.bar(
            t.first, height, width, bottom, align="edge", color=_colour(node), edgecolor="white", lw=0.6,
            hatch=None if whole else "///", alpha=0.92,
        )  # fmt: skip
        name = _short(nodes[node].name)
        across = width > LETTER_ACROSS * len(name) * len(nodes) and height > LOW * arena
        upwards = height > LETTER_UP * len(name) * arena and width > LOW * 0.5 * len(nodes)
        if rank < NAMED and (across or upwards):
            axes.text(
                t.first + width / 2, bottom + height / 2, name, ha="center", va="center", fontsize=7,
                rotation=0 if across else 90, color=INK, clip_on=True,
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75},
            )  # fmt: skip
    _draw_segments(axes, chosen, arena)
    step = peak_step(chosen)
    left = step < len(nodes) / 2
    axes.axhline(arena, color=PEAK, lw=1, ls=(0, (4, 3)))
    axes.annotate(
        f"peak {arena:,.1f} kB at '{_short(nodes[step].name)}'", (step + 0.5, arena), (24 if left else -24, 16),
        textcoords="offset points", color=PEAK, ha="left" if left else "right", va="bottom", fontsize=10, weight="bold",
        arrowprops={"arrowstyle": "-|>", "color": PEAK, "shrinkB": 0},
    )  # fmt: skip
    axes.set(xlabel="time: nodes of the network, one after the other", ylabel="activations, kB")
    axes.set(xlim=(0, len(nodes)), ylim=(-0.07 * arena, 1.16 * arena))
    title = f"{chosen.scheduled.program.graph.name}: a colour a tensor, plain = whole, hatched = some of its rows"
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_segments(axes: Any, chosen: Deployment, arena: float) -> None:
    """A grey foot under nodes that run together, with their mode."""
    for segment in chosen.schedule.segments:
        width = segment.stop - segment.first
        if width > 1:
            axes.bar(segment.first, 0.055 * arena, width, -0.065 * arena, align="edge", color=FOOT, edgecolor="white", lw=0.8)
            words = "row by row" if segment.carry else "halo rows again"
            words += f", {segment.columns} strips" if segment.columns > 1 else ""
            if width > 0.012 * len(words) * len(chosen.scheduled.program.nodes):
                axes.text(segment.first + width / 2, -0.038 * arena, words, ha="center", va="center", fontsize=7, color=INK)


def _colour(node: int) -> tuple[float, float, float]:
    return colorsys.hls_to_rgb(node * GOLDEN % 1, (0.62, 0.72, 0.55)[node % 3], 0.5)


def _short(name: str) -> str:
    """The end of a name says which layer it is."""
    name = name.split(";")[0]
    return name if len(name) <= 28 else f"\u2026{name[-27:]}"


def _draw_front(axes: Any, chosen: Deployment, front: Sequence[Deployment], published: Sequence[Published]) -> None:
    axes.plot(*_points(front), "o-", ms=4, lw=1.5, color=OURS, label="front of this search", zorder=3)
    axes.plot(*_points([chosen]), "o", ms=11, mfc="none", mew=2, color=PEAK, label="chosen", zorder=4)
    if published:
        theirs = _points([method.deployment for method in published])
        axes.plot(*theirs, "D", ms=5, color=THEIRS, label="published methods", zorder=3)
    for group in _neighbours(published):
        x, y = (max(values) for values in _points([method.deployment for method in group]))
        names = [f"{method.name}, {method.deployment.cost.peak_sram / 1000:,.0f} kB" for method in group]
        axes.annotate("\n".join(names), (x, y), (0, 7), textcoords="offset points", fontsize=8, color=THEIRS, va="bottom")
    axes.set(xlabel="multiply-accumulates computed again, %", ylabel="peak SRAM, all in, kB", yscale="log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if f"{value:.0e}"[0] in "25" else "")
    axes.margins(x=0.08, y=0.12)
    axes.set_title("memory against work, each one executable", fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)


def _neighbours(published: Sequence[Published]) -> list[list[Published]]:
    """Methods whose peaks are too close for a label each, together."""
    groups: list[list[Published]] = []
    for method in sorted(published, key=lambda one: one.deployment.cost.peak_sram):
        if groups and method.deployment.cost.peak_sram < CLOSE * groups[-1][-1].deployment.cost.peak_sram:
            groups[-1].append(method)
        else:
            groups.append([method])
    return groups


def _points(deployments: Sequence[Deployment]) -> tuple[list[float], list[float]]:
    """(recomputed %, peak kB)"""
    return [100 * d.cost.recompute for d in deployments], [d.cost.peak_sram / 1000 for d in deployments]
