"""What int8 costs in the end: AP50 of the float network and of model.tess in the C runtime, on the same few pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.annotations import Sample
from detection.config import Config
from detection.evaluate import evaluate_together
from detection.metrics.presence import PresenceEvaluator
from detection.metrics.voc import VocEvaluator
from detection.model.detector import Detector
from detection.predictors import FloatPredictor, device_predictor
from detection.presence import PresenceSpec
from firmware.device import open_host

METRIC = "voc_ap50_area"


class DropError(ValueError):
    """Quantisation lost more than was allowed."""


@dataclass(frozen=True)
class FloatNetwork:
    """What an int8 network was made from, and pictures to compare the two on."""

    detector: Detector
    config: Config
    pictures: Sequence[Sample]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Drop:
    """AP50 in [0, 1]; NaN where the pictures show nothing."""

    float_ap: float
    int8_ap: float
    images: int
    metric: str = METRIC

    @property
    def points(self) -> float:
        """What int8 lost, in hundredths."""
        return 100 * (self.float_ap - self.int8_ap)

    def as_json(self) -> dict[str, Any]:
        values = {"float": round(self.float_ap, 4), "int8": round(self.int8_ap, 4), "points": round(self.points, 2)}
        return {"metric": self.metric, "images": self.images, **values}


def measure_drop(network: FloatNetwork, tess: Path, presence: PresenceSpec | None = None) -> Drop:
    """Show the pictures to both. `presence`: of a classifier."""
    size = network.config.input.height, network.config.input.width
    predictors = [
        FloatPredictor(network.detector, size, network.config.decode),
        device_predictor(open_host(tess), "host", presence, raw=False),
    ]
    if presence is not None:
        metric, make = "presence_ap", lambda: [PresenceEvaluator(network.classes)]
    else:
        metric, make = METRIC, lambda: [VocEvaluator(network.classes, eleven_points=False)]
    found = evaluate_together(predictors, network.pictures, make)
    float_ap, int8_ap = (one.metrics.values[metric] for one in found)
    return Drop(float_ap, int8_ap, len(network.pictures), metric)


def check_drop(drop: Drop, most: float, worst: str, trained: bool = False) -> None:
    """Raise DropError where more than `most` points are lost; `worst` is the layer to look at, `trained`: under train.int8."""
    if drop.points > most:
        advice = (
            "train it longer with train.int8, or begin again from weights of another train.init"
            if trained
            else "try --method percentile, more --calibration pictures, or a few epochs of training with train.int8"
        )
        raise DropError(
            f"int8 loses {drop.points:.1f} points of AP on {drop.images} pictures ({drop.float_ap:.3f} in float, "
            f"{drop.int8_ap:.3f} in int8), more than --max-drop {most:g}; nothing was written. The layer that int8 hurts most "
            f"is {worst}: {advice}"
        )
