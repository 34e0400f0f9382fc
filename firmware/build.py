"""Build the firmware of a target around one model.tess.

    python -m firmware.build --target mps2-an500 --model model.tess
    python -m firmware.build --target stm32h743 --model model.tess --output image

An emulated target gets the application that runs pictures from files (targets/common/app.c), a board the one that serves the link
(link_app.c).

Objects and images are cached under firmware/build by a hash of everything that goes into them, so a second build of the
same is a look-up and nothing is ever stale.
"""

import argparse
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from firmware.cli import run
from firmware.compiler.target import Firmware, Target, TargetError, load_target, parse_size
from firmware.header import load_tess, read_header
from firmware.host import LINK, firmware_id

ROOM = Path(__file__).resolve().parent
COMMON = ROOM / "targets" / "common"
RUNTIME = ROOM / "runtime"
CACHE = ROOM / "build"
PREFIX = "arm-none-eabi-"
C_FLAGS = (
    *("-mthumb", "-O2", "-std=c99", "-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections"),
    *("-g1", f"-ffile-prefix-map={ROOM}=firmware"),  # line numbers, no path of this machine
)
LINK_FLAGS = (
    *("--specs=nano.specs", "-nostartfiles", "-Wl,--gc-sections"),
    *("-Wl,--no-warn-rwx-segments", "-Wl,--print-memory-usage"),
)
BASE_SOURCES = ("startup.c", "meter.c")
EMULATED_SOURCES, BOARD_SOURCES = ("emulated.c", "semihosting.c"), ("noted.c",)
LOADED_BOXES, LOADED_COUNTERS, MOST_PROFILED = 512, 2048, 1024  # room for what a loaded model may need


class BuildError(ValueError):
    """Firmware that cannot be built: no compiler, too big for the target, an error of the compiler."""


@dataclass(frozen=True)
class _Storage:
    """What storage.S reserves."""

    arena: int = 0
    max_boxes: int = 0
    profile_nodes: int = 0
    place: int = 0  # each of two for loaded models
    counters: int = 0  # of average precision, words

    def defines(self) -> list[str]:
        sizes = {
            "ARENA_SIZE": self.arena, "MAX_BOXES": self.max_boxes, "PROFILE_NODES": self.profile_nodes,
            "PLACE_SIZE": self.place, "COUNTERS": self.counters,
        }  # fmt: skip
        return [f"-DAPP_{name}={size}" for name, size in sizes.items()]


@dataclass(frozen=True)
class Image:
    """A linked firmware. Sizes in bytes."""

    elf: Path
    map: Path
    target: Target
    text: int  # code and constants, without the model
    model: int
    data: int
    bss: int  # without stack and arena
    stack: int  # reserved
    arena: int  # work memory of the runtime
    counters: int  # of average precision
    noinit: int  # places for loaded models in RAM, and what outlives a reset
    flash_places: int  # places for loaded models in flash
    dma: int  # written by the serial line
    regions: tuple[tuple[str, int, int], ...]  # of the linker's map: name, bytes used, bytes

    @property
    def flash(self) -> int:
        return self.text + self.model + self.data

    @property
    def ram(self) -> int:
        return self.data + self.bss + self.stack + self.arena + self.counters + self.noinit + self.dma

    def table(self) -> str:
        """The memory as a table for people."""
        rows = [
            ("flash", "code and constants", self.text),
            ("flash", "model", self.model),
            ("both", "initialised data", self.data),
            ("RAM", "application and runtime", self.bss),
            ("RAM", "stack, reserved", self.stack),
            ("RAM", "work memory", self.arena),
            *([("RAM", "average precision", self.counters)] if self.counters else []),
            *([("RAM", "kept over a reset", self.noinit)] if self.noinit else []),
            *([("RAM", "received bytes", self.dma)] if self.dma else []),
            *([("flash", "loaded models", self.flash_places)] if self.flash_places else []),
        ]
        rows += [(name, f"used of {size:,}", used) for name, used, size in self.regions]
        return "\n".join(f"{where:<6} {what:<24} {size:>11,} B" for where, what, size in rows)


def build(
    target: str | Target,
    model: bytes | Path,
    out_dir: Path | None = None,
    *,
    sram: int | None = None,
    profile: bool = False,
    kernels: str | None = None,
    arena: int | None = None,
    check: bool = True,
) -> Image:
    """Build the application that runs `model` on `target`.

    `out_dir` gets firmware.elf, .map, .bin and .hex. `sram` replaces the target's, to imitate a smaller chip.
    `profile` counts per node, which costs a little itself. `kernels` names a folder of runtime/kernels; the default is the
    best one that the target can run. `arena` replaces the work memory that the model's header asks for, `check=False`
    embeds a model that is known to be damaged. Raise BuildError when it does not fit or gcc is missing, TargetError for a
    target without firmware, ModelFileError for a damaged model.
    """
    chip = _sized(target, sram)
    if not _firmware(chip).machine:
        raise BuildError(f"'{chip.name}' is a board, not an emulator: python -m firmware.build makes its image (docs/boards.md)")
    data = load_tess(model)
    header = read_header(data, check)
    arena = header.arena if arena is None else arena
    storage = _Storage(arena, header.max_detections, header.n_nodes if profile else 0)
    image = _link(chip, _sources(chip, _kernels(chip, kernels), link=False), data, storage)
    return _copied(image, out_dir) if out_dir else image


