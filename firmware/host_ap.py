"""tess_ap.c on this machine: average precision as the camera computes it, through ctypes."""

import ctypes
from collections.abc import Sequence

import numpy as np

from firmware.host import check, library

TRUTH = np.dtype([("corners", np.int16, 4), ("label", np.uint16), ("ignore", np.uint8), ("taken", np.uint8)])  # tess_truth_t
_BOX = np.dtype([("corners", np.int16, 4), ("score", np.uint16), ("label", np.uint16)])  # tess_box_t


class _State(ctypes.Structure):
    _fields_ = [
        ("levels", ctypes.c_void_p),
        ("counters", ctypes.c_void_p),
        ("n_levels", ctypes.c_uint16),
        ("n_classes", ctypes.c_uint16),
        ("iou_threshold", ctypes.c_uint16),
    ]


def place(corners: Sequence[int], size: tuple[int, int], content: tuple[int, int]) -> tuple[int, ...]:
    """Corners in 1/16 pixel of a picture of `size` (width, height) -> in 1/16 pixel of the network's frame."""
    truth, given = np.zeros(1, TRUTH), np.asarray(corners, np.int32)
    check(library().tess_ap_place(truth.ctypes.data, given.ctypes.data, *size, *content))
    return tuple(truth["corners"][0].tolist())


class HostAp:
    """An evaluation in C; takes and gives what detection/metrics/grouped.py's GroupedAp does. Raises TessError."""

    def __init__(self, levels: Sequence[int], n_classes: int, iou_threshold: int = 16384) -> None:
        lib = library()
        self._levels = np.asarray(levels, np.uint16)
        self._counters = np.full(lib.tess_ap_counters(n_classes, len(levels)), 0xFFFFFFFF, np.uint32)
        self._state = _State()
        self._at = ctypes.addressof(self._state)
        check(
            lib.tess_ap_init(
                self._at, self._levels.ctypes.data, len(levels), n_classes, iou_threshold,
                self._counters.ctypes.data, len(self._counters),
            )
        )  # fmt: skip

    def add(self, boxes: np.ndarray, truth: np.ndarray) -> None:
        """int32 (n, 6) x1, y1, x2, y2, score, label, best first; int32 (m, 6) x1, y1, x2, y2, label, ignore."""
        found, objects = np.zeros(len(boxes), _BOX), np.zeros(len(truth), TRUTH)
        found["corners"], found["score"], found["label"] = boxes[:, :4], boxes[:, 4], boxes[:, 5]
        objects["corners"], objects["label"], objects["ignore"] = truth[:, :4], truth[:, 4], truth[:, 5]
        check(library().tess_ap_add(self._at, found.ctypes.data, len(found), objects.ctypes.data, len(objects)))

    def average_precision(self, label: int) -> int | None:
        """Of one class, Q30; None when no object of it is to be found."""
        q30 = ctypes.c_uint32()
        return q30.value if check(library().tess_ap_class(self._at, label, ctypes.byref(q30))) else None

    def mean(self) -> int | None:
        """Over the classes that have objects, Q30."""
        q30 = ctypes.c_uint32()
        return q30.value if check(library().tess_ap_mean(self._at, ctypes.byref(q30))) else None
