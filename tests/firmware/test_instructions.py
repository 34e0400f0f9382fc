"""The instruction model: what the search believes is what the schedule's flows say, and that is near what a chip executes."""

import itertools
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from firmware.compiler.choices import MODES, NEVER, Choices
from firmware.compiler.graph import Params, Shape
from firmware.compiler.image import write_image
from firmware.compiler.instructions import band_terms, count_instructions, kind_of, load_coefficients, node_terms
from firmware.compiler.program import build_program
from firmware.compiler.schedule import Schedule, layer_by_layer, patches, segment_flow, stream
from firmware.compiler.search import deploy
from firmware.device import open_emulator
from tests.firmware.graphs import Builder, detector_graph, same_window


def test_every_operator_has_coefficients() -> None:
    known = set(load_coefficients().kinds)
    assert {params.__name__ for params in get_args(Params)} | {"source", "sink"} <= known


def test_terms_of_a_convolution_in_strips_by_hand() -> None:
    """A 3x3 convolution of 12x12 in 2 strips, 3 rows at a time: the picture is read with a column of halo on either side."""
    b = Builder(np.random.default_rng(0), Shape(12, 12, 2))
    program = build_program(b.graph((b.conv("image", 5, same_window(b.shape("image"), 3)),)))
    flow = segment_flow(program, patches(program, 4, 2, 1).segments[0])
    source, conv = node_terms(program, flow)[:2]
    rows = 4 + 5 + 5 + 4
    assert source.tolist() == [0, 0, 0, rows * 14 * 2, rows * 14, 0, rows * 2 * 2, rows * 2, 8]
    taps, outputs = 144 * 18, 144 * 5
    assert conv.tolist() == [taps * 5, taps, outputs * 3, outputs, 144, 24 * 90, 24 * 5, 24, 8]
    assert band_terms(program, flow).tolist() == [8, 8 * 2, 8 * 1]


@pytest.mark.parametrize("mode", range(len(MODES)))
def test_the_search_counts_as_the_flows_do(mode: int) -> None:
    """But for rows that are made several at a time, and bands at the end of a push."""
    program = build_program(detector_graph(np.random.default_rng(1), 48, 48))
    choices, model = Choices(program), load_coefficients()
    runs = [r for r in itertools.combinations(range(len(program.nodes) + 1), 2) if choices.work[mode, *r] < NEVER]
    for first, stop in runs[:: max(1, len(runs) // 12)]:
        flow = segment_flow(program, choices.segment(mode, first, stop, spare=0))
        factors = np.stack([model.kinds[kind_of(program, i)] for i in flow.segment.nodes])
        counted = float((node_terms(program, flow) * factors).sum() + band_terms(program, flow) @ model.bands[True])
        assert int(choices.instructions[mode, first, stop]) == pytest.approx(counted, rel=0.02)


def test_the_model_is_near_the_emulator() -> None:
    program = build_program(detector_graph(np.random.default_rng(4), 48, 64))
    for schedule in (layer_by_layer(program), stream(program), patches(program, 2, 3, 4)):
        deployment = deploy(program, schedule)
        device = open_emulator(write_image(deployment, None, bytes(32)))
        counted = device.run_frames([np.zeros(device.header.input_shape, np.uint8)])[0].instructions
        assert deployment.cost.instructions == count_instructions(deployment.scheduled) == pytest.approx(counted, rel=0.05)


def test_recomputation_and_strips_cost_instructions() -> None:
    program = build_program(detector_graph(np.random.default_rng(4), 48, 64))
    once, again = (deploy(program, s).cost.instructions for s in (stream(program), patches(program, 4, 4, 4)))
    whole = Schedule(stream(program).segments)
    assert again > once == deploy(program, whole).cost.instructions


def test_the_committed_error_is_on_networks_that_nothing_was_fitted_to() -> None:
    document = json.loads(Path("benchmarks/instruction_model.json").read_text())
    assert document["kinds"].keys() == load_coefficients().kinds.keys()
    errors = [abs(row["model"] / row["instructions"] - 1) for row in document["networks"]]
    assert len({row["network"] for row in document["networks"]}) >= 3 and max(errors) == pytest.approx(document["max_error"])
    assert document["median_error"] < 0.03 and document["max_error"] < 0.1
