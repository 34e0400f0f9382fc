"""C for this machine: finds the compiler and builds programs and shared libraries, each once."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

BUILD = Path(__file__).parent / "build" / "host"
HEADERS = tuple(Path(__file__).parent / room for room in ("runtime", "link"))
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wshadow", "-Wmissing-prototypes")
SHARED = ("-O3", "-fPIC", "-shared")


class BuildError(ValueError):
    """A program or library for this machine could not be built."""


def compiler() -> list[str]:
    """The C compiler: $CC, or the first of cc, gcc, clang. Raises BuildError when there is none."""
    command = shlex.split(os.environ.get("CC", "")) or [c for c in ("cc", "gcc", "clang") if shutil.which(c)][:1]
    if not command or not shutil.which(command[0]):
        wanted = f"'{command[0]}' (from CC)" if command else "cc, gcc or clang"
        raise BuildError(f"code for this machine needs a C compiler and {wanted} is not in PATH: install gcc or set CC")
    return command


def compile_c(
    sources: Sequence[Path], flags: Sequence[str], stem: str, suffix: str = "", with_compiler: Sequence[str] = ()
) -> Path:
    """Build `sources` into firmware/build/host/<stem>-<hash><suffix> unless it is there already; the path.

    The hash covers sources, all headers, flags, compiler and machine. Raises BuildError with the compiler's words.
    `with_compiler` is a command to use instead of `compiler()`'s.
    """
    command = [*(with_compiler or compiler()), *WARNINGS, *flags]
    digest = hashlib.sha256(" ".join([*command, platform.machine(), platform.system()]).encode())
    beside = {header for source in sources for header in source.parent.glob("*.h")}
    for path in [*sources, *sorted({*(header for folder in HEADERS for header in folder.rglob("*.h")), *beside})]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    target = BUILD / f"{stem}-{digest.hexdigest()[:16]}{suffix}"
    if target.exists():
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=BUILD, suffix=suffix)
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", temporary, *map(str, sources)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{command[0]} could not build {target.name}: {done.stderr.strip()[:2000]}")
        os.chmod(temporary, 0o755)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target
