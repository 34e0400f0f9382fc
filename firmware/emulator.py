"""Pictures through firmware in QEMU: the files of targets/common/batch.h, and the process and its last words."""

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import NamedTuple

import numpy as np

from firmware.build import PREFIX, Image
from firmware.compiler.target import Firmware

QEMU = "qemu-system-arm"
BATCH_VERSION = 1
FAULT_STATUS = 101
START_SECONDS = 30.0
_HEADER = struct.Struct("<4sHHII")
_PICTURE = struct.Struct("<HHHHII")
_RESULT = struct.Struct("<4sHHIIiiIIIIHHHHQQ64s")
_RECORD = struct.Struct("<iIQQIIIIIIQ")
_FORMATS = {("uint8", 3): 0, ("uint16", 2): 2, ("uint8", 2): 3}  # (dtype, ndim) -> enum tess_format


class DeviceError(ValueError):
    """A device that cannot be started, stopped early, or refused a model or a picture."""


class Flags(IntFlag):
    """What to do with each picture (enum batch_flags)."""

    BOXES = 1
    RAW = 2
    DIRECT = 4
    SELFTEST = 8


class Result(NamedTuple):
    """The header of result.bin (batch_result_t)."""

    magic: bytes
    version: int
    flags: int
    count: int
    done: int
    status: int
    selftest: int
    needed: int
    arena_size: int
    record_size: int
    raw_size: int
    n_profile: int
    max_boxes: int
    state_size: int
    sequential: int
    selftest_instructions: int
    reserved: int
    error: bytes

    @property
    def message(self) -> str:
        """What the runtime says about its negative status."""
        return self.error.split(b"\0")[0].decode(errors="replace")


@dataclass(frozen=True)
class Record:
    """One picture's result (batch_record_t and what follows it)."""

    run: int  # instructions of tess_run, without pixel transfer
    detect: int  # instructions of tess_detect
    checksum: int
    stack: int  # bytes
    touched: int  # bytes of work memory up to the highest one written
    boxes: np.ndarray  # int32 (n, 6): x1, y1, x2, y2 (Q4), score (Q15), label
    raw: np.ndarray  # int8, outputs one after the other
    profile: np.ndarray  # uint64 (n_nodes,), empty unless built for profiling


def qemu_command(firmware: Firmware | None, elf: Path, uart: str | None = None) -> list[str]:
    """How the emulator is started; `uart` is where the first serial line leads, in QEMU's words for a socket.

    Raise DeviceError, naming the package, when it is not installed.
    """
    if firmware is None:
        raise DeviceError("a target without firmware cannot be started")
    if not firmware.machine:
        raise DeviceError(f"'{firmware.folder}' is a board, not an emulator: flash its image (docs/boards.md)")
    if shutil.which(QEMU) is None:
        raise DeviceError(f"{QEMU} is not installed: apt-get install qemu-system-arm")
    machine = ["-M", firmware.machine, "-icount", f"shift={firmware.icount_shift}"]
    serial = ["-chardev", f"socket,id=uart,{uart}", "-serial", "chardev:uart"] if uart else ["-serial", "none"]
    quiet = ["-nographic", "-monitor", "none", *serial]
    return [QEMU, *machine, *quiet, "-semihosting-config", "enable=on,target=native", "-kernel", str(elf)]


def run_qemu(image: Image, folder: Path, timeout: float) -> str:
    """Run an image with `folder` as its files; what it printed. Raise DeviceError for a time-out, a fault, a bad exit."""
    command = qemu_command(image.target.firmware, image.elf.resolve())
    name = image.target.name
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:  # run() has killed it
        raise DeviceError(f"'{name}' did not finish within {timeout:.0f} s; allow more with timeout=") from None
    printed = (done.stderr + done.stdout).decode(errors="replace")
    if done.returncode != 0:
        raise DeviceError(ended(image, done.returncode, printed))
    return printed


def ended(image: Image, status: int, printed: str) -> str:
    """Why an emulator is no more, in one line."""
    name = image.target.name
    if status == FAULT_STATUS:
        return f"'{name}' stopped: {_fault(printed, image)}"
    if status < 0:
        return f"'{name}' was killed by signal {-status}"
    lines = printed.strip().splitlines() or ["it printed nothing"]
    return f"'{name}' ended with status {status}: {lines[0]}"


