"""Following objects from picture to picture with firmware/runtime/tess_track.c: the code that a chip runs, called here.

    tracker = Tracker()
    for record in records: ids = tracker.update(record.boxes)
"""

import ctypes
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from firmware.host import check, library

PLACES = 64  # objects at a time

_TRACK = np.dtype(
    [
        ("id", "u4"), ("x1", "i2"), ("y1", "i2"), ("x2", "i2"), ("y2", "i2"), ("vx", "i2"), ("vy", "i2"),
        ("label", "u2"), ("hits", "u2"), ("missed", "u2"), ("side", "i1"),
    ],
    align=True,
)  # fmt: skip


@dataclass(frozen=True)
class TrackSettings:
    """When a box is an object, and when two are the same; SPEC.md section 6. Scores and overlap are 0..1, the rest pictures."""

    high: float = 0.5  # a box of at least this score can begin a track
    low: float = 0.25  # a box of at least this score goes on with a track of the picture before
    min_iou: float = 0.25
    min_hits: int = 2
    max_missed: int = 15


class _Settings(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint16) for name in ("high", "low", "min_iou", "min_hits", "max_missed")]


class _Tracker(ctypes.Structure):
    _fields_ = [
        ("tracks", ctypes.c_void_p),
        ("capacity", ctypes.c_uint16),
        ("count", ctypes.c_uint16),
        ("settings", _Settings),
        ("confirmed", ctypes.c_uint32),
        ("line", ctypes.c_int16 * 4),
        ("to_right", ctypes.c_uint32),
        ("to_left", ctypes.c_uint32),
    ]


class ObjectTracker(Protocol):
    """What follows objects from picture to picture: `Tracker`, or a device (firmware/link/following.py)."""

    def set(self, settings: TrackSettings) -> None: ...

    def set_line(self, line: tuple[int, int, int, int] | None) -> None: ...

    def update(self, boxes: np.ndarray) -> np.ndarray: ...

    @property
    def confirmed(self) -> int: ...

    @property
    def crossed(self) -> tuple[int, int]: ...


class Tracker:
    """Tracks of one stream of pictures. Raises host.TessError for settings out of their range."""

    def __init__(self, settings: TrackSettings | None = None, places: int = PLACES) -> None:
        self._lib = library()
        self._places = np.zeros(places, _TRACK)
        self._state = _Tracker()
        self._at = ctypes.addressof(self._state)
        given = _Settings(*q15_settings(settings or TrackSettings()))
        check(self._lib.tess_tracker_init(self._at, self._places.ctypes.data, places, ctypes.addressof(given)))

    def set(self, settings: TrackSettings) -> None:
        """Tracks, line and counts stay."""
        given = _Settings(*q15_settings(settings))
        check(self._lib.tess_tracker_set(self._at, ctypes.addressof(given)))

    def set_line(self, line: tuple[int, int, int, int] | None) -> None:
        """x1, y1, x2, y2 in the boxes' Q4 pixels, or None; the counts begin at 0."""
        self._lib.tess_tracker_set_line(self._at, *(line or (0, 0, 0, 0)))

    def update(self, boxes: np.ndarray) -> np.ndarray:
        """Ids uint32 (n,) of the objects in boxes int32 (n, 6) of the next picture, as HostModel.detect gives them; 0 is none."""
        held = np.ascontiguousarray(boxes, np.int64).astype(np.uint16)  # tess_box_t: the corners' bits, score, label
        ids = np.zeros(len(held), np.uint32)
        check(self._lib.tess_tracker_update(self._at, held.ctypes.data, len(held), ids.ctypes.data))
        return ids

    @property
    def tracks(self) -> np.ndarray:
        """A copy of what is followed, the oldest first: records with the fields of tess_track_t."""
        return self._places[: self._state.count].copy()

    @property
    def confirmed(self) -> int:
        """Objects that ever had an id."""
        return self._state.confirmed

    @property
    def crossed(self) -> tuple[int, int]:
        """Objects that crossed the line (to its right, to its left), walking from its first end to its second."""
        return self._state.to_right, self._state.to_left


def q15_settings(settings: TrackSettings) -> tuple[int, ...]:
    """The fields of tess_track_settings_t."""
    shares = [min(max(round(32768 * share), 0), 32768) for share in (settings.high, settings.low, settings.min_iou)]
    return (*shares, settings.min_hits, settings.max_missed)
