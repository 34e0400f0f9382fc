"""The link on a simulated line: the bytes of the runtime called directly, whatever happens to the line, or one clear error."""

import struct

import numpy as np
import pytest

from firmware.compiler.preprocess import content_size, letterbox
from firmware.header import SUPPORTED_VERSION, read_header
from firmware.host import HostModel
from firmware.link.client import NETWORK_ROWS, Answer, Client, Kind, RequestFailed
from firmware.link.frame import Frame, encode
from firmware.link.session import LinkError, SessionLost
from tests.firmware.link_rig import Faults, Flash, SimulatedPort
from tests.firmware.test_device import HEIGHT, WIDTH, make_tess

SCHEDULES = 50
MODELS = {kind: make_tess(kind) for kind in ("layers", "stream", "least")}
FRAMES = np.random.default_rng(2).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)


def run(client: Client, frame: np.ndarray, model: bytes, raw: bool = True, boxes: bool = True) -> Answer:
    return client.run(frame, NETWORK_ROWS, (WIDTH, HEIGHT), read_header(model), raw, boxes)


def assert_equal(answer: Answer, model: bytes, picture: np.ndarray, pixels: str = "rgb888") -> None:
    heads, boxes = HostModel(model).run_and_detect(picture, pixels)
    assert np.array_equal(answer.boxes, boxes)
    assert heads.keys() == answer.heads.keys() and all(np.array_equal(heads[n], answer.heads[n]) for n in heads)


def connected(model: bytes, **options) -> tuple[SimulatedPort, Client]:
    port = SimulatedPort(model, **options)
    client = Client(port)
    client.connect(model)
    return port, client


# -- a line without faults --


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("rows_ahead", (0, 3))
def test_all_ways_to_give_a_picture(kind: str, rows_ahead: int) -> None:
    """Network rows, lines of each format letterboxed on the device; nothing is sent twice, nothing more than was asked for."""
    model, rng = MODELS[kind], np.random.default_rng(5)
    header = read_header(model)
    port, client = connected(model, rows_ahead=rows_ahead)
    for frame in FRAMES:
        answer = run(client, frame, model)
        assert_equal(answer, model, frame)
        assert len(answer.boxes) > 0 and answer.touched <= header.arena
    shapes = {"rgb888": (90, 71, 3), "rgb565_be": (55, 100, 2), "rgb565_le": (40, 50, 2), "grey": (77, 60, 1)}
    for number, (pixels, shape) in enumerate(shapes.items()):
        picture = rng.integers(0, 256, shape, dtype=np.uint8)
        answer = client.run(picture, number, (0, 0), header, True, True)
        assert_equal(answer, model, picture[..., 0] if pixels == "grey" else picture, pixels)
    picture = rng.integers(0, 256, (30, 90, 3), dtype=np.uint8)  # the content is a part of the frame
    content = content_size((90, 30), (WIDTH, HEIGHT))
    answer = client.run(letterbox(picture, HEIGHT, WIDTH), NETWORK_ROWS, content, header, True, True)
    assert_equal(answer, model, picture)
    client.connect(model)
    assert client.facts.counters["refused"] == client.facts.counters["duplicate"] == client.facts.counters["repeated"] == 0
    assert client.session.counters.repeated == client.session.counters.damaged == 0
    port.close()


def test_the_modes_give_what_was_asked_for() -> None:
    model = MODELS["stream"]
    port, client = connected(model)
    whole = run(client, FRAMES[0], model)
    raw, boxes = run(client, FRAMES[0], model, boxes=False), run(client, FRAMES[0], model, raw=False)
    assert not boxes.heads and not len(raw.boxes)
    assert np.array_equal(boxes.boxes, whole.boxes)
    assert all(np.array_equal(raw.heads[name], whole.heads[name]) for name in whole.heads)
    client.selftest()
    port.close()


