"""Bootstrap over images (Efron's percentile interval): how far a value would move on other images of the same kind.

A resample draws as many images as there are, with replacement, and image i then counts `weights[i]` times. Detections are
matched with objects when an image is added and never again: matching looks at one image at a time, so a resample only
changes how often an image's hits and misses count. The values are those that as many copies of the images would give
(up to the order of equal scores within one image).

WIDER FACE stretches scores between the extremes of all images; resamples keep the stretch of the whole set.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
_BLOCK = 100  # resamples at a time: curves of many thousand points would not fit into memory otherwise


class Curve(NamedTuple):
    """Recall and precision of r weightings at the n detections that find an object, best score first.

    Between two hits recall does not change and precision only falls, so every AP of this project is settled by them.
    """

    found: np.ndarray  # (n, r) int64: objects found so far
    seen: np.ndarray  # (n, r) int64: detections so far that count
    objects: np.ndarray  # (r,) int64: objects to find

    @property
    def recall(self) -> np.ndarray:
        """(n, r) float64; zeros where there is nothing to find."""
        return self.found / np.maximum(self.objects, 1)

    @property
    def precision(self) -> np.ndarray:
        """(n, r) float64. A curve's first points may have weight 0: nothing was seen, precision is 0."""
        return self.found / np.maximum(self.seen, 1)


def curve_of(image: np.ndarray, hits: np.ndarray, objects: np.ndarray, weights: np.ndarray) -> Curve:
    """Count detections, best first, under each weighting.

    Args:
        image: (n,) int, which image a detection is of.
        hits: (n,) bool; the others are false alarms.
        objects: (images,) int, objects to find.
        weights: (r, images) int, how often an image counts.
    """
    from scipy.sparse import csr_matrix

    n_hits = int(hits.sum())
    section = np.cumsum(hits) - hits  # a hit ends its section; what comes after the last hit changes nothing
    inside = section < n_hits
    ones = np.ones(int(inside.sum()), np.int64)
    counts = csr_matrix((ones, (section[inside], image[inside])), shape=(n_hits, len(objects)))
    columns = np.ascontiguousarray(weights.T, dtype=np.int64)
    return Curve(np.cumsum(columns[image[hits]], axis=0), np.cumsum(counts @ columns, axis=0), objects @ columns)


def plain_curve(hits: np.ndarray, objects: int) -> Curve:
    """One curve without weights. hits: (n,) bool, best score first; objects to find among them."""
    return curve_of(np.zeros(len(hits), np.int64), hits, np.array([objects]), np.ones((1, 1), np.int64))


def image_weights(n_images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(resamples, n_images) int64, rows that add up to n_images: the same ones on every run."""
    draws = np.random.default_rng(seed).integers(0, max(n_images, 1), (resamples, n_images))
    rows = np.repeat(np.arange(resamples), n_images)
    return np.bincount(rows * n_images + draws.ravel(), minlength=resamples * n_images).reshape(resamples, n_images)


def bootstrap(evaluators: Sequence, n_images: int, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
    """Every value of every evaluator in every resample: name -> (resamples,). Equal images and seed give equal resamples,
    so the values of two predictors may be subtracted pair by pair."""
    weights = image_weights(n_images, resamples, seed)
    values: dict[str, list[np.ndarray]] = {}
    for first in range(0, resamples, _BLOCK):
        for evaluator in evaluators:
            for name, part in evaluator.resampled(weights[first : first + _BLOCK]).items():
                values.setdefault(name, []).append(part)
    return {name: np.concatenate(parts) for name, parts in values.items()}


def interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The middle share `confidence` of resampled values; NaN where no resample defines one."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mean_of_classes(by_class: Mapping[str, np.ndarray], resamples: int) -> np.ndarray:
    """Mean over the classes that a resample defines: name -> (r,) becomes (r,), NaN where there is no class left."""
    if not by_class:
        return np.full(resamples, np.nan)
    values = np.stack(list(by_class.values()))
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
