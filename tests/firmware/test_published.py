"""Published methods: the path search against all cuts, its costs against the flows, and every schedule to the byte."""

import itertools

import numpy as np
import pytest

from firmware.compiler.execute import execute
from firmware.compiler.graph import Shape
from firmware.compiler.image import write_image
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.memory import LETTERBOX, apply_schedule
from firmware.compiler.placement import lower_bound
from firmware.compiler.program import Program, build_program
from firmware.compiler.published import FORMS, NAMES, chains_to, check_schedule_text, compare, published_schedule
from firmware.compiler.schedule import Schedule, ScheduleError, Segment, segment_flow
from firmware.compiler.search import deploy
from firmware.host import HostModel
from tests.firmware.graphs import Builder, random_graph, random_image, same_window


def residual_chain(seed: int, size: int = 18):
    """Convolutions, a residual block, a stride, an output: what all methods have a schedule for."""
    b = Builder(np.random.default_rng(seed), Shape(size, size + 3, 3))
    stem = b.conv("image", 6, same_window(b.shape("image"), 3, 2))
    wide = b.conv(stem, 12, same_window(b.shape(stem), 1))
    block = b.add(stem, b.conv(b.depthwise(wide, same_window(b.shape(wide), 5)), 6, same_window(b.shape(wide), 1)))
    low = b.depthwise(block, same_window(b.shape(block), 3, 2))
    return b.graph((b.conv(low, 4, same_window(b.shape(low), 3)),))


@pytest.mark.parametrize("text", [*NAMES, "msf", "msf:1.05", "patch:2x3@4", "streamnet:3x2@5"])
def test_every_published_method_gives_the_bytes_of_the_whole_run(text: str) -> None:
    graph = residual_chain(3)
    program, interpreter = build_program(graph), Interpreter(graph)
    frame = random_image(np.random.default_rng(0), graph)
    deployment, whole = deploy(program, published_schedule(program, text)), interpreter.run(frame)
    runtime = HostModel(write_image(deployment, None, bytes(32))).run(frame.view(np.uint8) ^ 0x80)
    scheduled = execute(deployment.scheduled, deployment.plan, frame, interpreter)
    for name, expected in whole.items():
        np.testing.assert_array_equal(scheduled[name], expected)
        np.testing.assert_array_equal(runtime[name], expected)


def chains(program: Program, as_counted: bool = False) -> dict[tuple[int, int], tuple[int, int]]:
    every = [c for stop in range(1, len(program.nodes) + 1) for c in chains_to(program, stop, as_counted)]
    return {(segment.first, segment.stop): (peak, work) for segment, peak, work in every}


@pytest.mark.parametrize("seed", range(12))
def test_chains_cost_what_their_flows_say(seed: int) -> None:
    program = build_program(random_graph(np.random.default_rng(seed), max_ops=7, max_size=14))
    for (first, stop), (peak, work) in chains(program).items():
        if stop - first < 2:
            continue
        flow = segment_flow(program, Segment(first, stop, carry=False))
        nodes = program.nodes[first:stop]
        again = sum((int(c) - n.shape.h * n.shape.w) * n.macs_per_cell for c, n in zip(flow.cells(), nodes, strict=True))
        widths = [max(1, node.shape.w) for node in nodes]
        if (flow.ring_cols < widths).any():  # behind a slice: the flow knows that less is wanted, the estimate does not
            continue
        assert work == max(0, again), (seed, first, stop)
        alone = (*(Segment(i, i + 1) for i in range(first)), Segment(first, stop, carry=False))
        scheduled = apply_schedule(program, Schedule((*alone, *(Segment(i, i + 1) for i in range(stop, len(program.nodes))))))
        during = [t for t in scheduled.lifetimes if t.first < stop and t.stop > first and t.key != LETTERBOX]
        clipped = [t._replace(first=max(t.first, first), stop=min(t.stop, stop)) for t in during]
        assert peak >= lower_bound(clipped), (seed, first, stop)


def test_the_path_search_finds_the_best_of_all_cuts() -> None:
    program = build_program(residual_chain(1))
    costs, count = chains(program), len(program.nodes)
    for factor in (1.0, 1.1, 1.5, 9.0):
        best = None
        for cuts in itertools.product((False, True), repeat=count - 1):
            ends = [0, *(n + 1 for n, cut in enumerate(cuts) if cut), count]
            runs = list(itertools.pairwise(ends))
            if all(run in costs for run in runs):
                peak, work = max(costs[run][0] for run in runs), sum(costs[run][1] for run in runs)
                if program.macs + work <= factor * program.macs:
                    best = min(best or (peak, work), (peak, work))
        found = [costs[s.first, s.stop] for s in published_schedule(program, f"msf:{factor}").segments]
        assert (max(p for p, _ in found), sum(w for _, w in found)) == best, factor


def test_a_cache_of_columns_needs_no_more_than_rows() -> None:
    program = build_program(residual_chain(2))
    rows, columns = chains(program), chains(program, as_counted=True)
    assert rows.keys() == columns.keys() and any(columns[run][0] < rows[run][0] for run in rows)
    assert all(columns[run][0] <= rows[run][0] and columns[run][1] == rows[run][1] for run in rows)


def test_the_patch_stage_is_the_leanest() -> None:
    program = build_program(residual_chain(4))
    peak = deploy(program, published_schedule(program, "patch")).plan.lower_bound
    for side, split in itertools.product((2, 3, 4), (1, 5, 6)):
        assert peak <= deploy(program, published_schedule(program, f"patch:{side}x{side}@{split}")).plan.lower_bound


def test_what_has_no_patch_stage_is_left_out_of_the_comparison() -> None:
    b = Builder(np.random.default_rng(0), Shape(1, 1, 3))
    program = build_program(b.graph((b.conv("image", 4, same_window(Shape(1, 1, 3), 1)),)))
    assert [method.text for method in compare(program)] == ["layer", "msf:1.3"]
    with pytest.raises(ScheduleError, match="no stage that patches could compute"):
        published_schedule(program, "patch")


@pytest.mark.parametrize("text", ["patches", "patch:2x2", "msf:", "msf:x", "streamnet:2@4", ""])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        check_schedule_text(text)
    assert FORMS in str(caught.value)


def test_less_than_the_networks_own_work_is_refused() -> None:
    with pytest.raises(ScheduleError, match="1 times"):
        published_schedule(build_program(residual_chain(0)), "msf:0.9")
