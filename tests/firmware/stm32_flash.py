"""The flash of a board in stm32_board.py: what its controller asks for and refuses, and what a cut of the power leaves behind.

Erased bytes are 0xFF and bits only fall. A cut leaves a sector or a word half done; where the chip has error correction, what
is half done cannot be read: a bus fault, unless the program runs with such faults ignored. Lines of the cache that were written
behind its back are stale until the program drops them.
"""

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from unicorn import UC_HOOK_MEM_READ, UC_HOOK_MEM_WRITE_PROT
from unicorn.arm_const import UC_ARM_REG_FAULTMASK

if TYPE_CHECKING:
    from tests.firmware.stm32_board import Board

KEYS = [0x45670123, 0xCDEF89AB]
LINE = 32
ERASE_SECONDS = 4.0  # the longest of either data sheet for a sector
BUSY_READS = 4  # of the status until an operation is over


class Refused(AssertionError):
    """The firmware did what the chip does not stand."""


class PowerCut(Exception):
    """The board has no power any more; what its flash holds is a `Cells`."""


@dataclass
class Cells:
    """What outlives the power: the whole flash, its words that error correction gives up, and those written since their erase."""

    data: bytes
    torn: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)


class Flash(ABC):
    """The part of a flash that its program may change. Addresses are absolute."""

    first: ClassVar[int]  # of the places for models
    end: ClassVar[int]
    sector: ClassVar[int]  # bytes
    word: ClassVar[int]  # bytes that are programmed at once
    corrects: ClassVar[bool]  # has error correction
    registers: ClassVar[dict[int, int]]
    WRPERR: ClassVar[int]  # of the status

    def __init__(self, board: "Board", cells: Cells) -> None:
        self.board, self.uc = board, board.uc
        self.torn, self.written = set(cells.torn), set(cells.written)
        self.stale: set[int] = set()
        self.write_protected = False  # by the chip's option bytes
        self.steps, self.cut_at = 0, 0  # erases and programmed words so far; the one at which the power fails, 0 for none
        self.chance = random.Random(0)
        if self.first < self.end:
            self.uc.hook_add(UC_HOOK_MEM_WRITE_PROT, self._on_write, begin=self.first, end=self.end - 1)
        if self.torn:  # where nothing is torn, reading is left to unicorn: a hook at each word is slow
            self.uc.hook_add(UC_HOOK_MEM_READ, self._on_read, begin=min(self.torn), end=max(self.torn) + self.word - 1)
        self.reset()

    def reset(self) -> None:
        self.keys: list[int] = []
        self.busy = self.flags = 0
        self.stale.clear()

    def cells(self) -> Cells:
        base, size = self.board.flash_at, self.board.flash_size
        return Cells(bytes(self.uc.mem_read(base, size)), set(self.torn), set(self.written))

    # -- what all controllers share --

    def locked(self) -> bool:
        return len(self.keys) < 2

    def unlock(self, _: int, value: int) -> None:
        if len(self.keys) > 1 or value != KEYS[len(self.keys)]:
            raise Refused("FLASH: a wrong key, or keys while it is open: it stays locked until the next reset")
        self.keys.append(value)

    def changed(self, before: int, value: int, lock: int) -> int:
        """The control register after a write of `value`."""
        if self.locked():
            raise Refused("FLASH: CR is written while it is locked")
        if self.busy:
            raise Refused("FLASH: CR is written while an operation runs")
        if value & lock:
            self.keys = []
            return before | lock
        return value

    def begin(self, seconds: float) -> None:
        self.busy = BUSY_READS
        self.board.pass_cycles(round(seconds * self.board.core))

    def looked(self) -> int:
        """Whether an operation still runs, as the status says."""
        self.busy = max(self.busy - 1, 0)
        return self.busy > 0

    def erase(self, at: int) -> None:
        if not self.first <= at < self.end:
            raise Refused(f"FLASH: the sector at {at:#x} holds the program")
        if self.write_protected:
            self.flags |= self.WRPERR
            return
        if self._cut():
            self._tear(at, self.sector, bytes(self.uc.mem_read(at, self.sector)), b"\xff" * self.sector)
        self.uc.mem_write(at, b"\xff" * self.sector)
        for words in (self.torn, self.written):
            words.difference_update(range(at, at + self.sector, self.word))
        self._done(at, self.sector)
        self.begin(ERASE_SECONDS)

    def program(self, at: int, data: bytes) -> None:
        before = bytes(self.uc.mem_read(at, len(data)))
        if self.corrects and at in self.written | self.torn:
            raise Refused(f"FLASH: the word at {at:#x} was written before: its error correction would not fit")
        if any(new & ~old for new, old in zip(data, before, strict=True)):
            raise Refused(f"FLASH: a 0 cannot become a 1 at {at:#x}")
        if self._cut():
            self._tear(at, len(data), before, data)
        self.uc.mem_write(at, data)
        self.written.add(at)
        self._done(at, len(data))
        self.begin(50e-6)

    def _done(self, at: int, size: int) -> None:
        if self.board.data_cache():
            self.stale.update(range(at & -LINE, at + size, LINE))

    def dropped(self, _: int, value: int) -> None:
        """A line of the cache."""
        if self.busy:
            raise Refused("FLASH: the cache drops a line that still changes")
        self.stale.discard(value & -LINE)

    def protected(self) -> None:
        """The MPU's regions are others now."""
        if (self.stale or self.busy) and self.board.cached(self.first):
            raise Refused(f"FLASH: the cache may still have what was at {min(self.stale or {self.first}):#x} before")

    # -- the power fails --

    def _cut(self) -> bool:
        self.steps += 1
        return self.steps == self.cut_at

    def _tear(self, at: int, size: int, before: bytes, after: bytes) -> None:
        """Of each word, by chance: nothing yet, everything, or something in between."""
        for word in range(0, size, self.word):
            old, new = before[word : word + self.word], after[word : word + self.word]
            outcome = self.chance.choice(("old", "new", "between"))
            if outcome == "between":
                noise = self.chance.randbytes(len(old))
                between = bytes(n & m | o & ~m & 0xFF for o, n, m in zip(old, new, noise, strict=True))
                if self.corrects and old != new:
                    self.torn.add(at + word)
                new = between
            if outcome != "old":
                self.uc.mem_write(at + word, new)
                self.written.add(at + word)
        raise PowerCut

    # -- accesses --

    def _on_write(self, _uc, _access: int, at: int, size: int, value: int, _data) -> bool:
        try:
            if not self.board.writable(at):
                return False  # the MPU makes a fault of it
            if self.busy or self.locked():
                raise Refused("FLASH: written while it is locked, or an operation runs")
            self.store(at, size, value & (1 << 8 * size) - 1)
        except BaseException as error:
            self.board.fail(error)
        return True

    def _on_read(self, _uc, _access: int, at: int, _size: int, _value: int, _data) -> None:
        if at & -self.word in self.torn:
            self.found_damage()
            if not (self.uc.reg_read(UC_ARM_REG_FAULTMASK) & 1 and self.board.ignores_faults()):
                self.board.fail(None)

    # -- what a chip says --

    @abstractmethod
    def rules(self) -> dict:
        """As Board.rules."""

    @abstractmethod
    def status(self, at: int) -> int | None:
        """What the status register reads, None where another register is meant."""

    @abstractmethod
    def store(self, at: int, size: int, value: int) -> None:
        """The program has written to a place."""

    def found_damage(self) -> None:  # noqa: B027  where there is no error correction nothing is found
        """A word was read that error correction gives up."""


