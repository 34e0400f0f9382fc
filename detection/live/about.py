"""What stays the same while a model runs: names, sizes, segments, memory map. The page asks for it once."""

import hashlib
import json
from pathlib import Path
from typing import Any

from detection.draw import class_color
from firmware.device import Device
from firmware.header import load_tess

Q15 = 32768


def about(tess: Path, device: Device, source: str) -> dict[str, Any]:
    """JSON for the page and for a recording's first line; `source` says where the pictures come from.

    The memory map is that of plan.json beside the model, None where there is none or it describes another model.
    """
    header, info = device.header, device.info
    digest = hashlib.sha256(load_tess(tess)).hexdigest()
    plan = _plan(tess.with_name("plan.json"), digest)
    height, width, _ = header.input_shape
    return {
        "model": header.name,
        "sha256": digest,
        "source": source,
        "input": [width, height],
        "classes": [
            {"name": name, "color": "#" + bytes(class_color(label)).hex()} for label, name in enumerate(header.class_names)
        ],
        "threshold": header.score_threshold / Q15,
        "target": info.target,
        "counts": info.unit,
        "unit": info.profile_unit,
        "model_size": info.model,
        "peak_sram": header.peak_sram,
        "segments": [_segment(number, nodes, plan) for number, nodes in enumerate(header.segments)],
        "memory": plan and {
            "size": plan["arena"]["size"],
            "steps": header.n_nodes,
            "buffers": [[b["node"], b["offset"], b["size"], *b["steps"], b["materialised"]] for b in plan["buffers"]],
            "parts": plan["peak_sram_parts"],
        },
    }  # fmt: skip


def _segment(number: int, nodes: tuple[int, int], plan: dict[str, Any] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"nodes": nodes, "name": f"nodes {nodes[0]} to {nodes[1] - 1}", "macs": None}
    if plan:
        of_plan = plan["segments"][number]
        ends = of_plan["first"], of_plan["last"]
        entry |= {"name": " to ".join(dict.fromkeys(ends)), "macs": of_plan["macs"]}
    return entry


def _plan(path: Path, digest: str) -> dict[str, Any] | None:
    """export.py's plan, when it is this model's."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return plan if plan["sha256"]["model.tess"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
