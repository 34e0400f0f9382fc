"""Rows and columns of every run of nodes: all of a segment's cost that does not depend on channels.

There are n * (n + 1) / 2 runs, but most of what they do is shared. How far nodes follow a pushed first node does not depend on
where the run ends; how far nodes are pulled by a result does not depend on where the run begins, and neither do strips. So
a `Geometry` works out one flow for each first node, one for each group of runs with one end, and all strips at once, each
when it is first asked for. Networks that differ in channels alone share one Geometry.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from firmware.compiler.program import Program
from firmware.compiler.schedule import (
    Alive,
    Flow,
    Rows,
    Segment,
    alive_rows,
    followed,
    kept_rows,
    latches,
    lengthened,
    rows_a_band,
    segment_flow,
    segment_rows,
    spans_of,
)

COLUMNS = (1, 2, 3, 4, 6, 8)  # strips that the search tries


@dataclass(frozen=True)
class Rings:
    """What the rows of nodes from `first` on do in one mode."""

    first: int
    alive: Alive
    latches: np.ndarray  # (nodes,) bool: the ring can be latched
    begin: np.ndarray  # (bands, nodes) rows [begin, target) are made in a band
    target: np.ndarray

    @cached_property
    def table(self) -> np.ndarray:
        """(4, nodes) int64: rows alive, kept and fresh (`Alive`), and whether the ring can be latched."""
        return np.stack([*self.alive, self.latches]).astype(np.int64)

    def kept_outside(self, program: Program, node: int, first: int) -> Rows:
        """(bands,) first row of a node made before the run that its nodes from `first` on still read."""
        begins = {r: self.begin[:, r - self.first] for r in program.readers[node] if r >= first}
        reads = [read for read in program.reads[node] if read[0] in begins]
        return kept_rows(program, reads, np.full(len(self.begin), program.nodes[node].shape.h), begins)


class Served(NamedTuple):
    """A flow and the runs [firsts[i], stops[i]) that it serves. A run's rows may be longer than the run."""

    rings: Rings
    firsts: np.ndarray
    stops: np.ndarray


class Geometry:
    """Flows of all runs of a program's nodes."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._served: dict[tuple[bool, int, int | None], Served] = {}  # None: a push to all ends that it shares
        self._groups: dict[int, list[int]] = {}
        self._stops: dict[int, list[int]] = {}
        self._flows: dict[Segment, Flow] = {}

    def segment_flow(self, program: Program, segment: Segment) -> Flow:
        """`schedule.segment_flow`, once for all programs of this Geometry."""
        if segment not in self._flows:
            self._flows[segment] = segment_flow(program, segment)
        return self._flows[segment]

    def flow(self, push: bool, first: int, stop: int) -> Served:
        """The rows of [first, stop), and of all that do the same."""
        if push:
            key = True, first, None if stop in self._shared_stops(first) else stop
        else:
            key = False, self._starts(stop)[first], stop
        if key not in self._served:
            self._served[key] = self._serve(*key)
        return self._served[key]

    def known(self, push: bool) -> list[Served]:
        """All flows of one kind that were asked for so far, for this program or others that share this Geometry."""
        return [served for (kind, _, _), served in self._served.items() if kind == push]

    def _serve(self, push: bool, first: int, stop: int | None) -> Served:
        if stop is None:
            stops = np.array(self._shared_stops(first))
            return Served(_push(self._program, first), np.full(len(stops), first), stops)
        rings = _flow(self._program, Segment(first, stop, push=push and stop > first + 1))
        firsts = np.array([first] if push else [i for i, start in enumerate(self._starts(stop)) if start == first])
        return Served(rings, firsts, np.full(len(firsts), stop))

    @cached_property
    def strips(self) -> tuple[np.ndarray, np.ndarray]:
        """(widest, spans), each int64 (nodes + 1, nodes, len(COLUMNS)): columns of a node's widest strip and of all its strips
        together, in runs that end at `stop`; 0 for nodes from there on."""
        nodes, count = self._program.nodes, len(self._program.nodes)
        columns = np.repeat(COLUMNS, COLUMNS)
        strip = np.concatenate([np.arange(c) for c in COLUMNS])
        shares = {}
        for i, node in enumerate(nodes):
            ends = np.arange(count + 1)[:, None]
            reader = self._program.last_reader[i]
            result = (ends > i) & ((ends <= reader) | (reader == i))
            shares[i] = node.shape.w * strip // columns * result, node.shape.w * (strip + 1) // columns * result
        low, high = spans_of(self._program, Segment(0, count), shares, (count + 1, len(strip)))
        starts = np.cumsum((0, *COLUMNS[:-1]))
        return np.maximum.reduceat(high - low, starts, axis=-1), np.add.reduceat(high - low, starts, axis=-1)

    @cached_property
    def reference_heights(self) -> np.ndarray:
        """(first, stop) rows of the node that leads a pulled run; 0 where there is no run."""
        nodes, count = self._program.nodes, len(self._program.nodes)
        heights = np.zeros((count + 1, count + 1), np.int64)
        for stop in range(1, count + 1):
            heights[:stop, stop] = [nodes[i].shape.h for i in _references(self._program, stop)]
        return heights

    def _shared_stops(self, first: int) -> list[int]:
        """Ends of the pushed runs from `first` on that do the same as longer ones: all their results depend on it."""
        if first in self._stops:
            return self._stops[first]
        last_reader = self._program.last_reader
        followers, beside, stops = {first}, set(), []
        for i in range(first, len(last_reader)):
            if followers.isdisjoint((i, *self._program.nodes[i].inputs)):
                beside.add(i)
            else:
                followers.add(i)
            beside = {j for j in beside if last_reader[j] == j or last_reader[j] > i}
            if not beside:
                stops.append(i + 1)
        self._stops[first] = stops
        return stops

    def _starts(self, stop: int) -> list[int]:
        """For each first node of runs up to `stop`, the smallest one whose run is pulled alike: it has the same reference, and no
        node beside the reference's way loses an input."""
        if stop not in self._groups:
            references = _references(self._program, stop)
            beside: dict[int, list[tuple[int, int]]] = {}
            starts: list[int] = []
            for first, reference in enumerate(references):
                if reference not in beside:
                    beside[reference] = _edges_beside(self._program, reference, stop)
                start = starts[-1] if starts else 0
                alike = starts and references[start] == reference
                if not alike or any(start <= j < first <= i for j, i in beside[reference]):
                    start = first
                starts.append(start)
            self._groups[stop] = starts
        return self._groups[stop]