class FlashH7(Flash):
    """Bank 2 of the STM32H743 (RM0433 chapter 4): a word of 32 bytes goes through a buffer."""

    first, end, sector, word, corrects = 0x08180000, 0x08200000, 128 << 10, 32, True
    KEYR, CR, SR, CCR = (0x52002000 + at for at in (0x104, 0x10C, 0x110, 0x114))
    LOCK, PG, SER, START, QW, DBECCERR, WRPERR = 1, 2, 4, 0x80, 4, 1 << 26, 1 << 17
    registers: ClassVar = {KEYR: 0, CR: 0x31, SR: 0, CCR: 0}

    def reset(self) -> None:
        super().reset()
        self.buffer: dict[int, bytes] = {}

    def rules(self) -> dict:
        return {self.KEYR: self.unlock, self.CR: self._control, self.CCR: self._cleared, self.SR: self._read_only}

    def status(self, at: int) -> int | None:
        return self.QW * self.looked() | self.flags if at == self.SR else None

    def _read_only(self, *_: int) -> None:
        raise Refused("FLASH: SR2 is only read; CCR2 clears it")

    def _cleared(self, _: int, value: int) -> None:
        self.flags &= ~value

    def _control(self, before: int, value: int) -> None:
        value = self.changed(before, value, self.LOCK)
        if value & self.LOCK and before & (self.PG | self.SER):
            raise Refused("FLASH: CR2 is locked with PG or SER in it")
        if self.buffer:
            raise Refused("FLASH: CR2 is written while the buffer holds a part of a word")
        if value >> 4 & 3 != 3 or value & self.PG and value & self.SER:
            raise Refused(f"FLASH: CR2 {value:#x} is no operation of 64 bits")
        if value & self.START:
            if value & ~self.START != before or not value & self.SER:
                raise Refused("FLASH: START comes after SER and the number of the sector")
            self.erase(0x08100000 + (value >> 8 & 7) * self.sector)
        self.board.registers[self.CR] = value & ~self.START

    def store(self, at: int, size: int, value: int) -> None:
        if not self.board.registers[self.CR] & self.PG or size != 4:
            raise Refused("FLASH: written without PG (PGSERR)")
        if any(at & -32 != other & -32 for other in self.buffer) or at in self.buffer:
            raise Refused("FLASH: another word before this one is whole (INCERR), or a part of it twice (STRBERR)")
        self.buffer[at] = value.to_bytes(4, "little")
        if len(self.buffer) == 8:
            data = b"".join(self.buffer[part] for part in sorted(self.buffer))
            self.buffer = {}
            self.program(at & -32, data)

    def found_damage(self) -> None:
        self.flags |= self.DBECCERR