def build_link(target: str | Target, model: bytes | Path, out_dir: Path | None = None, *, profile: bool = False) -> Image:
    """Build the application that serves the link on `target`, with `model` until another one is loaded. `out_dir` and errors as
    of build(). Where average precision cannot be counted in what is left of the RAM, the device does without.
    """
    chip = _sized(target, None)
    data = load_tess(model)
    header = read_header(data)
    firmware = _firmware(chip)
    nodes = MOST_PROFILED if profile and firmware.model_place else header.n_nodes if profile else 0
    boxes = max(header.max_detections, LOADED_BOXES if firmware.model_place else 0)
    counters = max(header.precision_words, LOADED_COUNTERS if firmware.model_place else 0)
    storage = _Storage(max(header.arena, firmware.link_memory), boxes, nodes, firmware.model_place, counters)
    sources = _sources(chip, _kernels(chip, None), link=True)
    try:
        image = _link(chip, sources, data, storage)
    except BuildError:
        image = _link(chip, sources, data, replace(storage, counters=0))  # too big anyway: says so with the sizes that matter
    return _copied(image, out_dir) if out_dir else image


def build_probe(target: str | Target) -> Image:
    """Build the program that checks a new target's counter, faults and stack (targets/common/probe.c)."""
    return build_program(target, [COMMON / "probe.c"])


def build_program(target: str | Target, sources: Sequence[Path]) -> Image:
    """Build a program of these C files (one has main) with the target's start-up and semihosting, without a model."""
    chip = _sized(target, None)
    return _link(chip, [*_base(chip), *sources], b"", _Storage())


