"""Schedules: which nodes run together, in how many strips, how many rows at a time; and what follows for each row.

A `Schedule` is a list of `Segment`s (DESIGN.md, "The schedule space"); `segment_flow` turns one segment into row and column
intervals, band by band and strip by strip, exactly as SPEC.md section 2 tells and as the C runtime does on its own. How much
memory that takes is memory.py's business, which schedule is best is search.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from firmware.compiler.axis import Axis
from firmware.compiler.program import Program

Rows = np.ndarray  # int64 (bands,): one row number a band


class ScheduleError(ValueError):
    """A schedule that does not fit its program, or a text that names none."""


@dataclass(frozen=True)
class Segment:
    """Nodes [first, stop) run together: `columns` strips, each top to bottom, `rows` rows of the reference at a time.

    The reference is the tallest result, which pulls what it needs; with `push` it is the first node, and what depends on
    it follows as far as it can. With `latch` the rows that a band makes stand apart from their ring until all in the segment
    have read them: a ring is then no deeper than what outlives a band.
    """

    first: int
    stop: int
    columns: int = 1
    rows: int = 1
    carry: bool = True  # keep rows that the next band needs again (True) or compute them again (False)
    push: bool = False  # only with carry
    latch: bool = False  # only with carry

    @property
    def nodes(self) -> range:
        return range(self.first, self.stop)


@dataclass(frozen=True)
class Schedule:
    segments: tuple[Segment, ...]

    def __str__(self) -> str:
        """Segments of several nodes, as in `0:12 push, 12:16 x2`: nodes, strips, rows where not 1, mode; `pull` is not said."""
        return ", ".join(_describe(s) for s in self.segments if s.stop - s.first > 1) or "layer by layer"


def _describe(s: Segment) -> str:
    words = [f"{s.first}:{s.stop}"]
    words += [f"x{s.columns}"] if s.columns > 1 else []
    words += [f"rows={s.rows}"] if s.rows > 1 else []
    words += ["push"] if s.push else [] if s.carry else ["recompute"]
    words += ["latch"] if s.latch else []
    return " ".join(words)


class Alive(NamedTuple):
    """How many rows of each node of a segment are alive, (nodes,) int64 each."""

    rows: np.ndarray  # during a band, the most
    kept: np.ndarray  # of these, outlive a band; 0: the bytes are free between bands
    fresh: np.ndarray  # made in one band, the most


def alive_rows(begin: np.ndarray, target: np.ndarray, keep: np.ndarray, carry: bool = True) -> Alive:
    """From intervals (bands, nodes): [begin, target) are made in a band, [keep, target) alive in it."""
    kept = (begin[1:] - keep[1:]).max(axis=0, initial=0) * carry
    return Alive(np.maximum(1, (target - keep).max(axis=0)), kept, (target - begin).max(axis=0))


def latches(program: Program, first: int, alive: Alive) -> np.ndarray:
    """(nodes,) bool: fresh rows of a ring may stand apart and nothing is lost. Who reads all rows wants them in one piece."""
    whole = np.array(program.read_whole[first : first + len(alive.rows)])
    return (alive.kept > 0) & (alive.kept + alive.fresh <= alive.rows) & ~whole


@dataclass(frozen=True)
class Flow:
    """Every interval of a segment's run. Row arrays are (bands, nodes), column arrays (columns, nodes), half-open."""

    segment: Segment
    reference: int  # node
    terminals: tuple[int, ...]  # nodes
    begin: np.ndarray  # rows [begin, target) are computed in this band
    target: np.ndarray
    keep: np.ndarray  # a ring holds rows [keep, target) during this band
    col0: np.ndarray
    col1: np.ndarray

    @property
    def bands(self) -> int:
        return len(self.target)

    @property
    def once(self) -> bool:
        """True when each node runs exactly once: lifetimes are then as fine as nodes."""
        return self.bands == 1 and self.segment.columns == 1

    @cached_property
    def ring_cols(self) -> np.ndarray:
        return np.maximum(1, (self.col1 - self.col0).max(axis=0))

    @cached_property
    def alive(self) -> Alive:
        return alive_rows(self.begin, self.target, self.keep, self.segment.carry)

    def cells(self) -> np.ndarray:
        """(nodes,) int64: output pixels that each node computes, recomputed ones counted each time."""
        return (self.target - self.begin).clip(0).sum(axis=0) * (self.col1 - self.col0).sum(axis=0)


