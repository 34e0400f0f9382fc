"""The runtime on emulated chips: the same bytes as on the host and in Python, honest counts, clear refusals."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from firmware.build import BuildError, build
from firmware.compiler.decode import DecodeConfig, decode, make_decode_spec
from firmware.compiler.image import write_image
from firmware.compiler.interpreter import run as interpret
from firmware.compiler.preprocess import content_size, letterbox
from firmware.compiler.program import build_program
from firmware.compiler.schedule import layer_by_layer, stream
from firmware.compiler.search import deploy, search_front
from firmware.compiler.target import load_target
from firmware.device import EmulatorDevice, open_emulator, open_host
from firmware.emulator import DeviceError, Flags, run_batch
from firmware.header import ModelFileError, read_header
from firmware.host import HostModel
from firmware.link.client import NETWORK_ROWS, Client
from firmware.link.ports import open_port
from tests.firmware.graphs import detector_graph

EMULATED = ("mps2-an386", "mps2-an500", "mps3-an547", "netduinoplus2")
STRIDES = (8, 16)
HEIGHT, WIDTH = 48, 64
GRAPH = detector_graph(np.random.default_rng(7), HEIGHT, WIDTH, STRIDES, classes=3, width_multiplier=0.5)
SPEC = make_decode_spec(GRAPH, STRIDES, ("a", "b", "c"), DecodeConfig(0.01, 0.5, 24, 16))
PROGRAM = build_program(GRAPH)

needs_toolchain = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None,
    reason="needs apt packages gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm",
)


def make_tess(kind: str) -> bytes:
    deployments = {
        "layers": lambda: deploy(PROGRAM, layer_by_layer(PROGRAM), SPEC.max_candidates),
        "stream": lambda: deploy(PROGRAM, stream(PROGRAM), SPEC.max_candidates),
        "least": lambda: search_front(PROGRAM, SPEC.max_candidates)[-1],
    }
    return write_image(deployments[kind](), SPEC, bytes(32))


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    return {kind: make_tess(kind) for kind in ("layers", "stream", "least")}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Pictures of the network's size, smaller, larger, tall; grey and RGB565."""
    rng = np.random.default_rng(3)
    shapes = ((HEIGHT, WIDTH, 3), (20, 30, 3), (120, 161, 3), (90, 31, 3), (77, 100))
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    return [*pictures, rng.integers(0, 65536, (60, 80), dtype=np.uint16)]


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
@pytest.mark.parametrize("kind", ("layers", "stream", "least"))
def test_emulator_equals_host_to_the_byte(
    models: dict[str, bytes], images: list[np.ndarray], kind: str, target: str
) -> None:
    host, emulator = open_host(models[kind]), open_emulator(models[kind], target)
    emulator.selftest()
    expected, found = host.detect_many(images, raw=True), emulator.detect_many(images, raw=True)
    for wanted, got in zip(expected, found, strict=True):
        assert np.array_equal(wanted.boxes, got.boxes) and got.boxes.dtype == np.int32
        assert wanted.heads.keys() == got.heads.keys()
        assert all(np.array_equal(wanted.heads[name], got.heads[name]) for name in wanted.heads)
    assert sum(len(record.boxes) for record in found) > 10
    assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(found, emulator.detect_many(images), strict=True))


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_emulator_equals_python(models: dict[str, bytes], images: list[np.ndarray], target: str) -> None:
    colour = [image for image in images if image.ndim == 3]
    for image, record in zip(colour, open_emulator(models["least"], target).detect_many(colour, raw=True), strict=True):
        heads = interpret(GRAPH, letterbox(image, HEIGHT, WIDTH))
        assert all(
            np.array_equal(heads[name].reshape(record.heads[name].shape), record.heads[name]) for name in record.heads
        )
        content = content_size((image.shape[1], image.shape[0]), (WIDTH, HEIGHT))
        assert np.array_equal(decode(SPEC, record.heads, content), record.boxes)


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_frames_go_in_without_letterbox(models: dict[str, bytes], target: str) -> None:
    frames = np.random.default_rng(5).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    host, emulator = open_host(models["stream"]), open_emulator(models["stream"], target)
    for wanted, got in zip(host.run_frames(frames), emulator.run_frames(frames), strict=True):
        assert list(got.heads) == list(GRAPH.outputs)
        assert all(np.array_equal(wanted.heads[name], got.heads[name]) for name in GRAPH.outputs)


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_counts_repeat_and_know_nothing_of_files(
    models: dict[str, bytes], images: list[np.ndarray], target: str
) -> None:
    """Equal pictures cost equal instructions, first or last in a batch, in this run or the next; counts hold no file access."""
    emulator = open_emulator(models["stream"], target)
    picture = images[2]
    first = emulator.detect_many([picture, images[0], picture])
    again = emulator.detect_many([picture])
    assert first[0].instructions == first[2].instructions == again[0].instructions
    assert first[0].stack == first[2].stack
    work = deploy(PROGRAM, stream(PROGRAM)).cost.macs
    assert work < first[0].instructions < 60 * work


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_the_link_over_a_uart_gives_the_hosts_bytes_and_counts(models: dict[str, bytes], target: str) -> None:
    """Rows in, head maps and boxes out over the machine's serial line, of a second model where there is room for one."""
    picture = np.random.default_rng(11).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    chip, model = load_target(target), models["stream"]
    port = open_port(f"emulator:{target}", model)
    try:
        client = Client(port)
        client.connect(model)
        assert (client.facts.board, client.facts.unit) == (target, "instructions")
        if chip.firmware is not None and chip.firmware.model_place:
            model = models["least"]
            assert client.load(model).place > 0
        answer = client.run(picture, NETWORK_ROWS, (WIDTH, HEIGHT), read_header(model), True, True)
    finally:
        port.close()
    heads, boxes = HostModel(model).run_and_detect(picture, "rgb888")
    assert len(boxes) > 5 and np.array_equal(answer.boxes, boxes)
    assert heads.keys() == answer.heads.keys() and all(np.array_equal(heads[n], answer.heads[n]) for n in heads)
    assert answer.run > deploy(PROGRAM, stream(PROGRAM)).cost.macs