def _fault(printed: str, image: Image) -> str:
    """The fault's line, with the name of the function."""
    line = printed.partition("fault: ")[2].partition("\n")[0] or "unknown fault"
    if (pc := re.search(r"pc=(0x[0-9a-f]+)", line)) is None:
        return line
    found = subprocess.run([f"{PREFIX}addr2line", "-f", "-e", str(image.elf), pc[1]], capture_output=True, text=True)
    function = found.stdout.splitlines()[0] if found.returncode == 0 and found.stdout else "??"
    return f"{line} in {function}()"


def write_batch(path: Path, pictures: Sequence[np.ndarray], flags: Flags) -> None:
    """Write batch.bin. Pictures are uint8 (h, w, 3) RGB, uint16 (h, w) RGB565 or uint8 (h, w) grey."""
    offset = _HEADER.size + _PICTURE.size * len(pictures)
    with path.open("wb") as file:
        file.write(_HEADER.pack(b"TBAT", BATCH_VERSION, flags, len(pictures), 0))
        for picture in pictures:
            height, width = picture.shape[:2]
            file.write(_PICTURE.pack(width, height, picture_format(picture, flags), 0, offset, 0))
            offset += picture.nbytes
        for picture in pictures:
            file.write(np.ascontiguousarray(picture).tobytes())


def picture_format(picture: np.ndarray, flags: Flags) -> int:
    """Value of enum tess_format. Raise DeviceError for an array that is no picture."""
    if flags & Flags.DIRECT:
        return 0
    kind = _FORMATS.get((str(picture.dtype), picture.ndim))
    if kind is None or (picture.ndim == 3 and picture.shape[2] != 3) or 0 in picture.shape:
        raise DeviceError(
            f"a picture is {picture.dtype} {picture.shape}; expected uint8 (h, w, 3) RGB, uint8 (h, w) grey or "
            "uint16 (h, w) RGB565"
        )
    return kind


def read_result(path: Path, n_pictures: int) -> tuple[Result, list[Record]]:
    """Parse result.bin. Raise DeviceError where the device reports an error, or the file is not what it should be."""
    data = path.read_bytes() if path.exists() else b""
    if len(data) < _RESULT.size:
        raise DeviceError("the firmware wrote no result")
    result = Result(*_RESULT.unpack_from(data))
    if result.magic != b"TRES" or result.version != BATCH_VERSION:
        raise DeviceError("the firmware's result has another format: rebuild it")
    if result.status < 0:
        where = f"picture {result.done}" if result.record_size else "the runtime refuses the model"
        raise DeviceError(f"{where}: {result.message} (tess error {result.status})")
    if result.done != n_pictures:
        raise DeviceError(f"the firmware finished {result.done} of {n_pictures} pictures")
    return result, [_record(data, result, i) for i in range(n_pictures)]


def _record(data: bytes, result: Result, number: int) -> Record:
    at = _RESULT.size + number * result.record_size
    block = data[at : at + result.record_size].ljust(result.record_size, b"\0")  # the end of a file may be a hole
    n_boxes, _, run, detect, checksum, stack, touched, guards, _, _, _ = _RECORD.unpack_from(block)
    if guards:
        raise DeviceError(f"picture {number}: the runtime wrote outside of its work memory")
    profile_at = _RECORD.size
    boxes_at = profile_at + 8 * result.n_profile
    fields = np.frombuffer(block, np.dtype("<u2"), 6 * n_boxes, boxes_at).reshape(n_boxes, 6)
    boxes = fields.astype(np.int32)
    boxes[:, :4] = fields[:, :4].view("<i2")
    raw = np.frombuffer(block, np.int8, result.raw_size, result.record_size - result.raw_size)
    profile = np.frombuffer(block, np.dtype("<u8"), result.n_profile, profile_at)
    return Record(run, detect, checksum, stack, touched, boxes, raw, profile)


def run_batch(
    image: Image, pictures: Sequence[np.ndarray], flags: Flags, timeout: float
) -> tuple[Result, list[Record]]:
    """Run pictures in one emulator. `timeout`: seconds for each of them."""
    with tempfile.TemporaryDirectory(prefix="tessera-") as name:
        folder = Path(name)
        write_batch(folder / "batch.bin", pictures, flags)
        run_qemu(image, folder, START_SECONDS + timeout * max(1, len(pictures)))
        return read_result(folder / "result.bin", len(pictures))
