"""Where a picture's cost goes: counts by node as firmware or host measure them, by segment and operator for people."""

import struct
from typing import NamedTuple

import numpy as np

from firmware.compiler.image import KINDS, NODE_BYTES
from firmware.header import read_header

_NAMES = {number: kind if isinstance(kind, str) else kind.__name__.lower() for kind, number in reversed(KINDS.items())}


class NodeCost(NamedTuple):
    """One node of a model and its cost in the device's unit."""

    segment: int
    node: int
    operator: str
    count: int


def node_costs(model: bytes, profile: np.ndarray) -> list[NodeCost]:
    """Every node of a model.tess with its count; `profile` (n,) may be longer than the model."""
    header = read_header(model)
    nodes, segments = struct.unpack_from("<II", model, 36)
    starts = [struct.unpack_from("<H", model, segments + 16 * i)[0] for i in range(header.n_segments)]
    place = np.searchsorted(starts, np.arange(header.n_nodes), side="right") - 1
    return [
        NodeCost(int(place[i]), i, _NAMES[model[nodes + NODE_BYTES * i]], int(profile[i])) for i in range(header.n_nodes)
    ]


def cost_lines(costs: list[NodeCost], unit: str) -> list[str]:
    """A line a segment with its operators, dearest first, and shares of the whole."""
    whole = max(sum(cost.count for cost in costs), 1)
    lines = []
    for segment in sorted({cost.segment for cost in costs}):
        inside = [cost for cost in costs if cost.segment == segment]
        kinds = {kind: sum(c.count for c in inside if c.operator == kind) for kind in {c.operator for c in inside}}
        parts = ", ".join(f"{kind} {count / whole:.1%}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])[:4])
        total = sum(kinds.values())
        span = f"{inside[0].node}-{inside[-1].node}"
        lines.append(f"segment {segment:>2} nodes {span:<9} {total:>14,} {unit} {total / whole:>6.1%}  ({parts})")
    return lines