class FlashFixed(Flash):
    """A flash that no program of ours changes: what is written there is a fault."""

    first, end, sector, word, corrects = 0, 0, 1, 1, False
    registers: ClassVar = {}

    def rules(self) -> dict:
        return {}

    def status(self, at: int) -> int | None:
        return None

    def store(self, at: int, size: int, value: int) -> None:
        raise AssertionError


class FlashF7(Flash):
    """The STM32F746 (RM0385 chapter 3): one bank, 32 bits at a time, no error correction."""

    first, end, sector, word, corrects = 0x08080000, 0x08100000, 256 << 10, 4, False
    KEYR, SR, CR = (0x40023C00 + at for at in (4, 0xC, 0x10))
    PG, SER, STRT, LOCK, BSY, WRPERR = 1, 2, 1 << 16, 1 << 31, 1 << 16, 1 << 4
    registers: ClassVar = {KEYR: 0, SR: 0, CR: 1 << 31}

    def rules(self) -> dict:
        return {self.KEYR: self.unlock, self.CR: self._control, self.SR: self._cleared}

    def status(self, at: int) -> int | None:
        return self.BSY * self.looked() | self.flags if at == self.SR else None

    def _cleared(self, _: int, value: int) -> None:
        self.flags &= ~value

    def _control(self, before: int, value: int) -> None:
        value = self.changed(before & ~self.LOCK, value, self.LOCK)
        if value & self.LOCK and before & (self.PG | self.SER):
            raise Refused("FLASH: CR is locked with PG or SER in it")
        if value >> 8 & 3 != 2 or value & self.PG and value & self.SER:
            raise Refused(f"FLASH: CR {value:#x} is no operation of 32 bits")
        if value & self.STRT:
            if value & ~self.STRT != before & ~self.LOCK or not value & self.SER:
                raise Refused("FLASH: STRT comes after SER and the number of the sector")
            number = value >> 3 & 15
            if number not in (5, 6, 7):
                raise Refused(f"FLASH: sector {number} holds the program")
            self.erase(0x08040000 + (number - 5) * self.sector)
        self.board.registers[self.CR] = value & ~self.STRT

    def store(self, at: int, size: int, value: int) -> None:
        if not self.board.registers[self.CR] & self.PG or size != 4:
            raise Refused("FLASH: written without PG, or not 32 bits (PGPERR)")
        self.program(at, value.to_bytes(4, "little"))
