"""Average precision that a device counts itself: truth goes there picture by picture, the answer comes back. SPEC.md section 8.6.

A device that restarts has forgotten what it counted. Everything that it was told is therefore kept here, and told again: the
boxes are the ones that it found, and a picture has its number, so each is counted once and none is missing.
"""

import secrets
import struct
from functools import partial
from typing import NamedTuple

import numpy as np

from firmware.header import TessHeader
from firmware.link.client import RESTARTS, Client, Found, Kind, RequestFailed
from firmware.link.session import LinkError

ORDER = -73  # LINK_ERR_ORDER
_NOBODY = 0xFFFFFFFF  # average precision of a class without objects
_SCORED = struct.Struct("<HhII")
_PRECISION = struct.Struct("<HhIIIHH")
_OBJECT = np.dtype([("corners", "<i4", 4), ("label", "<u2"), ("ignore", "<u2")])
_BOX = np.dtype([("corners", "<i2", 4), ("score", "<u2"), ("label", "<u2")])


class Truth(NamedTuple):
    """What is true of one picture."""

    corners: np.ndarray  # int (n, 4): x1, y1, x2, y2 in 1/16 pixel of the picture
    labels: np.ndarray  # int (n,)
    ignore: np.ndarray  # bool (n,)
    size: tuple[int, int]  # (width, height) of the picture that corners mean
    content: tuple[int, int]  # (width, height) that it has in the network's frame


class Precision(NamedTuple):
    """What a device counted: AP at IoU .50 in Q30; None where no object is to be found."""

    pictures: int
    mean: int | None
    by_class: tuple[int | None, ...]


class Counting:
    """One evaluation on the device behind `client`. Pictures are added in the order of the data set."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = secrets.randbits(32) | 1  # nobody else's, so that what a device has of another evaluation never counts
        self._pictures: list[tuple[np.ndarray, Truth]] = []
        self._counted = 0  # on the device, as far as it said

    def add(self, boxes: np.ndarray, truth: Truth, found: Found | None) -> None:
        """One picture: int32 (n, 6) boxes as the device gave them. `found` where it found them just now: they are not sent then.

        Raises LinkError where the device cannot count, or does not stay awake for it.
        """
        self._pictures.append((boxes, truth))
        self._catch_up(found)

    def result(self) -> Precision:
        """What the device says of all pictures so far. Raises LinkError as `add` does."""
        for _ in range(RESTARTS + 1):
            try:
                told = self.client.persist("asking for average precision", self._tell)
            except RequestFailed as error:
                if error.status != ORDER:
                    raise
                self._counted = 0
                self._catch_up(None)
                continue
            if told.pictures != len(self._pictures):
                break
            return told
        raise LinkError(f"{self.client.port.name}: the device does not keep what it counts: it resets in a loop")

    def _catch_up(self, found: Found | None) -> None:
        """Send what the device has not counted."""
        falls = 0
        while self._counted < len(self._pictures):
            before, number = self._counted, self._counted
            own = found if number == len(self._pictures) - 1 else None
            self._counted = self.client.persist("counting a picture", partial(self._score, number, own))
            if self._counted <= before:
                falls, found = falls + 1, None
            if falls > RESTARTS + 1:
                raise LinkError(f"{self.client.port.name}: the device does not keep what it counts: it resets in a loop")

    def _score(self, number: int, own: Found | None) -> int:
        """Send one picture; how many the device has counted."""
        boxes, truth = self._pictures[number]
        client = self.client
        if own is None or own.session != client.session.number:
            own = send_found(client, boxes)
        objects = np.zeros(len(truth.labels), _OBJECT)
        objects["corners"], objects["label"], objects["ignore"] = truth.corners, truth.labels, truth.ignore
        fields = struct.pack("<HIIHHHHH", own.request, self.id, number, *truth.size, *truth.content, len(objects))
        request = client.ask(Kind.SCORE, fields)
        send_parts(client, Kind.TRUTH, request.to_bytes(2, "little"), objects)
        _, status, evaluation, pictures = _SCORED.unpack_from(client.receive(Kind.SCORED, request, _SCORED.size))
        if status not in (0, ORDER):
            raise RequestFailed(client.port.name, status)
        return pictures if evaluation == self.id else 0

    def _tell(self) -> Precision:
        client = self.client
        request = client.ask(Kind.TELL, struct.pack("<HI", 0, self.id))
        found: list[int] = []
        while True:
            payload = client.receive(Kind.PRECISION, request, _PRECISION.size)
            _, status, _, pictures, mean, classes, first = _PRECISION.unpack_from(payload)
            if status:
                raise RequestFailed(client.port.name, status)
            found[first:] = np.frombuffer(payload, "<u4", -1, _PRECISION.size).tolist()
            if len(found) >= classes:
                return Precision(pictures, _known(mean), tuple(map(_known, found)))


def room_to_count(client: Client, header: TessHeader) -> str | None:
    """Why the device cannot count average precision of this model, None where it can."""
    facts = client.facts
    if not header.class_names:
        return f"model '{header.name}' has no decoder: there are no boxes to count"
    if facts is None or header.precision_words > facts.precision_words:
        room = 4 * facts.precision_words if facts else 0
        return f"the device has {room:,} B for counters of average precision, the model needs {4 * header.precision_words:,} B"
    return None


def send_found(client: Client, boxes: np.ndarray) -> Found:
    """Give the device boxes int32 (n, 6) that it found before, as those of its last picture; their name."""
    found = Found(client.session.number, client.next_request())
    packed = np.zeros(len(boxes), _BOX)
    packed["corners"], packed["score"], packed["label"] = boxes[:, :4], boxes[:, 4], boxes[:, 5]
    assert client.welcome is not None
    most = (client.welcome.payload - 4) // _BOX.itemsize
    for first in range(0, max(len(packed), 1), most):
        part = packed[first : first + most]
        client.session.send(Kind.FOUND, struct.pack("<HH", found.request, first) + part.tobytes())
    return found


def send_parts(client: Client, kind: Kind, head: bytes, items: np.ndarray) -> None:
    """Send `items` in as many messages as they need, each behind `head`; none for none."""
    assert client.welcome is not None
    most = (client.welcome.payload - len(head)) // items.dtype.itemsize
    for first in range(0, len(items), most):
        client.session.send(kind, head + items[first : first + most].tobytes())


def _known(q30: int) -> int | None:
    return None if q30 == _NOBODY else q30
