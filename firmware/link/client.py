"""What a host asks of a device over the link: who it is, pictures, its self-test, a new model. SPEC.md sections 8.3 to 8.5.

Every request here is a pure function of what it sends, so after a lost session it is simply made again. What a device keeps from
picture to picture is asked for by counting.py and following.py.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np

from firmware.cc import BuildError
from firmware.compiler.image import output_checksum
from firmware.header import TessHeader, read_header
from firmware.host import error_text
from firmware.link.session import LinkError, Message, Port, PortClosed, Session, SessionLost, Timing, Welcome

RESTARTS = 5  # of a device, or losses of a session, within one request
LETTERBOX_VERSION = 1
NETWORK_ROWS = 255  # RUN's format beside enum tess_format
UNITS = (None, "instructions", "cycles")
_RESULT = struct.Struct("<HhHHQQIIII")
_INFO = struct.Struct("<HHhBBIIIIIHHII16sIIHH8IIHH")
_PULL = struct.Struct("<HHHHHH")
_COUNTERS = ("received", "damaged", "foreign", "duplicate", "refused", "sent", "repeated", "sessions")
_STATUS = {
    -64: "this device has no place for loaded models",
    -65: "the model is larger than the device's place for it",
    -66: "the device could not erase or write its place for models",
    -67: "the model may find more boxes than the device has room for",
    -68: "a line of the picture is longer than the device's line buffer",
    -69: "there is no model on the device",
    -70: "the model has more nodes than the device has counters",
    -71: "the device has no room to count this model's average precision",
    -72: "more objects in a picture than the device has room for",
    -73: "the device expects another picture",
    -74: "the device no longer holds that picture's boxes",
}

T = TypeVar("T")


class Kind(IntEnum):
    """Sequenced messages (enum link_message_type)."""

    ASK = 16
    RUN = 17
    ROWS = 18
    SELFTEST = 19
    LOAD = 20
    CHUNK = 21
    FOUND = 22
    SCORE = 23
    TRUTH = 24
    TELL = 25
    TRACK = 26
    INFO = 32
    PULL = 33
    HEADS = 34
    BOXES = 35
    PROFILE = 36
    RESULT = 37
    SCORED = 38
    PRECISION = 39
    IDS = 40


class RequestFailed(LinkError):
    """The device answered with an error; `status` is negative (enum tess_err or link_status)."""

    def __init__(self, where: str, status: int) -> None:
        super().__init__(f"{where}: {_STATUS.get(status) or _tess_error(status)} (status {status})")
        self.status = status


@dataclass(frozen=True)
class Identity:
    """What makes two models the same: INFO's fields, and those of a file."""

    size: int
    crc: int
    tflite_sha256: bytes  # its first 16 bytes
    classes: int  # CRC-32 of the names, each with its zero
    preprocess: int  # CRC-32 of input shape, pad byte and letterbox version


@dataclass(frozen=True)
class DeviceFacts:
    """What a device says of itself. Sizes in bytes."""

    board: str
    firmware: str
    compiler: str
    model: str  # name; empty where none could be opened
    identity: Identity | None
    status: int  # of opening the model
    place: int  # of the model: 0 in the image, 1 and 2 loaded
    unit: str | None
    caches: int
    clock_hz: int | None
    memory: int
    needed: int
    line_bytes: int
    model_room: int  # of a place for loaded models, 0 without
    max_boxes: int
    n_profile: int
    precision_words: int  # of 4 B, to count average precision in
    tracks: int  # objects that can be followed at a time
    format_version: int
    isa: int
    counters: dict[str, int]


@dataclass(frozen=True)
class Answer:
    """A picture's results."""

    heads: dict[str, np.ndarray]  # int8 (h, w, c) by output name; empty unless asked for
    boxes: np.ndarray  # int32 (n, 6): x1, y1, x2, y2 (Q4), score (Q15), label
    run: int  # counts of the device's unit
    detect: int
    stack: int
    touched: int
    pulls: int
    repeats: int  # frames that either side had to send again
    profile: np.ndarray  # uint64 (n,) counts by node; empty unless built for it
    found: "Found"  # how to speak of the boxes to the device that found them


