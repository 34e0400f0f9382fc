"""Where a model.tess runs: this machine or an emulated chip, behind one interface.

    device = open_emulator("model.tess", "mps2-an500")
    for record in device.detect_many(images): print(record.boxes, record.instructions)

Both run the same C library; head maps and boxes are equal to the byte. Costs are executed instructions, counted by the
emulator only: an instruction is not a cycle. This machine can only say how long each node took here (`profile`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firmware.build import Image, build
from firmware.compiler.image import output_checksum
from firmware.emulator import DeviceError, Flags, Record, Result, picture_format, qemu_command, run_batch
from firmware.header import TessHeader, load_tess, read_header
from firmware.host import HostModel, PixelFormat
from firmware.track import ObjectTracker, Tracker

BATCH_BYTES = 64 << 20  # pixels and outputs of one emulator run
BATCH_PICTURES = 512
_HOST_FORMATS: dict[int, PixelFormat] = {0: "rgb888", 2: "rgb565_le", 3: "grey"}


@dataclass(frozen=True)
class RunRecord:
    """One network frame's outputs and cost. Counts are None on the host."""

    heads: Mapping[str, np.ndarray]  # output name -> int8 (h, w, c)
    instructions: int | None = None  # of tess_run
    stack: int | None = None  # bytes in use at most
    touched: int | None = None  # bytes of work memory up to the highest one written
    profile: np.ndarray | None = None  # uint64 (n_nodes,) cost of each node in DeviceInfo.profile_unit, when asked for
    repeats: int | None = None  # frames of a link that had to be sent again


@dataclass(frozen=True)
class DetectRecord:
    """One picture's objects and cost. Counts are None on the host."""

    boxes: np.ndarray  # int32 (n, 6): x1, y1, x2, y2 in Q4 pixels of the network frame, score in Q15, label; best first
    heads: Mapping[str, np.ndarray] | None = None  # as in RunRecord, when asked for
    instructions: int | None = None  # letterbox, network, decoding and NMS
    detect_instructions: int | None = None  # of them, NMS
    stack: int | None = None
    touched: int | None = None
    profile: np.ndarray | None = None
    repeats: int | None = None  # frames of a link that had to be sent again


@dataclass(frozen=True)
class DeviceInfo:
    """What is known of a device and the firmware on it. Sizes in bytes; None where it means nothing or nothing ran yet."""

    target: str
    unit: str | None  # of costs: "instructions", or "cycles" of a board; None: not counted
    profile_unit: str | None  # of profiles: "instructions", or "ns" of this machine's clock; None: no profiles
    clock_hz: int | None
    arena: int  # work memory that the model needs
    stack: int | None  # most in use in all runs so far
    touched: int | None  # most work memory touched in all runs so far
    text: int | None  # code and constants
    data: int | None
    bss: int | None  # without stack and work memory
    model: int  # size of model.tess


class Device(ABC):
    """A place where one model runs."""

    header: TessHeader

    @property
    @abstractmethod
    def info(self) -> DeviceInfo:
        """Sizes, and the high-water marks of all runs so far."""

    @abstractmethod
    def run_frames(self, frames: Sequence[np.ndarray]) -> list[RunRecord]:
        """Run network frames, uint8 of the network's input shape (h, w, c), without letterbox."""

    @abstractmethod
    def detect_many(self, images: Sequence[np.ndarray], raw: bool = False) -> list[DetectRecord]:
        """Letterbox and run pictures of any size: uint8 (h, w, 3) RGB, uint8 (h, w) grey or uint16 (h, w) RGB565."""

    @abstractmethod
    def selftest(self) -> None:
        """Run the model's own test picture. Raise DeviceError unless the outputs are those that the compiler computed."""

    def tracker(self) -> ObjectTracker:
        """What follows the objects that this device finds, begun anew: this machine, unless the device can."""
        return Tracker()

    def close(self) -> None:  # noqa: B027  most devices hold nothing
        """Give back what the device holds: a port, and an emulator or a process behind it."""

    def _check_frame(self, number: int, frame: np.ndarray) -> None:
        if frame.dtype != np.uint8 or frame.shape != self.header.input_shape:
            wanted = self.header.input_shape
            raise DeviceError(f"frame {number} is {frame.dtype} {frame.shape}, the network takes uint8 {wanted}")

    def _check_decoder(self) -> None:
        if not self.header.max_detections:
            raise DeviceError(f"model '{self.header.name}' has no decoder: run_frames gives its outputs")


