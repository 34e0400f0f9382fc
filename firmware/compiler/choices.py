"""What each run of nodes costs as a segment, in each mode: bytes and work, for the search to choose from.

Tables over (mode, first, stop) hold what each costs: `work` and `instructions`, known from the start, and `peak`, the bytes
alive at the segment's worst step. A peak begins as a bound that costs nothing (what crosses the ends cannot shrink) and is
settled when the search wants to use the segment. Whole rows of the table are bettered together, from one flow of geometry.py.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from firmware.compiler.cost import NODE_STATE_BYTES
from firmware.compiler.geometry import COLUMNS, Rings, geometry_of
from firmware.compiler.instructions import CELL_TERMS, kind_of, load_coefficients, unit_terms
from firmware.compiler.memory import ALIGNMENT, Overlap, align, dying, overlap_distance
from firmware.compiler.program import Program
from firmware.compiler.schedule import Segment

NEVER = np.int64(1) << 60  # the peak and work of what cannot be; a thousand of them still fit


class Mode(NamedTuple):
    push: bool
    columns: int


MODES = tuple(Mode(push, columns) for columns in COLUMNS for push in (True, False))


def _aligned(sizes: np.ndarray) -> np.ndarray:
    return -(-sizes // ALIGNMENT) * ALIGNMENT


class Choices:
    """The segments of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._geometry = geometry_of(program)
        nodes = program.nodes
        count = self.count = len(nodes)
        self._sizes = np.array([align(node.size) for node in nodes])
        self.most = max(1, int(self._sizes.sum()))  # bytes of all tensors
        self._row_bytes = np.array([0 if node.kind == "sink" else node.shape.c for node in nodes])[:, None]  # of one column
        self._reader = np.array(program.last_reader)
        crossing, results, dying_bytes = (np.zeros((count + 1, count + 1), np.int64) for _ in range(3))
        for i, (size, reader) in enumerate(zip(self._sizes, program.last_reader, strict=True)):
            crossing[i + 1 : reader + 1] += size
            results[: i + 1, i + 1 : reader + 1] += size
            dying_bytes[i + 1 : reader + 1, reader + 1 :] += size
        first, stop = np.indices(crossing.shape)
        self.lengths = (stop - first).clip(0)  # (first, stop) nodes
        # bytes that no mode can shrink: what crosses the ends of a run, and its state
        self._whole = crossing + results + NODE_STATE_BYTES * self.lengths
        self._alive = np.array([[i <= step <= self._reader[i] for step in range(count)] for i in range(count)], float)
        self._widest, spans = self._geometry.strips
        self.work = self._work(spans)
        self.instructions = self._instructions(spans)
        self.peak = np.tile(self._whole, (len(MODES), 1, 1))
        self.likely = self.peak.copy()  # peak with half of what overlaps save: much of it is lost when one follows the other
        one_column = [m for m, mode in enumerate(MODES) if mode.columns == 1]
        self._savable = np.minimum(results, dying_bytes)  # the most that overlaps could save
        self.peak[one_column] -= self._savable
        self.likely[one_column] -= self._savable // 2
        carried = {push: self._carried(push) for push in (True, False)}
        for m, mode in enumerate(MODES):
            self.peak[m] += carried[mode.push][..., COLUMNS.index(mode.columns)]
            self.likely[m] += carried[mode.push][..., COLUMNS.index(mode.columns)]
        self.peak[self.work == NEVER] = self.likely[self.work == NEVER] = NEVER
        self._latched = np.zeros(self.work.shape, np.int64)  # bytes of the peak that latches save
        self._measured, self._settled = np.zeros(self.work.shape, bool), np.zeros(self.work.shape, bool)

    def _carried(self, push: bool) -> np.ndarray:
        """(first, stop, columns) bytes that outlive a band, at the least: alive in every step. 0 where no flow is known yet."""
        count, found = self.count, np.zeros((self.count + 1, self.count + 1, len(COLUMNS)), np.int64)
        rows = self._row_bytes * self._widest * (self._reader < np.arange(count + 1)[:, None])[..., None]
        for rings, firsts, stops in self._geometry.known(push):
            kept = rings.alive.kept
            own = slice(rings.first, rings.first + len(kept))
            if len(stops) > 1 and stops[0] != stops[-1]:  # one first node, many ends
                found[firsts, stops] = kept @ rows[stops[0] : stops[-1] + 1, own][stops - stops[0]]
            else:  # one end: a run lacks the rings before its first node
                after = (kept[:, None] * rows[stops[0], own])[::-1].cumsum(axis=0)[::-1]
                found[firsts[0] : firsts[-1] + 1, stops[0]] = after[firsts[0] - rings.first : firsts[-1] + 1 - rings.first]
        return found

    def _work(self, spans: np.ndarray) -> np.ndarray:
        """(modes, first, stop) multiply-accumulates that are done again; NEVER where a mode cannot be."""
        nodes, count = self.program.nodes, self.count
        first, stop = np.indices((count + 1, count + 1))
        cell = np.array([n.macs_per_cell * n.shape.h for n in nodes])[:, None]
        width = np.array([n.shape.w for n in nodes])[:, None]
        inside = (np.arange(count)[:, None] < np.arange(count + 1)[:, None, None])  # (stop, node, 1)
        again = (spans - width) * cell * inside
        extra = np.zeros((len(COLUMNS), count + 1, count + 1), np.int64)
        extra[:, :count] = again[:, ::-1].cumsum(axis=1)[:, ::-1].transpose(2, 1, 0)
        narrowest = np.full((count + 1, count + 1), 0)
        for i in range(count):
            narrowest[i, i + 1 :] = np.minimum.accumulate(width[i:, 0])
        work = np.full((len(MODES), count + 1, count + 1), NEVER)
        for m, mode in enumerate(MODES):
            several = (mode.columns > 1) | (not mode.push)
            possible = (stop > first + several) & ((mode.columns == 1) | (mode.columns <= narrowest // 2))
            work[m][possible] = extra[COLUMNS.index(mode.columns)].clip(0)[possible]
        return work

    def _instructions(self, spans: np.ndarray) -> np.ndarray:
        """(modes, first, stop) of a whole run of a segment, by the model; rows that are made together counted one by one."""
        program, nodes, count, model = self.program, self.program.nodes, self.count, load_coefficients()
        costs = np.stack([unit_terms(program, i) * model.kinds[kind_of(program, i)] for i in range(count)])
        cell, row = costs[:, : len(CELL_TERMS)].sum(axis=1), costs[:, len(CELL_TERMS) :].sum(axis=1)
        height = np.array([n.shape.h for n in nodes])
        inside = np.arange(count)[:, None] < np.arange(count + 1)[:, None, None]  # (stop, node, 1)
        made = (spans * (cell * height)[:, None] + np.outer(row * height, COLUMNS)) * inside
        found = np.zeros((len(COLUMNS), count + 1, count + 1))
        found[:, :count] = made[:, ::-1].cumsum(axis=1)[:, ::-1].transpose(2, 1, 0)
        reads = np.zeros((count + 1, count + 1))
        for i, node in enumerate(nodes):
            for j in node.inputs:
                reads[: j + 1, i + 1 :] += 1
        planning = np.stack([np.ones_like(reads), self.lengths, reads], axis=-1) @ model.bands[True]
        pushed = np.append(height, 0)[:, None]
        pulled = self._geometry.reference_heights
        bands = [(pushed if mode.push else pulled) * mode.columns for mode in MODES]
        work = [found[COLUMNS.index(mode.columns)] + b * planning for mode, b in zip(MODES, bands, strict=True)]
        return np.where(self.work < NEVER, np.rint(work).astype(np.int64), NEVER)

    def segment(self, mode: int, first: int, stop: int, spare: int) -> Segment:
        """Latches, which copy rows, are used where they save more than the `spare` bytes that would do no harm."""
        push, columns = MODES[mode]
        latch = bool(self._latched[mode, first, stop] > spare)
        return Segment(first, stop, columns, push=push and stop > first + 1, latch=latch)

    def settled(self, mode: int, first: int, stop: int) -> bool:
        return bool(self._settled[mode, first, stop])

    def settle(self, mode: int, first: int, stop: int, limit: int) -> None:
        """Make this segment's bound its peak, or a better bound; and those of all segments within `limit` that share its flow."""
        push, columns = MODES[mode]
        modes = [m for m, x in enumerate(MODES) if x.push == push and (x.columns == 1) == (columns == 1)]
        rings, firsts, stops = self._geometry.flow(push, first, stop)
        if not self._measured[mode, first, stop]:
            wanted = (self.peak[modes][:, firsts, stops] <= limit).any(axis=0) & ~self._measured[mode, firsts, stops]
            wanted |= (firsts == first) & (stops == stop)
            self._measure(modes, firsts[wanted], stops[wanted], rings)
        if columns == 1 and self.peak[mode, first, stop] <= limit:
            saved = self._saved(first, stop, rings)
            apart = self.peak[mode, first, stop] + self._savable[first, stop]
            self.peak[mode, first, stop], self.likely[mode, first, stop] = apart - saved, apart - saved // 2
            self._settled[mode, first, stop] = True

    def _measure(self, modes: list[int], firsts: np.ndarray, stops: np.ndarray, rings: Rings) -> None:
        """Peaks of runs from their rings; where tensors may overlap, the most that this could save is taken off."""
        strips = [COLUMNS.index(MODES[m].columns) for m in modes]
        plain = self._peaks(firsts, stops, rings, strips, False)
        peaks = np.minimum(plain, self._peaks(firsts, stops, rings, strips, True)) if rings.latches.any() else plain
        one_column = MODES[modes[0]].columns == 1
        saved = self._savable[firsts, stops] if one_column else 0
        for m, found, less in zip(modes, peaks, plain - peaks, strict=True):
            possible = self.work[m, firsts, stops] < NEVER
            self.peak[m, firsts, stops] = np.where(possible, found - saved, NEVER)
            self.likely[m, firsts, stops] = np.where(possible, found - saved // 2, NEVER)
            self._latched[m, firsts, stops] = less
            self._measured[m, firsts, stops] = True
            self._settled[m, firsts, stops] = (saved == 0) if one_column else True

    def _peaks(self, firsts: np.ndarray, stops: np.ndarray, rings: Rings, columns: list[int], latch: bool) -> np.ndarray:
        """(columns, runs) bytes alive at the worst step, nothing overlapping."""
        own = slice(rings.first, min(self.count, rings.first + len(rings.latches), int(stops.max())))
        nodes = np.arange(own.start, own.stop)
        rows, kept, fresh = (r[: len(nodes)] for r in rings.alive)
        split = rings.latches[: len(nodes)] & latch
        inside = (nodes >= firsts[:, None]) & (self._reader[own] < stops[:, None])
        row = self._row_bytes[own] * self._widest[stops, own][..., columns] * inside[..., None]
        carried = _aligned(np.where(split, kept, rows * (kept > 0))[:, None] * row).sum(axis=1)
        passing = _aligned(np.where(split, fresh, rows * (kept == 0))[:, None] * row)
        alive = passing.transpose(2, 0, 1) @ self._alive[own, own]
        letterbox = 4 * (self._row_bytes[0] * self._widest[stops, 0][:, columns]).T * (firsts == 0)
        alive[..., 0] += letterbox  # of a run from node 0 on, that is its step
        return self._whole[firsts, stops] + carried.T + alive.max(axis=-1).astype(np.int64)

    def _saved(self, first: int, stop: int, rings: Rings) -> int:
        """Bytes that overlaps save, each tensor taking part in one."""
        below = [i for i in range(first, stop) if self._reader[i] >= stop]
        overlaps = []
        for above in dying(self.program, first, stop):
            readers = [r for r in self.program.readers[above] if r >= first]
            kept = rings.kept_outside(self.program, above, first)
            for i in below:
                target = rings.target[:, i - rings.first]
                overlaps.append(Overlap(i, above, overlap_distance(self.program, i, above, target, kept, readers)))
        return self._matched(overlaps)

    def _matched(self, overlaps: Iterable[Overlap]) -> int:
        saved, used = 0, set()
        gains = [(o.saving(self._sizes), o.below, o.above) for o in overlaps]
        for gain, below, above in sorted(gains, key=lambda g: (-g[0], g[1], g[2])):
            if used.isdisjoint((below, above)):
                saved += gain
                used.update((below, above))
        return saved