@needs_toolchain
def test_memory_touched_is_what_the_plan_says(models: dict[str, bytes], images: list[np.ndarray]) -> None:
    for model in models.values():
        emulator = open_emulator(model)
        emulator.detect_many(images)
        info, header = emulator.info, read_header(model)
        assert info.arena == header.arena == open_host(model).info.arena
        # candidates are the last part, and each part ends at a multiple of 16
        assert header.arena - 16 < info.touched <= header.arena
        assert 0 < info.stack < 2048


@needs_toolchain
def test_profile_adds_up(models: dict[str, bytes], images: list[np.ndarray]) -> None:
    plain = open_emulator(models["stream"]).detect_many(images[:1])[0]
    record = open_emulator(models["stream"], profile=True).detect_many(images[:1])[0]
    assert plain.profile is None and record.profile is not None
    assert len(record.profile) == len(PROGRAM.nodes) and (record.profile > 0).all()
    assert np.array_equal(plain.boxes, record.boxes)
    run = record.instructions - record.detect_instructions
    assert 0.8 * run < record.profile.sum() < run < 1.1 * plain.instructions


@needs_toolchain
def test_many_pictures_take_several_emulators(models: dict[str, bytes], images: list[np.ndarray], monkeypatch) -> None:
    emulator = open_emulator(models["stream"])
    whole = emulator.detect_many(images)
    monkeypatch.setattr("firmware.device.BATCH_PICTURES", 4)
    parts = emulator.detect_many(images)
    assert [a.instructions for a in whole] == [b.instructions for b in parts]
    assert emulator.detect_many([]) == []


@needs_toolchain
def test_no_allocator_and_no_stdio_in_the_image(models: dict[str, bytes]) -> None:
    image = build("netduinoplus2", models["stream"])
    members = set(re.findall(r"libc_nano\.a\(lib_a-(\w+)\.o\)", image.map.read_text().split("Discarded input")[0]))
    assert members <= {"memcpy", "memset", "memmove"}
    symbols = subprocess.run(["arm-none-eabi-nm", image.elf], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"\b(_?malloc\w*|_sbrk|printf|_write)\b", symbols)
    assert image.text < 32 * 1024


@needs_toolchain
def test_kernels_by_name(models: dict[str, bytes]) -> None:
    assert build("mps2-an500", models["stream"], kernels="ref").text > 0
    with pytest.raises(BuildError, match="there are no kernels 'avx'"):
        build("mps2-an500", models["stream"], kernels="avx")


