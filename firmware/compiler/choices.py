"""What each run of nodes costs as a segment, in each mode: bytes and work, for the search to choose from.

Tables over (mode, first, stop) hold what each costs: `work` and `instructions`, known from the start, and `peak`, the bytes
alive at the segment's worst step. A peak begins as a bound that costs nothing (what crosses the ends cannot shrink) and is
settled when the search wants to use the segment. All that one flow of geometry.py serves is measured together, and what
flows are known is measured from the start.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from firmware.compiler.cost import NODE_STATE_BYTES
from firmware.compiler.geometry import COLUMNS, Rings, Served, geometry_of
from firmware.compiler.instructions import CELL_TERMS, kind_of, load_coefficients, unit_terms
from firmware.compiler.memory import Overlap, align, dying, overlap_distance
from firmware.compiler.program import Program
from firmware.compiler.schedule import Segment
from firmware.compiler.segments import NEVER, Measures


class Mode(NamedTuple):
    push: bool
    columns: int


MODES = tuple(Mode(push, columns) for columns in COLUMNS for push in (True, False))


class Choices:
    """The segments of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._geometry = geometry_of(program)
        nodes = program.nodes
        count = self.count = len(nodes)
        self._sizes = np.array([align(node.size) for node in nodes])
        self.most = max(1, int(self._sizes.sum()))  # bytes of all tensors
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
        widest, spans = self._geometry.strips
        self.work = self._work(spans)
        self.instructions = self._instructions(spans)
        self.peak = np.tile(self._whole, (len(MODES), 1, 1))
        self.likely = self.peak.copy()  # peak with half of what overlaps save: much of it is lost when one follows the other
        one_column = [m for m, mode in enumerate(MODES) if mode.columns == 1]
        self._savable = np.minimum(results, dying_bytes)  # the most that overlaps could save
        self.peak[one_column] -= self._savable
        self.likely[one_column] -= self._savable // 2
        self.peak[self.work == NEVER] = self.likely[self.work == NEVER] = NEVER
        self.leaning = self.likely - self.peak  # bytes that overlaps are believed to save and perhaps do not
        self._latched = np.zeros(self.work.shape, np.int64)  # bytes of the peak that latches save
        self._measured, self._settled = np.zeros(self.work.shape, bool), np.zeros(self.work.shape, bool)
        self.measures = Measures(
            count,
            len(COLUMNS),
            row_bytes=np.array([0 if node.kind == "sink" else node.shape.c for node in nodes]),  # of one column
            reader=self._reader,
            widest=widest,
            whole=self._whole,
            savable=self._savable,
            work=self.work,
            peak=self.peak,
            likely=self.likely,
            latched=self._latched,
            measured=self._measured,
            settled=self._settled,
        )
        for push in (True, False):
            for served in self._geometry.known(push):
                self._measure(push, served)

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
        """Make this segment's bound its peak, or a better bound above `limit`; better those of all that share its flow."""
        push, columns = MODES[mode]
        served = self._geometry.flow(push, first, stop)
        if not self._measured[mode, first, stop]:
            self._measure(push, served)
        if columns == 1 and self.peak[mode, first, stop] <= limit:
            saved = self._saved(first, stop, served.rings)
            apart = self.peak[mode, first, stop] + self._savable[first, stop]
            self.peak[mode, first, stop], self.likely[mode, first, stop] = apart - saved, apart - saved // 2
            self.leaning[mode, first, stop] = saved - saved // 2
            self._settled[mode, first, stop] = True

    def _measure(self, push: bool, served: Served) -> None:
        """Peaks of all runs of a flow; where tensors may overlap, the most that this could save is taken off."""
        self.measures.measure(push, served.rings.first, served.rings.table, served.firsts, served.stops)

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
