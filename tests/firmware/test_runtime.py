"""The C runtime against slow loops, on networks written by hand: kernels, borders, rings, strips, callbacks."""

import numpy as np
import pytest

from firmware.host import HostModel, TessError, build_library, needed
from tests.firmware.tess_bytes import SINK, Net, Segment, compute, fused, layers, patch, selftest_frame, write


def frame_for(net: Net, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, net.nodes[0].shape, dtype=np.uint8)


def assert_same(model: bytes, net: Net, note: object = "") -> None:
    frame = frame_for(net)
    found, expected = HostModel(model).run(frame), compute(net, frame)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=f"{name} {note}")


def one_operator(make, shape: tuple[int, int, int], zero_point: int = 7) -> Net:
    net = Net(np.random.default_rng(3))
    net.source(*shape, zero_point)
    net.sink(make(net))
    return net


WINDOWS = [
    # kernel, stride, pad before, pad behind
    ((1, 1), (1, 1), (0, 0), (0, 0)),
    ((1, 1), (2, 2), (0, 0), (0, 0)),
    ((1, 1), (3, 2), (0, 0), (0, 0)),
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (0, 0), (1, 1)),
    ((3, 3), (2, 2), (1, 1), (0, 0)),
    ((5, 5), (1, 1), (2, 2), (2, 2)),
    ((5, 5), (2, 2), (2, 2), (2, 2)),
    ((7, 7), (1, 1), (3, 3), (3, 3)),
    ((7, 7), (3, 3), (3, 3), (3, 3)),
    ((1, 7), (1, 1), (0, 3), (0, 3)),
    ((5, 1), (2, 1), (4, 0), (4, 0)),
    ((2, 3), (1, 2), (1, 2), (0, 2)),
    ((3, 3), (1, 1), (0, 0), (0, 0)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("kind", ["conv", "depthwise", "spread", "maxpool"])
def test_every_window_under_every_plan(window, kind: str) -> None:
    kernel, stride, pad, extra = window
    make = {
        "conv": lambda net: net.conv(0, 5, kernel, stride, pad, extra, (-110, 100)),
        "depthwise": lambda net: net.depthwise(0, kernel, stride, pad, extra),
        "spread": lambda net: net.depthwise(0, kernel, stride, pad, extra, multiplier=3),
        "maxpool": lambda net: net.maxpool(0, kernel, stride, pad, extra),
    }[kind]
    net = one_operator(make, (9, 8, 3))
    width = net.nodes[1].shape[1]
    assert_same(write(net, layers(net)), net)
    for columns in {1, 2, width}:
        for rows in (1, 2, 100):
            for carry in (0, 1):
                assert_same(write(net, fused(net, columns, rows, carry)), net, (columns, rows, carry))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 2), (9, 1, 2), (2, 2, 1), (3, 17, 33), (2, 3, 64), (2, 2, 70)], ids=str)
def test_odd_shapes_and_channel_blocks(shape: tuple[int, int, int]) -> None:
    same = {"kernel": (3, 3), "pad": (1, 1), "extra": (1, 1)}
    for make in (lambda n: n.conv(0, 3), lambda n: n.conv(0, 2, **same), lambda n: n.depthwise(0, **same)):
        net = one_operator(make, shape, zero_point=-128)
        assert_same(write(net, layers(net)), net)
        assert_same(write(net, fused(net)), net)


@pytest.mark.parametrize("factors", [(1, 1), (2, 2), (3, 1), (1, 4)], ids=str)
def test_resize(factors: tuple[int, int]) -> None:
    net = one_operator(lambda n: n.resize(0, factors), (4, 5, 3))
    for segments in (layers(net), fused(net, 3, 2, 1), fused(net, 2, 3, 0)):
        assert_same(write(net, segments), net)


def residual_pyramid() -> Net:
    """Residual, pooling, upsampling, a tap that leaves early, two sinks of different heights."""
    net = Net(np.random.default_rng(8))
    net.source(12, 10, 3)
    stem = net.conv(0, 4, (3, 3), (2, 2), (0, 0), (1, 1))  # 6 x 5
    middle = net.depthwise(stem, (5, 5), (1, 1), (2, 2), (2, 2))
    body = net.add(net.conv(middle, 4), stem)
    low = net.conv(net.maxpool(body, (2, 2), (2, 2), (0, 0), (0, 1)), 4)  # 3 x 3
    crop = net.depthwise(net.resize(low), (1, 2))  # 6 x 5
    top = net.add(body, crop)
    net.sink(net.conv(low, 2), net.conv(low, 4), names=("low/a", "low/b"))
    net.sink(net.conv(top, 1), body, names=("top/a", "top/b"))
    return net


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 4, 6])
@pytest.mark.parametrize("carry", [0, 1])
def test_a_graph_with_branches(columns: int, rows: int, carry: int) -> None:
    net = residual_pyramid()
    assert_same(write(net, fused(net, columns, rows, carry)), net)


def test_several_segments_meet_in_whole_tensors() -> None:
    net = residual_pyramid()
    last = len(net.nodes)
    whole = [Segment(i, 1, i, rows=net.nodes[i].shape[0]) for i in range(5, last)]
    for first in (Segment(0, 5, 4, 2, 2, 0), Segment(0, 5, 4, 1, 1, 1), Segment(0, 5, 4, 3, 4, 1)):
        assert_same(write(net, [first, *whole]), net, first)


