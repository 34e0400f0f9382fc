"""The search: what it believes of a segment is what the segment's flow says, and its front is exact where that can be checked."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.networks import MNASNET_B1, backbone
from benchmarks.segment_cost import peak_and_work
from firmware.compiler import geometry
from firmware.compiler.choices import MODES, NEVER, Choices
from firmware.compiler.cost import fixed_sram
from firmware.compiler.geometry import geometry_of
from firmware.compiler.program import build_program
from firmware.compiler.search import _cheapest, _Walk, fits, search_front, search_orders
from firmware.compiler.tflite import read_tflite
from tests.firmware.graphs import detector_graph, random_graph

ZOO = Path(__file__).resolve().parents[2] / "zoo"


@pytest.mark.parametrize("seed", range(12))
def test_costs_of_segments_are_those_of_their_flows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = build_program(random_graph(rng, max_ops=10) if seed else detector_graph(rng))
    choices, count = Choices(program), len(program.nodes)
    everything = [
        (mode, first, stop)
        for mode, first, stop in itertools.product(range(len(MODES)), range(count), range(1, count + 1))
        if choices.work[mode, first, stop] < NEVER
    ]
    for step in (everything[i] for i in rng.permutation(len(everything))[:60]):
        bound = int(choices.peak[step])
        choices.settle(*step, limit=int(NEVER) - 1)
        assert choices.settled(*step)
        segment = choices.segment(*step, spare=0)
        peak, work = peak_and_work(program, segment)
        assert (int(choices.peak[step]), int(choices.work[step])) == (peak, work), f"seed {seed}, {segment}"
        plain = replace(segment, latch=False)
        saved = peak_and_work(program, plain)[0] - peak
        assert segment.latch == (saved > 0) and choices.segment(*step, spare=saved) == plain
        assert bound <= peak <= int(choices.likely[step])


@pytest.mark.parametrize("seed", range(6))
def test_bounds_of_known_rows_are_higher_and_none_is_too_high(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = build_program(random_graph(rng, max_ops=12) if seed else detector_graph(rng))
    geometry.forget()
    choices = Choices(program)
    first_bounds, possible = choices.peak.copy(), choices.work < NEVER
    for step in np.argwhere(possible).tolist():
        choices.settle(*step, limit=int(NEVER) - 1)
    bounds = Choices(program).peak
    assert (first_bounds <= bounds).all() and (bounds <= choices.peak)[possible].all()
    assert seed or (first_bounds < bounds).mean(where=possible) > 0.5


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("taste", ["calm", "apart", "few"])
def test_no_path_within_a_limit_is_cheaper(seed: int, taste: str) -> None:
    """On networks small enough to try every schedule of the searched modes."""
    program = build_program(random_graph(np.random.default_rng(seed), max_ops=4, max_size=10))
    choices, everything = Choices(program), Choices(program)
    steps = [tuple(step) for step in np.argwhere(everything.work < NEVER).tolist()]
    for step in steps:
        everything.settle(*step, limit=int(NEVER) - 1)
    ways = {0: {(0, 0)}}  # (work, peak) of all ways to a cut
    for stop in range(1, len(program.nodes) + 1):
        ways[stop] = {
            (work + int(everything.work[step]), max(peak, int(everything.peak[step])))
            for step in steps
            if step[2] == stop
            for work, peak in ways[step[1]]
        }
    complete = ways[len(program.nodes)]
    for limit in sorted({peak for _, peak in complete}, reverse=True):
        path = _cheapest(choices, _Walk(choices.work, 1, choices.peak, taste), limit)
        assert path.peak <= limit and path.work == min(work for work, peak in complete if peak <= limit)
    assert _cheapest(choices, _Walk(choices.work, 1, choices.peak, taste), min(peak for _, peak in complete) - 1) is None


def test_the_front_holds_no_point_that_another_beats() -> None:
    front = search_front(build_program(detector_graph(np.random.default_rng(2))))
    costs = [(d.cost.peak_sram, d.cost.scheduled_macs, d.cost.instructions) for d in front]
    assert [peak for peak, _, _ in costs] == sorted({peak for peak, _, _ in costs}, reverse=True)
    for a, b in itertools.permutations(costs, 2):
        assert any(x > y for x, y in zip(a, b, strict=True)), f"{a} beats {b}"


@pytest.mark.parametrize("graph", [detector_graph(np.random.default_rng(3), 48, 48), random_graph(np.random.default_rng(5), 10)])
def test_what_fits_costs_no_more_than_the_front_and_one_byte_less_than_the_least_does_not_fit(graph) -> None:
    program = build_program(graph)
    front = search_front(program, max_candidates=8)
    for point in front:
        for limit in (point.cost.peak_sram, point.cost.peak_sram + 40):
            cheapest = min(d.cost.scheduled_macs for d in front if d.cost.peak_sram <= limit)
            found = fits(program, limit, max_candidates=8)
            assert found.cost.peak_sram <= limit and found.cost.scheduled_macs <= cheapest
    assert fits(program, fixed_sram(8), max_candidates=8) is None


@pytest.mark.parametrize("name", ["face_qvga", "MnasNet-B1"])
def test_what_fits_is_found_where_only_a_walk_by_instructions_finds_it(name: str) -> None:
    """face_qvga's point was once found by the front and not by `fits`; of MnasNet's, one with more work was found."""
    zoo = name == "face_qvga"
    graph = read_tflite((ZOO / name / "model.tflite").read_bytes()) if zoo else backbone(name, MNASNET_B1, 224)
    front = search_orders(graph)
    for point in front:
        limit = point.cost.peak_sram
        found = fits(point.scheduled.program, limit)
        least = min(d.cost.scheduled_macs for d in front if d.cost.peak_sram <= limit)
        assert found is not None and found.cost.peak_sram <= limit and found.cost.scheduled_macs <= least


def test_networks_that_differ_in_channels_share_their_flows() -> None:
    narrow, wide = (build_program(detector_graph(np.random.default_rng(3), 32, 32, width_multiplier=w)) for w in (0.5, 1.0))
    other = build_program(detector_graph(np.random.default_rng(3), 32, 64))
    assert geometry_of(narrow) is geometry_of(wide) and geometry_of(narrow) is not geometry_of(other)
