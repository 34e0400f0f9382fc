"""Schedules: any of them gives the bytes of the whole run, and its flow keeps the promises that SPEC.md makes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.compiler.execute import execute
from firmware.compiler.graph import Shape
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.program import build_program
from firmware.compiler.schedule import (
    Schedule,
    ScheduleError,
    Segment,
    followed,
    layer_by_layer,
    patches,
    segment_flow,
    stream,
)
from firmware.compiler.search import deploy
from tests.firmware.graphs import Builder, detector_graph, random_graph, random_image, same_window
from tests.firmware.schedules import random_schedule

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_schedule_gives_the_bytes_of_the_whole_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    program, interpreter, frame = build_program(graph), Interpreter(graph), random_image(rng, graph)
    whole = interpreter.run(frame)
    for schedule in (layer_by_layer(program), stream(program), random_schedule(rng, program), random_schedule(rng, program)):
        deployment = deploy(program, schedule)
        scheduled = execute(deployment.scheduled, deployment.plan, frame, interpreter)
        for name, expected in whole.items():
            np.testing.assert_array_equal(scheduled[name], expected, err_msg=f"seed {seed}, {schedule}, output {name}")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_flow_computes_everything_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = build_program(random_graph(rng, max_ops=8, max_size=20))
    for segment in random_schedule(rng, program).segments:
        flow = segment_flow(program, segment)
        for local, i in enumerate(segment.nodes):
            begin, target = flow.begin[:, local], flow.target[:, local]
            if i in flow.terminals:
                covered = np.zeros(program.nodes[i].shape.h, int)
                for lo, hi in zip(begin, target, strict=True):
                    covered[lo:hi] += 1
                assert (covered == 1).all(), f"'{program.nodes[i].name}' leaves rows out or computes them twice"
            if segment.carry:
                assert (begin[1:] == target[:-1]).all() and begin[0] == 0
            assert (target - flow.keep[:, local] <= flow.alive.rows[local]).all()


def test_padding_alone_reads_nothing_of_a_latched_ring() -> None:
    """Found by the soak: the first rows of a PAD need no row of its input."""
    rng = np.random.default_rng(0)
    b = Builder(rng, Shape(12, 9, 3))
    graph = b.graph((b.conv("image", 4, same_window(b.shape("image"), 3)), b.pad("image")))
    program, frame = build_program(graph), random_image(rng, graph)
    deployment = deploy(program, Schedule((Segment(0, len(program.nodes), push=True, latch=True),)))
    assert deployment.scheduled.buffers[0].fresh
    scheduled = execute(deployment.scheduled, deployment.plan, frame)
    for name, expected in Interpreter(graph).run(frame).items():
        np.testing.assert_array_equal(scheduled[name], expected)


def test_carry_in_one_column_computes_nothing_twice() -> None:
    program = build_program(detector_graph(np.random.default_rng(3)))
    cost = deploy(program, stream(program)).cost
    assert cost.scheduled_macs == cost.macs and cost.recompute == 0.0


def test_streaming_reads_the_picture_once_and_patches_do_not() -> None:
    program = build_program(detector_graph(np.random.default_rng(3)))
    assert deploy(program, stream(program)).scheduled.sequential
    assert not deploy(program, patches(program, 2, 2, 6)).scheduled.sequential


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_a_follower_takes_its_steps_one_band_at_a_time(arriving: list[int], step: int) -> None:
    could = np.cumsum(arriving)
    rows = followed(could, step)
    expected, row = [], 0
    while len(expected) < len(could) or row < could[-1]:
        row = min(row + step, int(could[min(len(expected), len(could) - 1)]))
        expected.append(row)
    assert rows.tolist() == expected


def test_padding_at_the_bottom_does_not_widen_rings() -> None:
    """At the picture's last row several rows of each convolution are computable; they come one a band all the same."""
    program = chain(3, (2, 1, 1, 2, 1))
    flow = segment_flow(program, Segment(0, len(program.nodes), push=True))
    assert flow.alive.rows[:5].tolist() == [3, 3, 3, 3, 3]
    assert (flow.target - flow.begin).max() == 1
    assert flow.bands > program.nodes[0].shape.h and (flow.target[-1] == [n.shape.h for n in program.nodes]).all()


def chain(kernel: int, strides: tuple[int, ...], size: int = 32):
    b = Builder(np.random.default_rng(0), Shape(size, size, 3))
    last = "input" if "input" in b.tensors else next(iter(b.tensors))
    for stride in strides:
        last = b.conv(last, 4, same_window(b.shape(last), kernel, stride))
    return build_program(b.graph((last,)))


def test_recompute_of_patches_is_the_halo() -> None:
    """Two 3x3 stride-1 convolutions of 32x32 in 4x4 patches: the first one computes clipped 10x10 regions."""
    program = chain(3, (1, 1))
    cost = deploy(program, patches(program, 4, 4, 2)).cost
    sides = (9 + 10 + 10 + 9) ** 2  # rows of the first convolution over all patches, squared for columns
    first, second = program.nodes[1].macs_per_cell, program.nodes[2].macs_per_cell
    assert cost.scheduled_macs == first * sides + second * 32 * 32


def test_ring_of_a_3x3_convolution_holds_three_rows() -> None:
    flow = segment_flow(chain(3, (1, 1)), Segment(0, 4, 1, 1, True))
    assert [rows[:2].tolist() for rows in flow.alive] == [[3, 3], [2, 2], [3, 2]]  # in a band, outliving it, made in it


@pytest.mark.parametrize(
    ("segment", "words"),
    [
        (Segment(0, 99), "outside"),
        (Segment(0, 4, rows=33), "1..32 rows"),
        (Segment(0, 4, columns=40), "1..32 columns"),
    ],
)
def test_impossible_segments_are_named(segment: Segment, words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        segment_flow(chain(3, (1, 1)), segment)


def test_patch_stage_must_lie_in_the_network() -> None:
    with pytest.raises(ScheduleError, match="1..2 operators|1..2"):
        patches(chain(3, (1, 1)), 2, 2, 7)