def terminals_of(program: Program, first: int, stop: int) -> tuple[int, ...]:
    """Nodes of [first, stop) that nobody in it reads, or somebody behind it does: its results."""
    last_reader = program.last_reader
    return tuple(i for i in range(first, stop) if last_reader[i] == i or last_reader[i] >= stop)


def reference_of(program: Program, segment: Segment) -> int:
    """The node whose rows are counted: the tallest terminal (the last of equals), or the first node of a push."""
    if segment.push:
        return segment.first
    return max(terminals_of(program, segment.first, segment.stop), key=lambda i: (program.nodes[i].shape.h, i))


def segment_flow(program: Program, segment: Segment) -> Flow:
    """Work out all intervals of a segment."""
    reference, terminals, begin, target, keep = segment_rows(program, segment)
    col0, col1 = strips_of(program, segment, terminals)
    return Flow(segment, reference, terminals, begin, target, keep, col0, col1)


def segment_rows(program: Program, segment: Segment) -> tuple[int, tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]:
    """(reference, terminals, begin, target, keep) of a segment, as in its Flow."""
    if not 0 <= segment.first < segment.stop <= len(program.nodes):
        raise ScheduleError(f"segment {_describe(segment)} is outside of the {len(program.nodes)} nodes")
    if (segment.push or segment.latch) and not segment.carry:
        raise ScheduleError(f"segment {_describe(segment)} does not carry the rows that it pushes or latches")
    terminals, reference = terminals_of(program, segment.first, segment.stop), reference_of(program, segment)
    height, width = program.nodes[reference].shape.h, min(program.nodes[t].shape.w for t in terminals)
    if not 1 <= segment.rows <= height:
        raise ScheduleError(f"segment {_describe(segment)} must advance by 1..{height} rows of '{program.nodes[reference].name}'")
    if not 1 <= segment.columns <= width:
        raise ScheduleError(f"segment {_describe(segment)} must have 1..{width} columns")
    rows = _carried_rows if segment.carry else _recomputed_rows
    return reference, terminals, *rows(program, segment, reference, terminals)


def _local_reads(program: Program, segment: Segment, node: int) -> list[tuple[int, Axis, Axis]]:
    """(reader, rows, columns) of the nodes of the segment that read `node`."""
    return [read for read in program.reads[node] if read[0] < segment.stop]


def _ancestors(program: Program, segment: Segment, node: int) -> set[int]:
    found = {node}
    for i in range(node, segment.first - 1, -1):
        if i in found:
            found.update(j for j in program.nodes[i].inputs if j >= segment.first)
    return found


def _followers(program: Program, segment: Segment, node: int) -> set[int]:
    """Nodes of the segment that depend on `node`."""
    found = {node}
    for i in range(node + 1, segment.stop):
        if not found.isdisjoint(program.nodes[i].inputs):
            found.add(i)
    return found - {node}


