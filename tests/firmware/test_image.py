"""model.tess: any graph under any schedule gives the interpreter's bytes on the C runtime, and a detector its boxes."""

import hashlib

import numpy as np
import pytest

from firmware.compiler import decode as decode_module
from firmware.compiler.cost import RUNTIME_BYTES
from firmware.compiler.image import selftest_checksum, selftest_frame, write_image
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.program import build_program
from firmware.compiler.schedule import layer_by_layer, stream
from firmware.compiler.search import deploy, search_front
from firmware.host import HostModel, TessError, needed
from tests.firmware.graphs import detector_graph, random_graph, random_image
from tests.firmware.schedules import random_schedule

SHA = hashlib.sha256(b"model").digest()


@pytest.mark.parametrize("seed", range(100, 160))
def test_the_runtime_gives_the_interpreters_bytes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    program, frame = build_program(graph), random_image(rng, graph)
    expected = Interpreter(graph).run(frame)
    for schedule in (layer_by_layer(program), stream(program), random_schedule(rng, program), random_schedule(rng, program)):
        model = HostModel(write_image(deploy(program, schedule), None, SHA))
        for name, values in model.run((frame.view(np.uint8) ^ 0x80) if frame.dtype == np.int8 else frame).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=f"seed {seed}, {schedule}, output {name}")
        model.selftest()


def detector(seed: int, classes: tuple[str, ...]):
    graph = detector_graph(np.random.default_rng(seed), classes=len(classes))
    strides = sorted({graph.tensors[graph.input].shape.h // graph.tensors[o].shape.h for o in graph.outputs})
    settings = decode_module.DecodeConfig(score_threshold=0.2, max_candidates=40)
    return graph, decode_module.make_decode_spec(graph, strides, classes, settings)


@pytest.mark.parametrize("classes", [("face",), ("cat", "dog", "ü")])
def test_a_detectors_front_finds_the_same_boxes_everywhere(classes: tuple[str, ...]) -> None:
    graph, spec = detector(5, classes)
    program, rng = build_program(graph), np.random.default_rng(9)
    frame = random_image(rng, graph)
    frame = (frame.view(np.uint8) ^ 0x80) if frame.dtype == np.int8 else frame
    maps = Interpreter(graph).run(frame)
    expected = decode_module.decode(spec, maps, (frame.shape[1], frame.shape[0]))
    assert len(expected) > 3
    for deployment in search_front(program, spec.max_candidates):
        found = HostModel(write_image(deployment, spec, SHA)).detect(frame)
        np.testing.assert_array_equal(found, expected)


def test_needed_memory_is_the_planners_figure() -> None:
    graph, spec = detector(5, ("face",))
    program = build_program(graph)
    for deployment in search_front(program, spec.max_candidates):
        work = needed(write_image(deployment, spec, SHA))
        assert work == deployment.cost.sram.work == deployment.cost.peak_sram - RUNTIME_BYTES


def test_same_input_same_bytes() -> None:
    graph, spec = detector(5, ("face",))
    program = build_program(graph)
    one, two = (write_image(deploy(program, stream(program), spec.max_candidates), spec, SHA) for _ in range(2))
    assert one == two


def test_a_flipped_weight_is_noticed() -> None:
    graph, spec = detector(5, ("face",))
    program = build_program(graph)
    image = bytearray(write_image(deploy(program, stream(program), spec.max_candidates), spec, SHA))
    image[-40] ^= 0xFF
    with pytest.raises(TessError):
        HostModel(bytes(image))


def test_selftest_frame_is_the_specified_noise() -> None:
    frame = selftest_frame(2, 3, 3, seed=7)
    state = ((7 + 1 * 0x9E3779B9) & 0xFFFFFFFF) | 1
    row = []
    for _ in range(9):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        row.append(state >> 24)
    assert frame[1].reshape(-1).tolist() == row


def test_selftest_checksum_depends_on_every_output() -> None:
    rng = np.random.default_rng(1)
    sums = {selftest_checksum(build_program(random_graph(rng))) for _ in range(8)}
    assert len(sums) == 8
