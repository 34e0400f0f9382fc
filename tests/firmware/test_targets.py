"""Targets as data, and what an emulated chip must do before any network runs: count, fault, measure its stack."""

import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from firmware import build as build_module
from firmware.build import BuildError, Image, build, build_link, build_probe
from firmware.compiler.target import TargetError, load_target, parse_size, target_names
from firmware.emulator import DeviceError, run_qemu

EMULATED = ("mps2-an386", "mps2-an500", "mps3-an547", "netduinoplus2")
FACES = Path(__file__).resolve().parents[2] / "zoo" / "face_qvga" / "model.tess"
BOARDS = ("stm32f405", "stm32f746", "stm32h743")
needs_toolchain = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None or shutil.which("qemu-system-arm") is None,
    reason="needs apt packages gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm",
)


def probe(image: Image, folder: Path, action: int, argument: int, timeout: float = 60) -> dict[str, int]:
    (folder / "probe.bin").write_bytes(struct.pack("<II", action, argument))
    printed = run_qemu(image, folder, timeout)
    assert printed.startswith("probe:")
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", printed)}


@pytest.mark.parametrize("name", target_names())
def test_every_target_file_loads(name: str) -> None:
    target = load_target(name)
    assert 0 < target.budget <= target.sram
    assert (target.firmware is not None) == (name in EMULATED + BOARDS)
    assert target.firmware is None or bool(target.firmware.machine) == (name in EMULATED)


def test_openmv_leaves_its_heap_block() -> None:
    assert load_target("openmv-h7").budget == 262_144


def test_unknown_target_suggests_the_nearest() -> None:
    with pytest.raises(TargetError, match="'mps2-an505' does not exist; did you mean 'mps2-an500'"):
        load_target("mps2-an505")
    with pytest.raises(TargetError, match="there are: host, mps2-an386, mps2-an500"):
        load_target("zzz")


def test_unknown_setting_of_a_target_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"name": "x", "sram": "64K", "flash": "1M", "clock_herz": 1}))
    with pytest.raises(TargetError, match="x.yaml: 'clock_herz' is not a setting .did you mean clock_hz"):
        load_target("x", tmp_path)


def test_missing_setting_of_a_target_file(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nsram: 64K\n")
    with pytest.raises(TargetError, match="x.yaml: 'flash' is missing"):
        load_target("x", tmp_path)


def test_sizes() -> None:
    assert [parse_size(text) for text in (7, "7", "256K", "4M", "1 KiB")] == [7, 7, 262_144, 4 << 20, 1024]
    with pytest.raises(TargetError, match="is not a size"):
        parse_size("4 pages")


def test_a_budget_cannot_be_built() -> None:
    with pytest.raises(TargetError, match="openmv-h7.*budget"):
        build_probe("openmv-h7")


def test_missing_compiler_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "PREFIX", "no-such-")
    build_module.compiler_version.cache_clear()
    with pytest.raises(BuildError, match="apt-get install gcc-arm-none-eabi"):
        build_probe("mps2-an500")
    build_module.compiler_version.cache_clear()


@needs_toolchain
@pytest.mark.parametrize("name", EMULATED + BOARDS)
def test_every_image_holds_the_committed_model_and_says_when_it_cannot(name: str) -> None:
    make = build if name in EMULATED else build_link
    image, chip = make(name, FACES), load_target(name)
    assert image.model == FACES.stat().st_size and all(used <= size for _, used, size in image.regions)
    for region, used, size in image.regions:
        assert f"used of {size:,}" in image.table() and f"{used:,} B" in image.table() and region in image.table()
    with pytest.raises(BuildError, match=rf"'{name}' needs [\d,]+ B of flash .*the target has 65,536 B: [\d,]+ B too many"):
        make(replace(chip, flash=64 << 10), FACES)
    assert chip.firmware is not None
    small = replace(chip, sram=40 << 10, firmware=replace(chip.firmware, large_ram=0, model_place=0, link_memory=0))
    with pytest.raises(BuildError, match=rf"'{name}' needs [\d,]+ B of RAM .*the target has 40,960 B: [\d,]+ B too many"):
        make(small, FACES)


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_the_counter_is_exact(target: str, tmp_path: Path) -> None:
    image = build_probe(target)
    # the last is beyond 2^32 ticks of the MPS2's timer
    for n in (1, 2, 3, 99, 1000, 123_457, 100_000_000):
        assert probe(image, tmp_path, 0, n)["instructions"] == 2 * n + 1
    for n in (1, 10, 77):  # a thousand short stretches: no rounding adds up
        assert probe(image, tmp_path, 3, n)["instructions"] == 1000 * (2 * n + 1)


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_access_outside_of_memory_is_a_fault(target: str, tmp_path: Path) -> None:
    image = build_probe(target)
    chip = load_target(target)
    assert chip.firmware is not None
    large = chip.firmware.large_ram
    ends = [0x20000000 + chip.sram - large] + ([0x21400000] if large else [])  # mps3-an547 has a second memory
    for end in ends:
        probe(image, tmp_path, 1, end - 4)
    for address in (*ends, 0x1FFFFFFC, 0x00000100, 0x08000000, 0x21000000 - 4, 0x60000000):
        with pytest.raises(
            DeviceError, match=rf"'{target}' stopped: (BusFault|MemManage) pc=.*address=0x{address:08x}.*main"
        ):
            probe(image, tmp_path, 1, address)


@needs_toolchain
@pytest.mark.parametrize("target", EMULATED)
def test_stack_is_measured_and_its_overflow_caught(target: str, tmp_path: Path) -> None:
    image = build_probe(target)
    shallow, deep = probe(image, tmp_path, 2, 5), probe(image, tmp_path, 2, 25)
    frame = (deep["stack"] - shallow["stack"]) / 20
    assert 48 <= frame <= 128 and shallow["before"] < 200
    with pytest.raises(DeviceError, match="stack overflow"):
        probe(image, tmp_path, 2, load_target(target).stack_reserve // 32)


@needs_toolchain
def test_time_out_stops_the_emulator(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="did not finish within 1 s"):
        probe(build_probe("mps2-an500"), tmp_path, 0, 0xFFFFFFFF, timeout=1)


def test_missing_emulator_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from firmware import emulator

    monkeypatch.setattr(emulator, "QEMU", "no-such-qemu")
    with pytest.raises(DeviceError, match="apt-get install qemu-system-arm"):
        emulator.qemu_command(load_target("mps2-an500").firmware, Path("x.elf"))