def test_a_sequential_schedule_pulls_each_row_once() -> None:
    """And any other one only what it asks for: bytes on the wire are those of the pulls."""
    for kind, once in (("stream", True), ("least", False)):
        port, client = connected(MODELS[kind])
        before = port.written
        answer = run(client, FRAMES[0], MODELS[kind])
        assert (answer.pulls == HEIGHT) == once or HostModel(MODELS[kind]).sequential == once
        sent = port.written - before
        if HostModel(MODELS[kind]).sequential:
            assert FRAMES[0].size < sent < 1.4 * FRAMES[0].size + 100 * answer.pulls
        port.close()


def test_who_is_there() -> None:
    model = MODELS["stream"]
    port, client = connected(model)
    facts, header = client.facts, read_header(model)
    assert facts.board == "host" and facts.model == header.name and facts.needed == header.arena
    assert facts.identity.size == len(model) and facts.identity.crc == struct.unpack_from("<I", model, 12)[0]
    assert facts.model_room == 0 and facts.unit is None and facts.clock_hz is None and facts.format_version == SUPPORTED_VERSION
    assert str(client.welcome) == "power"
    port.close()


# -- a line with faults --


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_bad_line_gives_the_same_bytes_or_an_error(seed: int) -> None:
    model = MODELS[tuple(MODELS)[seed % 3]]
    port = SimulatedPort(model, Faults(seed), rows_ahead=seed % 4)
    client = Client(port)
    try:
        client.connect(model)
        for frame in FRAMES:
            assert_equal(run(client, frame, model), model, frame)
    except LinkError as error:
        assert "lost" in str(error) or "answer" in str(error)
        assert seed not in range(20)  # these are known to end well
    port.close()


def test_every_kind_of_fault_happens() -> None:
    seen: set[str] = set()
    for seed in range(SCHEDULES):
        faults = Faults(seed)
        for _ in range(200):
            faults.pieces(b"x" * 100)
        seen |= faults.happened.keys()
    assert len(seen) == 9


