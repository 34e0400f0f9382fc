"""tess_open refuses damaged and hostile files with an error code: by name, truncated, by the thousand under sanitizers."""

import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from firmware.cc import BuildError, compile_c
from firmware.compiler.graph import Graph, Mul, Padding, Reshape, Shape, Sub, Window
from firmware.compiler.image import write_image
from firmware.compiler.program import Program, build_program
from firmware.compiler.schedule import layer_by_layer, stream
from firmware.compiler.search import deploy
from firmware.host import HostModel, TessError, needed, runtime_sources
from tests.firmware.graphs import Builder, same_window
from tests.firmware.tess_bytes import Decode, Level, Net, Segment, fused, layers, mend, patch, write

FUZZ = Path(__file__).parents[1] / "fuzz"
RUNTIME = Path(__file__).parents[2] / "firmware" / "runtime"
HEADER, NODE = 96, 68


def small(decoder: bool = True) -> tuple[Net, Decode | None]:
    """Every kind of node, two levels of two classes."""
    net = Net(np.random.default_rng(6))
    net.source(8, 8, 3)
    stem = net.conv(0, 4, (3, 3), (2, 2), (0, 0), (1, 1))
    body = net.add(net.depthwise(stem, (3, 3), (1, 1), (1, 1), (1, 1)), stem)
    low = net.conv(net.maxpool(body), 4)
    top = net.add(body, net.resize(low))
    low_sink = net.sink(net.conv(low, 1), net.conv(low, 2), net.conv(low, 4), names=("4/objectness", "4/class", "4/box"))
    top_sink = net.sink(net.conv(top, 1), net.conv(top, 2), net.conv(top, 4), names=("2/objectness", "2/class", "2/box"))
    score = (np.arange(256) * 128).astype(np.uint16)
    distance = (np.arange(256) - 20).astype(np.int16)
    levels = (Level(2, top_sink, score, score, distance), Level(4, low_sink, score, score, distance))
    return net, Decode(levels, ("cat", "dog"), 9000, 16384, 12, 6) if decoder else None


def model(columns: int = 1, carry: int = 1) -> bytes:
    net, decode = small()
    return write(net, fused(net, columns, 2, carry), decode)


def node(index: int, field: int) -> int:
    return HEADER + NODE * index + field


def code_of_opening(data: bytes) -> int:
    try:
        needed(data)
    except TessError as error:
        return error.code
    return 0


def code(data: bytes) -> int:
    """The error that opening (or running) gives; 0 when all is well."""
    try:
        HostModel(data).run(np.zeros((8, 8, 3), np.uint8))
    except TessError as error:
        return error.code
    return 0


def offset(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]


def test_the_undamaged_model_opens() -> None:
    assert code(model()) == 0
    HostModel(model()).selftest()
    assert code(model() + b"behind the file") == 0


