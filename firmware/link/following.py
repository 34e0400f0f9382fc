"""Objects that a device follows itself, in the boxes that it found: firmware/track.py's tracker, there. SPEC.md section 8.6.

A device that restarts has forgotten whom it followed. Following begins anew then; ids and counts go on where they were.
"""

import secrets
import struct
from collections.abc import Callable

import numpy as np

from firmware.link.client import RESTARTS, Answer, Client, Found, Kind, RequestFailed
from firmware.link.counting import ORDER, send_found
from firmware.link.session import LinkError
from firmware.track import TrackSettings, q15_settings

_IDS = struct.Struct("<HhIIIIIHH")


class LinkTracker:
    """What firmware.track.Tracker does, on the device behind `client`. Raises LinkError where it cannot."""

    def __init__(self, client: Client, last: Callable[[], Answer | None] = lambda: None) -> None:
        """`last` gives what the device found last: where its boxes are those to be followed, they are not sent."""
        self.client, self._last = client, last
        self._settings = TrackSettings()
        self._line = (0, 0, 0, 0)
        self._confirmed = 0
        self._crossed = (0, 0)
        self._begin()

    def set(self, settings: TrackSettings) -> None:
        """Tracks, line and counts stay."""
        self._settings = settings

    def set_line(self, line: tuple[int, int, int, int] | None) -> None:
        """x1, y1, x2, y2 in the boxes' Q4 pixels, or None; the counts begin at 0."""
        before, self._line = self._line, line or (0, 0, 0, 0)
        right, left = self._told if self._line == before else (0, 0)  # the device forgets its counts for another line only
        self._crossed, self._before = (0, 0), (self._before[0], -right, -left)

    def update(self, boxes: np.ndarray) -> np.ndarray:
        """Ids uint32 (n,) of the objects in boxes int32 (n, 6) of the next picture; 0 is none."""
        last = self._last()
        found = last.found if last and np.array_equal(last.boxes, boxes) else None
        for _ in range(RESTARTS + 1):
            try:
                return self.client.persist("following objects", lambda: self._update(boxes, found))
            except RequestFailed as error:
                if error.status != ORDER:
                    raise
                self._begin()
        raise LinkError(f"{self.client.port.name}: the device does not remember whom it follows: it resets in a loop")

    @property
    def confirmed(self) -> int:
        """Objects that ever had an id."""
        return self._confirmed

    @property
    def crossed(self) -> tuple[int, int]:
        """Objects that crossed the line (to its right, to its left), walking from its first end to its second."""
        return self._crossed

    def _begin(self) -> None:
        self._id, self._number = secrets.randbits(32) | 1, 0
        self._before = (self._confirmed, *self._crossed)  # of what the device has forgotten
        self._told = (0, 0)  # what it said of the line

    def _update(self, boxes: np.ndarray, found: Found | None) -> np.ndarray:
        client = self.client
        own = found if found and found.session == client.session.number else send_found(client, boxes)
        settings = q15_settings(self._settings)
        fields = struct.pack("<HII5H4h", own.request, self._id, self._number, *settings, *self._line)
        request = client.ask(Kind.TRACK, fields)
        ids: list[int] = []
        while True:
            payload = client.receive(Kind.IDS, request, _IDS.size)
            _, status, _, _, confirmed, right, left, count, first = _IDS.unpack_from(payload)
            if status:
                raise RequestFailed(client.port.name, status)
            ids[first:] = np.frombuffer(payload, "<u4", -1, _IDS.size).tolist()
            if len(ids) >= count:
                break
        if count != len(boxes):
            raise LinkError(f"{client.port.name}: the device followed {count} boxes of {len(boxes)}")
        self._number += 1
        base, base_right, base_left = self._before
        self._told = (right, left)
        self._confirmed, self._crossed = base + confirmed, (base_right + right, base_left + left)
        found_ids = np.array(ids, np.uint32)
        return np.where(found_ids > 0, found_ids + np.uint32(base), found_ids)
