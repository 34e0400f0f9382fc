"""What each run of nodes would cost as a segment: bytes and recomputed work, for the search to choose from.

Costs are those of `segment_flow`, but thousands of segments are asked about, so what segments share is worked out once: in a
push, how far every node follows the first one does not depend on where the segment ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from firmware.compiler.memory import align
from firmware.compiler.program import Program
from firmware.compiler.schedule import Segment, kept_rows, segment_flow, strips_of, terminals_of


@dataclass(frozen=True)
class Ring:
    """Rows that a node's ring needs, and whether its bytes are free between bands."""

    rows: int
    transient: bool


@dataclass(frozen=True)
class Choice:
    """A segment with its cost."""

    segment: Segment
    peak: int  # bytes alive at its worst step, the least that any placement needs
    whole: int  # of these, bytes that no mode can shrink: tensors that cross its ends
    extra: int  # multiply-accumulates that are done again
    rings: tuple[Ring, ...]  # a node


class Choices:
    """The costs of one program's segments."""

    def __init__(self, program: Program) -> None:
        self._program = program
        nodes, count = program.nodes, len(program.nodes)
        self._crossing = [
            sum(align(nodes[j].size) for j in range(n) if program.last_reader[j] >= n) for n in range(count + 1)
        ]

    def pushed(self) -> list[Choice]:
        """Every run of two nodes and more, its first node leading; every single node whole."""
        found = []
        for first, node in enumerate(self._program.nodes):
            alone = Segment(first, first + 1, rows=node.shape.h)
            found.append(self._choice(alone, (Ring(node.shape.h, True),)))
            rings = tuple(_pushed_rings(self._program, first))
            for stop in range(first + 2, len(self._program.nodes) + 1):
                found.append(self._choice(Segment(first, stop, push=True), rings[: stop - first]))
        return found

    def pulled(self, choice: Choice) -> Choice:
        """The same nodes, the tallest result leading."""
        flow = segment_flow(self._program, replace(choice.segment, push=False))
        rings = tuple(Ring(int(rows), bool(free)) for rows, free in zip(flow.ring_rows, flow.transient, strict=True))
        return self._choice(flow.segment, rings)

    def in_strips(self, choice: Choice, columns: int) -> Choice:
        """The same rows, in several columns."""
        return self._choice(replace(choice.segment, columns=columns), choice.rings)

    def without_rings(self, choice: Choice) -> Choice:
        """What remains when rings cost nothing: the bound of all modes."""
        return replace(choice, peak=choice.whole)

    def may_matter(self, choice: Choice, bound: int, reachable: int) -> bool:
        """True where another mode of these nodes could bring the peak of the whole below `reachable`."""
        return choice.segment.stop - choice.segment.first > 1 and choice.whole < reachable and choice.peak > bound

    def narrowest(self, choice: Choice) -> int:
        """Width of the narrowest map; strips cannot be more."""
        return min(self._program.nodes[i].shape.w for i in choice.segment.nodes)

    def _choice(self, segment: Segment, rings: Sequence[Ring]) -> Choice:
        program = self._program
        widths, extra = self._widths(segment)
        whole, carried = self._crossing[segment.first], 0
        alive = [0] * (segment.stop - segment.first + 1)
        once = segment.stop == segment.first + 1
        for local, i in enumerate(segment.nodes):
            node, reader = program.nodes[i], program.last_reader[i]
            if node.kind == "sink":
                continue
            if reader >= segment.stop:
                whole += align(node.size)
                continue
            size = align(rings[local].rows * widths[local] * node.shape.c)
            if once or rings[local].transient:
                alive[local] += size
                alive[reader + 1 - segment.first] -= size
            else:
                carried += size
        most = total = 0
        for change in alive:
            total += change
            most = max(most, total)
        return Choice(segment, whole + carried + most, whole, extra, tuple(rings))

    def _widths(self, segment: Segment) -> tuple[list[int], int]:
        """(columns of each ring, multiply-accumulates done again): strips share what lies between them."""
        nodes = self._program.nodes[segment.first : segment.stop]
        if segment.columns == 1:
            return [node.shape.w for node in nodes], 0
        col0, col1 = strips_of(self._program, segment, terminals_of(self._program, segment.first, segment.stop))
        spans = (col1 - col0).sum(axis=0)
        extra = sum((int(s) - n.shape.w) * n.shape.h * n.macs_per_cell for s, n in zip(spans, nodes, strict=True))
        return (col1 - col0).max(axis=0).tolist(), max(0, extra)


def _pushed_rings(program: Program, first: int) -> Iterator[Ring]:
    """Rings of nodes first, first + 1, ... when `first` advances row by row and its followers as far as they can."""
    nodes = program.nodes
    ends = np.arange(1, nodes[first].shape.h + 1, dtype=np.int64)
    targets: dict[int, np.ndarray] = {first: ends}
    for i in range(first + 1, len(nodes)):
        reached = [nodes[i].y.computable(targets[j]) for j in nodes[i].inputs if j in targets]
        if reached:
            targets[i] = np.minimum.reduce(reached)
    for i in reversed(range(first + 1, len(nodes))):
        if i not in targets:  # nothing of it waits for the first node: it is pulled by its readers
            needs = [nodes[r].y.in_hi(targets[r]) for r in program.readers[i]]
            targets[i] = np.maximum.reduce(needs) if needs else ends * nodes[i].shape.h // len(ends)
    begins = {i: np.concatenate([[0], rows[:-1]]) for i, rows in targets.items()}
    for i in range(first, len(nodes)):
        keep = kept_rows(program, i, program.readers[i], targets[i], begins)
        transient = bool((keep[1:] >= begins[i][1:]).all())
        yield Ring(max(1, int((targets[i] - keep).max())), transient)