SEGMENTS, OUTPUTS, DECODE, DATA = 40, 44, 48, 52  # header fields that hold offsets
HOSTILE: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "magic": (-1, lambda m: b"tess" + m[4:]),
    "empty": (-1, lambda m: b""),
    "longer than it is": (-1, lambda m: patch(m, 8, "I", len(m) + 16)),
    "shorter than a header": (-1, lambda m: patch(m, 8, "I", 64)),
    "version": (-2, lambda m: patch(m, 4, "H", 9)),
    "isa": (-3, lambda m: patch(m, 6, "H", 7)),
    "flipped weight": (-4, lambda m: m[:-20] + bytes([m[-20] ^ 1]) + m[-19:]),
    "nodes in the header": (-5, lambda m: patch(m, 36, "I", 16)),
    "nodes behind the end": (-5, lambda m: patch(m, 36, "I", 0xFFFFFFF0)),
    "segments not aligned": (-5, lambda m: patch(m, SEGMENTS, "I", offset(m, SEGMENTS) + 4)),
    "data too long": (-5, lambda m: patch(m, 56, "I", len(m))),
    "name without an end": (-5, lambda m: patch(m[:-16] + b"x" * 16, 60, "I", len(m) - 16)),
    "name outside of data": (-5, lambda m: patch(m, 60, "I", 20)),
    "weights outside of data": (-5, lambda m: patch(m, node(1, 40), "I", offset(m, DATA) - 4)),
    "weights that wrap around": (-5, lambda m: patch(m, node(1, 40), "I", 0xFFFFFFFC)),
    "bias not aligned": (-5, lambda m: patch(m, node(1, 44), "I", offset(m, node(1, 44)) + 2)),
    "shifts behind the end": (-5, lambda m: patch(m, node(1, 52), "I", len(m))),
    "data that end with a letter": (-5, lambda m: patch(m, 56, "I", offset(m, 60) - offset(m, DATA) + 2)),
    "no nodes": (-6, lambda m: patch(m, 28, "H", 0)),
    "too many nodes": (-6, lambda m: patch(m, 28, "H", 1025)),
    "no outputs": (-6, lambda m: patch(m, 32, "H", 0)),
    "first node is no source": (-6, lambda m: patch(m, node(0, 0), "B", 1)),
    "a second source": (-6, lambda m: patch(m, node(1, 0), "B", 0)),
    "unknown kind": (-6, lambda m: patch(m, node(1, 0), "B", 17)),
    "input from the future": (-6, lambda m: patch(m, node(1, 4), "H", 1)),
    "too many inputs": (-6, lambda m: patch(m, node(1, 1), "B", 2)),
    "an empty tensor": (-6, lambda m: patch(m, node(0, 12), "3H", 0, 8, 3)),
    "source is not the input": (-6, lambda m: patch(m, 20, "H", 9)),
    "kernel of 0": (-6, lambda m: patch(m, node(1, 21), "B", 0)),
    "kernel of 17": (-6, lambda m: patch(m, node(1, 21), "B", 17)),
    "stride of 0": (-6, lambda m: patch(m, node(1, 23), "B", 0)),
    "pad as large as the kernel": (-6, lambda m: patch(m, node(1, 25), "B", 3)),
    "windows beyond the picture": (-6, lambda m: patch(m, node(1, 23), "B", 9)),
    "clamp upside down": (-6, lambda m: patch(m, node(1, 19), "2b", 5, 4)),
    "depthwise multiplier": (-6, lambda m: patch(m, node(2, 3), "B", 2)),
    "add of unequal shapes": (-6, lambda m: patch(m, node(3, 4), "H", 0)),
    "negative multiplier": (-6, lambda m: patch(m, offset(m, node(1, 48)), "i", -1)),
    "shift of 31": (-6, lambda m: patch(m, offset(m, node(1, 52)), "b", 31)),
    "add with left shift 23": (-6, lambda m: patch(m, offset(m, node(3, 40)) + 24, "i", 23)),
    "resize to another size": (-6, lambda m: patch(m, node(6, 23), "B", 5)),
    "output from no sink": (-6, lambda m: patch(m, offset(m, OUTPUTS) + 2, "H", 1)),
    "output its sink does not take": (-6, lambda m: patch(m, offset(m, OUTPUTS), "H", 1)),
    "activations too small": (-7, lambda m: patch(m, 16, "I", 100)),
    "activations of 2 GiB": (-7, lambda m: patch(m, 16, "I", 1 << 31)),
    "buffer behind the activations": (-7, lambda m: patch(m, node(1, 28), "I", 0xFFFFFFFF)),
    "ring of 0 rows": (-7, lambda m: patch(m, node(1, 32), "H", 0)),
    "ring too low": (-7, lambda m: patch(m, node(1, 32), "H", 1)),
    "ring too narrow": (-7, lambda m: patch(m, node(1, 34), "H", 3)),
    "segment leaves nodes out": (-7, lambda m: patch(m, offset(m, SEGMENTS), "2H", 1, 15)),
    "segment too short": (-7, lambda m: patch(m, offset(m, SEGMENTS) + 2, "H", 3)),
    "segment too long": (-7, lambda m: patch(m, offset(m, SEGMENTS) + 2, "H", 300)),
    "no columns": (-7, lambda m: patch(m, offset(m, SEGMENTS) + 4, "H", 0)),
    "no rows": (-7, lambda m: patch(m, offset(m, SEGMENTS) + 6, "H", 0)),
    "reference is read": (-7, lambda m: patch(m, offset(m, SEGMENTS) + 8, "HB", 1, 0)),
    "reference elsewhere": (-7, lambda m: patch(m, offset(m, SEGMENTS) + 8, "H", 400)),
    "a promise to read rows once": (-7, lambda m: patch(patch(m, offset(m, SEGMENTS) + 10, "B", 0), 27, "B", 1)),
    "a promise to read whole rows": (-7, lambda m: patch(patch(m, offset(m, SEGMENTS) + 4, "H", 2), 27, "B", 1)),
    "carry of 2": (-7, lambda m: patch(m, offset(m, SEGMENTS) + 10, "B", 2)),
    "decoder without levels": (-12, lambda m: patch(m, offset(m, DECODE), "H", 0)),
    "decoder with 17 levels": (-12, lambda m: patch(m, offset(m, DECODE), "H", 17)),
    "decoder without classes": (-12, lambda m: patch(m, offset(m, DECODE) + 2, "H", 0)),
    "decoder with 3 classes": (-12, lambda m: patch(m, offset(m, DECODE) + 2, "H", 3)),
    "no candidates": (-12, lambda m: patch(m, offset(m, DECODE) + 8, "H", 0)),
    "level at no sink": (-12, lambda m: patch(m, offset(m, DECODE) + 34, "H", 1)),
    "level of stride 0": (-12, lambda m: patch(m, offset(m, DECODE) + 32, "H", 0)),
    "level of a huge stride": (-12, lambda m: patch(m, offset(m, DECODE) + 32, "H", 9000)),
    "cells beyond 32 bits": (-12, lambda m: patch(m, offset(m, DECODE) + 36, "I", 0xFFFFFFFE)),
    "score above 1": (-12, lambda m: patch(m, offset(m, offset(m, DECODE) + 40), "H", 32769)),
    "distances outside of data": (-5, lambda m: patch(m, offset(m, DECODE) + 48, "I", 0)),
    "class names without an end": (-5, lambda m: patch(m, offset(m, DECODE) + 12, "I", len(m) - 1)),
    "decoder behind the end": (-5, lambda m: patch(m, DECODE, "I", len(m))),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_wrong_is_said(what: str) -> None:
    expected, damage = HOSTILE[what]
    assert code(damage(model())) == expected


