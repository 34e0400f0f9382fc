"""Our interpreter against the outside judges, byte for byte: LiteRT's reference kernels and TFLM.

Seeds are in the message of a failure: `random_graph(np.random.default_rng(seed))` makes the network again.
"""

from dataclasses import replace

import numpy as np
import pytest

from firmware.compiler.graph import Add, Clamp, Quantization, Shape
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.judges import JudgeError, litert_part, run_litert_ref, run_tflm, run_tflm_many
from firmware.compiler.tables import FUNCTIONS
from firmware.compiler.tflite import graphs_equal, read_tflite, write_tflite
from tests.firmware.graphs import Builder, detector_graph, random_graph, random_image, same_window
from tests.firmware.test_tflite import edited

pytest.importorskip("ai_edge_litert", reason="LiteRT is the judge")
pytest.importorskip("tflite_micro", reason="TFLM is the judge")

GRAPHS_A_TEST = 25


def _compare(graph, image, answers: dict[str, list[np.ndarray]], hint: str) -> None:
    for name, ours in Interpreter(graph).run(image).items():
        for judge, outputs in answers.items():
            theirs = outputs[graph.outputs.index(name)]
            differing = np.argwhere(ours != theirs)
            assert ours.shape == theirs.shape and not len(differing), (
                f"{hint}: output '{name}' differs from {judge} in {len(differing)} of {ours.size} bytes, "
                f"first at {differing[0]}: {ours[tuple(differing[0])]} against {theirs[tuple(differing[0])]}"
            )


@pytest.mark.parametrize("first", range(0, 300, GRAPHS_A_TEST))
def test_random_networks_agree_with_litert_and_tflm(first):
    for seed in range(first, first + GRAPHS_A_TEST):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng)
        image = random_image(rng, graph)
        _compare(graph, image, {"TFLM": run_tflm(write_tflite(graph), image, isolated=False)}, f"seed {seed}")
        if (part := litert_part(graph)) is not None:
            _compare(part, image, {"LiteRT": run_litert_ref(write_tflite(part), image)}, f"seed {seed}")


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**-31, 2.0**-20, 0.4, 1.6, 9.0])
def test_extreme_requantising_factors_agree(scale):
    """Factors from vanishing to above 1, where the shift changes its direction."""
    rng = np.random.default_rng(5)
    b = Builder(rng, Shape(6, 5, 4), Quantization(0.5, -7))
    b.conv("image", 6, same_window(Shape(6, 5, 4), 3), "it", "NONE")
    weights = b.ops[0].params.weights
    weights.scales[:] = np.float32(scale) * b.tensors["it"].quant.scale / 0.5 * rng.uniform(0.5, 2, 6)
    weights.bias[:] = rng.integers(-40, 40, 6)
    weights.values[:] = rng.integers(-2, 3, weights.values.shape)
    graph = b.graph(("it",))
    image, model = random_image(rng, graph), write_tflite(graph)
    _compare(graph, image, {"LiteRT": run_litert_ref(model, image), "TFLM": run_tflm(model, image, False)}, f"{scale}")


@pytest.mark.parametrize("ratio", [1, 2.0**-9, 2.0**-14, 2.0**-17])
def test_additions_of_unlike_scales_agree(ratio):
    """All pairs of a coarse and a fine input; the output is so fine that 20 bits of headroom are seen to be 20."""
    b = Builder(np.random.default_rng(5), Shape(256, 256, 2), Quantization(2.0**-18, 3))
    pick = b.conv("image", 1, same_window(Shape(256, 256, 2), 1), "pick", "NONE")
    other = b.conv("image", 1, same_window(Shape(256, 256, 2), 1), "other", "NONE")
    for op, channel, scale in ((b.ops[0], 0, 1.0), (b.ops[1], 1, ratio)):
        op.params.weights.values[:] = np.eye(2)[channel].reshape(1, 1, 1, 2)
        op.params.weights.bias[:] = 0
        op.params.weights.scales[:] = np.float32(scale * 1.3)
        b.tensors[op.output] = replace(b.tensors[op.output], quant=Quantization(float(np.float32(scale * 1.3)) * 2.0**-18, 3))
    b.ops[:] = [replace(op, params=replace(op.params, clamp=Clamp())) for op in b.ops]
    b.add(pick, other, "sum")
    fine = Quantization(float(np.float32(2.0**-18 * max(ratio * 2, 2.0**-15))), -5)
    b.tensors["sum"] = replace(b.tensors["sum"], quant=fine)
    b.ops[-1] = replace(b.ops[-1], params=Add(Clamp()))
    graph = b.graph(("sum",))
    image = np.stack(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)), axis=-1).astype(np.int8)
    model = write_tflite(graph)
    answers = {"LiteRT": run_litert_ref(model, image), "TFLM": run_tflm(model, image, isolated=False)}
    assert len(np.unique(answers["TFLM"][0])) > 20
    _compare(graph, image, answers, f"ratio {ratio}")


def test_a_detector_agrees_and_tflm_runs_many_pictures_at_once():
    rng = np.random.default_rng(0)
    graph = detector_graph(rng, 96, 80, (8, 16), classes=3)
    model, images = write_tflite(graph), [random_image(rng, graph) for _ in range(3)]
    answers = run_tflm_many(model, images)
    for image, outputs in zip(images, answers, strict=True):
        _compare(graph, image, {"LiteRT": run_litert_ref(model, image), "TFLM": outputs}, "detector")