def _references(program: Program, stop: int) -> list[int]:
    """The tallest result (the last of equals) of each run [first, stop)."""
    found = []
    best = (0, stop - 1)
    for i in reversed(range(stop)):
        reader = program.last_reader[i]
        if reader >= stop or reader == i:
            best = max(best, (program.nodes[i].shape.h, i))
        found.append(best[1])
    return found[::-1]


def _edges_beside(program: Program, reference: int, stop: int) -> list[tuple[int, int]]:
    """(input, node) of the nodes before `stop` that the reference does not depend on."""
    ancestors = {reference}
    for i in reversed(range(reference + 1)):
        if i in ancestors:
            ancestors.update(program.nodes[i].inputs)
    return [(j, i) for i in range(stop) if i not in ancestors for j in program.nodes[i].inputs]


def _push(program: Program, first: int) -> Rings:
    """Node `first` advances row by row and its followers as far as they can, each by its share of rows a band."""
    nodes, height = program.nodes, program.nodes[first].shape.h
    targets: dict[int, np.ndarray] = {first: np.arange(1, height + 1, dtype=np.int64)}
    for i in range(first + 1, len(nodes)):
        reached = [y.computable(targets[j]) for j, y in zip(nodes[i].inputs, nodes[i].y, strict=True) if j in targets]
        if reached:
            rows = followed(np.minimum.reduce(reached), rows_a_band(nodes[i].shape.h, 1, height))
            if late := len(rows) - len(targets[first]):
                targets = {j: lengthened(r, late) for j, r in targets.items()}
            targets[i] = rows
    for i in reversed(range(first + 1, len(nodes))):
        if i not in targets:  # nothing of it waits for the first node: it is pulled by its readers
            needs = [y.in_hi(targets[r]) for r, y, _ in program.reads[i]]
            targets[i] = np.maximum.reduce(needs) if needs else targets[first] * nodes[i].shape.h // height
    target = np.stack([targets[i] for i in range(first, len(nodes))], axis=1)
    begin = np.vstack([np.zeros((1, target.shape[1]), np.int64), target[:-1]])
    begins = {i: begin[:, i - first] for i in targets}
    keep = np.stack([kept_rows(program, program.reads[i], targets[i], begins) for i in range(first, len(nodes))], axis=1)
    return _rings(program, first, begin, target, keep)


def _flow(program: Program, segment: Segment) -> Rings:
    _, _, begin, target, keep = segment_rows(program, segment)
    return _rings(program, segment.first, begin, target, keep)


def _rings(program: Program, first: int, begin: np.ndarray, target: np.ndarray, keep: np.ndarray) -> Rings:
    alive = alive_rows(begin, target, keep)
    return Rings(first, alive, latches(program, first, alive), begin, target)


def geometry_of(program: Program) -> Geometry:
    """The Geometry of all programs that differ from this one in channels alone."""
    return _shared(_Shape(program, tuple((n.kind, n.inputs, n.y, n.x, n.shape.h, n.shape.w) for n in program.nodes)))


@dataclass(frozen=True, eq=False)
class _Shape:
    program: Program
    key: tuple

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=16)
def _shared(shape: _Shape) -> Geometry:
    return Geometry(shape.program)


def forget() -> None:
    """Drop every shared Geometry, for those who measure."""
    _shared.cache_clear()