def _sized(target: str | Target, sram: int | None) -> Target:
    chip = load_target(target) if isinstance(target, str) else target
    if chip.firmware is None:
        raise TargetError(f"target '{chip.name}' is a budget to plan for; mps2-an500 or stm32h743 can be built")
    if sram is None:
        return chip
    if sram > chip.sram:
        raise TargetError(f"target '{chip.name}' has {chip.sram:,} B of SRAM, not {sram:,}")
    beside = chip.sram - chip.firmware.large_ram  # of a chip with two memories the large one shrinks first
    firmware = replace(chip.firmware, large_ram=max(0, sram - beside))
    return replace(chip, sram=sram, app_reserve=0, stack_reserve=min(chip.stack_reserve, sram // 4), firmware=firmware)


def _firmware(chip: Target) -> Firmware:
    assert chip.firmware is not None  # _sized saw to it
    return chip.firmware


def _base(chip: Target) -> list[Path]:
    """C files of every program: the start, and those of the board's own folder and of the one that it shares with others."""
    firmware = _firmware(chip)
    folders = [ROOM / "targets" / name for name in (firmware.folder, firmware.family) if name]
    common = (*BASE_SOURCES, *(EMULATED_SOURCES if firmware.machine else BOARD_SOURCES))
    return [*(COMMON / name for name in common), *(source for folder in folders for source in sorted(folder.glob("*.c")))]


def _sources(chip: Target, kernels: Path, link: bool) -> list[Path]:
    """C files of an application with these kernels."""
    application = [COMMON / "link_app.c", *sorted(LINK.glob("*.c"))] if link else [COMMON / "app.c"]
    return [*_base(chip), *application, *sorted(RUNTIME.glob("*.c")), *sorted(kernels.glob("*.c"))]


def _kernels(chip: Target, wanted: str | None) -> Path:
    """The kernels of that name; by default those for the chip's instruction set, or the plain ones where there are none."""
    folder = RUNTIME / "kernels" / (wanted or chip.isa)
    if any(folder.glob("*.c")):
        return folder
    if wanted:
        raise BuildError(f"there are no kernels '{wanted}' in {folder.parent.name}")
    return RUNTIME / "kernels" / "ref"


@functools.cache
def compiler_version() -> str:
    """First line of the cross compiler's --version. Raise BuildError, naming the packages, when there is none."""
    if shutil.which(f"{PREFIX}gcc") is None:
        raise BuildError(f"{PREFIX}gcc is not installed: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi")
    return _tool("gcc", ["--version"]).splitlines()[0]


def _tool(name: str, arguments: list[str], cwd: Path | None = None) -> str:
    result = subprocess.run([PREFIX + name, *arguments], capture_output=True, text=True, cwd=cwd)
    if result.returncode != 0:
        raise BuildError(_complaint(name, result.stderr))
    return result.stdout


def _complaint(name: str, stderr: str) -> str:
    """The line of a tool's output that says what is wrong; linker overflow in full, its caller makes sense of it."""
    if "overflowed by" in stderr:
        return stderr
    lines = [line for line in stderr.splitlines() if "error" in line or "undefined" in line] or stderr.splitlines()
    return f"{PREFIX}{name}: {lines[0] if lines else 'failed without a message'}"


def _digest(*parts: bytes | str) -> str:
    state = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()[:24]


def _headers() -> list[Path]:
    return sorted([*(ROOM / "targets").rglob("*.h"), *RUNTIME.rglob("*.h"), *LINK.glob("*.h")])


def _compile(source: Path, flags: list[str], salt: str) -> Path:
    """The object of one source, compiled unless the cache has it."""
    target = CACHE / "objects" / f"{_digest(salt, ' '.join(flags), source.name, source.read_bytes())}.o"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "made.o"
            _tool("gcc", [*flags, "-c", str(source), "-o", str(made)])
            os.replace(made, target)
    return target


def _own_flags(source: Path, chip: Target) -> list[str]:
    """What only an application needs to know; the link's buffers take half of the bytes for lines."""
    lines = _firmware(chip).line_bytes
    if source.name == "link_app.c":
        return [f"-DAPP_LINE_BYTES={lines // 2}", f'-DAPP_BOARD="{chip.name}"', f'-DLINK_FIRMWARE="{firmware_id()}"']
    return [f"-DAPP_LINE_BYTES={lines}"] if source.name == "app.c" else []


def _link(chip: Target, sources: Sequence[Path], model: bytes, storage: _Storage) -> Image:
    firmware = _firmware(chip)
    family = [ROOM / "targets" / firmware.family] if firmware.family else []
    includes = [f"-I{path}" for path in (*family, COMMON, RUNTIME, RUNTIME / "kernels", LINK)]
    flags = [*firmware.flags, *C_FLAGS, *includes]
    if storage.profile_nodes:
        flags.append("-DTESS_PROFILE")
    salt = _digest(compiler_version(), *(path.read_bytes() for path in _headers()))
    objects = [_compile(source, flags + _own_flags(source, chip), salt) for source in sources]
    scripts = [ROOM / "targets" / firmware.folder / "target.ld", COMMON / "sections.ld"]
    sizes = (chip.sram, firmware.large_ram, chip.flash, chip.stack_reserve, *storage.defines())
    parts = [*(path.name for path in objects), repr(sizes), *(path.read_bytes() for path in scripts), model]
    folder = CACHE / chip.name / _digest((COMMON / "storage.S").read_bytes(), *parts)
    if not (folder / "firmware.elf").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            _link_in(Path(work), chip, objects, model, storage, scripts[0])
            for name in ("firmware.map", "firmware.regions", "firmware.elf"):  # the ELF last: where it is, all is
                os.replace(Path(work) / name, folder / name)
    return _measured(folder / "firmware.elf", chip)


def _link_in(work: Path, chip: Target, objects: list[Path], model: bytes, storage: _Storage, script: Path) -> None:
    """Link in the folder `work`, with the work memory beside stack and data if there is room for it, else in the large memory."""
    (work / "model.tess").write_bytes(model)
    try:
        _link_once(work, chip, objects, storage, script, ".arena")
    except BuildError as error:
        if not _firmware(chip).large_ram or "region `RAM'" not in str(error):
            raise _over_budget(str(error), chip, len(model), storage) or error from None
        try:
            _link_once(work, chip, objects, storage, script, ".arena_large")
        except BuildError as error:
            raise _over_budget(str(error), chip, len(model), storage) or error from None


def _link_once(work: Path, chip: Target, objects: list[Path], storage: _Storage, script: Path, arena: str) -> None:
    firmware = _firmware(chip)
    assemble = [*storage.defines(), f"-DAPP_ARENA_SECTION={arena}", "-c", str(COMMON / "storage.S"), "-o", "storage.o"]
    _tool("gcc", [*firmware.flags, "-mthumb", *assemble], cwd=work)
    symbols = {
        "TESS_STACK_SIZE": chip.stack_reserve, "TESS_RAM_SIZE": chip.sram - firmware.large_ram,
        "TESS_LARGE_SIZE": firmware.large_ram, "TESS_FLASH_SIZE": chip.flash,
    }  # fmt: skip
    arguments = [*firmware.flags, "-mthumb", *LINK_FLAGS, f"-L{COMMON}", "-T", str(script)]
    arguments += [f"-Wl,--defsym={name}={value}" for name, value in symbols.items()]
    arguments += [*map(str, objects), "storage.o", "-o", "firmware.elf", "-Wl,-Map,firmware.map"]
    (work / "firmware.regions").write_text(_tool("gcc", arguments, cwd=work))


def _over_budget(message: str, chip: Target, model: int, storage: _Storage) -> BuildError | None:
    arena, large = storage.arena, _firmware(chip).large_ram
    over = {name: int(size) for name, size in re.findall(r"region `(\w+)' overflowed by (\d+) bytes", message)}
    if "LARGE" in over:
        return BuildError(
            f"firmware for '{chip.name}' needs {arena:,} B of work memory: {over['LARGE']:,} B too many for its largest "
            f"memory, {large:,} B; choose a schedule that needs {(arena - over['LARGE']) // 16 * 16:,} B"
        )
    if "RAM" in over:
        needed, most = chip.sram + over["RAM"], arena - over["RAM"]
        way_out = f"choose a schedule that needs {most // 16 * 16:,} B" if most > 0 else "the target is too small"
        return BuildError(
            f"firmware for '{chip.name}' needs {needed:,} B of RAM ({arena:,} B of it work memory), the target has "
            f"{chip.sram:,} B: {over['RAM']:,} B too many; {way_out}"
        )
    if "PLACES" in over:
        return BuildError(f"'{chip.name}': model_place of its target file is {over['PLACES']:,} B too large for both places")
    if "FLASH" in over:
        needed = chip.flash + over["FLASH"]
        return BuildError(
            f"firmware for '{chip.name}' needs {needed:,} B of flash ({model:,} B of it the model), the target has "
            f"{chip.flash:,} B: {over['FLASH']:,} B too many"
        )
    return None


_SECTIONS = {
    "text": (".text",), "model": (".model",), "data": (".data",), "bss": (".bss",), "stack": (".stack",),
    "arena": (".arena", ".arena_large"), "counters": (".counters",), "noinit": (".noinit", ".places"),
    "flash_places": (".flash_places",), "dma": (".dma",),
}  # fmt: skip


def _measured(elf: Path, chip: Target) -> Image:
    sizes = dict(re.findall(r"^(\.\w+)\s+(\d+)", _tool("size", ["-A", "-d", str(elf)]), re.MULTILINE))
    section = {field: sum(int(sizes.get(name, 0)) for name in names) for field, names in _SECTIONS.items()}
    regions = _regions(elf.with_suffix(".regions").read_text())
    return Image(elf=elf, map=elf.with_suffix(".map"), target=chip, **section, regions=regions)


def _regions(usage: str) -> tuple[tuple[str, int, int], ...]:
    """What the linker says of each memory: `RAM: 10 KB 128 KB 7.81%`, in the largest unit without a fraction."""
    unit = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
    found = re.findall(r"^\s*(\w+):\s+(\d+) ([KMG]?B)\s+(\d+) ([KMG]?B)", usage, re.MULTILINE)
    return tuple((name, int(used) * unit[u], int(size) * unit[v]) for name, used, u, size, v in found)


def _copied(image: Image, out_dir: Path) -> Image:
    """Copies of the image, and the same for programmers that take no ELF."""
    out_dir.mkdir(parents=True, exist_ok=True)
    elf = out_dir / image.elf.name
    with tempfile.TemporaryDirectory(dir=out_dir) as name:
        work = Path(name)
        for path in (image.map, image.elf):
            shutil.copy(path, work)
        for form, suffix in (("binary", ".bin"), ("ihex", ".hex")):
            _tool("objcopy", ["-O", form, elf.name, elf.with_suffix(suffix).name], cwd=work)
        for path in sorted(work.iterdir()):
            os.replace(path, out_dir / path.name)
    return Image(**{**vars(image), "elf": elf, "map": elf.with_suffix(".map")})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m firmware.build", description="Build firmware around a model.tess.")
    parser.add_argument("--target", default="mps2-an500")
    parser.add_argument("--model", type=Path, required=True, help="model.tess")
    parser.add_argument("--sram", type=parse_size, help="imitate a chip with less SRAM than the target, such as 256K")
    parser.add_argument("--output", type=Path, help="folder for firmware.elf, .map, .bin and .hex")
    options = parser.parse_args()
    firmware = _firmware(_sized(options.target, None))
    if firmware.machine:
        image = build(options.target, options.model, options.output, sram=options.sram)
    elif options.sram is None:
        image = build_link(options.target, options.model, options.output)
    else:
        raise BuildError(f"--sram imitates a smaller chip, '{options.target}' is a real one: plan with export.py --sram instead")
    print(image.table())
    print(image.elf)


if __name__ == "__main__":
    run(main)
