"""What each operator means for everyone but its kernel: one table by params type.

Ask here, never `if kind ==`: output shape, which input rows and columns an output region needs and what a piece of the
input allows to compute, multiply-accumulates, bytes of constants, and the rules that an operator must obey. To add an
operator: its params in graph.py, one entry in RULES here (with its constraints in constraints.py), one kernel in
kernels.py, one case each in tflite_read.py and tflite_write.py.

Rows and columns are independent, so region arithmetic is one `Axis` each. All intervals are half-open.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from firmware.compiler import constraints
from firmware.compiler.graph import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    Graph,
    GraphError,
    MaxPool2D,
    Op,
    Padding,
    Params,
    ResizeNearest,
    Shape,
    Weights,
    Window,
)

Position = TypeVar("Position", int, np.ndarray)  # one row (or column) number, or an integer array of them


@dataclass(frozen=True)
class Axis:
    """How output positions of one operator depend on input positions, along rows or along columns.

    Output o reads inputs [o * stride - pad_before, o * stride - pad_before + kernel), or o // factor when factor > 1;
    positions outside of [0, size_in) are padding. Methods work elementwise on numpy integer arrays too.
    """

    size_in: int
    size_out: int
    kernel: int = 1
    stride: int = 1
    pad_before: int = 0
    factor: int = 1

    def start(self, out_lo: Position) -> Position:
        """First input position of the window of output `out_lo`; may lie in the padding (negative)."""
        return out_lo // self.factor * self.stride - self.pad_before

    def stop(self, out_hi: Position) -> Position:
        """One past the last input position that outputs before `out_hi` read; may lie in the padding."""
        return (out_hi - 1) // self.factor * self.stride - self.pad_before + self.kernel

    def in_lo(self, out_lo: Position) -> Position:
        """`start`, clipped to the input: the first position that outputs from `out_lo` on really read."""
        return _clip(self.start(out_lo), self.size_in)

    def in_hi(self, out_hi: Position) -> Position:
        """`stop`, clipped to the input; nothing (0) is needed for nothing (out_hi <= 0)."""
        return _clip(self.stop(out_hi), self.size_in) * (out_hi > 0)

    def computable(self, in_hi: Position) -> Position:
        """How many leading outputs inputs [0, in_hi) suffice for: the largest m with self.in_hi(m) <= in_hi."""
        whole = (in_hi + self.pad_before - self.kernel) // self.stride + 1
        count = _clip(whole * self.factor, self.size_out)
        return _where(in_hi >= self.size_in, self.size_out, count)


def identity_axis(size: int) -> Axis:
    """The axis of an elementwise operator: output o reads input o."""
    return Axis(size, size)


def _clip(value: Position, size: int) -> Position:
    return np.minimum(np.maximum(value, 0), size) if isinstance(value, np.ndarray) else min(max(value, 0), size)


def _where(condition: bool | np.ndarray, if_true: int, if_false: Position) -> Position:
    return np.where(condition, if_true, if_false) if isinstance(condition, np.ndarray) else (
        if_true if condition else if_false
    )


class Region(NamedTuple):
    """A rectangle of a feature map, rows [top, bottom) and columns [left, right)."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class OpRules:
    """One operator kind. Functions of (params, ...) only; `dim` is 0 for rows, 1 for columns."""

    arity: int
    output_shape: Callable[..., Shape]  # (params, input shape) -> Shape
    axis: Callable[..., dict[str, int]]  # (params, dim) -> keywords of Axis
    macs_per_pixel: Callable[..., int]  # (params, input shape) -> multiply-accumulates of one output (row, column)
    weights: Callable[..., Weights | None]  # params -> constants, None without
    constraints: tuple[constraints.Constraint, ...]


def _windowed(size: int, window: Window, dim: int) -> int:
    before, after = window.padding[dim], window.padding[dim + 2]
    return (size + before + after - window.kernel[dim]) // window.stride[dim] + 1


def _window_shape(window: Window, shape: Shape, channels: int) -> Shape:
    return Shape(_windowed(shape.h, window, 0), _windowed(shape.w, window, 1), channels)


def _window_axis(params: Conv2D | DepthwiseConv2D | MaxPool2D, dim: int) -> dict[str, int]:
    window = params.window
    return {"kernel": window.kernel[dim], "stride": window.stride[dim], "pad_before": window.padding[dim]}


def constraint_output_shape(graph: Graph, op: Op) -> str | None:
    """The output tensor has the shape that the operator makes."""
    made = output_shape(op.params, [graph.tensors[name].shape for name in op.inputs])
    declared = graph.tensors[op.output].shape
    return None if made == declared else f"{tuple(made)} is made, '{op.output}' is {tuple(declared)}"


_CONVOLUTION = (
    constraints.constraint_geometry,
    constraints.constraint_weights,
    constraints.constraint_clamp,
    constraints.constraint_accumulator,
    constraint_output_shape,
)