def _band_ends(program: Program, segment: Segment, reference: int) -> Rows:
    height = program.nodes[reference].shape.h
    bands = -(-height // segment.rows)
    return np.minimum(height, (np.arange(bands, dtype=np.int64) + 1) * segment.rows)


def _pull(program: Program, segment: Segment, wanted: dict[int, Rows], bands: int) -> dict[int, Rows]:
    """How far every node must have come in each band so that the wanted ones come as far as `wanted`."""
    target: dict[int, Rows] = {}
    for i in reversed(segment.nodes):
        rows = wanted.get(i, np.zeros(bands, np.int64))
        for reader, y, _ in _local_reads(program, segment, i):
            rows = np.maximum(rows, y.in_hi(target[reader]))
        target[i] = rows
    return target


def _carried_rows(program: Program, segment: Segment, reference: int, terminals: tuple[int, ...]):
    nodes, ends = program.nodes, _band_ends(program, segment, reference)
    bands, height = len(ends), nodes[reference].shape.h
    last = np.arange(bands) == bands - 1
    ancestors, followers = _ancestors(program, segment, reference), _followers(program, segment, reference)
    beside = [t for t in terminals if t not in followers]
    wanted = {t: np.where(last, nodes[t].shape.h, 0) for t in beside} | {reference: ends}
    target = _pull(program, segment, wanted, bands)
    free = [t for t in beside if t not in ancestors]
    if followers or free:  # they make what they can of the rows that are there
        could = _could(program, segment, target, ancestors, followers, height)
        for t in free:
            share = np.minimum(nodes[t].shape.h * ends // height, could[t])
            wanted[t] = np.where(last, nodes[t].shape.h, share)
        wanted |= {i: could[i] for i in followers}
        bands = max(len(rows) for rows in wanted.values())
        wanted = {i: lengthened(rows, bands - len(rows)) for i, rows in wanted.items()}
        target = _pull(program, segment, wanted, bands)
    targets = np.maximum.accumulate(np.stack([target[i] for i in segment.nodes], axis=1), axis=0)
    done = np.stack([target[t] == nodes[t].shape.h for t in terminals]).all(axis=0)
    targets = targets[: int(done.argmax()) + 1]
    begins = np.vstack([np.zeros((1, targets.shape[1]), np.int64), targets[:-1]])
    begin_of = {i: begins[:, i - segment.first] for i in segment.nodes}
    keeps = [
        kept_rows(program, _local_reads(program, segment, i), targets[:, i - segment.first], begin_of) for i in segment.nodes
    ]
    return begins, targets, np.stack(keeps, axis=1)


def rows_a_band(height: int, segment_rows: int, reference_height: int) -> int:
    """Most rows of a follower in one band: its share of the reference's, rounded up."""
    return -(-height * segment_rows // reference_height)


def lengthened(rows: Rows, bands: int) -> Rows:
    """The same with `bands` bands more in which nothing changes."""
    return np.concatenate([rows, np.full(bands, rows[-1])]) if bands else rows


def followed(could: Rows, step: int) -> Rows:
    """How far a follower comes that could come as far as `could` and makes at most `step` rows a band: for as many bands more
    as it takes to arrive."""
    rows = _throttled(could, step)
    late = -(-int(could[-1] - rows[-1]) // step)
    return _throttled(lengthened(could, late), step) if late else rows


def _throttled(could: Rows, step: int) -> Rows:
    """rows[b] = min(could[b], rows[b - 1] + step), from 0."""
    before = np.arange(len(could), dtype=np.int64) * step
    return before + np.minimum(step, np.minimum.accumulate(could - before))


def kept_rows(program: Program, reads: Sequence[tuple[int, Axis, Axis]], target: Rows, begins: Mapping[int, Rows]) -> Rows:
    """First row that a ring must still hold in each band: what its unfinished readers (`reads`) will read next."""
    keep = target
    for reader, y, _ in reads:
        ahead = begins[reader]
        unfinished = ahead < program.nodes[reader].shape.h
        keep = np.where(unfinished, np.minimum(keep, y.in_lo(ahead)), keep)
    return keep


def _could(
    program: Program, segment: Segment, target: dict[int, Rows], ancestors: set[int], followers: set[int], height: int
) -> dict[int, Rows]:
    """How far each node could come with the rows that are on their way to the reference; from its last row on, with all.

    Followers are held back to their share of rows a band, so they may need more bands than the reference: their arrays are
    longer then, and the others' last number holds on.
    """
    nodes, could = program.nodes, {}
    for i in segment.nodes:
        if i in ancestors:
            could[i] = target[i].copy()
        else:
            inputs = zip(nodes[i].inputs, nodes[i].y, strict=True)
            could[i] = _least(nodes[i].shape.h, [y.computable(could[j]) for j, y in inputs if j >= segment.first])
        if i in followers:
            could[i] = followed(could[i], rows_a_band(nodes[i].shape.h, segment.rows, height))
        else:
            could[i][-1] = nodes[i].shape.h
    return could


def _least(most: int, rows: Sequence[Rows]) -> Rows:
    """The least of them and of `most` in each band, the shorter ones lengthened."""
    bands = max((len(r) for r in rows), default=1)
    return np.minimum.reduce([np.full(bands, most), *(lengthened(r, bands - len(r)) for r in rows)])


def _recomputed_rows(program: Program, segment: Segment, reference: int, terminals: tuple[int, ...]):
    nodes, ends = program.nodes, _band_ends(program, segment, reference)
    bands, height = len(ends), nodes[reference].shape.h
    starts = np.arange(bands, dtype=np.int64) * segment.rows
    shares = {}
    for t in terminals:
        high = nodes[t].shape.h * ends // height
        high[-1] = nodes[t].shape.h
        shares[t] = nodes[t].shape.h * starts // height, high
    begin, target = _needed(program, segment, shares, bands, axis=1, once=True)
    return begin, target, begin.copy()


def strips_of(program: Program, segment: Segment, terminals: tuple[int, ...]):
    """Columns [lows, highs) of every node in every strip: (columns, nodes) each."""
    strips, nodes = np.arange(segment.columns, dtype=np.int64), program.nodes
    shares = {
        t: (nodes[t].shape.w * strips // segment.columns, nodes[t].shape.w * (strips + 1) // segment.columns) for t in terminals
    }
    return spans_of(program, segment, shares, segment.columns)


def spans_of(program: Program, segment: Segment, shares: dict, shape: int | tuple[int, ...]):
    """Columns [lows, highs) of every node where each terminal takes its share, arrays of `shape`; nodes on axis 1."""
    return _needed(program, segment, shares, shape, axis=2, once=False)


_NEVER = np.iinfo(np.int64).max


def _needed(program: Program, segment: Segment, shares: dict, count: int | tuple[int, ...], axis: int, once: bool):
    """Intervals that the readers of each node need, united with the terminals' shares; (count, nodes) lows and highs.

    `axis` is 1 for rows, 2 for columns. With `once`, a materialised node leaves out what earlier intervals have already given it.
    """
    lows, highs = {}, {}
    for i in reversed(segment.nodes):
        low, high = np.full(count, _NEVER), np.zeros(count, np.int64)
        if i in shares:
            share_low, share_high = shares[i]
            real = share_low < share_high
            low, high = np.where(real, share_low, low), np.where(real, share_high, high)
        for read in _local_reads(program, segment, i):
            reader, arithmetic = read[0], read[axis]
            need_low, need_high = arithmetic.in_lo(lows[reader]), arithmetic.in_hi(highs[reader])
            real = (lows[reader] < highs[reader]) & (need_low < need_high)  # of padding alone, nothing is needed
            low = np.where(real, np.minimum(low, need_low), low)
            high = np.where(real, np.maximum(high, need_high), high)
        low = np.minimum(low, high)
        if once and program.last_reader[i] >= segment.stop:
            done = np.concatenate([[0], np.maximum.accumulate(high)[:-1]])
            low, high = np.maximum(low, done), np.maximum(high, done)
        lows[i], highs[i] = low, high
    return np.stack([lows[i] for i in segment.nodes], axis=1), np.stack([highs[i] for i in segment.nodes], axis=1)


def layer_by_layer(program: Program) -> Schedule:
    """Every node whole, one after the other: TFLM, CMSIS-NN and TinyEngine's default. The picture is resident."""
    return Schedule(tuple(Segment(i, i + 1, 1, node.shape.h, True) for i, node in enumerate(program.nodes)))


def in_place(program: Program, first: int) -> tuple[Segment, ...]:
    """Layer by layer from node `first` on, by rows: a result may take the place of what dies under it."""
    return tuple(Segment(i, i + 1) for i in range(first, len(program.nodes)))


def stream(program: Program, stop: int | None = None) -> Schedule:
    """Nodes [0, stop) row by row with carry (line buffers), the rest layer by layer; all of them without `stop`."""
    stop = len(program.nodes) if stop is None else stop
    return Schedule((Segment(0, stop, push=stop > 1), *in_place(program, stop)))


def patches(program: Program, rows: int, columns: int, split: int) -> Schedule:
    """MCUNetV2: the source and the first `split` operators in rows x columns patches that share nothing, then layer by layer."""
    stop = next((i + 1 for i, n in enumerate(program.nodes) if n.op == split - 1), None)
    if stop is None:
        raise ScheduleError(f"a patch stage of {split} operators: the network has 1..{len(program.graph.ops)}")
    terminals = terminals_of(program, 0, stop)
    shape = program.nodes[reference_of(program, Segment(0, stop, carry=False))].shape
    if not (1 <= rows <= shape.h and 1 <= columns <= min(program.nodes[t].shape.w for t in terminals)):
        raise ScheduleError(f"{rows}x{columns} patches of a {shape.h}x{shape.w} stage output")
    return Schedule((Segment(0, stop, columns, -(-shape.h // rows), False), *in_place(program, stop)))