class Found(NamedTuple):
    """The boxes of one picture, by the session and the request in which the device found them."""

    session: int
    request: int


def identify(model: bytes) -> Identity:
    """The identity of a model.tess. Raises ModelFileError for a damaged one."""
    header = read_header(model)
    (crc,) = struct.unpack_from("<I", model, 12)
    shape = struct.pack("<HHHBB", *header.input_shape, model[26], LETTERBOX_VERSION)
    names = b"".join(name.encode() + b"\0" for name in header.class_names)
    return Identity(len(model), crc, model[72:88], zlib.crc32(names), zlib.crc32(shape))


class Client:
    """A device behind a port. Raises LinkError, with one line that says what is wrong and the way out."""

    def __init__(self, port: Port, timing: Timing | None = None) -> None:
        self.session = Session(port, timing)
        self.port = port
        self.facts: DeviceFacts | None = None
        self.welcome: Welcome | None = None
        self.restarts = 0
        self._boot: int | None = None
        self._request = 0
        self._expected: Identity | None = None

    def connect(self, expected: bytes | None = None) -> DeviceFacts:
        """Begin, and ask who is there. With `expected`, a model.tess, refuse a device that holds another one."""
        self._expected = None
        if expected is not None:
            self._expected = identify(expected)
        return self.persist("connecting", self._introduce)

    def run(
        self, picture: np.ndarray, pixels: int, content: tuple[int, int], header: TessHeader, raw: bool, boxes: bool
    ) -> Answer:
        """Run uint8 (h, w, bytes a pixel). `pixels` is enum tess_format or NETWORK_ROWS, for which `content` (w, h) counts."""
        size = content if pixels == NETWORK_ROWS else (picture.shape[1], picture.shape[0])
        fields = struct.pack("<BBHH", pixels, raw | boxes << 1, *size)
        return self.persist("a picture", lambda: _Run(self, picture, header).answer(fields, raw))

    def selftest(self) -> int:
        """Run the model's own test picture; what it cost. Raises RequestFailed when the outputs are not the compiler's."""
        return self.persist("the self-test", lambda: self._result(self.ask(Kind.SELFTEST))[4])

    def load(self, model: bytes, progress: Callable[[int], None] | None = None) -> DeviceFacts:
        """Give the device another model; the one it has stays in use until the new one was opened there."""
        read_header(model)
        self._expected = None
        self.persist("loading a model", lambda: self._load(model, progress))
        return self.connect(model)

    def raise_baud(self, rate: int) -> bool:
        """Go on at `rate` bits a second where both ends can; False, and as before, where not."""
        room = self.welcome.payload if self.welcome else 0
        return self.session.raise_baud(rate, bytes(i * 7 & 0xFF for i in range(min(room, 512))))

    def close(self) -> None:
        self.port.close()

    # -- sessions --

    def persist(self, what: str, request: Callable[[], T]) -> T:
        """Do it; when the session is lost, begin another one and do it again. `what` is for people."""
        for attempt in range(RESTARTS + 1):
            try:
                if attempt or self.welcome is None or self.session.welcome is None:
                    self._begin()
                self.session.start_waiting()
                return request()
            except PortClosed as error:
                self.welcome = None
                if not self.port.reopen():
                    raise error
            except SessionLost:
                self.welcome = None
        last = f"; its last start: {self.session.welcome}" if self.session.welcome else ""
        raise LinkError(
            f"{self.port.name}: the device was lost {RESTARTS + 1} times during {what}: it resets in a loop or the line is broken"
            f"{last} ({self.session.counters})"
        )

    def _begin(self) -> None:
        before = self._boot
        self.welcome = self.session.open()
        if before is not None and before != self.welcome.boot:
            self.restarts += 1
        self._boot = self.welcome.boot
        self._introduce()

    def _introduce(self) -> DeviceFacts:
        self.facts = self._info()
        if self._expected is not None:
            self._check(self.facts, self._expected)
        return self.facts

    def _check(self, facts: DeviceFacts, expected: Identity) -> None:
        if facts.identity is None:
            raise RequestFailed(f"{self.port.name}: the device's model", facts.status)
        if facts.identity == expected:
            return
        different = [
            name for name, mine, its in (
                ("class list", expected.classes, facts.identity.classes),
                ("input or letterbox", expected.preprocess, facts.identity.preprocess),
            ) if mine != its
        ]  # fmt: skip
        raise LinkError(
            f"{self.port.name}: the device holds another model, '{facts.model}' (CRC {facts.identity.crc:08x}, expected "
            f"{expected.crc:08x}{''.join(f'; another {name}' for name in different)}): "
            f"python -m firmware.device load {self.port.name} MODEL"
        )

    # -- requests --

    def ask(self, kind: Kind, fields: bytes = b"") -> int:
        """Send a request; its number."""
        request = self.next_request()
        self.session.send(kind, request.to_bytes(2, "little") + fields)
        return request

    def next_request(self) -> int:
        """A number that no request had lately."""
        self._request = (self._request + 1) & 0xFFFF
        return self._request

    def receive(self, kind: Kind, request: int, size: int) -> bytes:
        """An answer to it, of at least `size` bytes. Raises LinkError for anything else."""
        message = self.session.receive()
        if message.type != kind or len(message.payload) < size or message.payload[:2] != request.to_bytes(2, "little"):
            raise _broken(self.port, message)
        return message.payload

    def _result(self, request: int) -> tuple[int, ...]:
        fields = _RESULT.unpack_from(self.receive(Kind.RESULT, request, _RESULT.size))
        if fields[1] < 0:
            raise RequestFailed(self.port.name, fields[1])
        return fields

    def _info(self) -> DeviceFacts:
        payload = self.receive(Kind.INFO, self.ask(Kind.ASK), _INFO.size)
        (_, version, status, unit, caches, clock, memory, needed, line, room, boxes, profile, size, crc, sha, classes, preprocess,
         isa, place, *rest) = _INFO.unpack_from(payload)  # fmt: skip
        texts = [text.decode(errors="replace") for text in payload[_INFO.size :].split(b"\0")]
        if len(texts) < 4 or unit >= len(UNITS):
            raise LinkError(f"{self.port.name}: the device's answer makes no sense: flash the firmware of this release")
        identity = Identity(size, crc, sha, classes, preprocess) if status == 0 else None
        return DeviceFacts(
            board=texts[0], firmware=texts[1], compiler=texts[2], model=texts[3], identity=identity, status=status, place=place,
            unit=UNITS[unit], caches=caches, clock_hz=clock or None, memory=memory, needed=needed, line_bytes=line,
            model_room=room, max_boxes=boxes, n_profile=profile, format_version=version, isa=isa,
            counters=dict(zip(_COUNTERS, rest, strict=False)), precision_words=rest[8], tracks=rest[9],
        )  # fmt: skip

    def _load(self, model: bytes, progress: Callable[[int], None] | None) -> None:
        assert self.facts is not None and self.welcome is not None
        if len(model) > self.facts.model_room > 0:
            raise LinkError(
                f"{self.port.name}: the model has {len(model):,} B, a place for loaded models {self.facts.model_room:,} B"
            )
        request = self.ask(Kind.LOAD, struct.pack("<HI", 0, len(model)))
        self._result(request)
        part = (self.welcome.payload - 4) // 32 * 32
        for offset in range(0, len(model), part):
            self.session.send(Kind.CHUNK, offset.to_bytes(4, "little") + model[offset : offset + part])
            if progress:
                progress(min(offset + part, len(model)))
        self._result(request)