RULES: dict[type, OpRules] = {
    Conv2D: OpRules(
        arity=1,
        output_shape=lambda p, shape: _window_shape(p.window, shape, p.weights.values.shape[0]),
        axis=_window_axis,
        macs_per_pixel=lambda p, shape: p.weights.values.size,
        weights=lambda p: p.weights,
        constraints=_CONVOLUTION,
    ),
    DepthwiseConv2D: OpRules(
        arity=1,
        output_shape=lambda p, shape: _window_shape(p.window, shape, shape.c * p.multiplier),
        axis=_window_axis,
        macs_per_pixel=lambda p, shape: p.weights.values.size,
        weights=lambda p: p.weights,
        constraints=_CONVOLUTION,
    ),
    Add: OpRules(
        arity=2,
        output_shape=lambda p, shape: shape,
        axis=lambda p, dim: {},
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(
            constraints.constraint_same_shapes,
            constraints.constraint_clamp,
            constraints.constraint_add_scales,
            constraint_output_shape,
        ),
    ),
    MaxPool2D: OpRules(
        arity=1,
        output_shape=lambda p, shape: _window_shape(p.window, shape, shape.c),
        axis=_window_axis,
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(
            constraints.constraint_geometry,
            constraints.constraint_same_quantization,
            constraints.constraint_clamp,
            constraint_output_shape,
        ),
    ),
    ResizeNearest: OpRules(
        arity=1,
        output_shape=lambda p, shape: Shape(
            shape.h * p.factor[0] - p.crop[0], shape.w * p.factor[1] - p.crop[1], shape.c
        ),
        axis=lambda p, dim: {"factor": p.factor[dim]},
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(
            constraints.constraint_factor,
            constraints.constraint_same_quantization,
            constraint_output_shape,
        ),
    ),
}


def rules(params: Params) -> OpRules:
    """The table's entry. Raises GraphError for a kind that is not in it."""
    entry = RULES.get(type(params))
    if entry is None:
        supported = ", ".join(kind.__name__ for kind in RULES)
        raise GraphError(f"operator kind {type(params).__name__} is unknown; supported are {supported}")
    return entry


def output_shape(params: Params, inputs: list[Shape]) -> Shape:
    """Shape that the operator makes of its inputs' shapes."""
    return rules(params).output_shape(params, inputs[0])


def axes(graph: Graph, op: Op) -> tuple[Axis, Axis]:
    """(rows, columns) of an operator; every input of it shares them."""
    source, target = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    entry = rules(op.params)
    return (
        Axis(source.h, target.h, **entry.axis(op.params, 0)),
        Axis(source.w, target.w, **entry.axis(op.params, 1)),
    )


def input_region(graph: Graph, op: Op, out: Region) -> tuple[Region, Padding]:
    """What of each input the output region reads: the part inside of the feature map, and the padding around it."""
    rows, cols = axes(graph, op)
    inside = Region(rows.in_lo(out.top), cols.in_lo(out.left), rows.in_hi(out.bottom), cols.in_hi(out.right))
    padding = Padding(
        inside.top - rows.start(out.top),
        inside.left - cols.start(out.left),
        rows.stop(out.bottom) - inside.bottom,
        cols.stop(out.right) - inside.right,
    )
    return inside, padding


def macs_per_pixel(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of one output pixel, all channels, padding counted as if it were picture."""
    return rules(op.params).macs_per_pixel(op.params, graph.tensors[op.inputs[0]].shape)


def macs(graph: Graph, op: Op) -> int:
    """Multiply-accumulates of the whole output."""
    shape = graph.tensors[op.output].shape
    return macs_per_pixel(graph, op) * shape.h * shape.w


def parameter_bytes(op: Op) -> int:
    """Bytes of constants a kernel reads: int8 weights; per channel int32 bias and multiplier, int8 shift."""
    weights = rules(op.params).weights(op.params)
    return 0 if weights is None else weights.values.size + 9 * weights.bias.size


def verify_op(graph: Graph, op: Op) -> None:
    """Raise GraphError, in the words of the broken rule, when the operator may not stand in a graph."""
    entry = rules(op.params)
    if len(op.inputs) != entry.arity:
        raise GraphError(f"{op.kind} '{op.name}' has {len(op.inputs)} inputs, it takes {entry.arity}")
    for constraint in entry.constraints:
        broken = constraint(graph, op)
        if broken:
            rule = " ".join((constraint.__doc__ or "").split())
            raise GraphError(f"{op.kind} '{op.name}': {rule} Here: {broken}.")


def supported_operators() -> str:
    """The rules as Markdown, from the constraints' docstrings."""
    lines = []
    for kind, entry in RULES.items():
        lines.append(f"### {kind.__name__}")
        lines += [f"- {' '.join((constraint.__doc__ or '').split())}" for constraint in entry.constraints]
    return "\n".join(lines) + "\n"
