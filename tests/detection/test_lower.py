"""Detector -> int8 graph: same layers, same shapes, same function but for rounding."""

import numpy as np
import pytest
import torch

from detection.arch import Arch, shapes
from detection.calibration import Calibration, CalibrationError, dequantize, quantize
from detection.fake_quantize import FakeQuantDetector
from detection.lower import lower, lower_structure
from detection.quantize import calibrate
from detection.sqnr import layer_sqnr, worst_layer
from firmware.compiler.graph import Conv2D, DepthwiseConv2D, Graph, Quantization, Shape, same_padding
from firmware.compiler.interpreter import Interpreter
from tests.detection.small_detector import ARCH, make_detector, make_frames


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(make_detector(), make_frames(8))


@pytest.fixture(scope="module")
def graph(calibration: Calibration) -> Graph:
    return lower(ARCH, calibration)


def test_every_layer_becomes_one_operator_of_its_name_and_shape(graph: Graph) -> None:
    layers = ARCH.layers()
    assert [op.name for op in graph.ops] == [op.output for op in graph.ops] == [layer.name for layer in layers]
    assert graph.outputs == ARCH.outputs
    for name, shape in shapes(layers, 32, 48).items():
        assert tuple(graph.tensors[name].shape) == tuple(shape)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9, 30, 31])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_same_padding_makes_ceil_of_size_over_stride(size: int, kernel: int, stride: int) -> None:
    before, _, after, _ = same_padding(Shape(size, 5, 1), (kernel, kernel), (stride, stride))
    assert before <= after <= before + 1
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)


def test_a_larger_input_only_changes_shapes(calibration: Calibration) -> None:
    graph = lower(ARCH, calibration, 64, 64)
    assert graph.tensors["head8/box"].shape == (8, 8, 4)
    assert graph.tensors["stem"].quant == calibration.quantizations["stem"]


def test_structure_is_that_of_a_trained_network(graph: Graph) -> None:
    structure = lower_structure(ARCH, 32, 48)
    assert [(op.name, op.kind, op.inputs) for op in structure.ops] == [(op.name, op.kind, op.inputs) for op in graph.ops]
    assert {n: t.shape for n, t in structure.tensors.items()} == {n: t.shape for n, t in graph.tensors.items()}


def test_lowering_is_deterministic(calibration: Calibration, graph: Graph) -> None:
    again = lower(ARCH, calibration)
    frame = make_frames(1, seed=5)[0]
    for op, twin in zip(graph.ops, again.ops, strict=True):
        if isinstance(op.params, Conv2D | DepthwiseConv2D):
            assert (op.params.weights.values == twin.params.weights.values).all()
            assert (op.params.weights.bias == twin.params.weights.bias).all()
    one, two = Interpreter(graph).run(frame), Interpreter(again).run(frame)
    assert all((one[name] == two[name]).all() for name in graph.outputs)


def test_each_layer_alone_is_within_one_step_of_fake_quantisation(calibration: Calibration, graph: Graph) -> None:
    """Both fed the same int8 inputs, so that nothing accumulates."""
    qat = FakeQuantDetector(ARCH)
    qat.load_calibration(calibration)
    interpreter = Interpreter(graph)
    frame = make_frames(1, seed=3)[0]
    integer = interpreter.run(frame, keep=graph.tensors)
    differing = total = 0
    for layer in ARCH.layers():
        real = [dequantize(integer[name], graph.tensors[name].quant) for name in layer.inputs]
        with torch.no_grad():
            fake = qat._run(layer, [torch.from_numpy(a).permute(2, 0, 1)[None] for a in real])
        got = quantize(fake[0].permute(1, 2, 0).numpy(), graph.tensors[layer.name].quant)
        steps = np.abs(got.astype(int) - integer[layer.name])
        assert steps.max() <= 1, layer.name
        differing, total = differing + int((steps > 0).sum()), total + steps.size
    assert differing < 0.02 * total


def test_int8_follows_the_float_network(graph: Graph) -> None:
    ratios = layer_sqnr(make_detector(), graph, make_frames(4, seed=7))
    assert [ratio.name for ratio in ratios] == [op.output for op in graph.ops]
    assert worst_layer(ratios).db == min(ratio.db for ratio in ratios) > 12
    assert dict(ratios)["stem"] > 25


def test_sqnr_finds_a_broken_layer(calibration: Calibration) -> None:
    coarse = dict(calibration.quantizations)
    coarse["head8/box"] = Quantization(float(np.float32(coarse["head8/box"].scale * 200)), -128)
    broken = Calibration(32, 48, calibration.convolutions, coarse)
    ratios = layer_sqnr(make_detector(), lower(ARCH, broken), make_frames(2))
    assert worst_layer(ratios).name == "head8/box"


def test_a_calibration_of_another_network_is_refused(calibration: Calibration) -> None:
    other = Arch.model_validate(ARCH.model_dump() | {"stem": {"channels": 4}})
    with pytest.raises(CalibrationError, match="'stem' has weights.*another network"):
        lower(other, calibration)
    more = Arch.model_validate(ARCH.model_dump() | {"blocks": [*ARCH.blocks, {"channels": 8}]})
    with pytest.raises(CalibrationError, match="no range for 'block4/expand'"):
        lower(more, calibration)


def test_weights_that_are_not_finite_are_named(calibration: Calibration) -> None:
    convolutions = dict(calibration.convolutions)
    stem = convolutions["stem"]
    convolutions["stem"] = type(stem)(np.full_like(stem.weight, np.inf), stem.bias)
    with pytest.raises(CalibrationError, match="'stem' has weights that are not finite"):
        lower(ARCH, Calibration(32, 48, convolutions, calibration.quantizations))