def smallest_rings(net: Net, segments: list[Segment]) -> dict[int, int]:
    """Each ring in turn as low as the runtime accepts; lower ones are TESS_ERR_PLAN."""
    smallest: dict[int, int] = {}
    for i, node in enumerate(net.nodes):
        for height in range(1, node.shape[0] + 1) if node.kind != SINK else ():
            try:
                HostModel(write(net, segments, rows={**smallest, i: height})).run(frame_for(net))
            except TessError as error:
                assert error.code == -7
                continue
            smallest[i] = height
            break
    return smallest


@pytest.mark.parametrize("carry", [0, 1])
@pytest.mark.parametrize("columns", [1, 3])
def test_smallest_rings_suffice(carry: int, columns: int) -> None:
    net = residual_pyramid()
    segments = fused(net, columns, 1, carry)
    smallest = smallest_rings(net, segments)
    assert_same(write(net, segments, rows=smallest), net)
    assert sum(smallest.values()) < sum(n.shape[0] for n in net.nodes if n.kind != SINK)


def test_line_buffers_hold_a_window() -> None:
    net = Net(np.random.default_rng(2))
    net.source(9, 4, 2)
    same = {"kernel": (3, 3), "pad": (1, 1), "extra": (1, 1)}
    net.sink(net.conv(net.conv(0, 3, **same), 2, **same))
    assert smallest_rings(net, fused(net)) == {0: 3, 1: 3, 2: 1}
    assert smallest_rings(net, fused(net, rows=2)) == {0: 4, 1: 4, 2: 2}
    assert smallest_rings(net, fused(net, rows=2, carry=0)) == {0: 6, 1: 4, 2: 2}


@pytest.mark.parametrize("columns", [1, 3])
def test_latched_rings_hold_what_outlives_a_band(columns: int) -> None:
    """Fresh rows stand apart until the last reader has them; the ring is then one row lower."""
    net = residual_pyramid()
    segments = fused(net, columns, 1, 1)
    segments[0] = Segment(0, len(net.nodes), 0, columns)  # the source leads
    smallest = smallest_rings(net, segments)
    latched = {i: 1 for i, height in smallest.items() if height > 1}
    lower = {i: height - latched.get(i, 0) for i, height in smallest.items()}
    assert len(latched) > 2
    assert_same(write(net, segments, rows=lower, fresh=latched), net)
    for i in latched:
        if lower[i] > 1:
            with pytest.raises(TessError) as caught:
                HostModel(write(net, segments, rows={**lower, i: lower[i] - 1}, fresh=latched)).run(frame_for(net))
            assert caught.value.code == -7


def test_saturation_and_extreme_constants() -> None:
    """Values at the rails, the largest left shift, multiplier 0, a bias at the end of int32."""
    net = one_operator(lambda n: n.conv(0, 6), (4, 4, 3))
    node = net.nodes[1]
    node.multipliers[:] = [2**31 - 1, 2**31 - 1, 0, 2**30, 2**31 - 1, 2**30]
    node.shifts[:] = [0, 8, 0, -31, -20, 1]
    node.bias[:] = [0, 100, 5, 2**31 - 1, -(2**31), 0]
    node.weights[3:5] >>= 7  # -1 or 0: these sums must not leave int32
    node.bias[3:5] //= 2
    assert_same(write(net, layers(net)), net)


def test_selftest_and_checksum() -> None:
    net = residual_pyramid()
    for segments in (layers(net), fused(net, 2, 2, 0)):
        model = HostModel(write(net, segments))
        model.selftest()
        frame = selftest_frame(net)
        total = model.checksum(frame)
        assert total == int.from_bytes(write(net, segments)[68:72], "little")
        assert total != model.checksum(frame ^ 1)
    with pytest.raises(TessError, match="self-test") as caught:
        HostModel(patch(write(net, layers(net)), 68, "I", 1)).selftest()
    assert caught.value.code == -14


def test_what_a_model_says_about_itself() -> None:
    net = residual_pyramid()
    model = HostModel(write(net, fused(net)))
    assert model.name == "by hand"
    assert model.input_shape == (12, 10, 3)
    assert [o.name for o in model.outputs] == ["low/a", "low/b", "top/a", "top/b"]
    assert model.outputs[0].shape == (3, 3, 2)
    assert model.outputs[3].zero_point == net.nodes[4].zero_point
    assert model.outputs[3].scale == 0.5
    assert model.sequential
    assert not HostModel(write(net, fused(net, 2))).sequential
    assert model.classes == ()


def test_runs_do_not_influence_each_other() -> None:
    net = residual_pyramid()
    model = HostModel(write(net, fused(net)))
    first, second = frame_for(net, 1), frame_for(net, 2)
    before = model.run(first)
    model.run(second)
    after = model.run(first)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])


def test_wrong_frames_are_named() -> None:
    model = HostModel(write(residual_pyramid(), fused(residual_pyramid())))
    with pytest.raises(ValueError, match=r"frame is uint8 \(3, 3, 3\), the network takes uint8 \(12, 10, 3\)"):
        model.run(np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="picture is float64"):
        model.detect(np.zeros((3, 3, 3)))
    with pytest.raises(TessError, match="no decoder"):
        model.detect(np.zeros((3, 3, 3), np.uint8))


def test_work_memory_is_the_sum_of_its_parts() -> None:
    net = residual_pyramid()
    tensors = sum(int(np.prod(n.shape)) for n in net.nodes if n.kind != SINK)
    up = [-(-n // 16) * 16 for n in (tensors, 12 * len(net.nodes), 4 * 10 * 3)]
    assert needed(write(net, fused(net))) == sum(up)
    up[1] = 16
    assert needed(write(net, layers(net))) == sum(up)


def test_the_library_is_built_once() -> None:
    assert build_library() == build_library()
