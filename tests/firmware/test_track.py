"""Tracking and counting: the C tracker against SPEC.md section 6 in plain Python, and against an independent library."""

import shutil
import struct
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from firmware.build import build_program
from firmware.emulator import run_qemu
from firmware.host import RUNTIME, TessError
from firmware.track import Tracker, TrackSettings

FIELDS = ("id", "x1", "y1", "x2", "y2", "vx", "vy", "label", "hits", "missed", "side")


class Spec:
    """SPEC.md section 6, word for word and slow."""

    def __init__(self, settings: TrackSettings, places: int) -> None:
        self.high, self.low, self.min_iou = (round(32768 * v) for v in (settings.high, settings.low, settings.min_iou))
        self.min_hits, self.max_missed = settings.min_hits, settings.max_missed
        self.places, self.tracks, self.confirmed = places, [], 0
        self.line, self.right, self.left = None, 0, 0

    def update(self, boxes: list[list[int]]) -> list[int]:
        for t in self.tracks:
            for low, high, v in (("x1", "x2", "vx"), ("y1", "y2", "vy")):
                if -32768 <= t[low] + t[v] and t[high] + t[v] <= 32767 and t[low] + t[v] <= 32767 and -32768 <= t[high] + t[v]:
                    t[low], t[high] = t[low] + t[v], t[high] + t[v]
            t["missed"] += 1
        free = {k for k, box in enumerate(boxes) if box[0] < box[2] and box[1] < box[3]}
        owner: dict[int, dict] = {}
        for least, most in ((self.high, 10**9), (self.low, 1)):
            while True:
                pairs = [
                    (-self.iou(t, boxes[k]), i, k)
                    for i, t in enumerate(self.tracks)
                    for k in free
                    if 1 <= t["missed"] <= most and boxes[k][4] >= least and boxes[k][5] == t["label"]
                    and self.iou(t, boxes[k]) >= self.min_iou
                ]  # fmt: skip
                if not pairs:
                    break
                _, i, k = min(pairs)
                self.see(self.tracks[i], boxes[k])
                owner[k] = self.tracks[i]
                free.remove(k)
        self.tracks = [t for t in self.tracks if t["missed"] <= (self.max_missed if t["id"] else 0)]
        for k in sorted(free):
            if boxes[k][4] >= self.high and len(self.tracks) < self.places:
                t = dict.fromkeys(FIELDS, 0) | dict(zip(("x1", "y1", "x2", "y2"), boxes[k][:4], strict=True))
                t["label"] = boxes[k][5]
                self.tracks.append(t)
                self.see(t, boxes[k])
                owner[k] = t
        return [owner[k]["id"] if k in owner else 0 for k in range(len(boxes))]

    @staticmethod
    def iou(t: dict, box: list[int]) -> int:
        width = min(t["x2"], box[2]) - max(t["x1"], box[0])
        height = min(t["y2"], box[3]) - max(t["y1"], box[1])
        inter = max(width, 0) * max(height, 0)
        areas = (t["x2"] - t["x1"]) * (t["y2"] - t["y1"]) + (box[2] - box[0]) * (box[3] - box[1])
        return inter * 32768 // (areas - inter)

    def see(self, t: dict, box: list[int]) -> None:
        for v, low, high, at in (("vx", "x1", "x2", 0), ("vy", "y1", "y2", 1)):
            error = box[at] + box[at + 2] - t[low] - t[high]
            step = abs(error) // (2 if t["hits"] == 1 else 8) * (1 if error > 0 else -1)
            t[v] = min(max(t[v] + step, -2047), 2047)
            t[low], t[high] = box[at], box[at + 2]
        t["missed"], t["hits"] = 0, min(t["hits"] + 1, 65535)
        if not t["id"] and t["hits"] >= self.min_hits:
            self.confirmed += 1
            t["id"] = self.confirmed
        if t["id"] and self.line:
            x1, y1, x2, y2 = self.line
            dx, dy, x, y = x2 - x1, y2 - y1, (t["x1"] + t["x2"]) / 2 - x1, (t["y1"] + t["y2"]) / 2 - y1
            if 0 <= dx * x + dy * y <= dx * dx + dy * dy:
                side = -1 if dx * y - dy * x < 0 else 1
                self.right += t["side"] < side == 1 and t["side"] == -1
                self.left += t["side"] > side == -1 and t["side"] == 1
                t["side"] = side


