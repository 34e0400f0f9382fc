"""The plan as numbers (plan.json), as text and as a picture (plan.png): bytes upwards, steps to the right."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firmware.compiler import ops
from firmware.compiler.choose import peak_segment, peak_step
from firmware.compiler.search import Deployment

FORMAT_VERSION = 1


def plan_json(chosen: Deployment, front: Sequence[Deployment], tflite: bytes, tess: bytes, target: str) -> dict[str, Any]:
    """Everything that a reader of plan.json finds; sizes in bytes, `recompute` as a share of `macs`."""
    cost, graph = chosen.cost, chosen.scheduled.program.graph
    weights = sum(ops.parameter_bytes(op) for op in graph.ops)
    number, name = peak_segment(chosen)
    return {
        "format_version": FORMAT_VERSION,
        "model": graph.name,
        "target": target,
        "input": list(chosen.scheduled.program.nodes[0].shape),
        "macs": cost.macs,
        "scheduled_macs": cost.scheduled_macs,
        "recompute": cost.recompute,
        "sequential": chosen.scheduled.sequential,
        "peak_sram": cost.peak_sram,
        "peak_sram_parts": {
            "activations": cost.sram.activations,
            "state": cost.sram.state,
            "input_row": cost.sram.input_row,
            "candidates": cost.sram.candidates,
            "runtime": cost.sram.runtime,
        },
        "peak_at": {"segment": number, "node": name},
        "arena": {"size": chosen.plan.arena_size, "lower_bound": chosen.plan.lower_bound},
        "paper_sram": cost.paper_sram,
        "flash": {"model": len(tess), "weights_and_tables": weights, "plan_and_names": len(tess) - weights},
        "front": [_front_point(d) for d in front],
        "segments": [_segment(chosen, n) for n in range(len(chosen.schedule.segments))],
        "buffers": _buffers(chosen),
        "sha256": {"model.tflite": hashlib.sha256(tflite).hexdigest(), "model.tess": hashlib.sha256(tess).hexdigest()},
    }


def _front_point(deployment: Deployment) -> dict[str, Any]:
    cost = deployment.cost
    return {"peak_sram": cost.peak_sram, "recompute": cost.recompute, "schedule": str(deployment.schedule)}


def _segment(deployment: Deployment, number: int) -> dict[str, Any]:
    segment, flow = deployment.schedule.segments[number], deployment.scheduled.flows[number]
    nodes = deployment.scheduled.program.nodes
    return {
        "first": nodes[segment.first].name,
        "last": nodes[segment.stop - 1].name,
        "nodes": [segment.first, segment.stop],
        "columns": segment.columns,
        "rows": segment.rows,
        "bands": flow.bands,
        "carry": segment.carry,
        "reference": nodes[flow.reference].name,
        "macs": sum(int(c) * nodes[i].macs_per_cell for i, c in zip(segment.nodes, flow.cells(), strict=True)),
    }


def _buffers(deployment: Deployment) -> list[dict[str, Any]]:
    scheduled = deployment.scheduled
    return [
        {
            "node": scheduled.program.nodes[t.node].name,
            "offset": deployment.plan.offsets[t.node],
            "size": t.size,
            "steps": [t.first, t.stop],
            "rows": scheduled.buffers[t.node].rows,
            "cols": scheduled.buffers[t.node].cols,
            "materialised": scheduled.buffers[t.node].materialised,
        }
        for t in scheduled.lifetimes
    ]


def describe(deployment: Deployment) -> str:
    """One line a segment and the peak, for the terminal."""
    lines = []
    for number in range(len(deployment.schedule.segments)):
        s = _segment(deployment, number)
        if s["nodes"][1] - s["nodes"][0] > 1:
            mode = "carry" if s["carry"] else "recompute"
            lines.append(
                f"segment {number}: {s['first']} .. {s['last']}, {s['columns']} strip(s) of {s['bands']} band(s), {mode}"
            )
    number, name = peak_segment(deployment)
    cost = deployment.cost
    lines.append(f"peak {cost.peak_sram:,} B in segment {number} at '{name}', recompute +{cost.recompute:.1%}")
    return "\n".join(lines)


def draw_plan(deployment: Deployment, front: Sequence[Deployment], path: Path) -> None:
    """Write the memory plan, the peak marked, and the front beside it as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    memory, tradeoff = figure.subplots(1, 2, width_ratios=(3, 1))
    _draw_memory(memory, deployment)
    _draw_front(tradeoff, deployment, front)
    figure.savefig(path, format="png")


def _draw_memory(axes: Any, deployment: Deployment) -> None:
    from matplotlib import colormaps

    nodes, colours = deployment.scheduled.program.nodes, colormaps["tab20"]
    largest = sorted((t.size for t in deployment.scheduled.lifetimes), reverse=True)[:14]
    for t in deployment.scheduled.lifetimes:
        bottom, width = deployment.plan.offsets[t.node] / 1000, t.stop - t.first
        hatch = None if deployment.scheduled.buffers[t.node].materialised else "//"
        axes.bar(
            t.first, t.size / 1000, width, bottom, align="edge", color=colours(t.node % 20), edgecolor="white", lw=0.5,
            hatch=hatch, alpha=0.9,
        )
        if largest and t.size >= largest[-1]:
            axes.text(t.first + width / 2, bottom + t.size / 2000, nodes[t.node].name, ha="center", va="center", fontsize=6)
    for segment in deployment.schedule.segments:
        if segment.stop - segment.first > 1:
            axes.axvspan(segment.first, segment.stop, color="black", alpha=0.06, lw=0)
    step = peak_step(deployment)
    arena = deployment.plan.arena_size / 1000
    axes.axhline(arena, color="crimson", lw=1)
    axes.annotate(
        f"{arena:.1f} kB at '{nodes[step].name}'", (step + 0.5, arena), (0, 4), textcoords="offset points", color="crimson",
        ha="left" if step < len(nodes) / 2 else "right", fontsize=9,
    )
    axes.set(xlabel="step (node)", ylabel="arena, kB", xlim=(0, len(nodes)), ylim=(0, arena * 1.12))
    axes.set_title(f"{deployment.scheduled.program.graph.name}: hatched = rolling rows, grey = run together", fontsize=9)


def _draw_front(axes: Any, chosen: Deployment, front: Sequence[Deployment]) -> None:
    axes.plot([d.cost.recompute * 100 for d in front], [d.cost.peak_sram / 1000 for d in front], "o-", color="steelblue")
    axes.plot(chosen.cost.recompute * 100, chosen.cost.peak_sram / 1000, "o", color="crimson", label="chosen")
    axes.set(xlabel="recomputed MACs, %", ylabel="peak SRAM, kB", ylim=(0, None))
    axes.set_title("front", fontsize=9)
    axes.legend()
    axes.grid(alpha=0.3)