@needs_toolchain
def test_build_is_cached_and_copied(models: dict[str, bytes], tmp_path: Path) -> None:
    first, second = build("mps2-an500", models["stream"]), build("mps2-an500", models["stream"], tmp_path)
    assert second.elf == tmp_path / "firmware.elf"
    assert first.elf.read_bytes() == second.elf.read_bytes()
    assert (tmp_path / "firmware.map").stat().st_size > 0
    assert first.model == len(models["stream"])
    assert first.arena - read_header(models["stream"]).arena in range(32, 48)  # two guards
    assert str(first.model) in first.table().replace(",", "")


@needs_toolchain
def test_too_big_for_the_target(models: dict[str, bytes]) -> None:
    with pytest.raises(
        BuildError, match=r"needs [\d,]+ B of RAM .* the target has 24,576 B: [\d,]+ B too many; choose a sch"
    ):
        build("mps2-an500", models["stream"], sram=24 * 1024)
    with pytest.raises(BuildError, match=r"needs [\d,]+ B of RAM .*the target has 24,576 B: [\d,]+ B too many"):
        build("mps3-an547", models["stream"], sram=24 * 1024)
    image = build("mps3-an547", models["stream"], sram=64 * 1024)  # of its two memories the large one is gone
    assert {name: size for name, _, size in image.regions}["RAM"] == 64 * 1024
    with pytest.raises(
        BuildError, match=r"netduinoplus2.*B of RAM \(300,000 B of it work memory\), the target has 196,608 B"
    ):
        build("netduinoplus2", models["stream"], arena=300_000)
    big = models["stream"] + bytes(1 << 20)
    with pytest.raises(BuildError, match=r"B of flash .* the target has 1,048,576 B"):
        build("netduinoplus2", big, check=False)


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_a_plan_within_the_budget_links(models: dict[str, bytes], target: str) -> None:
    """What target files reserve for stack and application is enough."""
    budget = load_target(target).budget
    assert (
        build(target, models["stream"], arena=budget - 128).ram <= load_target(target).sram
    )  # 128: tess_t, part of the plan


@needs_toolchain
def test_chip_refuses_damaged_models_and_small_arenas(models: dict[str, bytes]) -> None:
    damaged = bytearray(models["stream"])
    damaged[-20] ^= 1
    with pytest.raises(ModelFileError, match="damaged"):
        open_emulator(bytes(damaged))
    image = build("mps2-an500", bytes(damaged), check=False)
    with pytest.raises(DeviceError, match=r"the runtime refuses the model: .*\(tess error -4\)"):
        EmulatorDevice(image, read_header(models["stream"])).run_frames([np.zeros((HEIGHT, WIDTH, 3), np.uint8)])
    small = build("mps2-an500", models["stream"], arena=4096)
    with pytest.raises(DeviceError, match=r"the runtime refuses the model: .*\(tess error -8\)"):
        EmulatorDevice(small, read_header(models["stream"])).selftest()


def test_damaged_files_are_named(models: dict[str, bytes]) -> None:
    good = models["stream"]
    with pytest.raises(ModelFileError, match="does not begin with 'TESS'"):
        open_host(b"TFL3" + good[4:])
    with pytest.raises(ModelFileError, match="cut off"):
        open_host(good[:50])
    with pytest.raises(ModelFileError, match=f"{len(good) - 16} B long, its header says {len(good)}"):
        open_host(good[:-16])
    with pytest.raises(ModelFileError, match="format version 9"):
        open_host(good[:4] + b"\x09" + good[5:])


@needs_toolchain
def test_pictures_that_cannot_be(models: dict[str, bytes]) -> None:
    emulator = open_emulator(models["stream"], "netduinoplus2")
    with pytest.raises(DeviceError, match=r"float32 \(4, 4, 3\); expected uint8"):
        emulator.detect_many([np.zeros((4, 4, 3), np.float32)])
    with pytest.raises(DeviceError, match="picture 1 has lines of 9,000 B, 'netduinoplus2' takes 6,144 B"):
        emulator.detect_many([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 3000, 3), np.uint8)])
    with pytest.raises(DeviceError, match=r"frame 0 is uint8 \(4, 4, 3\), the network takes uint8 \(48, 64, 3\)"):
        emulator.run_frames([np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(DeviceError, match="picture 0: .*tess error -13"):  # the runtime's own check, past Python's
        run_batch(emulator.image, [np.zeros((1, 3000, 3), np.uint8)], Flags.BOXES, 10)
