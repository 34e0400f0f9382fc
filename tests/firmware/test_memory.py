"""Memory plans: nothing that lives together overlaps, nothing is smaller than possible, and the checker sees mistakes."""


import numpy as np
import pytest

from firmware.compiler.execute import execute
from firmware.compiler.graph import Shape
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.memory import (
    LETTERBOX,
    Lifetime,
    MemoryPlan,
    Overlap,
    PlanError,
    apply_schedule,
    check_plan,
)
from firmware.compiler.placement import plan_memory
from firmware.compiler.program import build_program
from firmware.compiler.schedule import Schedule, Segment, layer_by_layer
from firmware.compiler.search import deploy, search_front
from tests.firmware.graphs import Builder, detector_graph, random_graph, random_image, same_window


@pytest.mark.parametrize(
    ("intervals", "size"),
    [
        ([(0, 1, 100), (0, 1, 52)], 152),  # identical lifetimes: the case that a strict comparison misses
        ([(0, 2, 100), (1, 3, 60), (2, 4, 100)], 160),
        ([(0, 1, 40), (1, 2, 40), (2, 3, 40)], 40),
        ([(0, 4, 8), (0, 2, 40), (2, 4, 40)], 48),
    ],
)
def test_known_plans(intervals: list[tuple[int, int, int]], size: int) -> None:
    lifetimes = [Lifetime(n, *interval) for n, interval in enumerate(intervals)]
    assert plan_memory(lifetimes).arena_size == size


@pytest.mark.parametrize(
    "offsets",
    [{0: 0, 1: 96}, {0: 0}, {0: 0, 1: 102}, {0: 0, 1: 400}, {0: -4, 1: 100}],
    ids=["overlap", "missing", "unaligned", "outside", "negative"],
)
def test_the_checker_refuses_bad_plans(offsets: dict[int, int]) -> None:
    lifetimes = [Lifetime(0, 0, 2, 100), Lifetime(1, 1, 3, 100)]
    with pytest.raises(PlanError):
        check_plan(lifetimes, MemoryPlan(offsets, 300, 200))


def test_layer_by_layer_peak_is_the_biggest_input_and_output_pair() -> None:
    program = build_program(detector_graph(np.random.default_rng(1)))
    plan = deploy(program, layer_by_layer(program)).plan
    alive = [
        sum(-(-program.nodes[j].size // 4) * 4 for j in range(i + 1) if j == i or program.last_reader[j] >= i)
        for i in range(len(program.nodes))
    ]
    assert plan.lower_bound == max(alive)


def test_overlapping_buffers_keep_their_distance() -> None:
    lifetimes = [Lifetime(0, 0, 2, 100), Lifetime(1, 1, 3, 100)]
    overlap = Overlap(below=1, above=0, distance=8)
    plan = plan_memory(lifetimes, [overlap])
    assert plan.arena_size == plan.lower_bound == 108 and plan.offsets[0] - plan.offsets[1] == 8
    check_plan(lifetimes, plan, [overlap])
    for offsets in ({0: 0, 1: 8}, {0: 4, 1: 0}):
        with pytest.raises(PlanError, match="overlap"):
            check_plan(lifetimes, MemoryPlan(offsets, 200, 108), [overlap])
    with pytest.raises(PlanError, match="overlap"):
        check_plan(lifetimes, plan)


def residual_stage(blocks: int):
    """Inverted residuals of one shape: each result may take the place of the map before it."""
    b = Builder(np.random.default_rng(0), Shape(24, 24, 8))
    last = b.conv("image", 8, same_window(b.shape("image"), 3))
    for _ in range(blocks):
        last = b.add(last, b.conv(b.depthwise(last, same_window(b.shape(last), 3)), 8, same_window(b.shape(last), 1)))
    return b.graph((last,))


def test_a_residual_stage_runs_in_one_map_and_some_rows() -> None:
    graph = residual_stage(3)
    program, interpreter = build_program(graph), Interpreter(graph)
    cuts = [0, 2, 5, 8, 11, len(program.nodes)]
    deployment = deploy(program, Schedule(tuple(Segment(a, b) for a, b in zip(cuts, cuts[1:], strict=False))))
    row, whole = 24 * 8, 24 * 24 * 8
    assert len(deployment.scheduled.overlaps) >= 3
    assert deployment.plan.arena_size <= whole + 10 * row
    frame = random_image(np.random.default_rng(1), graph)
    for name, values in execute(deployment.scheduled, deployment.plan, frame, interpreter).items():
        np.testing.assert_array_equal(values, interpreter.run(frame)[name])


def test_a_sum_takes_the_place_of_what_it_adds() -> None:
    graph = residual_stage(1)
    program, interpreter = build_program(graph), Interpreter(graph)
    deployment = deploy(program, Schedule((Segment(0, 2), Segment(2, 4), Segment(4, 5), Segment(5, 6))))
    assert [o for o in deployment.scheduled.overlaps if o.below == 4] == [Overlap(4, 1, 0), Overlap(4, 3, 0)]
    assert deployment.plan.arena_size == deployment.plan.lower_bound
    frame = random_image(np.random.default_rng(1), graph)
    for name, values in execute(deployment.scheduled, deployment.plan, frame, interpreter).items():
        np.testing.assert_array_equal(values, interpreter.run(frame)[name])


def test_latched_rings_cost_a_row_less_each() -> None:
    """Inverted residuals run in one go: each ring of three rows keeps two, and one row at a time stands apart."""
    graph = residual_stage(3)
    program, interpreter = build_program(graph), Interpreter(graph)
    plain = deploy(program, Schedule((Segment(0, len(program.nodes), push=True),)))
    latched = deploy(program, Schedule((Segment(0, len(program.nodes), push=True, latch=True),)))
    row = 24 * 8
    assert plain.plan.arena_size - latched.plan.arena_size >= 2 * row
    assert {b.rows for b in latched.scheduled.buffers if b is not None and b.fresh} <= {1, 2}
    frame = random_image(np.random.default_rng(1), graph)
    for name, values in execute(latched.scheduled, latched.plan, frame, interpreter).items():
        np.testing.assert_array_equal(values, interpreter.run(frame)[name])


def test_the_letterbox_has_a_place_while_a_row_is_read() -> None:
    program = build_program(random_graph(np.random.default_rng(0)))
    picture = program.nodes[0].shape
    scheduled = apply_schedule(program, layer_by_layer(program))
    (letterbox,) = [t for t in scheduled.lifetimes if t.key == LETTERBOX]
    assert letterbox == (LETTERBOX, 0, 1, 4 * picture.w * picture.c)


def test_segments_must_cover_the_program() -> None:
    program = build_program(random_graph(np.random.default_rng(0)))
    with pytest.raises(PlanError, match="ends at node"):
        apply_schedule(program, Schedule((Segment(0, 1),)))
    with pytest.raises(PlanError, match="should begin"):
        apply_schedule(program, Schedule((Segment(0, 1), Segment(2, 3))))


def test_the_front_is_a_front_and_beats_layer_by_layer() -> None:
    program = build_program(detector_graph(np.random.default_rng(2)))
    front = search_front(program)
    peaks, work = [d.cost.peak_sram for d in front], [d.cost.scheduled_macs for d in front]
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == len(peaks)
    assert work[0] == min(work)
    assert front[0].cost.recompute == 0.0
    assert peaks[0] < deploy(program, layer_by_layer(program)).cost.peak_sram