class EmulatorDevice(Device):
    """Firmware in QEMU. Each call starts it anew; `timeout` is in seconds for each picture."""

    def __init__(self, image: Image, header: TessHeader, timeout: float = 60.0, profile: bool = False):
        self.image = image
        self.header = header
        self.profile = profile
        self._names = tuple(name for name, _ in header.outputs)
        self.timeout = timeout
        self._stack: int | None = None
        self._touched: int | None = None

    @property
    def info(self) -> DeviceInfo:
        image, chip = self.image, self.image.target
        return DeviceInfo(
            target=chip.name, unit="instructions", profile_unit="instructions" if self.profile else None,
            clock_hz=chip.clock_hz, arena=self.header.arena, stack=self._stack, touched=self._touched, text=image.text,
            data=image.data, bss=image.bss, model=image.model,
        )  # fmt: skip

    def run_frames(self, frames: Sequence[np.ndarray]) -> list[RunRecord]:
        return [
            RunRecord(self._heads(r), r.run, r.stack, r.touched, r.profile if r.profile.size else None)
            for r in self._records(frames, Flags.RAW | Flags.DIRECT)
        ]

    def detect_many(self, images: Sequence[np.ndarray], raw: bool = False) -> list[DetectRecord]:
        self._check_decoder()
        return [
            DetectRecord(
                boxes=r.boxes,
                heads=self._heads(r) if raw else None,
                instructions=r.run + r.detect,
                detect_instructions=r.detect,
                stack=r.stack,
                touched=r.touched,
                profile=r.profile if r.profile.size else None,
            )
            for r in self._records(images, Flags.BOXES | (Flags.RAW if raw else Flags(0)))
        ]

    def selftest(self) -> None:
        result = self._batch([], Flags.SELFTEST)[0]
        if result.selftest != 0:
            raise DeviceError(f"'{self.image.target.name}', model '{self.header.name}': {result.message}")

    def _records(self, pictures: Sequence[np.ndarray], flags: Flags) -> Iterator[Record]:
        raw_bytes = sum(int(np.prod(shape)) for _, shape in self.header.outputs) if flags & Flags.RAW else 0
        check = self._check_frame if flags & Flags.DIRECT else self._check_image
        for part in _batches(pictures, raw_bytes, check):
            yield from self._batch(part, flags)[1]

    def _batch(self, pictures: Sequence[np.ndarray], flags: Flags) -> tuple[Result, list[Record]]:
        result, records = run_batch(self.image, pictures, flags, self.timeout)
        for record in records:
            self._stack = max(self._stack or 0, record.stack)
            self._touched = max(self._touched or 0, record.touched)
            if flags & Flags.RAW and record.checksum != output_checksum(self._heads(record), self._names):
                raise DeviceError(f"outputs of '{self.image.target.name}' were damaged on their way out")
        return result, records

    def _heads(self, record: Record) -> dict[str, np.ndarray]:
        heads, at = {}, 0
        for name, shape in self.header.outputs:
            size = int(np.prod(shape))
            heads[name] = record.raw[at : at + size].reshape(shape)
            at += size
        return heads

    def _check_image(self, number: int, image: np.ndarray) -> None:
        picture_format(image, Flags.BOXES)
        assert self.image.target.firmware is not None
        most = self.image.target.firmware.line_bytes
        if (line := image[0].nbytes) > most:
            raise DeviceError(
                f"picture {number} has lines of {line:,} B, '{self.image.target.name}' takes {most:,} B "
                "(line_bytes of its target file)"
            )


