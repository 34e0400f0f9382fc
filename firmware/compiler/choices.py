"""What each run of nodes would cost as a segment: bytes and recomputed work, for the search to choose from.

Costs are those of `segment_flow`, but thousands of segments are asked about, so what segments share is worked out once: in a
push, how far every node follows the first one does not depend on where the segment ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from firmware.compiler.memory import Overlap, align, dying, overlap_distance, overlaps_of
from firmware.compiler.program import Program
from firmware.compiler.schedule import (
    Segment,
    followed,
    kept_rows,
    lengthened,
    rows_a_band,
    segment_flow,
    strips_of,
    terminals_of,
)


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
        self._strips: dict[tuple[int, int], tuple[list[int], list[int]]] = {}  # (stop, columns)

    def pushed(self) -> list[Choice]:
        """Every run of nodes, its first node leading."""
        found = []
        for first in range(len(self._program.nodes)):
            push = _Push(self._program, first)
            rings = tuple(push.ring(i) for i in range(first, len(self._program.nodes)))
            for stop in range(first + 1, len(self._program.nodes) + 1):
                segment = Segment(first, stop, push=stop > first + 1)
                found.append(self._choice(segment, rings[: stop - first], push.overlaps(stop)))
        return found

    def pulled(self, choice: Choice) -> Choice:
        """The same nodes, the tallest result leading."""
        flow = segment_flow(self._program, replace(choice.segment, push=False))
        rings = tuple(Ring(int(rows), bool(free)) for rows, free in zip(flow.ring_rows, flow.transient, strict=True))
        return self._choice(flow.segment, rings, overlaps_of(self._program, flow))

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

    def _choice(self, segment: Segment, rings: Sequence[Ring], overlaps: Sequence[Overlap] = ()) -> Choice:
        program = self._program
        widths, extra = self._widths(segment)
        whole, carried = self._crossing[segment.first], 0
        alive = [0] * (segment.stop - segment.first + 1)
        for local, i in enumerate(segment.nodes):
            node, reader = program.nodes[i], program.last_reader[i]
            if node.kind == "sink":
                continue
            if reader >= segment.stop:
                whole += align(node.size)
                continue
            size = align(rings[local].rows * widths[local] * node.shape.c)
            if rings[local].transient:
                alive[local] += size
                alive[reader + 1 - segment.first] -= size
            else:
                carried += size
        most = total = 0
        for change in alive:
            total += change
            most = max(most, total)
        whole -= self._saved(overlaps)
        return Choice(segment, whole + carried + most, whole, extra, tuple(rings))

    def _saved(self, overlaps: Sequence[Overlap]) -> int:
        """Bytes that overlaps save, each tensor taking part in one."""
        sizes = {i: align(self._program.nodes[i].size) for o in overlaps for i in (o.below, o.above)}
        saved, used = 0, set()
        for overlap in sorted(overlaps, key=lambda o: (-o.saving(sizes), o.below, o.above)):
            if used.isdisjoint((overlap.below, overlap.above)):
                saved += overlap.saving(sizes)
                used.update((overlap.below, overlap.above))
        return saved

    def _widths(self, segment: Segment) -> tuple[list[int], int]:
        """(columns of each ring, multiply-accumulates done again): strips share what lies between them."""
        nodes = self._program.nodes[segment.first : segment.stop]
        if segment.columns == 1:
            return [node.shape.w for node in nodes], 0
        widest, spans = (found[segment.first :] for found in self._strips_before(segment.stop, segment.columns))
        extra = sum((s - n.shape.w) * n.shape.h * n.macs_per_cell for s, n in zip(spans, nodes, strict=True))
        return widest, max(0, extra)

    def _strips_before(self, stop: int, columns: int) -> tuple[list[int], list[int]]:
        """(widest strip, sum of all strips) of each node before `stop`: the nodes that run before them change nothing."""
        if (stop, columns) not in self._strips:
            whole = Segment(0, stop, columns)
            col0, col1 = strips_of(self._program, whole, terminals_of(self._program, 0, stop))
            self._strips[stop, columns] = (col1 - col0).max(axis=0).tolist(), (col1 - col0).sum(axis=0).tolist()
        return self._strips[stop, columns]


class _Push:
    """Node `first` advances row by row and its followers as far as they can: all that does not depend on where it ends."""

    def __init__(self, program: Program, first: int) -> None:
        self._program, self._first = program, first
        nodes, height = program.nodes, program.nodes[first].shape.h
        targets: dict[int, np.ndarray] = {first: np.arange(1, height + 1, dtype=np.int64)}
        for i in range(first + 1, len(nodes)):
            inputs = zip(nodes[i].inputs, nodes[i].y, strict=True)
            reached = [y.computable(targets[j]) for j, y in inputs if j in targets]
            if reached:
                rows = followed(np.minimum.reduce(reached), rows_a_band(nodes[i].shape.h, 1, height))
                late = len(rows) - len(targets[first])
                targets = {j: lengthened(r, late) for j, r in targets.items()} | {i: rows}
        for i in reversed(range(first + 1, len(nodes))):
            if i not in targets:  # nothing of it waits for the first node: it is pulled by its readers
                needs = [y.in_hi(targets[r]) for r, y, _ in program.reads[i]]
                targets[i] = np.maximum.reduce(needs) if needs else targets[first] * nodes[i].shape.h // height
        self._targets = targets
        self._begins = {i: np.concatenate([[0], rows[:-1]]) for i, rows in targets.items()}
        self._distances: dict[tuple[int, int], Overlap] = {}

    def ring(self, i: int) -> Ring:
        """Of a node whose readers all run in the segment."""
        keep = kept_rows(self._program, self._program.reads[i], self._targets[i], self._begins)
        transient = bool((keep[1:] >= self._begins[i][1:]).all())
        return Ring(max(1, int((self._targets[i] - keep).max())), transient)

    def overlaps(self, stop: int) -> list[Overlap]:
        """Pairs that may share bytes when the segment ends at `stop`."""
        results = [i for i in range(self._first, stop) if self._program.last_reader[i] >= stop]
        return [self._overlap(below, above) for above in dying(self._program, self._first, stop) for below in results]

    def _overlap(self, below: int, above: int) -> Overlap:
        if (below, above) not in self._distances:
            distance = overlap_distance(self._program, below, above, self._targets[below], self._begins)
            self._distances[below, above] = Overlap(below, above, distance)
        return self._distances[below, above]
