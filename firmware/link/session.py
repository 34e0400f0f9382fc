"""The host's end of a session: messages arrive once each, in order, or the session is over. SPEC.md section 8.2.

The host keeps the time. It repeats what was not acknowledged, polls for what it misses, waits longer each time, and gives
up with the counters in the message.
"""

import secrets
from collections import deque
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from firmware.link.frame import VERSION, Frame, Parser, encode

WINDOW = 8  # frames that this end keeps in each direction: as many as `have` has bits
_FIRST_MESSAGE = 16
_FILLER = b"\xaa" * 2048  # more than LINK_BAUD_PATIENCE: a device at another rate goes back to its first one
_NUMBERS = 1 << 16
_FIRST_NUMBER = 0xFFF0  # near the end, so that no session is too short to wrap


class LinkError(ValueError):
    """A device that cannot be reached, does not answer, or is not the one that was expected."""


class SessionLost(LinkError):
    """The device has restarted, or knows this session no more; another one may go on."""


class PortClosed(LinkError):
    """The port is gone: unplugged, or the process behind it has ended."""


class Port(Protocol):
    """Carries bytes. Time is the port's, so that a simulated one can have its own."""

    name: str

    def read(self, timeout: float) -> bytes:
        """Bytes that have arrived, waiting up to `timeout` seconds for the first; b"" for none. Raises PortClosed."""
        ...

    def write(self, data: bytes) -> None: ...

    def now(self) -> float:
        """Seconds since some start."""
        ...

    def set_baud(self, rate: int) -> bool:
        """Go on at another rate; False where the port knows none, or not this one."""
        ...

    def reopen(self) -> bool:
        """Try to get a port back that is gone; False when it is gone for good."""
        ...

    def close(self) -> None: ...


class Control(IntEnum):
    """Frames that need no session, or carry no number of their own (enum link_control)."""

    HELLO = 1
    WELCOME = 2
    LOST = 3
    AWAKE = 4
    POLL = 5
    ACK = 6
    BAUD = 7
    ECHO = 8


class Reset(IntEnum):
    """Why a device last started (enum link_reset)."""

    UNKNOWN = 0
    POWER = 1
    PIN = 2
    SOFTWARE = 3
    WATCHDOG = 4
    BROWN_OUT = 5
    FAULT = 6


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    retry: float = 0.25  # until the first repetition; doubled each time
    retry_most: float = 4.0
    patience: float = 30.0  # without any progress
    connect: float = 10.0  # until somebody answers


@dataclass
class Counters:
    """What this end has seen."""

    sent: int = 0
    repeated: int = 0
    received: int = 0
    damaged: int = 0
    foreign: int = 0
    duplicate: int = 0
    sessions: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in asdict(self).items() if value)


class Message(NamedTuple):
    """A sequenced frame, in its turn."""

    type: int
    payload: bytes


@dataclass(frozen=True)
class Welcome:
    """What a device says when a session begins."""

    boot: int
    reset: Reset
    window: int
    payload: int  # bytes of a message at most
    pc: int
    lr: int
    cfsr: int
    base_baud: int  # 0: the port knows no rate

    def __str__(self) -> str:
        if self.reset == Reset.FAULT:
            return f"fault at pc={self.pc:#010x} lr={self.lr:#010x} cfsr={self.cfsr:#010x}"
        return self.reset.name.lower().replace("_", "-")