def _batches(
    pictures: Sequence[np.ndarray], raw_bytes: int, check: Callable[[int, np.ndarray], None]
) -> Iterator[list[np.ndarray]]:
    """Checked pictures in groups that one emulator run takes; each is fetched once, so `pictures` may decode lazily."""
    part: list[np.ndarray] = []
    size = 0
    for number in range(len(pictures)):
        picture = pictures[number]
        check(number, picture)
        cost = picture.nbytes + raw_bytes
        if part and (size + cost > BATCH_BYTES or len(part) == BATCH_PICTURES):
            yield part
            part, size = [], 0
        part.append(picture)
        size += cost
    if part:
        yield part


class HostDevice(Device):
    """The runtime as a shared library of this machine. Nothing is counted; with `profile`, nodes are timed."""

    def __init__(self, data: bytes, header: TessHeader, profile: bool = False):
        self.header = header
        self.model = HostModel(data)
        self._size = len(data)
        self._costs = self.model.profile(header.n_nodes) if profile else None

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(
            target="host", unit=None, profile_unit=None if self._costs is None else "ns", clock_hz=None,
            arena=self.model.needed, stack=None, touched=None, text=None, data=None, bss=None, model=self._size,
        )  # fmt: skip

    def run_frames(self, frames: Sequence[np.ndarray]) -> list[RunRecord]:
        records = []
        for number in range(len(frames)):
            frame = frames[number]
            self._check_frame(number, frame)
            self._begin_profile()
            records.append(RunRecord(self.model.run(frame), profile=self._profile()))
        return records

    def detect_many(self, images: Sequence[np.ndarray], raw: bool = False) -> list[DetectRecord]:
        self._check_decoder()
        records = []
        for number in range(len(images)):
            image = images[number]
            pixels = _HOST_FORMATS[picture_format(image, Flags.BOXES)]
            lines = image.astype("<u2").view(np.uint8).reshape(*image.shape, 2) if pixels == "rgb565_le" else image
            self._begin_profile()
            heads, boxes = self.model.run_and_detect(lines, pixels) if raw else (None, self.model.detect(lines, pixels))
            records.append(DetectRecord(boxes, heads, profile=self._profile()))
        return records

    def selftest(self) -> None:
        self.model.selftest()

    def _begin_profile(self) -> None:
        if self._costs is not None:
            self._costs[:] = 0

    def _profile(self) -> np.ndarray | None:
        return None if self._costs is None else self._costs.copy()


def open_host(tess: bytes | str | Path, *, profile: bool = False) -> HostDevice:
    """Make a model.tess ready on this machine; `profile` times every node, which costs a little itself.

    Raise ModelFileError or host.TessError for a damaged model.
    """
    data = load_tess(tess)
    return HostDevice(data, read_header(data), profile)


def open_emulator(
    tess: bytes | str | Path,
    target: str = "mps2-an500",
    *,
    sram: int | None = None,
    profile: bool = False,
    kernels: str | None = None,
    timeout: float = 60.0,
) -> EmulatorDevice:
    """Build firmware around a model.tess and make it ready. `sram` imitates a smaller chip; `profile` counts per node; `kernels`
    as in build(); `timeout` in seconds a picture.

    Raise ModelFileError for a damaged model, BuildError where it does not fit or gcc is missing, DeviceError where QEMU
    is missing.
    """
    data = load_tess(tess)
    header = read_header(data)
    image = build(target, data, sram=sram, profile=profile, kernels=kernels)
    qemu_command(image.target.firmware, image.elf)  # to hear now that it is not installed
    return EmulatorDevice(image, header, timeout, profile)


if __name__ == "__main__":
    from firmware.cli import run
    from firmware.device_cli import main

    run(main)
