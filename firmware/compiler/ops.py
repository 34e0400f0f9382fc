"""What each operator means for everyone but its kernel: one table by params type.

Ask here, never `if kind ==`: output shape, which input rows and columns an output region needs and what a piece of the
input allows to compute, multiply-accumulates, bytes of constants, and the rules that an operator must obey. To add an
operator: its params in graph.py, one entry in RULES here (with its constraints in constraints.py), one kernel in
kernels.py, one case each in tflite_read.py and tflite_write.py.

Rows and columns are independent, so region arithmetic is one `Axis` each, for each input. All intervals are half-open.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from firmware.compiler import constraints
from firmware.compiler.axis import Axis, pixel_axis, whole_axis
from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    Concat,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    GraphError,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Op,
    Pad,
    Padding,
    Params,
    Reshape,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Transpose,
    Weights,
    Window,
)

ONE = (1, 1)
MAX_INPUTS = 4  # SPEC.md


class Region(NamedTuple):
    """A rectangle of a feature map, rows [top, bottom) and columns [left, right)."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class OpRules:
    """One operator kind. Functions of (params, ...) only; `dim` is 0 for rows, 1 for columns."""

    arity: tuple[int, int]  # fewest and most inputs
    output_shape: Callable[..., Shape]  # (params, input shapes) -> Shape
    axis: Callable[..., Axis]  # (params, dim, input's size, output's size, size of the inputs before it) -> Axis of one input
    macs_per_pixel: Callable[..., int]  # (params, first input's shape) -> multiply-accumulates of one output (row, column)
    weights: Callable[..., Weights | None]  # params -> constants, None without
    constraints: tuple[constraints.Constraint, ...]


def _windowed(size: int, window: Window, dim: int) -> int:
    before, after = window.padding[dim], window.padding[dim + 2]
    return (size + before + after - window.kernel[dim]) // window.stride[dim] + 1


def _window_shape(window: Window, shape: Shape, channels: int) -> Shape:
    return Shape(_windowed(shape.h, window, 0), _windowed(shape.w, window, 1), channels)


def _window_axis(
    params: Conv2D | DepthwiseConv2D | MaxPool2D | AveragePool2D, dim: int, size_in: int, size_out: int, before: int
) -> Axis:
    window = params.window
    return Axis(size_in, size_out, window.kernel[dim], window.stride[dim], window.padding[dim])


def _whole_axis(params: Params, dim: int, size_in: int, size_out: int, before: int) -> Axis:
    return whole_axis(size_in, size_out)


def _joined_shape(params: Concat, shapes: list[Shape]) -> Shape:
    joined = sum(shape[params.axis] for shape in shapes)
    return Shape(*(joined if dim == params.axis else size for dim, size in enumerate(shapes[0])))


def _joined_axis(params: Concat, dim: int, size_in: int, size_out: int, before: int) -> Axis:
    """What stands before an input is to it what padding is to a Pad."""
    return Axis(size_in, size_out, pad_before=before if dim == params.axis else 0)


def _turned_axis(params: Transpose, dim: int, size_in: int, size_out: int, before: int) -> Axis:
    return Axis(size_in, size_out) if params.order[dim] == dim else whole_axis(size_in, size_out)


def _padded_shape(padding: Padding, shape: Shape) -> Shape:
    return Shape(shape.h + padding.top + padding.bottom, shape.w + padding.left + padding.right, shape.c)


def _pixel_axis(params: Params, dim: int, size_in: int, size_out: int, before: int) -> Axis:
    return pixel_axis(size_in, size_out)


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

_ELEMENTWISE = (constraints.constraint_operand, constraints.constraint_broadcast, constraints.constraint_clamp)
_PAIR = OpRules(
    arity=(1, 2),
    output_shape=lambda p, shapes: Shape(*map(max, zip(*shapes, strict=True))),
    axis=_pixel_axis,
    macs_per_pixel=lambda p, shape: 0,
    weights=lambda p: None,
    constraints=(*_ELEMENTWISE, constraints.constraint_add_scales, constraint_output_shape),
)
_POOLING = OpRules(
    arity=ONE,
    output_shape=lambda p, shapes: _window_shape(p.window, shapes[0], shapes[0].c),
    axis=_window_axis,
    macs_per_pixel=lambda p, shape: 0,
    weights=lambda p: None,
    constraints=(
        constraints.constraint_geometry,
        constraints.constraint_same_quantization,
        constraints.constraint_clamp,
        constraint_output_shape,
    ),
)

