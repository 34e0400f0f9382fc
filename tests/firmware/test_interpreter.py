"""The int8 truth against plain loops, and any region of it against the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.compiler import interpreter, ops, requantize
from firmware.compiler.graph import (
    Add,
    AveragePool2D,
    Clamp,
    Concat,
    DepthwiseConv2D,
    FullyConnected,
    Graph,
    Lookup,
    MaxPool2D,
    Mean,
    Mul,
    Op,
    Pad,
    Quantization,
    Reshape,
    ResizeNearest,
    Shape,
    Slice,
    Softmax,
    Sub,
    Transpose,
)
from firmware.compiler.interpreter import Interpreter
from tests.firmware.graphs import Builder, detector_graph, graphs, random_graph, random_image, same_window


def slow_op(graph: Graph, op: Op, inputs: list[np.ndarray]) -> np.ndarray:
    """One operator in loops over output elements, exact Python integers, from the definitions."""
    shape, target = graph.tensors[op.output].shape, graph.tensors[op.output].quant
    sources = [graph.tensors[name].quant for name in op.inputs]
    out = np.zeros(shape, np.int64)
    for y, x, c in np.ndindex(*shape):
        out[y, x, c] = _slow_element(op.params, inputs, sources, target, y, x, c)
    clamp = getattr(op.params, "clamp", Clamp())
    return np.clip(out, clamp.low, clamp.high).astype(np.int8)


def _slow_element(params, inputs, sources, target, y, x, c) -> int:
    first = inputs[0]
    match params:
        case ResizeNearest():
            return int(first[y // params.factor[0], x // params.factor[1], c])
        case Add() | Sub() | Mul():
            return _slow_pair(params, inputs, sources, target, y, x, c)
        case Concat():
            return int(np.concatenate(inputs, axis=params.axis)[y, x, c])
        case Transpose():
            return int(np.transpose(first, params.order)[y, x, c])
        case Slice():
            return int(first[params.start[0] + y, params.start[1] + x, params.start[2] + c])
        case Pad():
            row, col = y - params.padding.top, x - params.padding.left
            inside = 0 <= row < first.shape[0] and 0 <= col < first.shape[1]
            return int(first[row, col, c]) if inside else params.value
        case Reshape():
            return int(first.reshape(-1)[(y * params.shape.w + x) * params.shape.c + c])
        case Mean():
            return _slow_mean(params, first, sources[0], target, y, x, c)
        case FullyConnected():
            acc = int(((first.astype(np.int64) - sources[0].zero_point) * params.weights.values[c]).sum())
            return _slow_scaled(params, acc, c, sources[0], target)
    taps = []
    (k_h, k_w), (s_h, s_w), padding = params.window.kernel, params.window.stride, params.window.padding
    for i, j in np.ndindex(k_h, k_w):
        row, col = y * s_h - padding.top + i, x * s_w - padding.left + j
        if 0 <= row < first.shape[0] and 0 <= col < first.shape[1]:
            taps.append((i, j, first[row, col].astype(np.int64)))
    if isinstance(params, MaxPool2D):
        return max(int(values[c]) for _, _, values in taps)
    if isinstance(params, AveragePool2D):
        total = sum(int(values[c]) for _, _, values in taps)
        half = len(taps) // 2
        return int((total + half) / len(taps)) if total > 0 else -int((half - total) / len(taps))
    weights, zero_point = params.weights, sources[0].zero_point
    if isinstance(params, DepthwiseConv2D):
        acc = sum((int(v[c // params.multiplier]) - zero_point) * int(weights.values[i, j, c]) for i, j, v in taps)
    else:
        acc = sum(int(((v - zero_point) * weights.values[c, i, j].astype(np.int64)).sum()) for i, j, v in taps)
    return _slow_scaled(params, acc, c, sources[0], target)


def _slow_scaled(params, acc: int, c: int, source: Quantization, target: Quantization) -> int:
    scales = params.weights.scales
    real = source.scale * float(scales[c]) / target.scale
    if isinstance(params, FullyConnected) and len(set(scales.tolist())) == 1:
        real = float(np.float32(source.scale) * scales[0]) / target.scale
    multiplier = requantize.quantize_multiplier(real)
    return int(requantize.multiply_by_quantized_multiplier(acc + int(params.weights.bias[c]), *multiplier)) + target.zero_point


def _slow_pair(params, inputs, sources, target, y, x, c) -> int:
    scale = requantize.multiply_by_quantized_multiplier
    values = []
    if params.operand is not None:
        place = 0 if params.operand.first else 1
        inputs, sources = list(inputs), list(sources)
        inputs.insert(place, np.array(params.operand.values).reshape(1, 1, -1))
        sources.insert(place, params.operand.quant)
    for array, quant in zip(inputs, sources, strict=True):
        place = tuple(at if size > 1 else 0 for at, size in zip((y, x, c), array.shape, strict=True))
        values.append(int(array[place]) - quant.zero_point)
    if isinstance(params, Mul):
        real = sources[0].scale * sources[1].scale / target.scale
        return int(scale(values[0] * values[1], *requantize.quantize_multiplier(real))) + target.zero_point
    twice = 2 * max(s.scale for s in sources)
    fine = [
        scale(v << 20, *requantize.quantize_multiplier(s.scale / twice)) for v, s in zip(values, sources, strict=True)
    ]
    total = fine[0] - fine[1] if isinstance(params, Sub) else fine[0] + fine[1]
    return int(scale(total, *requantize.quantize_multiplier(twice / (2**20 * target.scale)))) + target.zero_point


def _slow_mean(params, first, source, target, y, x, c) -> int:
    rows = first if params.axes[0] else first[y : y + 1]
    columns = rows if params.axes[1] else rows[:, x : x + 1]
    values = (columns if params.axes[2] else columns[..., c]).astype(np.int64)
    multiplier, shift = requantize.quantize_multiplier(source.scale / target.scale)
    bits = values.size.bit_length() - 1
    total = int(values.sum()) - values.size * source.zero_point
    factor = multiplier * 2**bits // values.size, shift - bits
    return int(requantize.multiply_by_quantized_multiplier(total, *factor)) + target.zero_point


def real_op(graph: Graph, op: Op, inputs: list[np.ndarray]) -> np.ndarray:
    """Lookup and Softmax in real numbers, in steps of the output, not rounded."""
    source, target = graph.tensors[op.inputs[0]].quant, graph.tensors[op.output].quant
    x = (inputs[0].astype(np.float64) - source.zero_point) * source.scale
    if isinstance(op.params, Softmax):
        powers = np.exp(op.params.beta * (x - x.max(axis=2, keepdims=True)))
        answer = powers / powers.sum(axis=2, keepdims=True)
    elif op.params.operand is None:
        answer = REAL[op.params.function](x, op.params.alpha)
    else:
        constant = (op.params.operand.value - op.params.operand.quant.zero_point) * op.params.operand.quant.scale
        pair = (constant, x) if op.params.operand.first else (x, constant)
        answer = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply}[op.params.function](*pair)
    clamp = getattr(op.params, "clamp", Clamp())
    return np.clip(answer / target.scale + target.zero_point, clamp.low, clamp.high)


REAL = {
    "RELU": lambda x, alpha: np.maximum(x, 0),
    "RELU6": lambda x, alpha: np.clip(x, 0, 6),
    "LEAKY_RELU": lambda x, alpha: np.where(x > 0, x, alpha * x),
    "HARD_SWISH": lambda x, alpha: x * np.clip(x + 3, 0, 6) / 6,
    "LOGISTIC": lambda x, alpha: 1 / (1 + np.exp(-x)),
    "TANH": lambda x, alpha: np.tanh(x),
    "QUANTIZE": lambda x, alpha: x,
}


SEEDS = range(80)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_operator_is_its_definition(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, max_ops=4, max_size=9, max_channels=5)
    made = Interpreter(graph).run(random_image(rng, graph), keep=graph.tensors)
    for op in graph.ops:
        inputs = [made[name] for name in op.inputs]
        if isinstance(op.params, Lookup | Softmax):  # in fixed point, less than a step and a half from the real number
            np.testing.assert_allclose(made[op.output], real_op(graph, op, inputs), atol=1.5, err_msg=str(op.params))
        else:
            np.testing.assert_array_equal(made[op.output], slow_op(graph, op, inputs), op.kind)


@settings(max_examples=60, deadline=None)
@given(graphs(max_ops=6), st.integers(0, 2**32 - 1))
def test_any_region_equals_the_whole(graph, seed):
    rng = np.random.default_rng(seed)
    runner = Interpreter(graph)
    made = runner.run(random_image(rng, graph), keep=graph.tensors)
    for index, op in enumerate(graph.ops):
        shape = graph.tensors[op.output].shape
        (top, bottom), (left, right) = (sorted(rng.choice(n + 1, 2, replace=False)) for n in (shape.h, shape.w))
        pieces, origins = [], []
        for position, name in enumerate(op.inputs):  # what is needed, and a random margin around it
            region = ops.Region(int(top), int(left), int(bottom), int(right))
            inside, _ = ops.input_region(graph, op, region, position)
            source = graph.tensors[name].shape
            row, col = int(rng.integers(0, inside.top + 1)), int(rng.integers(0, inside.left + 1))
            end_row, end_col = int(rng.integers(inside.bottom, source.h + 1)), int(rng.integers(inside.right, source.w + 1))
            pieces.append(made[name][row:end_row, col:end_col])
            origins.append((row, col))
        found = runner.compute(index, pieces, origins, (int(top), int(bottom)), (int(left), int(right)))
        np.testing.assert_array_equal(found, made[op.output][top:bottom, left:right], op.kind)


def test_a_wide_convolution_is_exact_beyond_float32():
    rng = np.random.default_rng(0)
    b = Builder(rng, Shape(3, 3, 400), Quantization(0.5, 100))
    b.conv("image", 2, same_window(Shape(3, 3, 400), 3), "wide", "NONE")
    values = b.ops[0].params.weights.values
    values[...] = 127  # 128 * 127 * 3600 is far beyond 2**24
    values[0, 0, 0, 0] = 126
    graph = b.graph(("wide",))
    image = np.full((3, 3, 400), -127, np.int8)
    image[0, 0, 0] = -128
    np.testing.assert_array_equal(interpreter.run(graph, image)["wide"], slow_op(graph, graph.ops[0], [image]))
    kernel = Interpreter(graph)._kernels[0]
    assert kernel._matrix.dtype == np.float64


def test_run_keeps_what_is_asked_for_and_orders_outputs():
    graph = detector_graph(np.random.default_rng(1), 32, 32)
    image = random_image(np.random.default_rng(2), graph)
    assert tuple(interpreter.run(graph, image)) == graph.outputs
    everything = interpreter.run(graph, image, keep=graph.tensors)
    assert set(everything) == set(graph.tensors)
    assert list(interpreter.run(graph, image, keep=["stem"]))[-1] == "stem"


def test_uint8_pictures_are_shifted():
    graph = detector_graph(np.random.default_rng(1), 32, 32)
    image = random_image(np.random.default_rng(2), graph)
    shifted = (image.astype(np.int16) + 128).astype(np.uint8)
    for a, b in zip(interpreter.run(graph, image).values(), interpreter.run(graph, shifted).values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_wrong_pictures_and_regions_are_refused():
    graph = detector_graph(np.random.default_rng(1), 32, 32)
    runner = Interpreter(graph)
    with pytest.raises(ValueError, match="the network takes"):
        runner.run(np.zeros((32, 31, 3), np.int8))
    with pytest.raises(ValueError, match="float64"):
        runner.run(np.zeros((32, 32, 3)))
    image = np.zeros((32, 32, 3), np.int8)
    with pytest.raises(ValueError, match="needs input rows 6..13 and was given 7..32"):
        runner.compute(0, [image[7:]], [(7, 0)], (3, 6), (0, 16))
    with pytest.raises(ValueError, match="asked for 3..17"):
        runner.compute(0, [image], [(0, 0)], (3, 17), (0, 16))
    assert runner.compute(0, [image[:0]], [(0, 0)], (3, 3), (0, 16)).shape == (0, 16, 8)


def test_the_loops_cover_all_operator_kinds():
    kinds = {type(op.params) for seed in SEEDS for op in random_graph(np.random.default_rng(seed), 4, 9, 5).ops}
    assert kinds == set(ops.RULES)
