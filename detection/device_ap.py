"""Average precision that a device counts itself, held against the same figure of this machine to the bit.

Both see the boxes that the device found. The device matches them with the truth in C (tess_ap.c), this machine in Python
(metrics/grouped.py). They differ from the sorted AP of metrics/voc.py by what it means to count equal scores as one step and to
meet the truth in 1/16 pixel of the network's frame.
"""

from typing import Any

import numpy as np

from datasets.annotations import Sample
from detection.metrics.grouped import Q30, GroupedAp, place_truth, q4_corners
from firmware.host import HostModel
from firmware.link.counting import Counting, Precision, Truth
from firmware.link.device import LinkDevice


class DeviceApError(ValueError):
    """The device counted something else than this machine did."""


class DeviceAp:
    """One evaluation, on the device and here. Pictures are added in the order of the data set."""

    def __init__(self, device: LinkDevice, model: bytes) -> None:
        self._device = device
        self._counting = Counting(device.client)
        self._classes = device.header.class_names
        self._here = GroupedAp(HostModel(model).score_levels().tolist(), len(self._classes))

    def add(self, boxes: np.ndarray, sample: Sample, content: tuple[int, int], fresh: bool) -> None:
        """int32 (n, 6) boxes that the device found, just now if `fresh`; `content` (width, height) of the picture in the frame.

        Raises LinkError where the device cannot count it.
        """
        size = (sample.width, sample.height)
        truth = Truth(np.maximum(q4_corners(sample.truth), 0), sample.truth.labels, sample.truth.ignore, size, tuple(content))
        last = self._device.last if fresh else None
        self._counting.add(boxes, truth, last and last.found)
        self._here.add(boxes, place_truth(sample.truth, size, content))

    def result(self) -> Precision:
        """What the device counted. Raises DeviceApError unless this machine counted the same, LinkError where it is gone."""
        there = self._counting.result()
        here = Precision(
            there.pictures, self._here.mean(), tuple(self._here.average_precision(label) for label in range(len(self._classes)))
        )
        if there != here:
            raise DeviceApError(f"AP50 is {there.mean} / 2^30 on the device and {here.mean} here: please report this")
        return there


def device_ap_lines(name: str, counted: Precision, by_list: float) -> list[str]:
    """`board:host counted AP50 0.3140 itself, ...`: lines for people. `by_list`: the sorted AP."""
    if counted.mean is None:
        return [f"{name} counted {counted.pictures} pictures itself, none with an object to find"]
    mean = counted.mean / Q30
    return [
        f"{name} counted AP50 {mean:.6f} itself in {counted.pictures} pictures, this machine the same to the bit; "
        f"by sorted scores {by_list:.6f} ({mean - by_list:+.6f})"
    ]


def device_ap_json(counted: Precision, by_list: float) -> dict[str, Any]:
    """The same for scripts; AP in Q30, null where no object is to be found."""
    return {
        "pictures": counted.pictures,
        "ap50_q30": counted.mean,
        "by_class_q30": list(counted.by_class),
        "equal_here": True,
        "minus_sorted": None if counted.mean is None else counted.mean / Q30 - by_list,
    }
