"""The runtime as C: no warnings on host or chip, nothing of a library but mem*, no floating point in code, small."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware.build import build as build_image
from firmware.build import build_link
from firmware.cc import WARNINGS
from firmware.host import runtime_sources
from tests.firmware.test_loader import model

ALLOWED = {"memcpy", "memmove", "memset", "__aeabi_uldivmod", "__aeabi_ldivmod"}  # the last two are 64-bit divisions of libgcc
FOREIGN = re.compile(r"alloc|sbrk|printf|scanf|stdout|impure|(^|_)(free|free_r|puts|exit)$")
OWN = {"semi_puts", "semi_exit"}  # of the emulator
COMPILERS = {
    "gcc": ["gcc", "-O2"],
    "clang": ["clang", "-O2"],
    "cortex-m7": ["arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-d16", "-mfloat-abi=hard"],
}


def build(folder: Path, compiler: list[str], *flags: str) -> list[Path]:
    if not shutil.which(compiler[0]):
        pytest.skip(f"no {compiler[0]}")
    objects = []
    for source in runtime_sources():
        target = folder / (source.stem + ".o")
        command = [*compiler, *WARNINGS, "-Werror", *flags, "-c", source, "-o", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        objects.append(target)
    return objects


def symbols(compiler: list[str], objects: list[Path], *flags: str) -> set[str]:
    tool = compiler[0].replace("gcc", "nm").replace("clang", "nm")
    listed = subprocess.run([tool, *flags, *objects], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in listed.splitlines() if line and not line.endswith(":")}


@pytest.mark.parametrize("flags", [[], ["-DTESS_PROFILE"]], ids=["plain", "profile"])
@pytest.mark.parametrize("name", COMPILERS)
def test_no_warnings_and_no_libraries(tmp_path: Path, name: str, flags: list[str]) -> None:
    objects = build(tmp_path, COMPILERS[name], *flags)
    undefined = symbols(COMPILERS[name], objects, "-u") - symbols(COMPILERS[name], objects, "--defined-only", "-g")
    assert undefined - {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"} <= ALLOWED


@pytest.fixture(scope="module")
def chip_objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return build(tmp_path_factory.mktemp("chip"), COMPILERS["cortex-m7"])


def test_no_state_and_little_code_on_a_chip(chip_objects: list[Path]) -> None:
    sizes = subprocess.run(["arm-none-eabi-size", "-t", *chip_objects], capture_output=True, text=True, check=True).stdout
    text, data, bss = (int(v) for v in sizes.splitlines()[-1].split()[:3])
    assert (data, bss) == (0, 0)
    assert text < 30_000  # tracker and average precision included, which the linker leaves out where nobody calls them


@pytest.mark.parametrize("linked", [build_image, build_link])
def test_no_heap_and_no_console_in_an_image(linked: Callable) -> None:
    """Everything that was linked, the C library's part included."""
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("no arm-none-eabi-gcc: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi")
    names = symbols(COMPILERS["cortex-m7"], [linked("mps2-an500", model()).elf], "--defined-only")
    assert "tess_run" in names
    assert {name for name in names if FOREIGN.search(name)} <= OWN


def test_no_floating_point_instruction(chip_objects: list[Path]) -> None:
    """Scales are carried as bytes: with a hardware FPU at hand there is no float instruction beyond loads, stores, moves."""
    command = ["arm-none-eabi-objdump", "-d", *chip_objects]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {line.split("\t")[2].split(".")[0] for line in listing.splitlines() if line.count("\t") >= 2}
    floating = {n for n in names if n.startswith("v")} - {"vldr", "vstr", "vmov", "vpush", "vpop", "vldmia", "vstmia"}
    assert not floating