def test_reading_a_ring_of_an_earlier_segment_is_refused() -> None:
    net, decode = small()
    data = write(net, layers(net), decode)
    assert code(data) == 0
    assert code(patch(data, node(1, 2), "B", 0)) == -7
    assert code(patch(data, node(1, 32), "H", 3)) == -7


def test_endless_work_is_refused() -> None:
    """65535 strips of 65535 bands each; nothing else is wrong with it."""
    net = Net(np.random.default_rng(0))
    net.source(60000, 1, 1)
    net.sink(net.conv(0, 1))
    data = write_without_expectation(net, Segment(0, 3, 2, columns=65535, rows=1))
    assert code(data) == -9


def test_endless_selftests_are_refused() -> None:
    """A picture in 60000 strips, whose random bytes are made anew from the first column on for each of them."""
    net = Net(np.random.default_rng(0))
    net.source(100, 60000, 1)
    net.sink(net.conv(0, 1))
    for columns, expected in ((60000, -9), (60, 0)):
        data = write_without_expectation(net, Segment(0, 3, 2, columns=columns, rows=1))
        for i in (0, 1):
            data = patch(data, node(i, 34), "H", 60000 // columns)
        assert code_of_opening(data) == expected


def test_thousands_of_outputs_are_checked_in_one_walk() -> None:
    """Each is named by all of a huge data section, which must not be read for each of them."""
    net = Net(np.random.default_rng(0))
    net.source(2, 2, 1)
    net.sink(net.conv(0, 1), names=("output",))
    plain = write(net, layers(net))
    outputs, count = -(-len(plain) // 16) * 16, 60000
    data = plain.ljust(outputs, b"\0") + plain[offset(plain, OUTPUTS) : offset(plain, OUTPUTS) + 8] * count
    name = len(data)
    data += b"x" * (1 << 22) + bytes(16)
    data = patch(patch(patch(data, 8, "I", len(data)), 32, "H", count), OUTPUTS, "I", outputs)
    data = bytearray(patch(data, 56, "I", len(data) - offset(data, DATA)))
    np.frombuffer(data, "<u4", 2 * count, outputs)[1::2] = name
    data, started = mend(bytes(data)), time.process_time()
    assert code_of_opening(data) == 0
    assert time.process_time() - started < 5


def write_without_expectation(net: Net, segment: Segment) -> bytes:
    """Like write, but without the slow loops for the self-test."""
    net.computed[len(net.nodes), b""] = {}
    tiny = Net(net.rng, list(net.nodes), list(net.outputs))
    height = net.nodes[0].shape[0]
    tiny.nodes = [type(n)(**{**vars(n), "shape": (1, *n.shape[1:])}) for n in net.nodes]
    data = write(tiny, [segment])
    for i in range(len(net.nodes)):
        data = patch(data, node(i, 12), "H", height)
    return patch(data, 20, "H", height)


def test_work_memory_must_fit() -> None:
    assert needed(model()) % 16 == 0
    lib_model = HostModel(model())
    lib, size = lib_model._lib, needed(model())
    data, arena = lib_model._model, lib_model._arena
    opened = [lib.tess_open(lib_model._t, data.ctypes.data, len(data), arena.ctypes.data + shift, size - less)
              for shift, less in ((0, 0), (0, 1), (8, 8))]
    assert opened == [0, -8, -8]
    assert lib.tess_open(lib_model._t, data.ctypes.data, len(data), None, size) == -8
    assert lib.tess_open(lib_model._t, None, len(data), arena.ctypes.data, size) == -13
    assert lib.tess_open(lib_model._t, data.ctypes.data + 1, len(data) - 1, arena.ctypes.data, size) == -13


def test_every_truncation_is_refused() -> None:
    data = model()
    for length in range(len(data)):
        with pytest.raises(TessError):
            needed(data[:length])
        with pytest.raises(TessError):
            needed(mend(data[:length] + b"\0" * 96)[:length])


def test_every_error_has_a_text() -> None:
    lib = HostModel(model())._lib
    texts = [lib.tess_error(-k).decode() for k in range(15)]
    assert len(set(texts)) == 15 and texts[0] == "no error"
    assert lib.tess_error(-15) == lib.tess_error(1) == b"unknown error"


@pytest.fixture(scope="module")
def fuzzer() -> Path:
    """The fuzz driver with address and undefined-behaviour sanitizers and a low limit of work."""
    flags = ("-std=c11", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{RUNTIME}")
    try:
        return compile_c([*runtime_sources(), *FUZZ.glob("*_tess.c")], (*flags, "-DTESS_MAX_WORK=300000"), "fuzz_tess")
    except BuildError as error:
        if shutil.which("gcc"):
            raise
        pytest.skip(f"no compiler with sanitizers: {error}")


def every_kind() -> Graph:
    """A network with all operators that `small` has not."""
    b = Builder(np.random.default_rng(4), Shape(8, 8, 3))
    stem = b.conv("image", 4, same_window(Shape(8, 8, 3), 3, 2))
    gate = b.lookup(b.conv(b.mean(stem), 4, same_window(Shape(1, 1, 4), 1)), "HARD_SWISH")
    body = b.pair(b.pair(stem, gate, Mul), stem, Sub)
    both = b.concat([body, body])
    small_map = b.average(both, Window((2, 2), (2, 2), Padding()))
    flat = b._append(Reshape(Shape(1, 1, 32)), [small_map], b.tensors[small_map].quant, "flat")
    return b.graph((b.softmax(b.fully_connected(flat, 5)), b.pad(small_map), b.slice(body), both))


HOSTILE_KINDS: dict[str, tuple[str, int, str, tuple[int, ...]]] = {
    "slice beyond the end": ("Slice", 56, "H", (9,)),
    "slice of channels beyond the end": ("Slice", 60, "H", (4,)),
    "padding larger than the output": ("Pad", 25, "B", (200,)),
    "reshape of another size": ("Reshape", 16, "H", (31,)),
    "softmax of other channels": ("Softmax", 16, "H", (6,)),
    "lookup of another shape": ("Lookup", 12, "H", (2,)),
    "product that is not broadcast": ("Mul", 12, "H", (3,)),
    "mean of half the rows": ("Mean", 12, "H", (2,)),
    "too few channels joined": ("Concat", 16, "H", (7,)),
    "one input to join": ("Concat", 1, "B", (1,)),
    "average of 17 rows": ("AveragePool2D", 21, "B", (17,)),
}


@pytest.fixture(scope="module")
def all_kinds() -> tuple[Program, bytes]:
    program = build_program(every_kind())
    return program, write_image(deploy(program, stream(program)), None, b"0" * 32)


@pytest.mark.parametrize("what", HOSTILE_KINDS)
def test_what_is_wrong_with_other_kinds_is_said(what: str, all_kinds: tuple[Program, bytes]) -> None:
    program, data = all_kinds
    kind, field, layout, values = HOSTILE_KINDS[what]
    index = next(i for i, n in enumerate(program.nodes) if n.op is not None and program.graph.ops[n.op].kind == kind)
    assert code(data) == 0
    assert code(patch(data, node(index, field), layout, *values)) == -6


@pytest.mark.parametrize("what, at, value", [("Mul", 4, -32), ("Mean", 0, -1), ("Softmax", 1020, 4095), ("Softmax", 0, -1)])
def test_wrong_numbers_of_other_kinds_are_refused(what: str, at: int, value: int, all_kinds: tuple[Program, bytes]) -> None:
    program, data = all_kinds
    index = next(i for i, n in enumerate(program.nodes) if n.op is not None and program.graph.ops[n.op].kind == what)
    assert code(patch(data, offset(data, node(index, 40)) + at, "i", value)) == -6
    assert code(patch(data, node(index, 40), "I", len(data) - 4)) == -5


@pytest.mark.parametrize("rows", [0, 1])
def test_thousands_of_damaged_models_of_other_kinds_are_survived(fuzzer: Path, tmp_path: Path, rows: int, all_kinds) -> None:
    program, data = all_kinds
    path = tmp_path / "model.tess"
    path.write_bytes(write_image(deploy(program, layer_by_layer(program)), None, b"0" * 32) if rows else data)
    done = subprocess.run([fuzzer, path, "7", "4000"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    words = done.stdout.split()
    assert int(words[1]) > 200 and int(words[5]) > 1000


@pytest.mark.parametrize("columns, carry", [(1, 1), (2, 0), (0, 1)])
def test_thousands_of_damaged_models_are_survived(fuzzer: Path, tmp_path: Path, columns: int, carry: int) -> None:
    net, decode = small()
    path = tmp_path / "model.tess"
    path.write_bytes(model(columns, carry) if columns else write(net, layers(net), decode))
    done = subprocess.run([fuzzer, path, str(columns), "4000"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    words = done.stdout.split()
    opened, refused = int(words[1]), int(words[5])
    assert opened > 200 and refused > 1000