def crowd(rng: np.random.Generator, pictures: int, coarse: bool) -> Iterator[list[list[int]]]:
    """Boxes that drift, jump, vanish and overlap, of two classes; `coarse` ones meet in ties."""
    grid = 160 if coarse else 1
    objects = rng.integers(0, 2500, (6, 4))
    speed = rng.integers(-120, 121, (6, 2))
    for _ in range(pictures):
        objects[:, :2] += speed
        if rng.random() < 0.1:
            objects[rng.integers(6)] = rng.integers(0, 2500, 4)
        boxes = []
        for k, (x, y, w, h) in enumerate(objects // grid * grid):
            if rng.random() < 0.8:
                boxes.append([x, y, x + 200 + w // 8, y + 200 + h // 8, int(rng.integers(4, 33)) * 1000 % 32769, k % 2])
        yield [[int(v) for v in box] for box in sorted(boxes, key=lambda box: -box[4])]


def same_state(tracker: Tracker, spec: Spec) -> None:
    assert [tuple(int(track[name]) for name in FIELDS) for track in tracker.tracks] == [
        tuple(t[name] for name in FIELDS) for t in spec.tracks
    ]
    assert (tracker.confirmed, *tracker.crossed) == (spec.confirmed, spec.right, spec.left)


@pytest.mark.parametrize("seed", range(8))
def test_every_number_is_the_specs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    settings = TrackSettings(
        high=float(rng.choice([0.3, 0.6])), low=0.2, min_iou=float(rng.choice([0.01, 0.25, 0.5])),
        min_hits=int(rng.choice([1, 2, 3])), max_missed=int(rng.choice([0, 2, 9])),
    )  # fmt: skip
    places = int(rng.choice([1, 4, 20]))
    tracker, spec = Tracker(settings, places), Spec(settings, places)
    spec.line = (2000, 100, 900, 2800)
    tracker.set_line(spec.line)
    for boxes in crowd(rng, 60, coarse=seed % 2 == 0):
        assert list(tracker.update(np.array(boxes, np.int32).reshape(-1, 6))) == spec.update(boxes)
        same_state(tracker, spec)
    assert spec.confirmed > (4 if places > 1 else 0)


def test_the_ends_of_the_numbers() -> None:
    """Boxes at the limits of int16, and a label and a score that need all 16 bits."""
    settings = TrackSettings(high=0.1, low=0.1, min_iou=1 / 32768, min_hits=1)
    tracker, spec = Tracker(settings), Spec(settings, 64)
    spec.line = (-32768, 32767, 32767, -32768)
    tracker.set_line(spec.line)
    rng = np.random.default_rng(5)
    for _ in range(200):
        corners = np.sort(rng.choice([-32768, -32700, -3000, 0, 1, 32000, 32767], (3, 2, 2)), axis=1).reshape(3, 4)
        boxes = [[*map(int, box), 40000, 65535] for box in corners]
        assert list(tracker.update(np.array(boxes))) == spec.update(boxes)
        same_state(tracker, spec)


def test_settings_out_of_range_change_nothing() -> None:
    tracker = Tracker()
    for wrong in ({"low": 0.6}, {"min_iou": 0.0}, {"min_hits": 0}, {"max_missed": 65535}):
        with pytest.raises(TessError, match="argument"):
            tracker.set(replace(TrackSettings(), **wrong))
        with pytest.raises(TessError, match="argument"):
            Tracker(replace(TrackSettings(), **wrong))
    box = np.array([[0, 0, 160, 160, 20000, 0]])
    assert [int(tracker.update(box)[0]) for _ in range(3)] == [0, 1, 1]
    with pytest.raises(TessError, match="argument"):
        Tracker(places=0)


@pytest.mark.parametrize("target", ["mps2-an500", "netduinoplus2"])
def test_a_chip_follows_and_counts_the_same(tmp_path: Path, target: str) -> None:
    """The same C on an emulated Cortex-M7 and M4: every id, the line's counts and the tracks at the end, to the byte."""
    if not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")):
        pytest.skip("no emulator or no cross compiler")
    rng, line = np.random.default_rng(3), (2400, 0, 2400, 4800)
    pictures = [np.array(boxes) for boxes in crowd(rng, 50, coarse=True)] + [boxes for boxes, _ in lanes(rng, 150, 0.1, 0.1)]
    tracker = Tracker(places=20)
    tracker.set_line(line)
    here = np.concatenate([tracker.update(boxes) for boxes in pictures]).tobytes()
    here += struct.pack("<4I", tracker.confirmed, *tracker.crossed, len(tracker.tracks)) + tracker.tracks.tobytes()

    with (tmp_path / "boxes.bin").open("wb") as file:
        file.write(struct.pack("<4hI", *line, len(pictures)))
        for boxes in pictures:
            file.write(struct.pack("<I", len(boxes)) + boxes.astype(np.uint16).tobytes())
    image = build_program(target, [Path(__file__).parent / "c" / "track_device.c", RUNTIME / "tess_track.c"])
    run_qemu(image, tmp_path, timeout=120)
    assert (tmp_path / "tracks.bin").read_bytes() == here
    assert tracker.confirmed > 20 and min(tracker.crossed) > 1


def lanes(rng: np.random.Generator, pictures: int, gap: float, weak: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(boxes (n, 6), true object (n,)): ten objects, each in its own lane, to and fro; missed and badly seen at times."""
    phase, pace = rng.uniform(0, 6.28, 10), rng.uniform(0.01, 0.03, 10)
    size = rng.uniform(260, 420, (10, 2))
    for t in range(pictures):
        seen = rng.random(10) >= gap
        x = 2400 + 2000 * np.sin(phase + pace * t)
        centre = np.stack([x, 250 + 450 * np.arange(10)], 1) + rng.normal(0, 4, (10, 2))
        scores = np.where(rng.random(10) < weak, 0.35, rng.uniform(0.7, 0.98, 10))
        corners = np.concatenate([centre - size / 2, centre + size / 2], 1)
        boxes = np.concatenate([np.rint(corners), np.rint(scores[:, None] * 32768), np.zeros((10, 1))], 1).astype(np.int32)
        order = [k for k in np.argsort(-boxes[:, 4], kind="stable") if seen[k]]
        yield boxes[order], np.array(order)


def as_supervision(boxes: np.ndarray, ids: np.ndarray | None = None):
    sv = pytest.importorskip("supervision")
    return sv.Detections(
        xyxy=boxes[:, :4].astype(np.float64),
        confidence=boxes[:, 4] / 32768,
        class_id=boxes[:, 5].astype(int),
        tracker_id=None if ids is None else ids.astype(int),
    )


@pytest.fixture
def byte_track():
    sv = pytest.importorskip("supervision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated: it moved to a package that brings its own OpenCV
        return sv.ByteTrack(track_activation_threshold=0.5, lost_track_buffer=15, frame_rate=30)


@pytest.mark.parametrize("seed", range(2))
def test_the_same_objects_as_bytetrack(byte_track, seed: int) -> None:
    """Where nothing is doubtful, both give one id to one object for all its life, weak sights and gaps included."""
    rng = np.random.default_rng(seed)
    tracker, named = Tracker(), 0
    partners: dict[int, set[tuple[int, int]]] = {}
    for boxes, truth in lanes(rng, 120, gap=0.05, weak=0.1):
        mine = tracker.update(boxes)
        found = byte_track.update_with_detections(as_supervision(boxes))
        theirs = {tuple(box): number for box, number in zip(found.xyxy.tolist(), found.tracker_id, strict=True)}
        for box, who, number in zip(boxes, truth, mine, strict=True):
            other = theirs.get(tuple(map(float, box[:4])))
            if number and other is not None:
                partners.setdefault(int(who), set()).add((int(number), int(other)))
                named += 1
    assert sorted(partners) == list(range(10))
    assert all(len(pairs) == 1 for pairs in partners.values()), partners
    assert tracker.confirmed == 10 and named > 1000


@pytest.mark.parametrize("line", [(2400, 0, 2400, 4800), (3000, 4700, 1500, 100), (500, 2000, 4500, 2600)])
def test_the_same_counts_as_line_zone(line: tuple[int, int, int, int]) -> None:
    sv = pytest.importorskip("supervision")
    zone = sv.LineZone(sv.Point(*line[:2]), sv.Point(*line[2:]), triggering_anchors=[sv.Position.CENTER])
    tracker = Tracker(replace(TrackSettings(), min_hits=1))
    tracker.set_line(line)
    for boxes, _ in lanes(np.random.default_rng(7), 300, gap=0.0, weak=0.0):
        ids = tracker.update(boxes)
        zone.trigger(as_supervision(boxes, ids))
        assert tracker.crossed == (zone.out_count, zone.in_count)
    assert sum(tracker.crossed) >= 5


def test_a_new_line_counts_from_zero() -> None:
    tracker = Tracker(replace(TrackSettings(), min_hits=1))
    down = [np.array([[0, 40 * t, 320, 320 + 40 * t, 30000, 0]]) for t in range(20)]
    tracker.set_line((0, 500, 320, 500))
    for boxes in down:
        tracker.update(boxes)
    assert tracker.crossed == (1, 0)  # from left to right below the line is walking to its right
    tracker.set_line((320, 600, 0, 600))
    assert tracker.crossed == (0, 0)
    for boxes in reversed(down):
        tracker.update(boxes)
    assert tracker.crossed == (1, 0)
    tracker.set_line(None)
    for boxes in down:
        tracker.update(boxes)
    assert tracker.crossed == (0, 0)
