"""A device in this process and a line that fails: the link's C code behind a port with its own time, deterministic by seed.

The device has no clock, so it is a function of the bytes that reach it. It runs in a thread that is awake only while the
host's end waits: `read` hands over, the device runs until it has nothing to read, and hands back. Time is a number that
jumps to the next event, so back-off of seconds costs nothing.
"""

import ctypes
import heapq
import threading
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np

from firmware.build import Image
from firmware.cc import compile_c
from firmware.host import LINK, link_flags, link_sources, needed
from firmware.link.ports import EmulatorPort

LATENCY = 0.0005  # seconds
KINDS = ("drop", "lose", "flip", "duplicate", "reorder", "truncate", "delay", "garbage", "reset")

_READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t, ctypes.c_int)
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)
_BAUD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
_ERASE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_STORE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32
)


class _LinkHost(ctypes.Structure):
    _fields_ = [
        ("read", _READ), ("write", _WRITE), ("set_baud", _BAUD), ("store_erase", _ERASE), ("store_write", _STORE),
        ("model", ctypes.c_void_p), ("store", ctypes.c_void_p), ("model_size", ctypes.c_uint32),
        ("memory_size", ctypes.c_uint32), ("place_size", ctypes.c_uint32), ("base_baud", ctypes.c_uint32),
        ("rows_ahead", ctypes.c_uint32), ("boot", ctypes.c_uint32), ("reset", ctypes.c_uint32),
    ]  # fmt: skip


@cache
def library() -> ctypes.CDLL:
    """The link and the runtime as a shared library."""
    flags = [*link_flags(), "-fPIC", "-shared"]
    lib = ctypes.CDLL(str(compile_c([*link_sources(), LINK / "host" / "link_host.c"], flags, "liblink", ".so")))
    lib.link_host_serve.restype, lib.link_host_serve.argtypes = ctypes.c_int, [ctypes.POINTER(_LinkHost)]
    return lib


class Flash:
    """Two places that behave like flash: erased to ones, written bits only fall; `budget` bytes until the power fails."""

    def __init__(self, place_size: int, budget: int | None = None) -> None:
        self.data = np.full(2 * place_size, 0x5A, np.uint8)
        self.place_size = place_size
        self.budget = budget

    def erase(self, place: int) -> bool:
        self.data[place * self.place_size : (place + 1) * self.place_size] = 0xFF
        return True

    def write(self, place: int, offset: int, data: bytes) -> bool:
        """False, with only a part written, when the power fails."""
        assert offset % 32 == 0 and len(data) % 32 == 0 and offset + len(data) <= self.place_size
        part = len(data) if self.budget is None else min(len(data), self.budget)
        at = place * self.place_size + offset
        self.data[at : at + part] &= np.frombuffer(data[:part], np.uint8)
        if self.budget is not None:
            self.budget -= part
        return part == len(data)


@dataclass
class Faults:
    """What goes wrong on the line, drawn from a seed: each written piece, mostly a frame, meets a fault with `rate`."""

    seed: int
    rate: float = -1.0  # -1: drawn as well
    kinds: tuple[str, ...] = KINDS
    most: int = 400  # then the line is healthy, so that a schedule ends
    most_resets: int = 4
    happened: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        if self.rate < 0:
            self.rate = float(self.rng.choice([0.01, 0.03, 0.1, 0.25]))
            self.kinds = tuple(self.rng.permutation(self.kinds)[: self.rng.integers(1, len(self.kinds) + 1)])

    def pieces(self, data: bytes) -> tuple[list[tuple[float, bytes]], int | None]:
        """What becomes of written bytes: (extra delay, bytes) pieces, and after how many bytes the device is reset, if it is."""
        if sum(self.happened.values()) >= self.most or self.rng.random() >= self.rate or not data:
            return [(0.0, data)], None
        kind = str(self.rng.choice(self.kinds))
        if kind == "reset" and self.happened.get(kind, 0) >= self.most_resets:
            return [(0.0, data)], None
        self.happened[kind] = self.happened.get(kind, 0) + 1
        start, stop = sorted(int(i) for i in self.rng.integers(0, len(data) + 1, 2))
        long = float(self.rng.choice([0.001, 0.02, 0.3, 3.0]))
        if kind == "reset":
            return [(0.0, data[:start])], start
        if kind == "flip":
            bits = np.frombuffer(data, np.uint8).copy()
            for _ in range(int(self.rng.integers(1, 4))):
                bits[self.rng.integers(0, len(data))] ^= 1 << int(self.rng.integers(0, 8))
            return [(0.0, bits.tobytes())], None
        return {
            "drop": [(0.0, data[:start] + data[stop:])],
            "lose": [],
            "duplicate": [(0.0, data), (long, data)],
            "reorder": [(long, data)],  # what is written next overtakes it
            "truncate": [(0.0, data[:stop])],
            "delay": [(0.0, data[:start]), (long, data[start:])],
            "garbage": [(0.0, data[:start] + self.rng.bytes(int(self.rng.integers(1, 900))) + data[start:])],
        }[kind], None