class _Run:
    """One try to run one picture."""

    def __init__(self, client: Client, picture: np.ndarray, header: TessHeader) -> None:
        self.client, self.session, self.port = client, client.session, client.port
        self.picture, self.header = picture, header
        assert client.welcome is not None
        self._part = client.welcome.payload - 2
        self._stream = b""  # its number, as ROWS begins
        self._rows = b""  # what is still to be sent of it
        self._heads = [np.zeros(int(np.prod(shape)), np.int8) for _, shape in header.outputs]
        self._boxes: list[bytes] = []
        self._profile: list[bytes] = []

    def answer(self, fields: bytes, raw: bool) -> Answer:
        repeats = self._repeats()
        request = self.client.ask(Kind.RUN, fields)
        result = None
        while result is None:
            while self._rows and self.session.room and not self.session.pending:
                self._send_rows()
            if self.session.pending or not self._rows:
                result = self._take(self.session.receive(), request)
            else:
                self.session.pump()
        _, status, n_boxes, broken, run, detect, checksum, stack, touched, pulls = result
        if status < 0:
            raise RequestFailed(self.port.name, status)
        if broken:
            raise LinkError(f"{self.port.name}: the runtime wrote outside of its work memory")
        heads = {
            name: values.reshape(shape) for (name, shape), values in zip(self.header.outputs, self._heads, strict=True)
        } if raw else {}  # fmt: skip
        boxes = b"".join(self._boxes)
        if (raw and checksum != output_checksum(heads, tuple(heads))) or len(boxes) != 12 * n_boxes:
            raise LinkError(f"{self.port.name}: results were damaged on their way")
        profile = np.frombuffer(b"".join(self._profile), "<u8")
        found = Found(self.session.number, request)
        return Answer(heads, _boxes(boxes), run, detect, stack, touched, pulls, self._repeats() - repeats, profile, found)

    def _repeats(self) -> int:
        return self.session.counters.repeated + self.session.counters.duplicate

    def _send_rows(self) -> None:
        part, self._rows = self._rows[: self._part], self._rows[self._part :]
        self.session.send(Kind.ROWS, self._stream + part)

    def _take(self, message: Message, request: int) -> tuple[int, ...] | None:
        payload = message.payload
        if len(payload) < 4 or payload[:2] != request.to_bytes(2, "little"):
            raise _broken(self.port, message)
        if message.type == Kind.PULL and len(payload) == _PULL.size:
            self._pull(*_PULL.unpack(payload)[1:])
        elif message.type == Kind.HEADS:
            self._take_heads(message)
        elif message.type == Kind.BOXES and int.from_bytes(payload[2:4], "little") == sum(map(len, self._boxes)) // 12:
            self._boxes.append(payload[4:])
        elif message.type == Kind.PROFILE:
            self._profile.append(payload[4:])
        elif message.type == Kind.RESULT and len(payload) == _RESULT.size:
            return _RESULT.unpack(payload)
        else:
            raise _broken(self.port, message)
        return None

    def _pull(self, stream: int, y: int, rows: int, col0: int, col1: int) -> None:
        height, width = self.picture.shape[:2]
        if not (0 < rows <= height - y and col0 < col1 <= width):
            raise LinkError(
                f"{self.port.name}: the device wants rows {y}..{y + rows}, columns {col0}..{col1} of a {width}x{height} picture"
            )
        self._stream = stream.to_bytes(2, "little")
        self._rows = np.ascontiguousarray(self.picture[y : y + rows, col0:col1]).tobytes()

    def _take_heads(self, message: Message) -> None:
        payload, at = message.payload, 2
        while at + 8 <= len(payload):
            output, count, first = struct.unpack_from("<HHI", payload, at)
            values = np.frombuffer(payload, np.int8, -1, at + 8)[:count]
            if output >= len(self._heads) or len(values) != count or first + count > self._heads[output].size:
                raise _broken(self.port, message)
            self._heads[output][first : first + count] = values
            at += 8 + count
        if at != len(payload):
            raise _broken(self.port, message)


def _broken(port: Port, message: Message) -> LinkError:
    return LinkError(
        f"{port.name}: the device sent a message of type {message.type} with {len(message.payload)} B that fits nothing here: "
        "flash the firmware of this release"
    )


def _boxes(data: bytes) -> np.ndarray:
    fields = np.frombuffer(data, "<u2").reshape(-1, 6)
    boxes = fields.astype(np.int32)
    boxes[:, :4] = fields[:, :4].view("<i2")
    return boxes


def _tess_error(status: int) -> str:
    try:
        return error_text(status)
    except BuildError:  # a machine without a C compiler
        return "the runtime refuses"
