"""Runs a Graph in numpy, to the byte as TFLite's reference kernels do: the int8 truth of this project.

Whole pictures and pieces of them are one code: a whole operator is the region (0, h) x (0, w).
"""

from collections.abc import Iterable, Sequence

import numpy as np

from firmware.compiler import kernels, ops
from firmware.compiler.axis import Axis
from firmware.compiler.graph import Graph
from firmware.compiler.verify import verify

Span = tuple[int, int]  # half-open


class Interpreter:
    """A verified graph with its kernels prepared. Holds no activations: calls do not influence each other."""

    def __init__(self, graph: Graph) -> None:
        self.graph = verify(graph)
        self._kernels = [kernels.prepare(graph, op) for op in graph.ops]
        self._axes = [ops.axes(graph, op) for op in graph.ops]
        self._last_use = {name: index for index, op in enumerate(graph.ops) for name in (op.output, *op.inputs)}

    def compute(
        self,
        op_index: int,
        inputs: Sequence[np.ndarray],
        origins: Sequence[tuple[int, int]],
        out_rows: Span,
        out_cols: Span,
    ) -> np.ndarray:
        """The region out_rows x out_cols of an operator's output, int8 (rows, cols, channels).

        Each input array is int8 (h, w, c), a piece of its tensor that starts at `origins[i]` = (row, column) and holds
        at least what the region needs (`ops.input_region`). Raises ValueError when it does not.
        """
        op, kernel = self.graph.ops[op_index], self._kernels[op_index]
        channels = self.graph.tensors[op.output].shape.c
        out = np.empty((out_rows[1] - out_rows[0], out_cols[1] - out_cols[0], channels), np.int8)
        if out.size == 0:
            return out
        windows = [
            _window(array, origin, *axes, out_rows, out_cols, kernel.fill, f"{op.kind} '{op.name}'")
            for array, origin, axes in zip(inputs, origins, self._axes[op_index], strict=True)
        ]
        kernel(windows, (out_rows[0], out_cols[0]), out)
        return out

    def run(self, image: np.ndarray, keep: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The whole network: name -> int8 (h, w, c) of each output, in graph order, then of each tensor in `keep`.

        `image` is (h, w, c) of the network's size, int8, or uint8 (then 128 is subtracted). `keep=graph.tensors` keeps
        everything; other tensors are freed after their last use.
        """
        graph = self.graph
        image = _as_int8(image, tuple(graph.tensors[graph.input].shape))
        wanted = list(dict.fromkeys([*graph.outputs, *(keep or ())]))
        alive = {graph.input: image}
        for index, op in enumerate(graph.ops):
            shape = graph.tensors[op.output].shape
            inputs = [alive[name] for name in op.inputs]
            alive[op.output] = self.compute(index, inputs, [(0, 0)] * len(inputs), (0, shape.h), (0, shape.w))
            for name in {*op.inputs, op.output}:
                if self._last_use[name] == index and name not in wanted:
                    del alive[name]
        return {name: alive[name] for name in wanted}


def run(graph: Graph, image: np.ndarray, keep: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """`Interpreter(graph).run(image, keep)`; make an Interpreter for more than one picture."""
    return Interpreter(graph).run(image, keep)


def _as_int8(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if image.shape != shape:
        raise ValueError(f"picture is {image.shape}, the network takes {shape}")
    if image.dtype == np.uint8:
        return (image ^ 0x80).view(np.int8)
    if image.dtype != np.int8:
        raise ValueError(f"picture is {image.dtype}, the network takes int8 or uint8")
    return np.ascontiguousarray(image)


def _window(
    array: np.ndarray,
    origin: tuple[int, int],
    rows: Axis,
    cols: Axis,
    out_rows: Span,
    out_cols: Span,
    fill: int,
    who: str,
) -> np.ndarray:
    """Cut what the output region needs out of a piece of the input, with padding filled in."""
    pieces, pads = [], []
    for dim, (axis, (out_lo, out_hi)) in enumerate(((rows, out_rows), (cols, out_cols))):
        if not 0 <= out_lo < out_hi <= axis.size_out:
            raise ValueError(f"{who} has {('rows', 'columns')[dim]} 0..{axis.size_out}, asked for {out_lo}..{out_hi}")
        lo, hi = axis.in_lo(out_lo), axis.in_hi(out_hi)
        have_lo, have_hi = origin[dim], origin[dim] + array.shape[dim]
        if not have_lo <= lo <= hi <= have_hi:
            name = ("rows", "columns")[dim]
            raise ValueError(f"{who} needs input {name} {lo}..{hi} and was given {have_lo}..{have_hi}")
        pieces.append(slice(lo - have_lo, hi - have_lo))
        pads.append((lo - axis.start(out_lo), axis.stop(out_hi) - hi))
    inside = array[pieces[0], pieces[1]]
    if not any(map(any, pads)):
        return inside
    (top, bottom), (left, right) = pads
    height, width, channels = inside.shape
    padded = np.full((top + height + bottom, left + width + right, channels), fill, np.int8)
    padded[top : top + height, left : left + width] = inside
    return padded