def test_a_reset_at_any_byte_of_a_picture() -> None:
    """The device restarts after each number of bytes in turn; the answer is the same, made in another session."""
    model = MODELS["least"]
    port, client = connected(model, rows_ahead=1)
    start = port.written
    expected = run(client, FRAMES[0], model)
    whole = port.written - start
    for number, cut in enumerate(range(0, whole - 2000, whole // 40)):
        port.cut_after = cut
        answer = run(client, FRAMES[0], model)
        assert np.array_equal(answer.boxes, expected.boxes)
        assert all(np.array_equal(answer.heads[name], expected.heads[name]) for name in expected.heads)
        assert client.restarts == number + 1
    port.close()


def test_a_line_that_only_duplicates_runs_nothing_twice() -> None:
    model = MODELS["stream"]
    port, client = connected(model, faults=Faults(1, 1.0, ("duplicate",), most=1 << 30))
    for frame in FRAMES:
        answer = run(client, frame, model)
        assert_equal(answer, model, frame)
        assert answer.pulls == HEIGHT
    client.connect(model)
    assert client.facts.counters["duplicate"] > 20 and client.facts.counters["sessions"] == 1
    assert client.session.counters.duplicate > 20 and not client.session._early  # nothing old waits for its number to come again
    port.close()


def test_a_dead_line_ends_with_the_counters() -> None:
    model = MODELS["stream"]
    port, client = connected(model)
    port.faults = Faults(0, 1.0, ("lose",), most=1 << 30)
    with pytest.raises(LinkError, match=r"simulated: the device stopped answering for 30 s \(.*repeated"):
        run(client, FRAMES[0], model)
    assert port.time < 60
    with pytest.raises(LinkError, match="simulated: what answers does not speak the link|no device answers"):
        Client(port).connect(model)
    port.close()


def test_a_device_that_resets_in_a_loop() -> None:
    model = MODELS["stream"]
    port, client = connected(model)
    port.faults = Faults(0, 1.0, ("reset",), most=1 << 30, most_resets=1 << 30)
    port.faults.rate = 0.2
    with pytest.raises(LinkError, match=r"was lost 6 times during a picture: it resets in a loop .*last start: watchdog"):
        run(client, FRAMES[0], model)
    port.close()


# -- wrong devices and hostile bytes --


def test_another_model_is_refused() -> None:
    port = SimulatedPort(MODELS["stream"])
    words = r"holds another model, 'detector' \(CRC \w{8}, expected \w{8}\): python -m firmware.device load simulated MODEL"
    with pytest.raises(LinkError, match=words):
        Client(port).connect(MODELS["least"])
    port.close()


def test_another_version_is_named() -> None:
    class NextVersion(SimulatedPort):
        def read(self, timeout: float) -> bytes:
            for frame in self.parser.feed(super().read(timeout)):
                return encode(frame._replace(version=3))
            return b""

    from firmware.link.frame import Parser

    port = NextVersion(MODELS["stream"])
    port.parser = Parser()
    with pytest.raises(LinkError, match="speaks version 3 of the link, this tool version 2: flash the firmware"):
        Client(port).connect()
    port.close()


def test_something_else_on_the_port() -> None:
    class Modem(SimulatedPort):
        def read(self, timeout: float) -> bytes:
            super().read(timeout)
            return b"AT\r\nOK\r\n\0"

    port = Modem(MODELS["stream"])
    with pytest.raises(LinkError, match="what answers does not speak the link .*wrong port, rate or firmware"):
        Client(port).connect()
    port.close()


HOSTILE = {
    "a message without a meaning": [(99, b"")],
    "rows without a run": [(Kind.ROWS, b"\1\0" + bytes(100)), (99, b"")],
    "a short run": [(Kind.RUN, b"\1\0")],
    "a long request": [(Kind.ASK, b"\1\0\0")],
    "a chunk without a load": [(Kind.CHUNK, bytes(40))],
    "too many rows": [(Kind.RUN, struct.pack("<HBBHH", 1, 255, 3, WIDTH, HEIGHT)), (Kind.ROWS, b"\1\0" + bytes(500))],
    "a request amid rows": [(Kind.RUN, struct.pack("<HBBHH", 1, 255, 3, WIDTH, HEIGHT)), (Kind.ASK, b"\2\0")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_host_that_breaks_a_rule_loses_the_session_only(name: str) -> None:
    model = MODELS["stream"]
    port, client = connected(model)
    with pytest.raises(SessionLost):
        for kind, payload in HOSTILE[name]:
            client.session.send(kind, payload)
        while client.session.receive().type not in (Kind.RESULT, Kind.INFO):
            pass
    assert_equal(run(client, FRAMES[0], model), model, FRAMES[0])
    assert port.resets == 0 and client.facts.counters["refused"] == 1
    port.close()


@pytest.mark.parametrize(
    ("fields", "status"),
    (((7, 1, 8, 8), -13), ((255, 3, WIDTH + 1, 8), -13), ((255, 3, 0, 8), -13), ((0, 1, 0, 8), -13), ((0, 1, 65535, 8), -68)),
)
def test_pictures_that_cannot_be(fields: tuple[int, ...], status: int) -> None:
    port, client = connected(MODELS["stream"])
    with pytest.raises(RequestFailed) as caught:
        client._result(client.ask(Kind.RUN, struct.pack("<BBHH", *fields)))
    assert caught.value.status == status
    assert_equal(run(client, FRAMES[0], MODELS["stream"]), MODELS["stream"], FRAMES[0])
    port.close()


def test_frames_of_nobodys_session_change_nothing() -> None:
    """Right in every CRC, wrong in session and boot, at any moment; only HELLO may begin another one."""
    model, rng = MODELS["stream"], np.random.default_rng(8)

    class Stranger(SimulatedPort):
        def write(self, data: bytes) -> None:
            super().write(encode(Frame(int(rng.integers(2, 40)), int(rng.integers(4)), session=9, payload=bytes(6))))
            super().write(data)

    port = Stranger(model)
    client = Client(port)
    client.connect(model)
    assert_equal(run(client, FRAMES[0], model), model, FRAMES[0])
    port.close()


# -- rates --


def test_the_rate_is_raised_and_kept_only_where_it_works() -> None:
    model = MODELS["stream"]
    port, client = connected(model, base_baud=115200)
    assert client.raise_baud(921600) and port.rates == [921600, 921600]
    assert_equal(run(client, FRAMES[0], model), model, FRAMES[0])
    port.set_baud(115200)  # a tool that was killed: the next one opens the port at the first rate
    other = Client(port)
    other.connect(model)
    assert port.rates == [115200, 115200]
    real, port.set_baud = port.set_baud, lambda rate: real(rate if rate == 115200 else rate + 1)  # a clock that cannot
    assert not other.raise_baud(2_000_000) and port.rates == [115200, 115200]
    assert_equal(run(other, FRAMES[0], model), model, FRAMES[0])
    port.close()
    port, client = connected(model)
    assert not client.raise_baud(921600)
    port.close()


# -- loading --

PLACE = 16384


def holds(port: SimulatedPort) -> int:
    """CRC of the model that the device uses; it must work."""
    client = Client(port)
    facts = client.connect()
    client.selftest()
    return facts.identity.crc


def crc(model: bytes) -> int:
    return struct.unpack_from("<I", model, 12)[0]


def test_load_and_load_again() -> None:
    port, client = connected(MODELS["stream"], flash=Flash(PLACE), memory=64 * 1024)
    assert client.facts.place == 0 and client.facts.model_room == PLACE - 32
    for place, kind in enumerate(("least", "layers", "stream", "least")):
        facts = client.load(MODELS[kind])
        assert facts.identity.crc == crc(MODELS[kind]) and facts.place == 1 + place % 2
        assert_equal(run(client, FRAMES[0], MODELS[kind]), MODELS[kind], FRAMES[0])
    port._schedule("reset", 0.0, b"")
    assert holds(port) == crc(MODELS["least"])  # the newest outlives a restart
    port.close()


@pytest.mark.parametrize("way", ("power", "reset"))
def test_a_load_cut_at_any_byte_leaves_a_model(way: str) -> None:
    """Power fails after each number of written bytes, or the device restarts after each number of sent ones, in turn."""
    first, second = MODELS["layers"], MODELS["least"]
    flash = Flash(PLACE)
    port, client = connected(MODELS["stream"], flash=flash, memory=64 * 1024)
    client.load(first)
    sent = -port.written
    client.load(second)
    client.load(first)
    sent = (sent + port.written) // 2
    port.close()
    whole = len(second) + 64 if way == "power" else sent + 100
    outcomes = []
    for cut in [*range(0, whole, whole // 25), *range(len(second) // 32 * 32, len(second) + 72, 8)]:
        trial = Flash(PLACE)
        trial.data[:] = flash.data
        port = SimulatedPort(MODELS["stream"], flash=trial, memory=64 * 1024)
        client = Client(port)
        assert client.connect().identity.crc == crc(first)
        if way == "power":
            trial.budget = cut
        else:
            port.cut_after = cut
        try:
            client._load(second, None)
        except LinkError:
            pass
        trial.budget = port.cut_after = None
        outcomes.append(holds(port))
        port.close()
    assert set(outcomes) == {crc(first), crc(second)} and outcomes[0] == crc(first)


def test_models_that_do_not_fit_leave_the_old_one() -> None:
    flash = Flash(PLACE)
    port, client = connected(MODELS["least"], flash=flash, memory=read_header(MODELS["least"]).arena)
    with pytest.raises(RequestFailed, match=r"work memory is too small .*-8\)"):
        client.load(MODELS["stream"])
    assert holds(port) == crc(MODELS["least"])
    client.connect()
    big = MODELS["least"] + bytes(PLACE)
    with pytest.raises(LinkError, match=r"the model has [\d,]+ B, a place for loaded models 16,352 B"):
        client._load(big, None)
    with pytest.raises(RequestFailed) as caught:
        client._result(client.ask(Kind.LOAD, struct.pack("<HI", 0, 1 << 31)))
    assert caught.value.status == -65
    damaged = bytearray(MODELS["least"])
    damaged[-20] ^= 1
    with pytest.raises(RequestFailed, match="checksum"):
        client._load(bytes(damaged), None)
    assert holds(port) == crc(MODELS["least"])
    port.close()
    port, client = connected(MODELS["least"])
    with pytest.raises(RequestFailed, match="no place for loaded models"):
        client._load(MODELS["least"], None)
    port.close()
