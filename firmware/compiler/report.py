"""The plan as numbers (plan.json) and as text."""

import hashlib
from collections.abc import Sequence
from typing import Any

from firmware.compiler import ops
from firmware.compiler.choose import peak_segment
from firmware.compiler.memory import Lifetime, part_of
from firmware.compiler.published import Published
from firmware.compiler.search import Deployment

FORMAT_VERSION = 1


def plan_json(
    chosen: Deployment, front: Sequence[Deployment], published: Sequence[Published], tflite: bytes, tess: bytes, target: str
) -> dict[str, Any]:
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
        "instructions": cost.instructions,
        "sequential": chosen.scheduled.sequential,
        "peak_sram": cost.peak_sram,
        "peak_sram_parts": {
            "activations": cost.sram.activations,
            "state": cost.sram.state,
            "candidates": cost.sram.candidates,
            "runtime": cost.sram.runtime,
        },
        "peak_at": {"segment": number, "node": name},
        "arena": {"size": chosen.plan.arena_size, "lower_bound": chosen.plan.lower_bound},
        "paper_sram": cost.paper_sram,
        "flash": {"model": len(tess), "weights_and_tables": weights, "plan_and_names": len(tess) - weights},
        "front": [_front_point(d) for d in front],
        "published": [{"name": m.name, "text": m.text, **_front_point(m.deployment)} for m in published],
        "segments": [_segment(chosen, n) for n in range(len(chosen.schedule.segments))],
        "buffers": _buffers(chosen),
        "sha256": {"model.tflite": hashlib.sha256(tflite).hexdigest(), "model.tess": hashlib.sha256(tess).hexdigest()},
    }


def _front_point(deployment: Deployment) -> dict[str, Any]:
    cost = deployment.cost
    return {
        "peak_sram": cost.peak_sram,
        "recompute": cost.recompute,
        "instructions": cost.instructions,
        "schedule": str(deployment.schedule),
    }


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
    return [_buffer(deployment, t) for t in deployment.scheduled.lifetimes]


def _buffer(deployment: Deployment, t: Lifetime) -> dict[str, Any]:
    """`rows` of `cols` pixels: a tensor (materialised), a ring, the fresh rows of one, or the letterbox's accumulators."""
    part, node = part_of(t.key)
    buffer = deployment.scheduled.buffers[node]
    rows = {"fresh": buffer.fresh, "letterbox": 1}.get(part, buffer.rows)
    return {
        "node": deployment.scheduled.program.nodes[node].name,
        "part": part if part != "tensor" or buffer.materialised else "ring",
        "offset": deployment.plan.offsets[t.key],
        "size": t.size,
        "steps": [t.first, t.stop],
        "rows": rows,
        "cols": buffer.cols,
        "materialised": part == "tensor" and buffer.materialised,
    }


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
