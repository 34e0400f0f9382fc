"""Random schedules of a program, for properties that must hold whatever the schedule."""

from dataclasses import replace

import numpy as np

from firmware.compiler.program import Program
from firmware.compiler.schedule import Schedule, Segment, reference_of, terminals_of


def random_schedule(rng: np.random.Generator, program: Program, max_columns: int = 4) -> Schedule:
    """Up to five segments at random cuts, each with random strips, rows and carry."""
    count = len(program.nodes)
    cuts = sorted({0, count, *rng.integers(1, count + 1, rng.integers(0, 5)).tolist()})
    segments = []
    for first, stop in zip(cuts, cuts[1:], strict=False):
        width = min(program.nodes[t].shape.w for t in terminals_of(program, first, stop))
        columns = int(rng.integers(1, min(max_columns, width) + 1))
        carry = bool(rng.integers(2))
        push, latch = (carry and bool(rng.integers(2)) for _ in range(2))
        segment = Segment(first, stop, columns, 1, carry, push, latch)
        rows = int(rng.integers(1, program.nodes[reference_of(program, segment)].shape.h + 1))
        segments.append(replace(segment, rows=rows))
    return Schedule(tuple(segments))
