"""Orders of operators: every one is a permutation that can run, and the chosen one gives the same bytes."""

import numpy as np
import pytest

from firmware.compiler.execute import execute
from firmware.compiler.graph import Shape
from firmware.compiler.image import write_image
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.orders import orders
from firmware.compiler.program import build_program
from firmware.compiler.search import best_order, search_front, search_orders
from firmware.host import HostModel
from tests.firmware.graphs import Builder, detector_graph, random_graph, random_image, same_window


@pytest.mark.parametrize("seed", range(30))
def test_every_order_gives_the_same_bytes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng) if seed else detector_graph(rng)
    frame, (given, *others) = random_image(rng, graph), orders(graph)
    assert given is graph
    expected = Interpreter(graph).run(frame)
    for other in others:
        assert other.ops != graph.ops and sorted(op.name for op in other.ops) == sorted(op.name for op in graph.ops)
        found = Interpreter(other).run(frame)
        assert all(np.array_equal(found[name], expected[name]) for name in graph.outputs)


def test_a_chain_has_one_order() -> None:
    b = Builder(np.random.default_rng(0), Shape(8, 8, 3))
    last = b.conv(b.conv(b.input, 4, same_window(b.shape(b.input), 3)), 4, same_window(b.shape(b.input), 1))
    assert len(orders(b.graph((last,)))) == 1


def late_heads():
    """A big map's head comes last in the file, so the map waits while a deep branch runs; a better order exists."""
    b = Builder(np.random.default_rng(0), Shape(48, 48, 3))
    big = b.conv(b.input, 8, same_window(b.shape(b.input), 3, 2), "stem")
    deep = big
    for n in range(3):
        deep = b.conv(deep, 16, same_window(b.shape(deep), 3, 2), f"down{n}")
    below = b.conv(deep, 4, same_window(b.shape(deep), 1), "low")
    above = b.conv(b.mean(big), 4, same_window(Shape(1, 1, 1), 1), "high")
    return b.graph((above, below))


def test_the_best_order_needs_no_more_memory_and_gives_the_same_bytes() -> None:
    graph = late_heads()
    program = best_order(graph)
    assert best_order(graph).graph.ops == program.graph.ops  # deterministic
    given, best = (search_front(p)[-1].cost.peak_sram for p in (build_program(graph), program))
    assert best < given
    deployment = search_orders(graph)[-1]
    assert deployment.cost.peak_sram == best
    frame = random_image(np.random.default_rng(1), graph)
    expected = Interpreter(graph).run(frame)
    host = HostModel(write_image(deployment, None, bytes(32))).run(frame.view(np.uint8) ^ 0x80)
    for name, values in execute(deployment.scheduled, deployment.plan, frame).items():
        np.testing.assert_array_equal(values, expected[name])
        np.testing.assert_array_equal(host[name], expected[name])
