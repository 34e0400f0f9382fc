"""Frames: C and Python write the same bytes, read each other's, and take nothing that is damaged."""

import ctypes

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.link.frame import MOST_PAYLOAD, Frame, Parser, decode, encode, stuff, unstuff
from tests.firmware.link_rig import library

PAYLOAD = 512  # LINK_PAYLOAD
FRAME, WIRE = 20 + PAYLOAD + 4, 541
FIELDS = ("version", "type", "seq", "ack", "have", "credit", "session", "boot")


class Header(ctypes.Structure):
    """link_header_t."""

    _fields_ = [
        ("version", ctypes.c_uint8), ("type", ctypes.c_uint8), ("seq", ctypes.c_uint16), ("ack", ctypes.c_uint16),
        ("have", ctypes.c_uint8), ("credit", ctypes.c_uint8), ("session", ctypes.c_uint32), ("boot", ctypes.c_uint32),
        ("length", ctypes.c_uint16),
    ]  # fmt: skip


class CParser(ctypes.Structure):
    """link_parser_t."""

    _fields_ = [
        ("size", ctypes.c_uint16), ("left", ctypes.c_uint8), ("zero", ctypes.c_uint8), ("bad", ctypes.c_uint8),
        ("frame", ctypes.c_uint8 * FRAME), ("canary", ctypes.c_uint8 * 64),
    ]  # fmt: skip


def c_encode(frame: Frame) -> bytes:
    header = Header(**{name: getattr(frame, name) for name in FIELDS}, length=len(frame.payload))
    scratch, wire = (ctypes.c_uint8 * FRAME)(), (ctypes.c_uint8 * WIRE)()
    write = library().link_frame_write
    write.restype = ctypes.c_size_t
    size = write(ctypes.byref(header), frame.payload, scratch, wire)
    assert size <= WIRE
    return bytes(wire[:size])


def c_feed(parser: CParser, data: bytes) -> list[Frame | None]:
    """What the device's parser makes of bytes; None for what ended and was no frame."""
    found: list[Frame | None] = []
    lib, header = library(), Header()
    for byte in data:
        size = lib.link_parse(ctypes.byref(parser), ctypes.c_uint8(byte))
        if size == 0:
            continue
        if size < 0 or lib.link_frame_read(parser.frame, ctypes.c_size_t(size), ctypes.byref(header)) != 0:
            found.append(None)
        else:
            payload = bytes(parser.frame[20 : 20 + header.length])
            found.append(Frame(**{name: getattr(header, name) for name in FIELDS}, payload=payload))
    assert not any(parser.canary)
    return found


def _number(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


frames = st.builds(
    Frame, type=_number(8), seq=_number(16), ack=_number(16), have=_number(8), credit=_number(8), session=_number(32),
    boot=_number(32), version=_number(8),
    payload=st.one_of(st.binary(max_size=PAYLOAD), st.integers(0, PAYLOAD).map(lambda n: b"\xff" * n)),
)  # fmt: skip


@settings(deadline=None)  # the first call compiles
@given(frames)
def test_both_ends_write_the_same_and_read_it(frame: Frame) -> None:
    wire = encode(frame)
    assert wire == c_encode(frame)
    assert wire[0] == wire[-1] == 0 and 0 not in wire[1:-1]
    assert decode(wire[1:-1]) == frame and list(Parser().feed(wire)) == [frame]
    assert c_feed(CParser(), wire) == [frame]


@settings(deadline=None)
@given(st.binary(max_size=900))
def test_stuffing_is_undone(data: bytes) -> None:
    stuffed = stuff(data)
    assert 0 not in stuffed and len(stuffed) <= len(data) + 1 + len(data) // 254
    assert unstuff(stuffed) == data


@settings(deadline=None, max_examples=40)
@given(frames, st.data())
def test_a_damaged_frame_is_none_and_the_next_one_is_heard(frame: Frame, data: st.DataObject) -> None:
    wire = bytearray(encode(frame))
    for bit in data.draw(st.sets(st.integers(8, 8 * len(wire) - 9), min_size=1, max_size=3)):
        wire[bit // 8] ^= 1 << bit % 8
    after = Frame(5, session=7)
    heard = [f for f in c_feed(CParser(), bytes(wire) + encode(after)) if f]
    assert heard == [after] == list(Parser().feed(bytes(wire) + encode(after)))


def test_a_frame_cut_at_any_byte_is_no_frame() -> None:
    """What a device sends after a restart is not joined to what it was sending before."""
    wire = encode(Frame(34, 3, 2, 0, 4, 99, 7, bytes(range(40)) * 3))
    awake = Frame(4, boot=8)
    for cut in range(len(wire) - 1):
        assert list(Parser().feed(wire[:cut] + encode(awake))) == [awake]
        assert [f for f in c_feed(CParser(), wire[:cut] + encode(awake)) if f] == [awake]


def test_noise_is_never_a_frame_and_stays_in_bounds() -> None:
    rng = np.random.default_rng(4)
    host, device = Parser(), CParser()
    for _ in range(40):
        noise = rng.integers(0, 256, int(rng.integers(1, 3000)), dtype=np.uint8)
        noise[rng.random(noise.size) < rng.choice([0, 0.01, 0.3])] = 0
        assert list(host.feed(noise.tobytes())) == []
        assert not any(c_feed(device, noise.tobytes()))
    assert len(host._rest) <= 2 * MOST_PAYLOAD
    last = Frame(5, session=1)
    assert list(host.feed(b"\0" + encode(last))) == [last] == [f for f in c_feed(device, b"\0" + encode(last)) if f]


def test_a_frame_longer_than_the_device_takes_is_refused() -> None:
    """Right in every byte, but larger than LINK_PAYLOAD."""
    assert c_feed(CParser(), encode(Frame(18, payload=bytes(PAYLOAD + 1)))) == [None]