class Session:
    """A connection over `port`. `open` begins a session; after SessionLost it may be called again."""

    def __init__(self, port: Port, timing: Timing | None = None) -> None:
        self.port = port
        self.timing = timing or Timing()
        self.counters = Counters()
        self.welcome: Welcome | None = None
        self._parser = Parser()
        self._number = 0  # of the session; 0: none
        self._control: Frame | None = None  # the last answer to a frame without a number
        self._clear()

    def _clear(self) -> None:
        self._unacknowledged: deque[Message] = deque()
        self._first = _FIRST_NUMBER  # of them
        self._have = 0  # of those behind the first, the ones that the device has
        self._credit = 0
        self._expected = _FIRST_NUMBER  # of the next message
        self._early: dict[int, Message] = {}
        self._ready: deque[Message] = deque()
        self._ack_due = False
        self._progress()

    # -- beginning --

    def open(self) -> Welcome:
        """Begin a session, whatever was before. Raises LinkError when nobody answers or speaks another version."""
        self._number = secrets.randbits(32) | 1
        self._clear()
        self.welcome = None
        start = self.port.now()
        interval = self.timing.retry
        while self.welcome is None:
            self._transmit(Frame(Control.HELLO))
            until = self.port.now() + interval
            while self.welcome is None and self.port.now() < until:
                self._read(until - self.port.now())
            interval = min(2 * interval, self.timing.retry_most)
            if self.welcome is None:
                self.port.write(_FILLER)
            if self.welcome is None and self.port.now() - start > self.timing.connect:
                raise LinkError(self._nobody())
        self.counters.sessions += 1
        self._progress()
        return self.welcome

    def _nobody(self) -> str:
        heard = self.counters.damaged + self.counters.foreign + self.counters.received
        if heard:
            return f"{self.port.name}: what answers does not speak the link ({self.counters}); wrong port, rate or firmware"
        return f"{self.port.name}: no device answers; is the board powered, its firmware Tessera's, the port the right one?"

    def _take_welcome(self, frame: Frame) -> None:
        if frame.version != VERSION:
            raise LinkError(
                f"{self.port.name}: the device speaks version {frame.version} of the link, this tool version {VERSION}: "
                "flash the firmware of this release"
            )
        if len(frame.payload) != 20:
            return
        word = [int.from_bytes(frame.payload[at : at + 4], "little") for at in range(0, 20, 4)]
        reset = frame.payload[0]
        known = Reset(reset) if reset in Reset._value2member_map_ else Reset.UNKNOWN
        self.welcome = Welcome(frame.boot, known, frame.payload[1], word[0] >> 16, word[1], word[2], word[3], word[4])
        self._credit = frame.credit

    # -- messages --

    @property
    def number(self) -> int:
        """Of the session, 0: none."""
        return self._number

    @property
    def room(self) -> bool:
        """Whether `send` would not wait."""
        return len(self._unacknowledged) < min(self._credit, WINDOW)

    @property
    def pending(self) -> bool:
        """Whether `receive` would not wait."""
        return bool(self._ready)

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a message, waiting for room. Raises SessionLost, PortClosed, or LinkError after `patience` seconds."""
        while not self.room:
            self.pump()
        message = Message(kind, payload)
        if not self._unacknowledged:
            self._progress()
        self._unacknowledged.append(message)
        self._transmit_message(len(self._unacknowledged) - 1)

    def receive(self) -> Message:
        """The next message. Raises as `send` does."""
        while not self._ready:
            self.pump()
        return self._ready.popleft()

    def pump(self) -> None:
        """Wait for something to arrive, or for the time to repeat."""
        if not self._read(max(self._repeat_at - self.port.now(), 0.0)) and self.port.now() >= self._repeat_at:
            self._repeat()
        if self._ack_due:
            self._transmit(Frame(Control.ACK))

    def start_waiting(self) -> None:
        """Count time-outs from now: the caller has been away."""
        self._progress()

    # -- rates --

    def raise_baud(self, rate: int, pattern: bytes) -> bool:
        """Go on at `rate` where device and port can, and `pattern` comes back whole; else stay at, or go back to, the first."""
        base, wanted = self.welcome.base_baud if self.welcome else 0, rate.to_bytes(4, "little")
        if not base or not self.port.set_baud(base) or self._answer(Frame(Control.BAUD, payload=wanted)) != wanted:
            return False
        if self.port.set_baud(rate) and self._answer(Frame(Control.ECHO, payload=pattern)) == pattern:
            return True
        self.port.set_baud(base)
        self.open()
        return False

    def _answer(self, frame: Frame, tries: int = 3) -> bytes | None:
        self._control = None
        for _ in range(tries):
            self._transmit(frame)
            until = self.port.now() + 2 * self.timing.retry
            while self.port.now() < until:
                self._read(until - self.port.now())
                if self._control is not None and self._control.type == frame.type:
                    return self._control.payload
        return None

    # -- frames --

    def _transmit(self, frame: Frame) -> None:
        have = sum(1 << i for i in range(8) if (self._expected + 1 + i) % _NUMBERS in self._early)
        whole = frame._replace(
            ack=self._expected, have=have, credit=WINDOW, session=self._number,
            boot=self.welcome.boot if self.welcome else 0,
        )  # fmt: skip
        self._ack_due = False
        self.counters.sent += 1
        self.port.write(encode(whole))

    def _transmit_message(self, index: int) -> None:
        message = self._unacknowledged[index]
        self._transmit(Frame(message.type, (self._first + index) % _NUMBERS, payload=message.payload))

    def _read(self, timeout: float) -> bool:
        """Whether anything arrived."""
        data = self.port.read(timeout)
        damaged = self._parser.damaged
        for frame in self._parser.feed(data):
            self.counters.received += 1
            self._take(frame)
        self.counters.damaged = self._parser.damaged
        if self._parser.damaged > damaged:
            self._hurry()
        return bool(data)

    def _take(self, frame: Frame) -> None:
        if frame.type == Control.AWAKE:
            if self.welcome and frame.boot != self.welcome.boot:
                raise SessionLost(f"{self.port.name}: the device has restarted")
            return
        if frame.session != self._number:
            self.counters.foreign += 1
        elif frame.type == Control.WELCOME:
            if self.welcome is None:
                self._take_welcome(frame)
        elif self.welcome is None:
            self.counters.foreign += 1
        elif frame.type == Control.LOST:
            raise SessionLost(f"{self.port.name}: the device has lost the session")
        elif frame.boot == self.welcome.boot:
            self._take_acknowledgement(frame)
            if frame.type >= _FIRST_MESSAGE:
                self._take_message(frame)
            else:
                self._control = frame

    def _take_acknowledgement(self, frame: Frame) -> None:
        count = (frame.ack - self._first) % _NUMBERS
        if count > len(self._unacknowledged):
            return  # older than what is known already
        for _ in range(count):
            self._unacknowledged.popleft()
        self._first = frame.ack
        if count or frame.credit > self._credit:
            self._progress()
        self._have, self._credit = frame.have, frame.credit
        if self._have:
            self._hurry()

    def _take_message(self, frame: Frame) -> None:
        self._ack_due = True
        ahead = (frame.seq - self._expected) % _NUMBERS
        if ahead >= WINDOW or frame.seq in self._early:
            self.counters.duplicate += 1
            return
        self._early[frame.seq] = Message(frame.type, frame.payload)
        if ahead:
            self._hurry()
        while (message := self._early.pop(self._expected, None)) is not None:
            self._ready.append(message)
            self._expected = (self._expected + 1) % _NUMBERS
            self._progress()

    # -- time --

    def _progress(self) -> None:
        now = self.port.now()
        self._last_progress, self._interval, self._hurried = now, self.timing.retry, False
        self._repeat_at = now + self._interval

    def _hurry(self) -> None:
        """Something is known to be missing: do not wait the whole time, once."""
        if not self._hurried:
            self._hurried = True
            self._repeat_at = min(self._repeat_at, self.port.now() + self._interval / 8)

    def _repeat(self) -> None:
        now = self.port.now()
        if now - self._last_progress > self.timing.patience:
            raise LinkError(
                f"{self.port.name}: the device stopped answering for {self.timing.patience:g} s ({self.counters})"
            )
        for index in range(len(self._unacknowledged)):
            if index == 0 or not self._have >> (index - 1) & 1:
                self.counters.repeated += 1
                self._transmit_message(index)
        self._transmit(Frame(Control.POLL))
        self._interval = min(2 * self._interval, self.timing.retry_most)
        self._repeat_at = now + self._interval
