"""The planner's peak is the highest byte that the C runtime touches, and no step touches what is not its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firmware.cc import BuildError
from firmware.compiler.memory import LETTERBOX
from firmware.compiler.program import build_program
from firmware.compiler.search import Deployment, deploy
from tests.firmware.graphs import random_graph
from tests.firmware.schedules import random_schedule
from tests.firmware.shadow import buffers, planned_peak, program, touched

GRAPHS = 36


@pytest.fixture(scope="module", autouse=True)
def sanitizer() -> None:
    try:
        program()
    except BuildError as error:
        pytest.skip(f"no compiler with AddressSanitizer (apt-get install gcc libc6-dev): {error}")


def random_deployment(seed: int) -> Deployment:
    rng = np.random.default_rng(seed)
    graph = build_program(random_graph(rng, max_ops=8, max_size=14, max_channels=6))
    return deploy(graph, random_schedule(rng, graph))


def test_the_planners_peak_is_the_highest_byte_touched(tmp_path: Path) -> None:
    for seed in range(GRAPHS):
        deployment = random_deployment(seed)
        assert touched(deployment, tmp_path) == planned_peak(deployment), f"seed {seed}: {deployment.schedule}"


def test_a_picture_that_is_read_whole_in_strips(tmp_path: Path) -> None:
    rng = np.random.default_rng(51)
    graph = build_program(random_graph(rng))
    deployment = deploy(graph, random_schedule(rng, graph))
    assert deployment.schedule.segments[0].columns == 4
    offset, size = buffers(deployment)[LETTERBOX]
    assert touched(deployment, tmp_path) == planned_peak(deployment) == offset + size


def test_rows_are_latched_in_the_turn_of_a_node_that_makes_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(148)
    graph = build_program(random_graph(rng))
    deployment = deploy(graph, random_schedule(rng, graph))
    assert deployment.schedule.segments[0].latch and deployment.schedule.segments[0].columns == 4
    assert touched(deployment, tmp_path) == planned_peak(deployment)


def test_a_plan_that_forgets_a_reader_is_caught(tmp_path: Path) -> None:
    """A buffer that the plan calls dead one step too early."""
    deployment = random_deployment(1)
    scheduled, read = deployment.scheduled, deployment.scheduled.program.last_reader
    last = {i: node for i, node in enumerate(read)}
    short = tuple(t._replace(stop=t.stop - 1) if t.stop == last.get(t.key, -1) + 1 else t for t in scheduled.lifetimes)
    assert short != scheduled.lifetimes
    with pytest.raises(AssertionError, match="use-after-poison"):
        touched(replace(deployment, scheduled=replace(scheduled, lifetimes=short)), tmp_path)
