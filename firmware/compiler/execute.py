"""The int8 truth under a schedule: every buffer inside one byte array, rings and strips as on the chip.

Slow and plain on purpose. It walks the flows of `schedule.py` with the kernels of `interpreter.py`; the C runtime derives
the same intervals on its own. What it returns must equal the whole run to the byte, whatever the schedule and the plan.
"""

import numpy as np

from firmware.compiler.interpreter import Interpreter
from firmware.compiler.memory import MemoryPlan, ScheduledProgram, fresh_key
from firmware.compiler.schedule import Flow

GARBAGE = 0x5A  # what the arena holds before anything is written


def execute(
    scheduled: ScheduledProgram, plan: MemoryPlan, frame: np.ndarray, interpreter: Interpreter | None = None
) -> dict[str, np.ndarray]:
    """Run one picture, int8 (h, w, c) or uint8 (int8 + 128), through a schedule inside an arena of `plan.arena_size` bytes.

    Returns the graph's outputs by name, int8 (h, w, c). The array is as large as the plan says, so a buffer past its end raises.
    """
    return _Execution(scheduled, plan, frame, interpreter or Interpreter(scheduled.program.graph)).run()


class _Execution:
    def __init__(self, scheduled: ScheduledProgram, plan: MemoryPlan, frame: np.ndarray, interpreter: Interpreter):
        self.scheduled, self.program, self.interpreter = scheduled, scheduled.program, interpreter
        self.frame = (frame ^ 0x80).view(np.int8) if frame.dtype == np.uint8 else frame
        arena = np.full(plan.arena_size, GARBAGE, np.uint8).view(np.int8)
        self.buffers: list[np.ndarray | None] = []
        self.fresh: dict[int, np.ndarray] = {}  # rows that the current band makes, where they stand apart
        self.begin: dict[int, int] = {}  # the first of these
        for i, node in enumerate(self.program.nodes):
            buffer = scheduled.buffers[i]
            if buffer is None:
                self.buffers.append(None)
                continue
            self.buffers.append(_view(arena, plan.offsets[i], (buffer.rows, buffer.cols, node.shape.c)))
            if buffer.fresh:
                self.fresh[i] = _view(arena, plan.offsets[fresh_key(i)], (buffer.fresh, buffer.cols, node.shape.c))
        self.outputs = {name: np.zeros(self.program.graph.tensors[name].shape, np.int8) for name in self.program.graph.outputs}
        self.col0 = [0] * len(self.program.nodes)  # first column of each ring in the current strip

    def run(self) -> dict[str, np.ndarray]:
        for flow in self.scheduled.flows:
            for strip in range(flow.segment.columns):
                for i in flow.segment.nodes:
                    buffer = self.scheduled.buffers[i]
                    self.col0[i] = 0 if buffer is None or buffer.materialised else int(flow.col0[strip, i - flow.segment.first])
                for band in range(flow.bands):
                    self._band(flow, strip, band)
        return self.outputs

    def _band(self, flow: Flow, strip: int, band: int) -> None:
        self.begin = {i: int(flow.begin[band, i - flow.segment.first]) for i in flow.segment.nodes}
        for i in flow.segment.nodes:
            local = i - flow.segment.first
            rows = int(flow.begin[band, local]), int(flow.target[band, local])
            cols = int(flow.col0[strip, local]), int(flow.col1[strip, local])
            if rows[0] < rows[1] and cols[0] < cols[1]:
                self._step(i, rows, cols)
            for j in dict.fromkeys(self.program.nodes[i].inputs):
                if j in self.fresh and self.program.last_reader[j] == i:
                    self._latch(j, int(flow.target[band, j - flow.segment.first]))

    def _latch(self, i: int, target: int) -> None:
        """All in the segment have read the band's rows: they move into the ring."""
        ring = self.buffers[i]
        for row in range(max(self.begin[i], target - len(ring)), target):
            ring[row % len(ring)] = self.fresh[i][row - self.begin[i]]

    def _step(self, i: int, rows: tuple[int, int], cols: tuple[int, int]) -> None:
        node = self.program.nodes[i]
        if node.kind == "source":
            self._write(i, rows, cols, self.frame[rows[0] : rows[1], cols[0] : cols[1]])
            return
        tops = [(y.in_lo(rows[0]), y.in_hi(rows[1])) for y in node.y]
        sides = [(x.in_lo(cols[0]), x.in_hi(cols[1])) for x in node.x]
        inputs = [self._read(*piece) for piece in zip(node.inputs, tops, sides, strict=True)]
        if node.kind == "sink":
            names = [self._tensor_name(j) for j in node.inputs]
            for name, piece in zip(names, inputs, strict=True):
                self.outputs[name][rows[0] : rows[1], cols[0] : cols[1]] = piece
            return
        origins = [(top, left) for (top, _), (left, _) in zip(tops, sides, strict=True)]
        self._write(i, rows, cols, self.interpreter.compute(node.op, inputs, origins, rows, cols))

    def _tensor_name(self, i: int) -> str:
        node = self.program.nodes[i]
        return self.program.graph.input if node.op is None else self.program.graph.ops[node.op].output

    def _read(self, i: int, rows: tuple[int, int], cols: tuple[int, int]) -> np.ndarray:
        ring, columns = self.buffers[i], slice(cols[0] - self.col0[i], cols[1] - self.col0[i])
        if i in self.fresh and rows[0] < rows[1]:  # padding alone needs no row
            return np.stack([self._row(i, row)[columns] for row in range(*rows)])
        return ring[np.arange(*rows) % ring.shape[0], columns]

    def _row(self, i: int, row: int) -> np.ndarray:
        """(columns, channels) of a row, wherever it stands."""
        fresh, ring = row - self.begin.get(i, 0), self.buffers[i]
        return self.fresh[i][fresh] if i in self.fresh and fresh >= 0 else ring[row % len(ring)]

    def _write(self, i: int, rows: tuple[int, int], cols: tuple[int, int], values: np.ndarray) -> None:
        for row, line in zip(range(*rows), values, strict=True):  # in order: a row may take the slot of a dead one
            self._row(i, row)[cols[0] - self.col0[i] : cols[1] - self.col0[i]] = line


def _view(arena: np.ndarray, offset: int, shape: tuple[int, int, int]) -> np.ndarray:
    return arena[offset : offset + int(np.prod(shape))].reshape(shape)
