"""What a device keeps from picture to picture, average precision and tracks, equals the host's whatever happens to the line."""

import struct
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from firmware.compiler.preprocess import content_size
from firmware.header import read_header
from firmware.host import HostModel
from firmware.host_ap import HostAp, place
from firmware.link.client import NETWORK_ROWS, Answer, Client, Kind, RequestFailed
from firmware.link.counting import Counting, Precision, Truth, room_to_count, send_found
from firmware.link.following import LinkTracker
from firmware.link.session import LinkError, SessionLost
from firmware.track import Tracker, TrackSettings
from tests.firmware.link_rig import Faults, Flash, SimulatedPort
from tests.firmware.test_device import HEIGHT, WIDTH, make_tess

MODEL = make_tess("stream")
HEADER = read_header(MODEL)
HOST = HostModel(MODEL)
SIZE = (90, 71)  # of the pictures that truth speaks of
PICTURES = 6
SCHEDULES = 40


def make_pictures(count: int = PICTURES) -> tuple[list[np.ndarray], list[Truth]]:
    """Network frames, and truth that some of what is found there meets, some not, some ignored."""
    rng = np.random.default_rng(11)
    frames = list(rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8))
    return frames, [make_truth(HOST.detect(frame), rng, number) for number, frame in enumerate(frames)]


def make_truth(boxes: np.ndarray, rng: np.random.Generator, number: int) -> Truth:
    content = content_size(SIZE, (WIDTH, HEIGHT))
    scale = np.array([SIZE[0] / content[0], SIZE[1] / content[1]] * 2)
    chosen = boxes[rng.random(len(boxes)) < 0.5]
    moved = np.sort((chosen[:, :4] * scale + rng.normal(0, 5, (len(chosen), 4))).astype(int).reshape(-1, 2, 2), axis=1)
    far = rng.integers(0, 1400, (30 * (number == 1), 2, 2))  # more objects than one frame of the link holds
    corners = np.concatenate([moved, np.sort(far, axis=1)]).reshape(-1, 4)
    labels = rng.integers(0, len(HEADER.class_names), len(corners))
    labels[: len(chosen)] = np.where(rng.random(len(chosen)) < 0.8, chosen[:, 5], labels[: len(chosen)])
    return Truth(corners, labels, rng.random(len(corners)) < 0.2, SIZE, tuple(content))


FRAMES, TRUTH = make_pictures()


def host_precision(answers: Sequence[np.ndarray], truth: Sequence[Truth]) -> Precision:
    ap = HostAp(HOST.score_levels().tolist(), len(HEADER.class_names))
    for boxes, one in zip(answers, truth, strict=True):
        rows = [
            (*place(corners, one.size, one.content), label, ignore)
            for corners, label, ignore in zip(one.corners.tolist(), one.labels, one.ignore, strict=True)
        ]
        ap.add(boxes, np.array(rows, np.int32).reshape(-1, 6))
    by_class = tuple(ap.average_precision(label) for label in range(len(HEADER.class_names)))
    return Precision(len(answers), ap.mean(), by_class)


EXPECTED = host_precision([HOST.detect(frame) for frame in FRAMES], TRUTH)


def run(client: Client, frame: np.ndarray) -> Answer:
    return client.run(frame, NETWORK_ROWS, (WIDTH, HEIGHT), HEADER, False, True)


def connected(**options) -> tuple[SimulatedPort, Client]:
    port = SimulatedPort(MODEL, **options)
    client = Client(port)
    client.connect(MODEL)
    return port, client


def evaluate(client: Client, resumed: int = 0) -> Precision:
    """All pictures; of the first `resumed` only the boxes are known, from a journal."""
    counting = Counting(client)
    for number, (frame, truth) in enumerate(zip(FRAMES, TRUTH, strict=True)):
        if number < resumed:
            counting.add(HOST.detect(frame), truth, None)
        else:
            answer = run(client, frame)
            counting.add(answer.boxes, truth, answer.found)
    return counting.result()