RULES: dict[type, OpRules] = {
    Conv2D: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: _window_shape(p.window, shapes[0], p.weights.values.shape[0]),
        axis=_window_axis,
        macs_per_pixel=lambda p, shape: p.weights.values.size,
        weights=lambda p: p.weights,
        constraints=_CONVOLUTION,
    ),
    DepthwiseConv2D: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: _window_shape(p.window, shapes[0], shapes[0].c * p.multiplier),
        axis=_window_axis,
        macs_per_pixel=lambda p, shape: p.weights.values.size,
        weights=lambda p: p.weights,
        constraints=_CONVOLUTION,
    ),
    FullyConnected: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: Shape(1, 1, p.weights.values.shape[0]),
        axis=_whole_axis,
        macs_per_pixel=lambda p, shape: p.weights.values.size,
        weights=lambda p: p.weights,
        constraints=(
            constraints.constraint_map_size,
            constraints.constraint_weights,
            constraints.constraint_clamp,
            constraints.constraint_accumulator,
            constraint_output_shape,
        ),
    ),
    Add: _PAIR,
    Sub: _PAIR,
    Mul: replace(_PAIR, constraints=(*_ELEMENTWISE, constraints.constraint_product_scale, constraint_output_shape)),
    MaxPool2D: _POOLING,
    AveragePool2D: replace(_POOLING, constraints=(*_POOLING.constraints, constraints.constraint_usual_padding)),
    Mean: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: Shape(*(1 if p.axes[dim] else size for dim, size in enumerate(shapes[0]))),
        axis=_pixel_axis,
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(constraints.constraint_mean, constraint_output_shape),
    ),
    Softmax: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: shapes[0],
        axis=_pixel_axis,
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(constraints.constraint_softmax, constraint_output_shape),
    ),
    Lookup: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: shapes[0],
        axis=_pixel_axis,
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(
            constraints.constraint_function,
            constraints.constraint_clamp,
            constraints.constraint_function_scales,
            constraint_output_shape,
        ),
    ),
    ResizeNearest: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: Shape(
            shapes[0].h * p.factor[0] - p.crop[0], shapes[0].w * p.factor[1] - p.crop[1], shapes[0].c
        ),
        axis=lambda p, dim, size_in, size_out, before: Axis(size_in, size_out, factor=p.factor[dim]),
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(
            constraints.constraint_factor,
            constraints.constraint_same_quantization,
            constraint_output_shape,
        ),
    ),
    Concat: OpRules(
        arity=(2, MAX_INPUTS),
        output_shape=_joined_shape,
        axis=_joined_axis,
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(constraints.constraint_joinable, constraints.constraint_same_quantization, constraint_output_shape),
    ),
    Slice: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: p.shape,
        axis=lambda p, dim, size_in, size_out, before: Axis(size_in, size_out, pad_before=-p.start[dim]),
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(constraints.constraint_inside, constraints.constraint_same_quantization, constraint_output_shape),
    ),
    Pad: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: _padded_shape(p.padding, shapes[0]),
        axis=lambda p, dim, size_in, size_out, before: Axis(size_in, size_out, pad_before=p.padding[dim]),
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(constraints.constraint_padding, constraints.constraint_same_quantization, constraint_output_shape),
    ),
    Reshape: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: p.shape,
        axis=_whole_axis,
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(constraints.constraint_same_size, constraints.constraint_same_quantization, constraint_output_shape),
    ),
    Transpose: OpRules(
        arity=ONE,
        output_shape=lambda p, shapes: Shape(*(shapes[0][side] for side in p.order)),
        axis=_turned_axis,
        macs_per_pixel=lambda p, shape: 0,
        weights=lambda p: None,
        constraints=(constraints.constraint_order, constraints.constraint_same_quantization, constraint_output_shape),
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
    return rules(params).output_shape(params, inputs)


def axes(graph: Graph, op: Op) -> tuple[tuple[Axis, Axis], ...]:
    """(rows, columns) for each input of an operator."""
    target, entry = graph.tensors[op.output].shape, rules(op.params)
    found, before = [], (0, 0)
    for source in (graph.tensors[name].shape for name in op.inputs):
        rows, cols = (entry.axis(op.params, dim, source[dim], target[dim], before[dim]) for dim in (0, 1))
        found.append((rows, cols))
        before = (before[0] + source.h, before[1] + source.w)
    return tuple(found)


def input_region(graph: Graph, op: Op, out: Region, position: int = 0) -> tuple[Region, Padding]:
    """What of an input the output region reads: the part inside of the feature map, and the padding around it."""
    rows, cols = axes(graph, op)[position]
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


def in_place(graph: Graph, op: Op) -> bool:
    """True where a row of the result may be written over the same row of an input: a sum of equal shapes (kernels.h)."""
    shapes = {graph.tensors[name].shape for name in (*op.inputs, op.output)}
    return isinstance(op.params, Add) and len(op.inputs) == 2 and len(shapes) == 1


def parameter_bytes(op: Op) -> int:
    """Bytes of constants a kernel reads: int8 weights; per channel int32 bias and multiplier, int8 shift."""
    weights = rules(op.params).weights(op.params)
    return 0 if weights is None else weights.values.size + 9 * weights.bias.size


def verify_op(graph: Graph, op: Op) -> None:
    """Raise GraphError, in the words of the broken rule, when the operator may not stand in a graph."""
    entry = rules(op.params)
    fewest, most = entry.arity
    if not fewest <= len(op.inputs) <= most:
        takes = str(most) if fewest == most else f"{fewest} to {most}"
        raise GraphError(f"{op.kind} '{op.name}' has {len(op.inputs)} inputs, it takes {takes}")
    for constraint in entry.constraints:
        broken = constraint(graph, op)
        if broken:
            rule = " ".join((constraint.__doc__ or "").split())
            raise GraphError(f"{op.kind} '{op.name}': {rule} Here: {broken}.")


def supported_operators() -> str:
    """The rules as Markdown, from the constraints' docstrings."""
    sections = []
    for kind, entry in RULES.items():
        what = " ".join((kind.__doc__ or "").split())
        rules_of_it = "\n".join(f"- {' '.join((rule.__doc__ or '').split())}" for rule in entry.constraints)
        described = what and not what.startswith(f"{kind.__name__}(")  # a dataclass without words describes its fields
        sections += [f"## {kind.__name__}", *([what] if described else []), rules_of_it]
    return "\n\n".join(sections) + "\n"