class SimulatedPort:
    """The host's end of a line to a simulated device."""

    name = "simulated"

    def __init__(
        self, model: bytes, faults: Faults | None = None, rows_ahead: int = 0, flash: Flash | None = None, boot: int = 1,
        memory: int | None = None, base_baud: int = 0,
    ) -> None:  # fmt: skip
        self.time = 0.0
        self.written = self.received = 0  # bytes, whole life
        self.cut_after: int | None = None  # bytes to the device until it is reset, once
        self.resets = 0
        self.faults = faults
        self.flash = flash
        self._model = np.frombuffer(model, np.uint8).copy()
        self._memory = memory or needed(model) + 4096
        self._rows_ahead, self._boot, self._base_baud = rows_ahead, boot, base_baud
        self.rates = [base_baud, base_baud]  # of the host's end and of the device's
        self._events: list[tuple[float, int, str, bytes]] = []
        self._count = 0
        self._input = bytearray()
        self._inbox = bytearray()
        self._over = False  # the device must end
        self._closed = False
        self._run, self._idle = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._device, daemon=True)
        self._thread.start()
        self._idle.acquire()

    # -- the host's end --

    def now(self) -> float:
        return self.time

    def write(self, data: bytes) -> None:
        self.written += len(data)
        if self.cut_after is not None:
            if self.cut_after < len(data):
                self._schedule("device", 0.0, data[: self.cut_after])
                self._schedule("reset", 0.0, b"")
                self.cut_after = None
                return
            self.cut_after -= len(data)
        self._send("device", data)

    def read(self, timeout: float) -> bytes:
        until = self.time + timeout
        while not self._inbox:
            if not self._events or self._events[0][0] > until:
                self.time = max(until, self.time)
                return b""
            self._happen()
        data, self._inbox = bytes(self._inbox), bytearray()
        self.received += len(data)
        return data

    def set_baud(self, rate: int) -> bool:
        self.rates[0] = rate
        return bool(self._base_baud)

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        self._closed = self._over = True
        self._run.release()
        self._thread.join()

    # -- the line --

    def _send(self, to: str, data: bytes) -> bool:
        """Whether the device survived sending it."""
        if self.rates[0] != self.rates[1]:
            data = bytes(byte * 167 + 13 & 0xFF for byte in data)
        pieces, reset = self.faults.pieces(data) if self.faults else ([(0.0, data)], None)
        for delay, piece in pieces:
            self._schedule(to, delay, piece)
        if reset is not None and to == "device":
            self._schedule("reset", 0.0, b"")
        return reset is None or to == "device"

    def _schedule(self, to: str, delay: float, data: bytes) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.time + LATENCY + delay, self._count, to, data))

    def _happen(self) -> None:
        self.time, _, to, data = heapq.heappop(self._events)
        if to == "host":
            self._inbox += data
            return
        if to == "reset":
            self._over = True
        self._input += data
        self._run.release()
        self._idle.acquire()

    # -- the device's thread --

    def _device(self) -> None:
        callbacks = (
            _READ(self._device_read), _WRITE(self._device_write),
            _BAUD(self._device_baud) if self._base_baud else _BAUD(),
            _ERASE(lambda _, place: 0 if self.flash.erase(place) else -1) if self.flash else _ERASE(),
            _STORE(self._store_write) if self.flash else _STORE(),
        )  # fmt: skip
        store = self.flash.data.ctypes.data if self.flash else None
        size = self.flash.place_size if self.flash else 0
        while not self._closed:
            self._over = False
            self._input.clear()
            self.rates[1] = self._base_baud
            host = _LinkHost(
                *callbacks, self._model.ctypes.data, store, len(self._model), self._memory, size, self._base_baud,
                self._rows_ahead, self._boot, 4 if self.resets else 1,
            )  # fmt: skip
            if library().link_host_serve(ctypes.byref(host)) == -100:
                raise MemoryError("the simulated device has no memory")
            self._boot += 1
            self.resets += not self._closed
        self._idle.release()

    def _device_read(self, _ctx, data, size: int, wait: int) -> int:
        if not self._input and wait and not self._over:
            self._idle.release()
            self._run.acquire()
        if self._over:
            return -1
        count = min(size, len(self._input))
        if count:
            ctypes.memmove(data, bytes(self._input[:count]), count)
            del self._input[:count]
        return count

    def _device_write(self, _ctx, data, size: int) -> int:
        if self._over:
            return -1
        if not self._send("host", ctypes.string_at(data, size)):
            self._over = True
            return -1
        return 0

    def _device_baud(self, _ctx, rate: int) -> int:
        self.rates[1] = rate
        return 0

    def _store_write(self, _ctx, place: int, offset: int, data, size: int) -> int:
        whole = self.flash.write(place, offset, ctypes.string_at(data, size))
        if not whole:  # the power fails here
            self._over = True
        return 0 if whole else -1


class MortalEmulator(EmulatorPort):
    """QEMU that is killed, as by `kill -9`, after a number of bytes in both directions; `budgets` has one for each start."""

    budgets: ClassVar[list[int]] = []
    killed: ClassVar[int] = 0

    def __init__(self, name: str, image: Image) -> None:
        super().__init__(name, image)
        self._left = self.budgets.pop(0) if self.budgets else None

    def read(self, timeout: float) -> bytes:
        return self._spend(super().read(timeout))

    def write(self, data: bytes) -> None:
        super().write(self._spend(data))

    def _spend(self, data: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                type(self).killed += 1
                self._left = None
                self._process.kill()
        return data
