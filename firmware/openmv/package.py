"""What an OpenMV Cam needs beside a model.tess: tessera.mpy, main.py, files.json and a ROMFS image that holds the model.

tessera.mpy is the runtime and tessera.c as a native module, linked by MicroPython's own mpy_ld. Only what the module uses is
in it. The camera copies it to its heap, so it lies on the card; the model is read where it lies, so it lies in the ROMFS.
"""

import hashlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firmware.build import compiler_version
from firmware.compiler.target import Target
from firmware.header import read_header
from firmware.host import RUNTIME, runtime_sources
from firmware.openmv.micropython import CACHE, require_tools

if TYPE_CHECKING:
    from mpremote.romfs import VfsRomWriter

ROOM = Path(__file__).resolve().parent
MAIN = ROOM / "camera" / "main.py"
ROMFS_ALIGN = 16  # of the model in the image
GC_BLOCK = 16  # MicroPython's heap gives memory in these, bytes
_ARCH = ("-mthumb", "-mcpu=cortex-m4", "-mtune=cortex-m7", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")  # armv7emsp
_READING = (
    *("-DNO_QSTR", "-DMICROPY_ENABLE_DYNRUNTIME", "-DMICROPY_FLOAT_IMPL=MICROPY_FLOAT_IMPL_FLOAT"),
    "-DMP_CONFIGFILE=<tessera.config.h>",
)
_FLAGS = (
    *("-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-DNDEBUG", *_READING, "-U_FORTIFY_SOURCE"),
    *("-fpic", "-fno-common", "-ffunction-sections", "-fdata-sections", "-fno-tree-loop-distribute-patterns"),
)


class PackageError(ValueError):
    """A package that cannot be made, or a model that the camera cannot hold."""


@dataclass(frozen=True)
class Package:
    """What a camera's memories hold. Sizes in bytes."""

    target: Target
    romfs: int  # the image
    model: int
    module: int  # tessera.mpy, copied to the heap by import
    work_memory: int  # one bytearray

    def table(self) -> str:
        """The memories as a table for people."""
        camera = self.target.openmv
        rows = [
            ("ROMFS", "romfs.img", self.romfs, f"of {camera.romfs:,} B; model.tess {self.model:,} B is read in place"),
            ("heap", "work memory", self.work_memory, f"in one piece, of the largest block of {max(camera.heap):,} B"),
            ("heap", "tessera.mpy", self.module, f"of {sum(camera.heap):,} B in {len(camera.heap)} blocks"),
            ("heap", "left for scripts", sum(camera.heap) - self.work_memory - self.module, ""),
        ]
        return "\n".join(f"{where:<6} {what:<17} {size:>9,} B  {note}".rstrip() for where, what, size, note in rows)


def write_package(tess: bytes, target: Target, folder: Path) -> Package:
    """Write everything but model.tess to `folder`. Raises MicroPythonError, BuildError or PackageError before it writes."""
    package, module, image = plan_package(tess, target)
    files = {"model.tess": tess, "tessera.mpy": module}
    sums = {name: [len(data), zlib.crc32(data)] for name, data in files.items()}
    (folder / "tessera.mpy").write_bytes(module)
    (folder / "romfs.img").write_bytes(image)
    (folder / "files.json").write_text(json.dumps(sums, indent=1) + "\n")
    shutil.copyfile(MAIN, folder / "main.py")
    return package


def plan_package(tess: bytes, target: Target) -> tuple[Package, bytes, bytes]:
    """The sizes, tessera.mpy and romfs.img for a model. Raises PackageError when a memory of the camera is too small."""
    camera = target.openmv
    assert camera is not None
    module, image = build_module(), romfs_image({"model.tess": tess}, "model.tess")
    work = read_header(tess).arena + GC_BLOCK - 1
    package = Package(target, len(image), len(tess), len(module), work)
    if len(image) > camera.romfs:
        raise PackageError(
            f"romfs.img with model.tess takes {len(image):,} B, the ROMFS of '{target.name}' has {camera.romfs:,} B: "
            "train a smaller network"
        )
    if work + GC_BLOCK > max(camera.heap):
        raise PackageError(
            f"the model needs {work:,} B of work memory in one piece, the largest heap block of '{target.name}' has "
            f"{max(camera.heap):,} B: export with --sram {max(camera.heap) - 4 * GC_BLOCK} or less"
        )
    if work + len(module) > sum(camera.heap) - camera.scripts:
        raise PackageError(
            f"work memory and tessera.mpy take {work + len(module):,} B, the heap of '{target.name}' has "
            f"{sum(camera.heap):,} B and scripts need {camera.scripts:,} B of it: export with a smaller --sram"
        )
    return package, module, image


def romfs_image(files: dict[str, bytes], aligned: str = "") -> bytes:
    """A ROMFS, made by mpremote's writer; the data of the file `aligned` begin at a multiple of ROMFS_ALIGN."""
    # padding before them moves the data; the format rounds its header to even, so that a byte behind them counts too
    for before, behind in itertools.product(range(2 * ROMFS_ALIGN), (0, 1)):
        image = _write_romfs(files, aligned, before, behind)
        if not aligned or image.index(files[aligned]) % ROMFS_ALIGN == 0:
            return image
    raise PackageError(f"no padding puts {aligned} at a multiple of {ROMFS_ALIGN} bytes in the ROMFS")


def _write_romfs(files: dict[str, bytes], padded: str, before: int, behind: int) -> bytes:
    from mpremote.romfs import VfsRomWriter

    writer = VfsRomWriter()
    for name, data in files.items():
        _pad(writer, before if name == padded else 0)
        writer.mkfile(name, data)
    _pad(writer, behind)
    return bytes(writer.finalise())


def _pad(writer: "VfsRomWriter", size: int) -> None:
    if size:
        writer._extend(writer._pack(writer.ROMFS_RECORD_KIND_PADDING, bytes(size)))


def build_module() -> bytes:
    """tessera.mpy, from the cache when nothing it is made of has changed. Raises MicroPythonError or PackageError."""
    tree = require_tools()
    sources = [ROOM / "tessera.c", ROOM / "memory.c", *runtime_sources()]
    state = hashlib.sha256(" ".join([compiler_version(), str(tree), *_ARCH, *_FLAGS]).encode())
    for path in [*sources, *sorted(RUNTIME.rglob("*.h"))]:
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    cached = CACHE / f"tessera-{state.hexdigest()[:16]}.mpy"
    if not cached.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            os.replace(_build_module(sources, tree, Path(work)), cached)
    return cached.read_bytes()


def module_flags(tree: Path) -> list[str]:
    """What any compiler needs to know to read tessera.c: MicroPython's headers, and the names that it uses."""
    work = CACHE / "names"
    work.mkdir(parents=True, exist_ok=True)
    _run([*_linker(tree), "--preprocess", "-o", work / "tessera.config.h", ROOM / "tessera.c"])
    return ["-std=c99", *_READING, f"-I{work}", "-isystem", str(tree)]


def _linker(tree: Path) -> list[str]:
    return [sys.executable, str(tree / "tools" / "mpy_ld.py"), "--arch", "armv7emsp"]


def _build_module(sources: list[Path], tree: Path, work: Path) -> Path:
    names, linked, module = work / "tessera.config.h", work / "tessera.elf", work / "tessera.mpy"
    linker = _linker(tree)
    _run([*linker, "--preprocess", "-o", names, sources[0]])
    includes = [f"-I{work}", f"-I{RUNTIME}", "-isystem", str(tree)]
    objects = []
    for source in sources:
        objects.append(work / f"{source.stem}.o")
        _run(["arm-none-eabi-gcc", *_ARCH, *_FLAGS, *includes, "-c", source, "-o", objects[-1]])
    libgcc = _run(["arm-none-eabi-gcc", *_ARCH, "-print-libgcc-file-name"]).strip()
    # mpy_ld takes every section that it is given: first drop those that nothing calls
    _run(["arm-none-eabi-ld", "-r", "--gc-sections", "-e", "mpy_init", "-o", linked, *objects, libgcc])
    _run([*linker, "--qstrs", names, "-o", module, linked])
    return module


def _run(command: list[str | Path]) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if "rror" in line] or done.stderr.splitlines()
        raise PackageError(f"{shlex.join(map(str, command[:2]))}: {lines[0] if lines else 'failed without a message'}")
    return done.stdout
