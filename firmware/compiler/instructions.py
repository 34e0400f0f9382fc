"""How many instructions a schedule executes: a linear model, fitted to counts of an emulated Cortex-M7.

Instructions are no cycles and no time, but they see what multiply-accumulates do not: that a depthwise convolution spends several
times as many on each, that every strip sums the same weights again, and that planning a band costs each node of its segment.
`instructions.json` holds the coefficients; `python -m benchmarks.instruction_model` measures, fits and writes it, and states the
error on networks that it was not fitted to. Letterbox, boxes and suppression cost the same in every schedule and are not in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from firmware.compiler import ops
from firmware.compiler.graph import Conv2D, DepthwiseConv2D
from firmware.compiler.memory import ScheduledProgram
from firmware.compiler.program import Program
from firmware.compiler.schedule import Flow

CELL_TERMS = ("macs", "taps", "spans", "outputs", "cells")  # each output pixel that is computed adds to these
ROW_TERMS = ("weights", "channels", "rows")  # and each row
CALL_TERMS = ("calls",)  # and each band in which a node makes rows
TERMS = CELL_TERMS + ROW_TERMS + CALL_TERMS
BAND_TERMS = ("bands", "nodes", "reads")  # each band of each strip: itself, its segment's nodes and the arrows between them
COEFFICIENTS = Path(__file__).with_name("instructions.json")
LANES = 32  # channels that the depthwise kernel takes at a time


@dataclass(frozen=True)
class Coefficients:
    """Instructions for each of TERMS by kind of node, and for each of BAND_TERMS by whether rows are carried."""

    kinds: Mapping[str, np.ndarray]  # float (terms,)
    bands: Mapping[bool, np.ndarray]  # float (band terms,)


@cache
def load_coefficients() -> Coefficients:
    """The committed ones."""
    content = json.loads(COEFFICIENTS.read_text())
    kinds = {kind: np.array([terms.get(t, 0.0) for t in TERMS]) for kind, terms in content["kinds"].items()}
    bands = {mode == "carried": np.array([terms.get(t, 0.0) for t in BAND_TERMS]) for mode, terms in content["bands"].items()}
    return Coefficients(kinds, bands)


def kind_of(program: Program, node: int) -> str:
    """What the model tells apart: operators by name, convolutions of 1x1 and channel multipliers by themselves."""
    if (index := program.nodes[node].op) is None:
        return program.nodes[node].kind
    op = program.graph.ops[index]
    if isinstance(op.params, Conv2D) and op.params.window.kernel == (1, 1):
        return "Conv2D 1x1"
    if isinstance(op.params, DepthwiseConv2D) and op.params.multiplier > 1:
        return "DepthwiseConv2D multiplied"
    return op.kind


def unit_terms(program: Program, node: int) -> np.ndarray:
    """(terms,) what one output pixel adds to CELL_TERMS, one row to ROW_TERMS, one band to CALL_TERMS."""
    n = program.nodes[node]
    channels = n.shape.c
    taps = sum(y.kernel * x.kernel * program.nodes[j].shape.c for j, y, x in zip(n.inputs, n.y, n.x, strict=True))
    spans = weights = 0
    if n.op is not None:
        params = program.graph.ops[n.op].params
        held = ops.rules(params).weights(params)
        weights = 0 if held is None else held.values.size
        if isinstance(params, DepthwiseConv2D):
            spans = params.window.kernel[0] * params.window.kernel[1] * -(-channels // LANES)
        elif held is not None:
            spans = channels * n.y[0].kernel
    return np.array([n.macs_per_cell, taps, spans, channels, 1, weights, channels, 1, 1], float)


def node_terms(program: Program, flow: Flow) -> np.ndarray:
    """(nodes, terms) of one segment's run."""
    made = (flow.target - flow.begin).clip(0)
    strips = (flow.col1 > flow.col0).sum(axis=0)
    counts = {CELL_TERMS: flow.cells(), ROW_TERMS: made.sum(axis=0) * strips, CALL_TERMS: (made > 0).sum(axis=0) * strips}
    amounts = np.concatenate([np.repeat(count[:, None], len(terms), axis=1) for terms, count in counts.items()], axis=1)
    return amounts * np.stack([unit_terms(program, i) for i in flow.segment.nodes])


def band_terms(program: Program, flow: Flow) -> np.ndarray:
    """(band terms,) of one segment's run."""
    segment = flow.segment
    reads = sum(j >= segment.first for i in segment.nodes for j in program.nodes[i].inputs)
    return np.array([1, len(segment.nodes), reads], float) * flow.bands * segment.columns


def count_instructions(scheduled: ScheduledProgram) -> int:
    """Of one run on a network frame."""
    program, model = scheduled.program, load_coefficients()
    total = 0.0
    for flow in scheduled.flows:
        factors = np.stack([model.kinds[kind_of(program, i)] for i in flow.segment.nodes])
        total += float((node_terms(program, flow) * factors).sum())
        total += float(band_terms(program, flow) @ model.bands[flow.segment.carry])
    return round(total)
