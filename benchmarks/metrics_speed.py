"""How long the metrics take: `python -m benchmarks.metrics_speed`. AP50 is asked after every validation of a training run.

Seconds of processor time, and how many times the cheaper part of each (building the truth and detections) they are.
"""

import json
import time
from pathlib import Path

import numpy as np

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.voc import ap50

IMAGES, DETECTIONS, OBJECTS, CLASSES = 1000, 100, 10, 20


def pictures(rng: np.random.Generator) -> list[tuple[GroundTruth, Detections]]:
    """Random truth and detections of IMAGES pictures."""

    def boxes(n: int) -> np.ndarray:
        corner = rng.random((n, 2)) * 200
        return np.hstack([corner, corner + rng.random((n, 2)) * 80 + 1]).astype(np.float32)

    found = []
    for _ in range(IMAGES):
        truth = GroundTruth(boxes(OBJECTS), rng.integers(0, CLASSES, OBJECTS), np.zeros(OBJECTS, bool))
        scores = -np.sort(-rng.random(DETECTIONS)).astype(np.float32)
        found.append((truth, Detections(boxes(DETECTIONS), scores, rng.integers(0, CLASSES, DETECTIONS))))
    return found


def main() -> None:
    start = time.process_time()
    pairs = pictures(np.random.default_rng(0))
    built = time.process_time()
    ap50(pairs, [str(c) for c in range(CLASSES)])
    done = time.process_time()
    outcome = {
        "images": IMAGES,
        "detections_an_image": DETECTIONS,
        "ap50_seconds": round(done - built, 3),
        "ap50_over_building": round((done - built) / (built - start), 2),
    }
    Path("benchmarks/metrics_speed.json").write_text(json.dumps(outcome, indent=1) + "\n")
    print(outcome)


if __name__ == "__main__":
    main()