def test_the_device_counts_what_the_host_counts() -> None:
    """And the test knows hits, misses, ignored objects, several messages of truth."""
    assert all(ap < 1 << 30 for ap in EXPECTED.by_class) and sum(ap > 0 for ap in EXPECTED.by_class) > 1
    port, client = connected()
    assert room_to_count(client, HEADER) is None
    assert evaluate(client) == EXPECTED
    assert evaluate(client) == EXPECTED  # another evaluation begins at nothing
    for resumed in (1, PICTURES):
        assert evaluate(client, resumed) == EXPECTED
    assert client.restarts == 0
    port.close()


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_bad_line_never_changes_the_figure(seed: int) -> None:
    """The same to the bit, or an error; then another process goes on from its journal, and gets the same."""
    port = SimulatedPort(MODEL, Faults(seed), rows_ahead=seed % 3)
    client = Client(port)
    try:
        client.connect(MODEL)
        assert evaluate(client, resumed=seed % PICTURES) == EXPECTED
    except LinkError:
        port.faults = None
        again = Client(port)
        again.connect(MODEL)
        assert evaluate(again, resumed=3) == EXPECTED
    port.close()


def test_a_reset_at_any_byte_counts_each_picture_once() -> None:
    port, client = connected()
    start = port.written
    evaluate(client)
    whole = port.written - start
    port.close()
    for cut in range(0, whole - 200, whole // 25):
        port, client = connected()
        port.cut_after = cut
        assert evaluate(client) == EXPECTED
        assert client.restarts == 1
        port.close()


def test_a_reset_before_the_question_is_noticed() -> None:
    port, client = connected()
    counting = Counting(client)
    for frame, truth in zip(FRAMES, TRUTH, strict=True):
        counting.add(HOST.detect(frame), truth, None)
    port._schedule("reset", 0.0, b"")
    assert counting.result() == EXPECTED and client.restarts == 1
    port.close()


def test_a_device_that_forgets_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    port, client = connected()
    counting, score = Counting(client), Counting._score

    def forgets(self: Counting, *picture) -> int:
        counted = score(self, *picture)
        port._schedule("reset", 0.0, b"")
        return counted

    counting.add(HOST.detect(FRAMES[0]), TRUTH[0], None)
    monkeypatch.setattr(Counting, "_score", forgets)
    with pytest.raises(LinkError, match="does not keep what it counts: it resets in a loop"):
        for frame, truth in zip(FRAMES[1:], TRUTH[1:], strict=True):
            counting.add(HOST.detect(frame), truth, None)
    port.close()


def test_a_picture_is_counted_once_however_often_it_is_sent() -> None:
    port, client = connected()
    counting = Counting(client)
    for frame, truth in zip(FRAMES, TRUTH, strict=True):
        answer = run(client, frame)
        counting.add(answer.boxes, truth, answer.found)
        for _ in range(2):
            assert counting._score(len(counting._pictures) - 1, None) == len(counting._pictures)
    assert counting._score(0, None) == PICTURES
    assert counting.result() == EXPECTED
    port.close()


def lose_answers(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> list[int]:
    """From here on the first answer of this kind to every request is lost with its session; the device has done the work."""
    receive, lost = Client.receive, []

    def loses(client: Client, wanted: Kind, request: int, size: int) -> bytes:
        payload = receive(client, wanted, request, size)
        if wanted == kind and len(lost) % 2 == 0:
            lost.append(request)
            client.session.open()
            raise SessionLost("the answer was lost")
        if wanted == kind:
            lost.append(request)
        return payload

    monkeypatch.setattr(Client, "receive", loses)
    return lost


def test_an_answer_that_is_lost_with_its_session_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    port, client = connected()
    lost = lose_answers(monkeypatch, Kind.SCORED)
    assert evaluate(client) == EXPECTED and len(lost) == 2 * PICTURES and client.restarts == 0
    port.close()


def test_an_answer_that_is_lost_with_its_session_moves_tracks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    port, client = connected()
    lost = lose_answers(monkeypatch, Kind.IDS)
    assert follow(LinkTracker(client)) == FOLLOWED and len(lost) == 2 * len(WALK)
    port.close()


def test_another_evaluation_ends_the_first_one_and_it_goes_on() -> None:
    port, client = connected()
    first, second = Counting(client), Counting(client)
    for frame, truth in zip(FRAMES, TRUTH, strict=True):
        for counting in (first, second):
            counting.add(HOST.detect(frame), truth, None)
    assert first.result() == EXPECTED and second.result() == EXPECTED
    port.close()


def test_another_model_forgets_what_was_counted() -> None:
    port, client = connected(flash=Flash(16384), memory=64 * 1024)
    counting = Counting(client)
    counting.add(HOST.detect(FRAMES[0]), TRUTH[0], None)
    client.load(make_tess("least"))
    with pytest.raises(RequestFailed, match="expects another picture"):
        counting._tell()
    with pytest.raises(RequestFailed, match="no longer holds"):
        counting._counted = 0
        client.persist("", lambda: _score_own(counting, 77))
    port.close()


def _score_own(counting: Counting, run: int) -> None:
    """SCORE of boxes that are not there."""
    request = counting.client.ask(Kind.SCORE, struct.pack("<HIIHHHHH", run, counting.id, 0, *SIZE, WIDTH, HEIGHT, 0))
    status = struct.unpack_from("<h", counting.client.receive(Kind.SCORED, request, 12), 2)[0]
    if status:
        raise RequestFailed("simulated", status)


BAD_TRUTH = {
    "an unknown class": (Truth(np.array([[0, 0, 9, 9]]), np.array([9]), np.array([False]), SIZE, (WIDTH, 40)), -13),
    "a corner that ends before it starts": (Truth(np.array([[9, 0, 0, 9]]), np.array([0]), np.array([False]), SIZE, (9, 9)), -13),
    "a picture without a side": (Truth(np.array([[0, 0, 9, 9]]), np.array([0]), np.array([False]), (0, 9), (9, 9)), -13),
    "more than the work memory holds": (
        Truth(np.zeros((5000, 4), int), np.zeros(5000, int), np.zeros(5000, bool), SIZE, (WIDTH, HEIGHT)), -72,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TRUTH)
def test_truth_that_cannot_be_changes_nothing(name: str) -> None:
    truth, status = BAD_TRUTH[name]
    port, client = connected()
    counting = Counting(client)
    counting.add(HOST.detect(FRAMES[0]), TRUTH[0], None)
    told = counting.result()
    counting._pictures.append((HOST.detect(FRAMES[1]), truth))
    with pytest.raises(RequestFailed) as caught:
        counting._catch_up(None)
    assert caught.value.status == status
    counting._pictures.pop()
    assert counting.result() == told
    port.close()


SCORE_ONE = struct.pack("<HHIIHHHHH", 1, 1, 1, 0, 9, 9, 9, 9, 1)
HOSTILE = {
    "an evaluation without a number": [(Kind.SCORE, bytes(22))],
    "a short score": [(Kind.SCORE, bytes(21))],
    "truth without a score": [(Kind.TRUTH, bytes(22))],
    "rows where truth is due": [(Kind.SCORE, SCORE_ONE), (Kind.ROWS, bytes(22))],
    "truth of another request": [(Kind.SCORE, SCORE_ONE), (Kind.TRUTH, bytes(22))],
    "more truth than was said": [(Kind.SCORE, SCORE_ONE), (Kind.TRUTH, b"\1\0" + bytes(40))],
    "a part of a box": [(Kind.FOUND, bytes(15))],
    "boxes that do not follow": [(Kind.FOUND, struct.pack("<HH", 5, 1) + bytes(12))],
    "a question without a number": [(Kind.TELL, bytes(8))],
    "a stream without a number": [(Kind.TRACK, bytes(30))],
    "a long track": [(Kind.TRACK, struct.pack("<HHI", 1, 1, 1) + bytes(23))],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_host_that_breaks_a_rule_loses_the_session_and_no_more(name: str) -> None:
    port, client = connected()
    with pytest.raises(SessionLost):
        for kind, payload in HOSTILE[name]:
            client.session.send(kind, payload)
        while True:
            client.session.receive()
    assert evaluate(client) == EXPECTED
    assert port.resets == 0 and client.facts.counters["refused"] == 1
    port.close()


# -- following --


def make_walk(steps: int = 40) -> list[np.ndarray]:
    """Boxes of objects that walk, come, go, hide and cross the middle."""
    rng = np.random.default_rng(4)
    places, speeds = rng.integers(0, 700, (9, 2)), rng.integers(-25, 26, (9, 2))
    walk = []
    for step in range(steps):
        seen = rng.random(9) < 0.85
        corners = (places + step * speeds)[seen] + rng.integers(-6, 7, (seen.sum(), 2))
        scores = np.sort(rng.integers(7000, 30000, seen.sum()))[::-1]
        labels = (np.arange(9) % 3)[seen]
        walk.append(np.column_stack([corners, corners + 150, scores, labels]).astype(np.int32))
    return walk


WALK = make_walk()
LINE = (200, 0, 300, 760)


def follow(tracker: Tracker | LinkTracker) -> list:
    """Ids, objects and crossings after every picture; settings and line change on the way."""
    tracker.set_line(LINE)
    told = []
    for step, boxes in enumerate(WALK):
        if step == 15:
            tracker.set(TrackSettings(high=0.4, low=0.3, max_missed=4))
        if step in (25, 30):
            tracker.set_line(LINE[2:] + LINE[:2])
        told.append((tracker.update(boxes).tolist(), tracker.confirmed, tracker.crossed))
    return told


FOLLOWED = follow(Tracker())


def test_the_device_follows_as_the_host_does() -> None:
    assert FOLLOWED[-1][1] >= 9 and sum(FOLLOWED[24][2]) > 1  # all were seen, some crossed
    port, client = connected()
    assert follow(LinkTracker(client)) == FOLLOWED
    port.close()


def test_the_boxes_of_the_last_picture_need_not_be_sent() -> None:
    port, client = connected()
    answer = run(client, FRAMES[0])
    there, here = LinkTracker(client, lambda: answer), Tracker()
    for frame in FRAMES[:1] * 3 + FRAMES[1:]:
        answer = run(client, frame)
        before = port.written
        assert np.array_equal(there.update(answer.boxes), here.update(answer.boxes))
        assert port.written - before < 100 + 30 * 2 and len(answer.boxes) > 5
    assert here.confirmed > 3
    port.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_bad_line_changes_no_id(seed: int) -> None:
    """Each picture moves the tracks once, also where its answer is lost with the session."""
    port = SimulatedPort(MODEL, Faults(seed, 0.1, ("drop", "lose", "flip", "duplicate", "reorder", "truncate", "garbage")))
    client = Client(port)
    client.connect(MODEL)
    tracker, told = LinkTracker(client), []
    tracker.set_line(LINE)
    here = Tracker()
    here.set_line(LINE)
    for step, boxes in enumerate(WALK):
        if step % 5 == seed % 5:  # a new session without a restart: another tool looked at the device
            Client(port).connect()
        told.append((tracker.update(boxes).tolist(), here.update(boxes).tolist()))
    assert all(there == host for there, host in told) and client.restarts == 0
    port.close()


def test_after_a_restart_no_id_is_given_again() -> None:
    port, client = connected()
    tracker = LinkTracker(client)
    tracker.set_line(LINE)
    told: list[set[int]] = []
    counts = []
    for step, boxes in enumerate(WALK):
        if step in (12, 24):
            port._schedule("reset", 0.0, b"")
        told.append(set(tracker.update(boxes).tolist()) - {0})
        counts.append((tracker.confirmed, *tracker.crossed))
    assert client.restarts == 2
    lives = [set().union(*told[start:stop]) for start, stop in ((0, 12), (12, 24), (24, None))]
    assert all(lives) and not lives[0] & lives[1] and not lives[1] & lives[2] and counts[-1][0] == max(set().union(*lives))
    assert all(later >= before for one, two in pairwise(counts) for before, later in zip(one, two, strict=True))
    port.close()


def test_boxes_beyond_the_devices_room_end_the_session() -> None:
    port, client = connected()
    with pytest.raises(SessionLost):
        send_found(client, np.zeros((5000, 6), np.int32))
        while True:
            client.session.receive()
    port.close()
