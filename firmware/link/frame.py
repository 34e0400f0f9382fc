"""Frames of the link, the host's end: SPEC.md section 8.1. The device's is link_frame.c; both must agree to the byte."""

import binascii
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

VERSION = 2
MOST_PAYLOAD = 4096  # of a frame that this end takes
_HEADER = struct.Struct("<BBHHBBIIH")
_CRC16, _CRC32 = struct.Struct("<H"), struct.Struct("<I")
_FIXED = _HEADER.size + _CRC16.size + _CRC32.size


class Frame(NamedTuple):
    """A checked frame."""

    type: int
    seq: int = 0
    ack: int = 0
    have: int = 0
    credit: int = 0
    session: int = 0
    boot: int = 0
    payload: bytes = b""
    version: int = VERSION


def encode(frame: Frame) -> bytes:
    """The frame's bytes on the wire, between two zeros."""
    fields = (frame.version, frame.type, frame.seq, frame.ack, frame.have, frame.credit, frame.session, frame.boot)
    header = _HEADER.pack(*fields, len(frame.payload))
    data = header + _CRC16.pack(binascii.crc_hqx(header, 0xFFFF)) + frame.payload
    return b"\0" + stuff(data + _CRC32.pack(zlib.crc32(data))) + b"\0"


def decode(data: bytes) -> Frame | None:
    """What stands between two zeros of the wire, still stuffed; None when it is damaged."""
    plain = unstuff(data)
    if plain is None or len(plain) < _FIXED:
        return None
    *fields, length = _HEADER.unpack_from(plain)
    (crc16,) = _CRC16.unpack_from(plain, _HEADER.size)
    if crc16 != binascii.crc_hqx(plain[: _HEADER.size], 0xFFFF) or length != len(plain) - _FIXED:
        return None
    if _CRC32.unpack_from(plain, len(plain) - 4)[0] != zlib.crc32(plain[:-4]):
        return None
    version, *rest = fields
    return Frame(*rest, payload=plain[_HEADER.size + 2 : -4], version=version)


def stuff(data: bytes) -> bytes:
    """COBS: no zeros, at most one byte longer in 254."""
    out = bytearray()
    for block in data.split(b"\0"):
        while len(block) >= 254:
            out += b"\xff" + block[:254]
            block = block[254:]
        out += bytes([len(block) + 1]) + block
    return bytes(out)


def unstuff(data: bytes) -> bytes | None:
    """The bytes that `stuff` was given; None for what it never gives."""
    out, at = bytearray(), 0
    while at < len(data):
        code = data[at]
        block = data[at + 1 : at + code]
        if code == 0 or len(block) != code - 1:
            return None
        out += block
        at += code
        if code < 0xFF and at < len(data):
            out.append(0)
    return bytes(out)


class Parser:
    """Bytes as they arrive -> frames. `damaged` counts what was none."""

    def __init__(self) -> None:
        self.damaged = 0
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Frames that are complete now."""
        self._rest += data
        *parts, rest = bytes(self._rest).split(b"\0")
        if len(rest) > 2 * MOST_PAYLOAD:  # no frame is that long: wait for the next zero with empty hands
            rest = rest[:MOST_PAYLOAD]
        self._rest = bytearray(rest)
        for part in filter(None, parts):
            frame = decode(part)
            if frame is None:
                self.damaged += 1
            else:
                yield frame
