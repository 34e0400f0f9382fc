"""MicroPython's core as a library of this machine, in which benchmarks/fuzz.py lets scripts loose on the camera's module."""

import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firmware.cc import BuildError
from firmware.openmv.micropython import CACHE, GET, find_tree

FOLDER = Path("tests/fuzz/openmv").resolve()
FLAGS = ("-O1", "-g1", "-std=gnu11", "-w")  # no sanitizers: its collector reads what lies between a stack's variables


def build(users: Sequence[Path]) -> Path:
    """A folder with core.a, mpconfigport.h and the headers, for C files that use the core's names. Raises BuildError."""
    tree = find_tree()
    if tree is None:
        raise BuildError(f"fuzzing the camera's module needs MicroPython's source: {GET}")
    if platform.machine() != "x86_64":
        raise BuildError("fuzzing the camera's module needs an x86-64 machine: tests/fuzz/openmv/mpconfigport.h")
    if shutil.which("make") is None:
        raise BuildError("fuzzing the camera's module needs make: apt-get install make")
    names = sorted({name for path in users for name in re.findall(r"\bMP_QSTR_\w+", path.read_text())})
    settings = [FOLDER / "mpconfigport.h", FOLDER / "Makefile"]
    parts = [str(tree), *FLAGS, *names, *(path.read_text() for path in settings)]
    folder = CACHE / f"embedded-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            work = Path(name) / "made"
            work.mkdir()
            for path in settings:
                shutil.copy(path, work)
            (work / "names.c").write_text("\n".join(names) + "\n")
            _run(["make", "-s", f"MICROPYTHON_TOP={tree}", "BUILD=build", "PACKAGE_DIR=."], work)
            sources = sorted(str(path.relative_to(work)) for path in work.rglob("*/*.c"))
            _run(["clang", *FLAGS, "-I.", "-c", *sources], work)
            _run(["ar", "rcs", "core.a", *(path.name for path in sorted(work.glob("*.o")))], work)
            work.rename(folder)
    return folder


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{command[0]} could not build MicroPython's core: {done.stderr.strip()[-1000:]}")
