"""A board with an STM32 in an instruction emulator: unicorn executes the image's bytes, what follows answers its registers.

The models know what the reference manuals demand and refuse what a chip would not forgive: a clock that is not ready, too few
wait states, a peripheral without a clock, a buffer that DMA cannot reach or a cache hides. A register that is not modelled is
refused as well. The board is the far end of a serial line for the link's host (firmware.link.session.Port); its time is a number.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from unicorn import UC_ARCH_ARM, UC_MODE_MCLASS, UC_MODE_THUMB, UC_PROT_EXEC, UC_PROT_READ, UC_PROT_WRITE, Uc, UcError
from unicorn.arm_const import (
    UC_ARM_REG_LR,
    UC_ARM_REG_PC,
    UC_ARM_REG_R0,
    UC_ARM_REG_R1,
    UC_ARM_REG_R2,
    UC_ARM_REG_R3,
    UC_ARM_REG_R12,
    UC_ARM_REG_SP,
    UC_ARM_REG_XPSR,
    UC_CPU_ARM_CORTEX_M7,
)

from tests.firmware.stm32_flash import Cells, Flash, Refused

FLASH = 0x08000000
ENDLESS = 200_000  # reads of one register without any other access
PATIENCE = 64  # empty looks for a byte before the board counts as waiting
ACCESS_CYCLES = 20
MOST_BOOTS = 8
BUS_FAULT = 5
PUSHED = (
    UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3, UC_ARM_REG_R12, UC_ARM_REG_LR, UC_ARM_REG_PC, UC_ARM_REG_XPSR,
)  # fmt: skip

TIM2, SCS, DWT = 0x40000000, 0xE000E000, 0xE0001000
ISR, TDR, RDR, BRR, CR3 = 0x1C, 0x28, 0x24, 0x0C, 0x08  # of a USART
NDTR, PAR, M0AR = 4, 8, 12  # of a DMA stream


class Board(ABC):
    """What all boards share: core, caches, protection, cycle counter, USART and its DMA. A chip adds clocks and power."""

    memories: ClassVar[dict[int, int]]  # address -> size of each RAM
    peripherals: ClassVar[tuple[tuple[int, int], ...]]  # address and size of what answers with registers
    plain: ClassVar[dict[int, int]]  # registers that only keep what is written -> value after reset
    dma_reaches: ClassVar[tuple[tuple[int, int], ...]]
    flash_size: ClassVar[int]
    flash_at: ClassVar[int] = FLASH
    controller: ClassVar[type[Flash]]
    usart: ClassVar[int]
    stream: ClassVar[int]
    cache_sets: ClassVar[int]
    slow_clock: ClassVar[int]  # Hz after a reset
    slow_timer: ClassVar[int] = TIM2  # counts on when CYCCNT wraps
    cpu: ClassVar[int] = UC_CPU_ARM_CORTEX_M7
    name = "board"

    def __init__(self, image: bytes, crystal: bool = True, cells: Cells | None = None) -> None:
        """With `cells` of an earlier board the image is what those hold."""
        self.crystal = crystal
        self.options = {"crystal": crystal}
        self.uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(self.cpu)
        self.uc.mem_map(FLASH, self.flash_size, UC_PROT_READ | UC_PROT_EXEC)
        self.uc.mem_write(FLASH, cells.data if cells else image.ljust(self.flash_size, b"\xff"))
        for base, size in self.memories.items():
            self.uc.mem_map(base, size, UC_PROT_READ | UC_PROT_WRITE)
        for base, size in (*self.peripherals, (SCS, 0x1000), (DWT, 0x1000)):
            self.uc.mmio_map(base, size, self._on_read, base, self._on_write, base)
        self.time, self.cycles, self.boots = 0.0, 0, 0
        self.rate = 115200  # of the host's end
        self.sent = bytearray()
        self.flash = self.controller(self, cells or Cells(image))
        self._rules, self._gates = self.rules(), self.gates()
        self.reset(power_on=True)

    # -- the host's end of the line --

    def now(self) -> float:
        return self.time

    def read(self, timeout: float) -> bytes:
        until = self.time + timeout
        self.run()
        if not self.sent:
            self.time = max(self.time, until)
        data, self.sent = bytes(self.sent), bytearray()
        return data

    def write(self, data: bytes) -> None:
        self.time += len(data) * 10 / self.rate
        if self._receives():
            self._deliver(self._garbled(data))

    def set_baud(self, rate: int) -> bool:
        self.rate = rate
        return True

    def reopen(self) -> bool:
        return False

    def close(self) -> None:  # noqa: B027  it holds nothing
        pass

    # -- the core --

    def reset(self, power_on: bool = False) -> None:
        """Registers as after a reset; RAM keeps what it has."""
        self.registers = {**self.plain, **self.flash.registers}
        self.flash.reset()
        self.waiting: dict[int, list[tuple[int, int]]] = {}  # register -> (bits, reads until they are set)
        self.cleaned: set[int] = set()  # what DCISW was given
        self.mpu: dict[int, tuple[int, int]] = {}
        self.core = self.slow_clock
        self.counters = {self.slow_timer + 0x24: 0, DWT + 4: 0}
        self.fetched = self.same = 0
        self.looks, self.last = PATIENCE, -1
        self.failure: BaseException | None = None
        self.faulted = False
        self.again = False
        self.last_stop = -1
        self.power_on(power_on)
        sp, pc = (int.from_bytes(self.uc.mem_read(FLASH + 4 * i, 4), "little") for i in range(2))
        self.uc.reg_write(UC_ARM_REG_SP, sp)
        self.pc = pc
        self.boots += 1

    def run(self) -> None:
        """Execute until the program waits for a byte. Raise Refused."""
        self.looks = max(self.looks, PATIENCE)
        while self.looks > 0:
            try:
                self.uc.emu_start(self.pc | 1, 0xFFFFFFFE, timeout=120_000_000)
                self.pc = self.uc.reg_read(UC_ARM_REG_PC)
            except UcError as error:
                if self.failure is None:
                    self._take_fault(error)
            if self.failure is not None:
                raise self.failure
            if self.faulted:
                self.faulted = False
                self._take_fault("a bus fault")
            elif self.again:
                self.reset()
                if self.boots > MOST_BOOTS:
                    raise Refused("the program resets in a loop")
            elif self.looks > 0 and self.pc == self.last_stop:
                raise Refused("the program runs on without an access to any register")
            self.last_stop = self.pc

    def _take_fault(self, error: UcError | str) -> None:
        """Exception entry, DDI 0403E B1.5.6."""
        vectors = self.registers[SCS + 0xD08]
        handler = int.from_bytes(self.uc.mem_read(vectors + 4 * BUS_FAULT, 4), "little")
        sp = self.uc.reg_read(UC_ARM_REG_SP) - 32
        words = [self.uc.reg_read(number) for number in PUSHED]
        if self.registers.get(SCS + 0xD28):
            raise Refused(f"a fault in the fault handler: {error} at {words[6]:#x}")
        self.uc.mem_write(sp, b"".join(word.to_bytes(4, "little") for word in words))
        self.uc.reg_write(UC_ARM_REG_SP, sp)
        self.registers[SCS + 0xD28] = 1 << 9  # CFSR: precise data bus error
        self.pc = handler

    # -- registers --

    def _on_read(self, uc: Uc, offset: int, size: int, base: int) -> int:
        try:
            return self.read_register(base + offset, size)
        except BaseException as error:
            self.fail(error)
            return 0

    def _on_write(self, uc: Uc, offset: int, size: int, value: int, base: int) -> None:
        try:
            self.write_register(base + offset, size, value)
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException | None) -> None:
        """Stop: with this exception, or, without one, for a bus fault."""
        self.failure, self.faulted = error, error is None
        self.uc.emu_stop()

    def read_register(self, at: int, size: int = 4) -> int:
        self._accessed(at, size)
        self.same = self.same + 1 if at == self.last else 0
        self.last = at
        if self.same > ENDLESS:
            raise Refused(f"the program waits for ever for register {at:#x}")
        if at in self.counters:
            return (self.cycles >> (8 if at == self.slow_timer + 0x24 else 0)) - self.counters[at] & 0xFFFFFFFF
        if at == self.usart + ISR:
            return 0xC0  # everything is sent at once; time is counted when it is
        if at == self.stream + NDTR:
            self._look()
        status = self.flash.status(at)
        if status is not None:
            return status
        for bits, reads in self.waiting.pop(at, []):
            if reads > 0:
                self.waiting.setdefault(at, []).append((bits, reads - 1))
            else:
                self.registers[at] |= bits
        return self.registers[at]

    def write_register(self, at: int, size: int, value: int) -> None:
        self._accessed(at, size)
        self.last = -1
        before = self.registers.get(at, 0)
        if at in self.counters:
            self.counters[at] = (self.cycles >> (8 if at == self.slow_timer + 0x24 else 0)) - value
            return
        rule = self._rules.get(at)
        if at == self.usart + TDR:
            self._send(value)
            return
        self.registers[at] = value
        if rule:
            rule(before, value)

    def _accessed(self, at: int, size: int) -> None:
        self.pass_cycles(ACCESS_CYCLES)
        if size != 4 or at not in self.registers and at not in self.counters:
            raise Refused(f"there is no register of {size} bytes at {at:#x}")
        for enable, bit, first, last in self._gates:
            if first <= at <= last and not self.registers[enable] >> bit & 1:
                raise Refused(f"register {at:#x} has no clock: bit {bit} of {enable:#x} is 0")

    def pass_cycles(self, cycles: int) -> None:
        self.cycles += cycles
        self.time += cycles / self.core

    def later(self, at: int, bits: int, reads: int = 5) -> None:
        """Clear the bits of a register; they come after so many reads."""
        self.registers[at] &= ~bits
        self.waiting.setdefault(at, []).append((bits, reads))

    def rules(self) -> dict[int, Callable[[int, int], None]]:
        """What is to be done, or refused, when a register is written."""
        return {
            **self.flash.rules(),
            SCS + 0xF5C: self.flash.dropped,
            SCS + 0xD0C: self._reset_requested,
            SCS + 0xD14: self._configured,
            SCS + 0xF60: lambda _, value: self.cleaned.add(value),
            SCS + 0xDA0: self._region_set,
            DWT: self._counter_started,
            self.slow_timer + 0x28: self._prescaled,
            self.usart + BRR: self._rate_set,
            self.stream: self._stream_set,
            self.stream + NDTR: self._stream_changed,
            self.stream + M0AR: self._stream_changed,
        }

    # -- core peripherals --

    def _reset_requested(self, _: int, value: int) -> None:
        if value >> 16 != 0x05FA or not value & 4:
            raise Refused(f"AIRCR: {value:#x} is no reset request")
        self.again = True
        self.uc.emu_stop()

    def _configured(self, before: int, value: int) -> None:
        if value & ~before & 1 << 16:
            expected = {way << 30 | line << 5 for way in range(4) for line in range(self.cache_sets)}
            if self.cleaned != expected:
                raise Refused("the data cache is switched on with lines of before in it")
            if not self.registers[SCS + 0xD94] & 1:
                raise Refused("the data cache is switched on before the MPU says what it may hold")

    def _region_set(self, _: int, value: int) -> None:
        number, base = self.registers[SCS + 0xD98], self.registers[SCS + 0xD9C]
        size = 2 << (value >> 1 & 31)
        if base % size:
            raise Refused(f"MPU: region {number} at {base:#x} is not aligned to its size {size:#x}")
        self.mpu[number] = (base, value)
        self.flash.protected()

    def _region(self, at: int) -> int:
        """Attributes of the region with the highest number that holds it."""
        for _, (base, value) in sorted(self.mpu.items(), reverse=True):
            if value & 1 and base <= at < base + (2 << (value >> 1 & 31)):
                return value
        raise Refused(f"MPU: no region holds {at:#x}")

    def cached(self, at: int) -> bool:
        return bool(self._region(at) & 1 << 17)

    def writable(self, at: int) -> bool:
        """Whether a store gets there, and at once."""
        value = self._region(at)
        if value >> 24 & 7 == 3 and value >> 16 & 0x3F != 1:
            raise Refused(f"MPU: {at:#x} is written as memory, which may come late or in another order, not as a device")
        return value >> 24 & 7 == 3

    def data_cache(self) -> bool:
        return bool(self.registers[SCS + 0xD14] & 1 << 16)

    def ignores_faults(self) -> bool:
        return bool(self.registers[SCS + 0xD14] & 1 << 8)

    def power_cycled(self) -> "Board":
        """The board when the power is back: its flash as it was left, its RAM anything."""
        board = type(self)(b"", cells=self.flash.cells(), **self.options)
        for base, size in self.memories.items():
            board.uc.mem_write(base, random.Random(size).randbytes(size))
        return board

    def _counter_started(self, _: int, value: int) -> None:
        if not self.registers[SCS + 0xDFC] >> 24 & 1 or self.registers[DWT + 0xFB0] != 0xC5ACCE55:
            raise Refused("DWT: locked, or without TRCENA")

    def _prescaled(self, _: int, value: int) -> None:
        if self.timer_clock() * 256 != self.core * (value + 1):
            raise Refused(f"the slow timer: a tick is {self.core * (value + 1) / self.timer_clock():g} cycles, not 256")

    # -- serial line --

    def _rate_set(self, _: int, value: int) -> None:
        if self.registers[self.usart] & 1:
            raise Refused("USART: BRR is written while UE is 1")
        if value < 16:
            raise Refused(f"USART: a divider of {value} is too small for 16 samples a bit")

    def _line_rate(self) -> float:
        return self.usart_clock() / self.registers[self.usart + BRR]

    def _garbled(self, data: bytes) -> bytes:
        fits = abs(self._line_rate() / self.rate - 1) < 0.025
        return data if fits else bytes(byte * 167 + 13 & 0xFF for byte in data)

    def _send(self, value: int) -> None:
        if self.registers[self.usart] & 9 != 9 or not self.pins_connected():
            raise Refused("USART: the sender is off, or its pins are not connected")
        self.sent += self._garbled(bytes([value & 0xFF]))
        self.pass_cycles(round(10 * self.core / self._line_rate()))
        self.looks = max(self.looks, PATIENCE)

    def _receives(self) -> bool:
        enabled = self.registers[self.usart] & 5 == 5 and self.registers[self.usart + CR3] & 1 << 6
        return bool(enabled and self.registers[self.stream] & 1)

    def _stream_changed(self, _before: int, _value: int) -> None:
        if self.registers[self.stream] & 1:
            raise Refused("DMA: a stream is changed while it is enabled")

    def _stream_set(self, _: int, value: int) -> None:
        if not value & 1:
            return
        buffer, size = self.registers[self.stream + M0AR], self.registers[self.stream + NDTR]
        if self.registers[self.stream + PAR] != self.usart + RDR or not self.requests_usart(value):
            raise Refused("DMA: the stream is not that of the USART's receiver")
        if value & 0x7AC0 or value & 0x500 != 0x500:  # direction, sizes, PINC; MINC and CIRC
            raise Refused(f"DMA: {value:#x} is not a ring of bytes from the peripheral")
        for at in (buffer, buffer + size - 1):
            if not any(base <= at < base + length for base, length in self.dma_reaches):
                raise Refused(f"DMA: {at:#x} is out of its reach")
            if self.cached(at):
                raise Refused(f"DMA: the cache hides what is written to {at:#x}")
        self.ring = size

    def _deliver(self, data: bytes) -> None:
        self.fetched += len(data)
        if self.fetched > self.ring:
            raise Refused("DMA: received bytes were overwritten before they were read")
        for byte in data:
            left = self.registers[self.stream + NDTR]
            self.uc.mem_write(self.registers[self.stream + M0AR] + self.ring - left, bytes([byte]))
            self.registers[self.stream + NDTR] = left - 1 or self.ring
        self.looks += len(data)

    def _look(self) -> None:
        self.looks -= 1
        if self.looks <= 0:
            self.fetched = 0
            self.uc.emu_stop()

    # -- what a chip says --

    @abstractmethod
    def power_on(self, cold: bool) -> None:
        """Sets the reset flags."""

    @abstractmethod
    def gates(self) -> tuple[tuple[int, int, int, int], ...]:
        """(enable register, bit, first address, last address) of what needs a clock."""

    @abstractmethod
    def timer_clock(self) -> int:
        """Of TIM2, in Hz."""

    @abstractmethod
    def usart_clock(self) -> int:
        """What the USART divides, in Hz."""

    @abstractmethod
    def pins_connected(self) -> bool:
        """Whether the USART reaches the ST-Link."""

    @abstractmethod
    def requests_usart(self, settings: int) -> bool:
        """Whether the stream takes what the USART receives."""


def core_registers(cache_sets: int) -> dict[int, int]:
    """System control space, MPU, DWT and TIM2 after a reset."""
    offsets = (
        0xD04, 0xD08, 0xD0C, 0xD14, 0xD24, 0xD28, 0xD2C, 0xD84, 0xD88, 0xD94, 0xD98, 0xD9C, 0xDA0, 0xDFC, 0xF50, 0xF5C, 0xF60,
    )  # fmt: skip
    ccsidr = {SCS + 0xD80: (cache_sets - 1) << 13 | 3 << 3 | 1}
    others = (DWT, DWT + 0xFB0, TIM2, TIM2 + 0x14, TIM2 + 0x28)
    return {**dict.fromkeys([SCS + offset for offset in offsets], 0), **ccsidr, **dict.fromkeys(others, 0)}


def serial_registers(usart: int, stream: int) -> dict[int, int]:
    offsets = {usart: (0, CR3, BRR, ISR, RDR, TDR), stream: (0, NDTR, PAR, M0AR)}
    return {base + offset: 0 for base, all_of_it in offsets.items() for offset in all_of_it}