@pytest.mark.parametrize("factor", range(2, 17))
def test_half_pixel_centers_mean_the_same_for_whole_factors(factor):
    rng = np.random.default_rng(factor)
    b = Builder(rng, Shape(int(rng.integers(1, 60)), int(rng.integers(1, 60)), 2))
    b.upsample("image", (factor, 17 - factor), "large")
    graph = b.graph(("large",))

    def half_pixels(model, subgraph):
        subgraph.operators[0].builtinOptions.halfPixelCenters = True
        model.operatorCodes[0].version = 3

    plain = write_tflite(graph)
    image, moved = random_image(rng, graph), edited(plain, half_pixels)
    assert moved != plain and graphs_equal(read_tflite(moved), graph)
    answers = {"plain": run_litert_ref(plain, image), "half-pixel centres": run_litert_ref(moved, image)}
    _compare(graph, image, answers, f"factor {factor}")


def test_a_foreign_person_detector_agrees(shared_data):
    foreign = (shared_data / "models" / "person_det_160x128.tflite").read_bytes()
    graph = read_tflite(foreign)
    assert len(graph.ops) == 70 and not any(op.kind == "Pad" for op in graph.ops)
    ours = write_tflite(graph)
    assert graphs_equal(read_tflite(ours), graph)
    image = random_image(np.random.default_rng(3), graph)
    answers = {
        "LiteRT": run_litert_ref(ours, image),
        "TFLM": run_tflm(ours, image),
        "LiteRT on the original": run_litert_ref(foreign, image),
        "TFLM on the original": run_tflm(foreign, image),
    }
    _compare(graph, image, answers, "person_det")


@pytest.mark.parametrize("name", ["mobilenet_v2_1.0_224_ptq", "mcunet_vww1_80", "mcunetv2_large_224"])
def test_whole_foreign_networks_agree(shared_data, name):
    """Mean, softmax, squeeze and excite, a classifier behind a transposed map; TFLM on the foreign file and on ours."""
    foreign = (shared_data / "models" / f"{name}.tflite").read_bytes()
    graph = read_tflite(foreign)
    ours, part = write_tflite(graph), litert_part(graph)
    assert graphs_equal(read_tflite(ours), graph)
    image = random_image(np.random.default_rng(3), graph)
    _compare(graph, image, {"TFLM": run_tflm(ours, image), "TFLM on the original": run_tflm(foreign, image)}, name)
    _compare(part, image, {"LiteRT": run_litert_ref(write_tflite(part), image)}, name)


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_all_values_of_functions_agree(function):
    """All 256 of them, under several scales."""
    rng = np.random.default_rng(1)
    image = np.arange(-128, 128, dtype=np.int8).reshape(16, 16, 1)
    for exponent in (-9, -5, -3, -1, 2):
        b = Builder(rng, Shape(16, 16, 1), Quantization(float(np.float32(1.3 * 2.0**exponent)), int(rng.integers(-128, 128))))
        graph = b.graph((b.lookup("image", function),))
        model = write_tflite(graph)
        answers = {"TFLM": run_tflm(model, image, isolated=False)}
        if litert_part(graph) is not None:
            answers["LiteRT"] = run_litert_ref(model, image)
        _compare(graph, image, answers, f"{function} at 2**{exponent}")


@pytest.mark.parametrize("channels", [1, 2, 10, 1001])
def test_softmax_of_many_classes_agrees(channels):
    rng = np.random.default_rng(channels)
    b = Builder(rng, Shape(2, 2, channels), Quantization(float(np.float32(0.07)), 3))
    graph = b.graph((b.softmax("image"),))
    image, model = random_image(rng, graph), write_tflite(graph)
    _compare(graph, image, {"LiteRT": run_litert_ref(model, image), "TFLM": run_tflm(model, image, False)}, str(channels))


def test_litert_rounds_fully_connected_layers_once():
    """Else `litert_part` has no reason to be."""
    differing = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        b = Builder(rng, Shape(4, 4, 8))
        graph = b.graph((b.fully_connected("image", 64),))
        image, model = random_image(rng, graph), write_tflite(graph)
        assert litert_part(graph) is None
        _compare(graph, image, {"TFLM": run_tflm(model, image, isolated=False)}, f"seed {seed}")
        off = np.abs(run_litert_ref(model, image)[0].astype(int) - Interpreter(graph).run(image)[graph.outputs[0]])
        assert off.max() <= 1
        differing += int(off.sum())
    assert 0 < differing < 40


def test_the_front_of_mobilenet_agrees(shared_data):
    """A network with a uint8 input, cut in the middle."""
    foreign = (shared_data / "models" / "mobilenet_v2_1.0_224_ptq.tflite").read_bytes()
    graph = read_tflite(foreign, outputs=["MobileNetV2/expanded_conv_3/add/add"])
    assert graph.input_is_uint8
    image = random_image(np.random.default_rng(3), graph)
    _compare(graph, image, {"LiteRT": run_litert_ref(write_tflite(graph), image)}, "mobilenet")


def test_a_judge_that_dies_says_so():
    graph = detector_graph(np.random.default_rng(0), 32, 32)
    image = random_image(np.random.default_rng(1), graph)

    def unknown_version(model, subgraph):
        model.operatorCodes[0].version = 99

    broken = edited(write_tflite(graph), unknown_version)
    with pytest.raises(JudgeError, match="LiteRT refuses the model"):
        run_litert_ref(broken, image)
    with pytest.raises(JudgeError, match="TFLM did not answer within"):
        run_tflm(write_tflite(graph), image, timeout_s=0.01)
