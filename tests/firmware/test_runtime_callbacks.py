"""What the runtime promises to sources, sinks, cameras and clocks, watched from their side."""

import ctypes
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from firmware.cc import SHARED, compile_c
from firmware.host import HostModel, runtime_sources
from tests.firmware.tess_bytes import Net, compute, fused, layers, write

u16, pointer, integer = ctypes.c_uint16, ctypes.c_void_p, ctypes.c_int
ROW = ctypes.CFUNCTYPE(integer, pointer, u16, u16, u16, pointer)
SINK_ROWS = ctypes.CFUNCTYPE(integer, pointer, u16, u16, u16, u16, pointer)
LINE = ctypes.CFUNCTYPE(pointer, pointer, u16)
CLOCK = ctypes.CFUNCTYPE(ctypes.c_uint32, pointer)
REPORT = ctypes.CFUNCTYPE(None, pointer, u16, u16, u16, ctypes.c_uint32)


class Source(ctypes.Structure):
    _fields_ = [("row", ROW), ("ctx", pointer)]


class Sink(ctypes.Structure):
    _fields_ = [("rows", SINK_ROWS), ("ctx", pointer)]


def network() -> Net:
    net = Net(np.random.default_rng(5))
    net.source(10, 7, 3)
    same = {"kernel": (3, 3), "pad": (1, 1), "extra": (1, 1)}
    stem = net.conv(0, 4, (3, 3), (2, 2), (0, 0), (1, 1))
    net.sink(net.depthwise(stem, **same), net.conv(stem, 2), names=("a", "b"))
    net.sink(net.conv(net.maxpool(stem), 3), names=("c",))
    return net


PLANS = [(1, 1, 1), (1, 2, 1), (1, 3, 0), (3, 1, 1), (2, 2, 0)]  # columns, rows, carry


def watched_run(model: HostModel, frame: np.ndarray, fail_row: int = -1, fail_output: int = -1):
    """(status, rows asked for, (output, y, column) -> times, outputs put together)."""
    asked, times = [], Counter()
    outputs = {o.name: np.zeros(o.shape, np.int8) for o in model.outputs}

    def row(ctx, y, col0, col1, pixels):
        asked.append((y, col0, col1))
        piece = np.ascontiguousarray(frame[y, col0:col1])
        ctypes.memmove(pixels, piece.ctypes.data, piece.nbytes)
        return int(y == fail_row)

    def rows(ctx, output, y, col0, col1, data):
        info = model.outputs[output]
        values = np.ctypeslib.as_array((ctypes.c_int8 * ((col1 - col0) * info.shape[2])).from_address(data))
        outputs[info.name][y, col0:col1] = values.reshape(col1 - col0, info.shape[2])
        times.update((output, y, x) for x in range(col0, col1))
        return int(output == fail_output)

    source, sink = Source(ROW(row), None), Sink(SINK_ROWS(rows), None)
    model._lib.tess_set_sink(pointer(model._t), ctypes.byref(sink))
    status = model._lib.tess_run(pointer(model._t), ctypes.byref(source))
    model._lib.tess_set_sink(pointer(model._t), None)
    return status, asked, times, outputs


@pytest.mark.parametrize("columns, rows, carry", PLANS)
def test_sources_and_sinks_get_what_the_header_promises(columns: int, rows: int, carry: int) -> None:
    net = network()
    frame = np.random.default_rng(1).integers(0, 256, (10, 7, 3), dtype=np.uint8)
    for segments in (fused(net, columns, rows, carry), layers(net)):
        model = HostModel(write(net, segments))
        status, asked, times, outputs = watched_run(model, frame)
        assert status == 0
        for name, values in compute(net, frame).items():
            np.testing.assert_array_equal(outputs[name], values)
        assert set(times.values()) == {1}
        assert len(times) == sum(o.shape[0] * o.shape[1] for o in model.outputs)
        assert all(0 <= col0 < col1 <= 7 for _, col0, col1 in asked)
        if model.sequential:
            assert asked == [(y, 0, 7) for y in range(10)]


def test_errors_of_callbacks_stop_the_run() -> None:
    net = network()
    model = HostModel(write(net, fused(net)))
    frame = np.zeros((10, 7, 3), np.uint8)
    assert watched_run(model, frame, fail_row=4)[0] == -10
    status, asked, _, _ = watched_run(model, frame, fail_output=1)
    assert status == -11 and len(asked) < 10
    assert watched_run(model, frame)[0] == 0
    assert model._lib.tess_run(pointer(model._t), None) == -13


@pytest.mark.parametrize("height, width", [(10, 7), (5, 3), (31, 23), (200, 3), (3, 200)])
def test_a_camera_is_read_top_to_bottom(height: int, width: int) -> None:
    net = network()
    model = HostModel(write(net, fused(net)))
    picture = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    asked: list[int] = []

    def line(ctx, y):
        asked.append(y)
        return picture.ctypes.data + y * width * 3

    lib, box, callback = model._lib, ctypes.create_string_buffer(256), LINE(line)
    lib.tess_letterbox_source.restype = Source
    opened = lib.tess_letterbox_init(box, pointer(model._t), callback, None, u16(width), u16(height), 0)
    assert opened == 0
    source = lib.tess_letterbox_source(box)
    assert lib.tess_run(pointer(model._t), ctypes.byref(source)) == 0
    assert asked == sorted(asked)
    assert set(asked) == set(range(height))

    stopped = LINE(lambda ctx, y: None if y == height // 2 else picture.ctypes.data)
    lib.tess_letterbox_init(box, pointer(model._t), stopped, None, u16(width), u16(height), 0)
    assert lib.tess_run(pointer(model._t), ctypes.byref(source)) == -10


def test_the_clock_sees_every_row() -> None:
    path: Path = compile_c(runtime_sources(), (*SHARED, "-DTESS_PROFILE"), "libtess-profile", ".so")
    lib, net = ctypes.CDLL(str(path)), network()
    data = write(net, fused(net))
    plain = HostModel(data)
    state = (ctypes.c_uint64 * 64)()
    address = pointer(plain._arena.ctypes.data)
    size = ctypes.c_size_t
    assert lib.tess_open(state, pointer(plain._model.ctypes.data), size(len(data)), address, size(plain.needed)) == 0
    now, rows = [0], Counter()

    def report(ctx, segment, node, count, ticks):
        assert segment == 0 and ticks == 3
        rows[node] += count

    def clock(ctx):
        now[0] += 3
        return now[0]

    clock_callback, report_callback = CLOCK(clock), REPORT(report)
    lib.tess_set_clock(state, clock_callback, None, report_callback)
    assert lib.tess_selftest(state) == 0
    assert rows == {i: n.shape[0] for i, n in enumerate(net.nodes)}
