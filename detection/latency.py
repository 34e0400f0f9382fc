"""What pictures cost on a device, from an evaluation's journal: latency.csv, a summary, a histogram, a section of the report.

Costs are in the device's unit, instructions of an emulator or cycles of a board. Milliseconds appear only where the device
states its clock and counts cycles.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detection.journal import Journal
from detection.report import Latency, LatencyRow, Picture
from detection.runs import write_bytes
from firmware.device import DetectRecord, DeviceInfo
from firmware.header import load_tess
from firmware.profile import NodeCost, node_costs

Row = tuple[str, DetectRecord]
SHOWN = 10  # of the dearest pictures
GROUPS = {"picture": "Whole", "segment": "By segment", "operator": "By operator"}


def percentile(values: Sequence[int], share: float) -> int:
    """The smallest value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def spread(values: Sequence[int]) -> dict[str, int]:
    """p50, p95 and the greatest of counts."""
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "max": max(values)}


def summary(rows: Sequence[Row], info: DeviceInfo, model: bytes) -> dict[str, Any]:
    """p50, p95 and most of the counts, of all and of each part, high-water marks, repeats; null where nothing was counted."""
    counts = [record.instructions for _, record in rows if record.instructions is not None]
    stacks = [record.stack for _, record in rows if record.stack is not None]
    timed = info.unit == "cycles" and info.clock_hz
    found = spread(counts) if counts else None
    return {
        "target": info.target,
        "unit": info.unit,
        "clock_hz": info.clock_hz,
        "pictures": len(rows),
        "count": found,
        "ms": {name: 1000 * value / info.clock_hz for name, value in found.items()} if timed and found else None,
        "parts": _parts(rows, model),
        "stack_most": max(stacks, default=None),
        "work_memory_most": max((record.touched or 0 for _, record in rows), default=None),
        "work_memory": info.arena,
        "repeated_frames": sum(record.repeats or 0 for _, record in rows),
    }


def summary_line(found: dict[str, Any]) -> str:
    """One line of it for people."""
    count = found["count"]
    parts = [f"{found['target']}, {found['pictures']} pictures"]
    if count:
        parts.append(f"{found['unit']} p50 {count['p50']:,}, p95 {count['p95']:,}, most {count['max']:,}")
    if found["ms"]:
        parts.append(f"p50 {found['ms']['p50']:.1f} ms at {found['clock_hz']:,} Hz")
    if found["stack_most"]:
        parts.append(f"stack {found['stack_most']:,} B")
    parts.append(f"work memory {found['work_memory_most']:,} of {found['work_memory']:,} B")
    return "; ".join(parts)


def write_latency(journal: Journal, info: DeviceInfo, model: Path) -> dict[str, Any]:
    """Write latency.csv, and latency.png where something was counted, into the journal's folder; the summary."""
    rows = journal.in_order()
    write_bytes(journal.folder / "latency.csv", latency_csv(rows, info, load_tess(model)).encode())
    found = summary(rows, info, load_tess(model))
    if found["count"]:
        write_bytes(journal.folder / "latency.png", histogram([r.instructions or 0 for _, r in rows], found))
    return found


def latency_csv(rows: Sequence[Row], info: DeviceInfo, model: bytes) -> str:
    """A line a picture; with profiles also a column a segment and a column an operator."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    costs = [node_costs(model, record.profile) if record.profile is not None else [] for _, record in rows]
    parts = sorted({cost.segment for row in costs for cost in row}), sorted({cost.operator for row in costs for cost in row})
    unit = info.unit or "count"
    names = ["image", unit, f"detect_{unit}", "stack", "work_memory", "repeated_frames"]
    writer.writerow([*names, *(f"segment_{part}" for part in parts[0]), *parts[1]])
    for (image, record), cost in zip(rows, costs, strict=True):
        fields = (record.instructions, record.detect_instructions, record.stack, record.touched, record.repeats)
        writer.writerow([image, *fields, *_sums(cost, "segment", parts[0]), *_sums(cost, "operator", parts[1])])
    return out.getvalue()


def _parts(rows: Sequence[Row], model: bytes) -> list[dict[str, Any]]:
    """The spread of finding boxes in the network's outputs, and with profiles of each segment and operator, dearest first."""
    detect = [record.detect_instructions for _, record in rows if record.detect_instructions is not None]
    found = [{"group": "picture", "name": "boxes, from the candidates", **spread(detect)}] if detect else []
    costs = [node_costs(model, record.profile) for _, record in rows if record.profile is not None]
    for group in ("segment", "operator"):
        names = sorted({getattr(cost, group) for row in costs for cost in row})
        columns = {name: [_sums(row, group, [name])[0] for row in costs] for name in names}
        spreads = [{"group": group, "name": str(name), **spread(column)} for name, column in columns.items()]
        found += spreads if group == "segment" else sorted(spreads, key=lambda part: -part["p50"])
    return found


def _sums(costs: Sequence[NodeCost], field: str, parts: Sequence[Any]) -> list[int]:
    return [sum(cost.count for cost in costs if getattr(cost, field) == part) for part in parts]


def latency_section(journal: Journal, found: dict[str, Any]) -> Latency | None:
    """What the report says of latency; None where nothing was counted. `found` as `write_latency` gave it."""
    if not found["count"]:
        return None
    whole = LatencyRow("a picture, all in", **found["count"])
    groups: dict[str, list[LatencyRow]] = {"picture": [whole], "segment": [], "operator": []}
    for part in found["parts"]:
        name = f"segment {part['name']}" if part["group"] == "segment" else part["name"]
        groups[part["group"]].append(LatencyRow(name, part["p50"], part["p95"], part["max"]))
    dear = sorted(journal.in_order(), key=lambda row: -(row[1].instructions or 0))[:SHOWN]
    return Latency(
        unit=found["unit"],
        clock_hz=found["clock_hz"] if found["ms"] else None,
        groups=tuple((title, tuple(groups[key])) for key, title in GROUPS.items() if groups[key]),
        histogram=Picture(journal.folder / "latency.png", f"How many pictures cost how many {found['unit']}"),
        dearest=tuple((image, record.instructions or 0) for image, record in dear),
    )


def histogram(counts: Sequence[int], found: dict[str, Any]) -> bytes:
    """PNG of the counts with p50 and p95."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.hist(np.array(counts) / 1e6, bins=min(40, max(5, len(counts) // 5)), color="#2468b4")
    for name, style in (("p50", "-"), ("p95", "--")):
        axes.axvline(found["count"][name] / 1e6, color="#30343b", linestyle=style, linewidth=1, label=name)
    axes.set_xlabel(f"million {found['unit']} a picture")
    axes.set_ylabel("pictures")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"{found['target']}, {len(counts)} pictures")
    axes.legend(frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
