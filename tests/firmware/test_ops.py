"""The operator table: region arithmetic by brute force, and each rule broken once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.compiler import ops
from firmware.compiler.axis import Axis, whole_axis
from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    ChannelOperand,
    Clamp,
    Concat,
    Conv2D,
    Graph,
    GraphError,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Op,
    Operand,
    Pad,
    Padding,
    Quantization,
    Reshape,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Tensor,
    Transpose,
    Weights,
    Window,
)
from firmware.compiler.ops import Region
from firmware.compiler.supported import PAGE, supported_page
from firmware.compiler.verify import verify
from tests.firmware.graphs import Builder, detector_graph, graphs, same_window


@st.composite
def axes(draw) -> Axis:
    kind = draw(st.sampled_from(["window", "resize", "whole", "slice"]))
    if kind == "slice":
        size, start = draw(st.integers(1, 12)), draw(st.integers(0, 11))
        taken = draw(st.integers(1, max(1, size - start)))
        return Axis(max(size, start + taken), taken, pad_before=-start)
    if kind == "whole":
        return whole_axis(draw(st.integers(1, 12)), draw(st.integers(1, 12)))
    if kind == "resize":
        size, factor = draw(st.integers(1, 12)), draw(st.integers(1, 4))
        return Axis(size, size * factor, factor=factor)
    kernel = draw(st.integers(1, 7))
    before, after = draw(st.integers(0, kernel - 1)), draw(st.integers(0, kernel - 1))
    size = draw(st.integers(max(1, kernel - before - after), 20))
    stride = draw(st.integers(1, 3))
    return Axis(size, (size + before + after - kernel) // stride + 1, kernel, stride, before)


@given(st.integers(1, 12), st.integers(0, 5), st.integers(0, 5), st.data())
def test_padding_alone_needs_nothing(size, before, behind, data):
    axis = Axis(size, before + size + behind, pad_before=before)
    lo = data.draw(st.integers(0, axis.size_out - 1))
    hi = data.draw(st.integers(lo + 1, axis.size_out))
    needed = {o - before for o in range(lo, hi) if 0 <= o - before < size}
    found = range(axis.in_lo(lo), axis.in_hi(hi))
    assert set(found) == needed
    assert axis.start(lo) <= axis.in_lo(lo) or not needed
    for available in range(size + 1):
        assert axis.computable(available) == max(m for m in range(axis.size_out + 1) if axis.in_hi(m) <= available)


def read_by(axis: Axis, out: int) -> set[int]:
    """Input positions that output `out` reads, from the definition of the operator."""
    if axis.stride == 0:
        return set(range(axis.size_in))
    if axis.factor > 1:
        return {out // axis.factor}
    window = range(out * axis.stride - axis.pad_before, out * axis.stride - axis.pad_before + axis.kernel)
    return {position for position in window if 0 <= position < axis.size_in}


@given(axes(), st.data())
def test_regions_hold_exactly_what_is_read(axis, data):
    lo = data.draw(st.integers(0, axis.size_out - 1))
    hi = data.draw(st.integers(lo + 1, axis.size_out))
    needed = set().union(*(read_by(axis, out) for out in range(lo, hi)))
    assert needed, "every window touches the picture"
    assert (axis.in_lo(lo), axis.in_hi(hi)) == (min(needed), max(needed) + 1)
    assert axis.in_hi(0) == 0


@given(axes())
def test_computable_is_the_inverse_of_in_hi(axis):
    for available in range(axis.size_in + 1):
        expected = max(m for m in range(axis.size_out + 1) if axis.in_hi(m) <= available or m == 0)
        if available == axis.size_in:
            assert expected == axis.size_out
        assert axis.computable(available) == expected


@given(axes())
def test_arrays_give_what_numbers_give(axis):
    outs, ins = np.arange(axis.size_out + 1), np.arange(axis.size_in + 1)
    assert axis.in_lo(outs).tolist() == [axis.in_lo(int(o)) for o in outs]
    assert axis.in_hi(outs).tolist() == [axis.in_hi(int(o)) for o in outs]
    assert axis.computable(ins).tolist() == [axis.computable(int(i)) for i in ins]
    assert axis.in_hi(outs).dtype.kind == "i"


@given(graphs(max_ops=4))
def test_input_region_of_everything_is_everything_that_matters(graph):
    for op in graph.ops:
        shape = graph.tensors[op.output].shape
        for position, name in enumerate(op.inputs):
            source = graph.tensors[name].shape
            inside, padding = ops.input_region(graph, op, Region(0, 0, shape.h, shape.w), position)
            if isinstance(op.params, Slice):
                (top, left, _), taken = op.params.start, op.params.shape
                assert inside == Region(top, left, top + taken.h, left + taken.w) and padding == Padding()
                continue
            assert inside.top == inside.left == 0
            assert inside.bottom <= source.h and inside.right <= source.w
            if hasattr(op.params, "window"):
                assert (padding.top, padding.left) == (op.params.window.padding.top, op.params.window.padding.left)
            else:
                around = op.params.padding if isinstance(op.params, Pad) else Padding()
                if isinstance(op.params, Concat):  # the other inputs' rows and columns are padding to this one
                    before = [sum(graph.tensors[n].shape[dim] for n in op.inputs[:position]) for dim in (0, 1)]
                    top, left = (before[dim] if dim == op.params.axis else 0 for dim in (0, 1))
                    around = Padding(top, left, shape.h - top - source.h, shape.w - left - source.w)
                assert inside == Region(0, 0, source.h, source.w) and padding == around


def test_macs_and_bytes_of_known_layers():
    b = Builder(np.random.default_rng(0), Shape(40, 40, 16))
    b.conv("image", 96, same_window(Shape(40, 40, 16), 1), "point")
    b.depthwise("point", same_window(Shape(40, 40, 96), 3), name="depth")
    graph = b.graph(("depth",))
    assert [ops.macs(graph, op) for op in graph.ops] == [2_457_600, 1_382_400]
    assert [ops.macs_per_pixel(graph, op) for op in graph.ops] == [1536, 864]
    assert [ops.parameter_bytes(op) for op in graph.ops] == [1536 + 9 * 96, 864 + 9 * 96]


def test_detector_graph_obeys_all_rules():
    graph = detector_graph(np.random.default_rng(3), 96, 64, (8, 16, 32), classes=3)
    assert [tuple(graph.tensors[name].shape) for name in graph.outputs[:3]] == [(12, 8, 1), (12, 8, 3), (12, 8, 4)]
    assert graph.outputs[-1] == "head32/box"


# rules: a small legal graph, and one change that each of them forbids


def legal(params=None, inputs=("a",), output=None) -> Graph:
    """One operator on 'a' (4, 4, 2), making 'out'."""
    quant = Quantization(0.5, 3)
    every = {"a": Tensor("a", Shape(4, 4, 2), quant), "out": Tensor("out", output or Shape(4, 4, 2), quant)}
    params = params or convolution()
    return Graph(every, (Op("it", params, inputs, "out"),), "a", ("out",))


NO_PADDING, NO_CLAMP = Padding(), Clamp()


def convolution(kernel=(1, 1), stride=(1, 1), padding=NO_PADDING, clamp=NO_CLAMP, channels=2, **changes) -> Conv2D:
    weights = {
        "values": np.ones((channels, *kernel, 2), np.int8),
        "scales": np.full(channels, 0.25, np.float32),
        "bias": np.zeros(channels, np.int32),
    }
    return Conv2D(Window(kernel, stride, padding), Weights(**(weights | changes)), clamp)


def test_the_legal_graph_is_legal():
    assert verify(legal()) is not None
    verify(legal(Add(Clamp()), ("a", "a")))
    verify(legal(MaxPool2D(Window((2, 2), (2, 2), Padding()), Clamp()), output=Shape(2, 2, 2)))
    verify(legal(ResizeNearest((2, 3)), output=Shape(8, 12, 2)))
    verify(legal(Pad(Padding(1, 0, 2, 3), -7), output=Shape(7, 7, 2)))
    verify(legal(Slice((1, 0, 1), Shape(3, 4, 1)), output=Shape(3, 4, 1)))
    verify(legal(Reshape(Shape(1, 1, 32)), output=Shape(1, 1, 32)))
    verify(legal(Mean((True, False, False)), output=Shape(1, 4, 2)))
    verify(legal(Mean((True, True, True)), output=Shape(1, 1, 1)))
    verify(legal(Concat(1), ("a", "a"), output=Shape(4, 8, 2)))
    verify(legal(Transpose((2, 0, 1)), output=Shape(2, 4, 4)))
    verify(legal(Sub(Clamp(), ChannelOperand((1, -2), Quantization(0.5, 0)))))
    verify(legal(Lookup("MUL", operand=Operand(3, Quantization(1.0, 0)))))


def test_the_page_of_supported_operators_is_current():
    assert PAGE.read_text() == supported_page(), "run: python -m firmware.compiler.supported"


SCALE = Quantization(0.25, 3)
BROKEN = {
    "stride 17x1": legal(convolution(stride=(17, 1))),
    "kernel 0x1": legal(convolution(kernel=(0, 1))),
    "less than the kernel": legal(convolution(padding=Padding(1, 0, 0, 0))),
    "fewer than the kernel": legal(convolution(kernel=(5, 5))),
    "expected int8": legal(convolution(values=np.ones((2, 1, 1, 3), np.int8))),
    "expected int32": legal(convolution(bias=np.zeros(2, np.int64))),
    "expected float32": legal(convolution(scales=np.ones(2))),
    "channel 1 has scale nan": legal(convolution(scales=np.array([1, np.nan], np.float32))),
    "activation TANH": legal(convolution(clamp=Clamp("TANH"))),
    "RELU clamps to -128..127, expected 3..127": legal(convolution(clamp=Clamp("RELU"))),
    "fit in int32": legal(convolution(bias=np.array([0, 2**31 - 1], np.int32))),
    "is scaled by": legal(convolution(bias=np.full(2, 2**22, np.int32), scales=np.full(2, 2.0**9, np.float32))),
    "requantising factor": legal(convolution(scales=np.full(2, 1e38, np.float32))),
    "The output tensor has the shape": legal(convolution(), output=Shape(4, 4, 3)),
    "share one scale": replace(
        legal(ResizeNearest((1, 1))),
        tensors={"a": Tensor("a", Shape(4, 4, 2), SCALE), "out": Tensor("out", Shape(4, 4, 2), Quantization(0.5, 3))},
    ),
    "whole numbers from 1 to 16": legal(ResizeNearest((17, 1)), output=Shape(68, 4, 2)),
    "one input and no constant": legal(Add(Clamp())),
    "2 inputs and 2 constants for 2 channels": legal(Add(Clamp(), ChannelOperand((1, 2), SCALE)), ("a", "a")),
    "1 inputs and 3 constants for 2 channels": legal(Mul(Clamp(), ChannelOperand((1, 2, 3), SCALE))),
    "constants 1..128": legal(Mul(Clamp(), ChannelOperand((1, 128), SCALE))),
    "constants with": legal(Mul(Clamp(), ChannelOperand((1, 2), Quantization(0.0, 0)))),
    "along rows, columns or channels": legal(Concat(3), ("a", "a")),
    "Each of the three sides": legal(Transpose((0, 0, 1))),
    "has 1 inputs, it takes 2 to 4": legal(Concat()),
    "SAME means": legal(AveragePool2D(Window((2, 2), (1, 1), Padding(1, 0, 0, 0)), Clamp()), output=Shape(4, 3, 2)),
    "over none of them": legal(Mean((False, False, False))),
    "the output has scale 1/256": legal(Softmax()),
    "beta 0.0": legal(Softmax(0.0)),
    "The function is RELU": legal(Lookup("SINE")),
    "DIV with 3": legal(Lookup("DIV", operand=Operand(3, Quantization(1.0, 0)))),
    "a constant with": legal(Lookup("ADD", operand=Operand(3, Quantization(-1.0, 0)))),
    "LOGISTIC makes": legal(Lookup("LOGISTIC")),
    "lies inside of the input": legal(Slice((0, 0, 1), Shape(4, 4, 2))),
    "of 300": legal(Pad(Padding(1, 1, 1, 1), 300), output=Shape(6, 6, 2)),
    "same number of values": legal(Reshape(Shape(1, 1, 31)), output=Shape(1, 1, 31)),
}
small = Op("small", convolution(channels=3), ("a",), "a1")
BROKEN["or one of the inputs has 1"] = Graph(
    {n: Tensor(n, Shape(4, 4, c), Quantization(0.5, 3)) for n, c in (("a", 2), ("a1", 3), ("out", 3))},
    (small, Op("it", Add(Clamp()), ("a", "a1"), "out")),
    "a",
    ("out",),
)
BROKEN["2**19 times"] = replace(
    legal(Add(Clamp()), ("a", "a")),
    tensors={"a": Tensor("a", Shape(4, 4, 2), SCALE), "out": Tensor("out", Shape(4, 4, 2), Quantization(2.0**-22, 3))},
)


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_rule_is_quoted(words):
    with pytest.raises(GraphError) as caught:
        verify(BROKEN[words])
    assert words in str(caught.value) and "'it'" in str(caught.value)


GRAPH = legal()
UNSOUND = {
    "before anything makes it": replace(GRAPH, ops=(replace(GRAPH.ops[0], inputs=("out",)),)),
    "a second time": replace(GRAPH, ops=GRAPH.ops * 2),
    "not a tensor of the graph": replace(GRAPH, input="nobody"),
    "belongs to no operator": replace(GRAPH, tensors={**GRAPH.tensors, "x": Tensor("x", Shape(1, 1, 1), SCALE)}),
    "no output": replace(GRAPH, outputs=()),
    "made by no operator": replace(GRAPH, outputs=("nobody",)),
    "the input itself": replace(GRAPH, outputs=("a",)),
    "named twice": replace(GRAPH, outputs=("out", "out")),
    "empty shape": replace(GRAPH, tensors={**GRAPH.tensors, "a": Tensor("a", Shape(0, 4, 2), SCALE)}),
    "not a positive float32": replace(GRAPH, tensors={**GRAPH.tensors, "a": Tensor("a", Shape(4, 4, 2), Quantization(0.1, 0))}),
    "outside -128..127": replace(GRAPH, tensors={**GRAPH.tensors, "a": Tensor("a", Shape(4, 4, 2), Quantization(0.5, 128))}),
    "filed under the name": replace(GRAPH, tensors={**GRAPH.tensors, "out": Tensor("other", Shape(4, 4, 2), SCALE)}),
}


@pytest.mark.parametrize("words", UNSOUND)
def test_an_unsound_graph_is_refused(words):
    with pytest.raises(GraphError, match=words):
        verify(UNSOUND[words])


def test_documentation_lists_every_rule():
    text = ops.supported_operators()
    for kind, entry in ops.RULES.items():
        assert f"## {kind.__name__}" in text
        for constraint in entry.constraints:
            assert " ".join(constraint.__doc__.split()) in text
