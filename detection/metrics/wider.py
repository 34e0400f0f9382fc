"""WIDER FACE easy / medium / hard as the official MATLAB `eval_tools` compute them, without their loops.

* The lists `wider_{easy,medium,hard}_val.mat` name the faces of each image that must be found; every other annotated
  face is ignored: a detection whose best overlap is such a face counts neither way. Boxes come from
  `wider_face_val.mat`, not from the `GroundTruth` that is passed in.
* Overlap is taken with `+1` widths on (x, y, x + w, y + h); a hit needs >= .5. Each detection, best score first, looks
  at the one face that it overlaps most; a face that was found already makes it a false alarm.
* Scores of all images are stretched to 0..1 together; precision and recall are read at the 1000 thresholds
  1 - t / 1000. Thresholds that nothing reaches have precision 0 / 0; MATLAB's `max` passes over that NaN, and so does
  the 0 that stands for it here.
* Images whose truth holds no box at all are skipped, detections and all, as in the original.
* One deviation: when all scores are equal the original divides 0 / 0 and finds nothing; here they all become 1.

Only images that were added count, so a subset is scored as if it were the data set (and the notes say so).
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.annotations import GroundTruth
from detection.detections import Detections
from detection.metrics.common import Metrics, MetricsError, area_under_curve, check_pair, first_of_each, overlap

SETTINGS = ("easy", "medium", "hard")
N_THRESHOLDS = 1000
IOU_THRESHOLD = 0.5


class Faces(NamedTuple):
    """Annotated faces of one image."""

    boxes: np.ndarray  # (n, 4) float64 xyxy with x2 = x + w
    kept: Mapping[str, np.ndarray]  # setting -> (n,) bool: must be found


class _Found(NamedTuple):
    """Detections of one image in one setting, in the order of `scores`."""

    proposals: np.ndarray  # (n,) bool: counts in the denominator of precision
    recalls: np.ndarray  # (n,) bool: finds a kept face for the first time


def load_faces(ground_truth: str | Path) -> dict[str, Faces]:
    """Read the official .mat files of a folder: "event/name" (no file ending) -> Faces.

    Raises MetricsError when a file is missing or is not what the official tools ship.
    """
    from scipy.io import loadmat

    folder = Path(ground_truth)
    paths = {name: folder / f"wider_{name}_val.mat" for name in ("face", *SETTINGS)}
    for path in paths.values():
        if not path.is_file():
            raise MetricsError(f"{path} is missing: it is in eval_tools/ground_truth of the official WIDER FACE tools")
    try:
        mats = {name: loadmat(path) for name, path in paths.items()}
        return _faces_of(mats)
    except (KeyError, IndexError, TypeError, NotImplementedError, ValueError) as error:
        raise MetricsError(f"{folder}: not the .mat files of WIDER FACE ({error})") from error


def _faces_of(mats: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Faces]:
    faces: dict[str, Faces] = {}
    lists = {name: mats[name]["gt_list"] for name in SETTINGS}
    for e, event in enumerate(mats["face"]["event_list"]):
        names, boxes_of = mats["face"]["file_list"][e, 0], mats["face"]["face_bbx_list"][e, 0]
        for i in range(len(names)):
            boxes = boxes_of[i, 0].astype(np.float64).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            kept = {}
            for name in SETTINGS:
                kept[name] = np.zeros(len(boxes), bool)
                kept[name][lists[name][e, 0][i, 0].astype(np.int64).ravel() - 1] = True
            faces[f"{event[0].item()}/{names[i, 0].item()}"] = Faces(boxes, kept)
    return faces


def face_key(sample_id: str) -> str:
    """ "WIDER_val/images/0--Parade/0_Parade_x.jpg" -> "0--Parade/0_Parade_x": how the .mat files call an image."""
    parts = sample_id.replace("\\", "/").split("/")
    stem = parts[-1]
    for ending in (".jpg", ".jpeg", ".png", ".webp"):
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    return "/".join([*parts[-2:-1], stem])


class WiderEvaluator:
    """Values `wider_easy`, `wider_medium`, `wider_hard`.

    With `few_faces` = n also `wider_easy_le<n>` ...: the same over the images with at most n annotated boxes, whatever
    they are (RNNPool's subset, reading A of it).
    """

    def __init__(self, ground_truth: str | Path | Mapping[str, Faces], few_faces: int | None = None) -> None:
        self.faces = ground_truth if isinstance(ground_truth, Mapping) else load_faces(ground_truth)
        self.few_faces = few_faces
        self._scores: dict[str, np.ndarray] = {}
        self._found: dict[str, dict[str, _Found]] = {}

    def add(self, sample_id: str, truth: GroundTruth, detections: Detections) -> None:
        key = face_key(sample_id)
        if key not in self.faces:
            raise MetricsError(f"image '{sample_id}' is not in the WIDER FACE validation lists (looked for '{key}')")
        if key in self._scores:
            raise MetricsError(f"image '{sample_id}' was added twice")
        check_pair(sample_id, truth, detections)
        order = np.argsort(-np.asarray(detections.scores, np.float64), kind="stable")
        self._scores[key] = np.asarray(detections.scores, np.float64)[order]
        self._found[key] = match(self.faces[key], detections.boxes[order])

    def result(self) -> Metrics:
        keys = sorted(self._scores)
        values = {name: float(value[0]) for name, value in self.resampled(np.ones((1, len(keys)), np.int64)).items()}
        notes = ()
        if len(keys) < len(self.faces):
            notes = (f"WIDER FACE on {len(keys)} of {len(self.faces)} images: stands beside no published figure",)
        if self.few_faces is not None:
            few = [keys[i] for i in self._few(keys)]
            notes += (
                f"le{self.few_faces}: the {len(few)} images with at most {self.few_faces} annotated boxes, whatever they are; "
                f"scores stretched over these images alone; sha256 of the list {list_sha256(few)}",
            )
        return Metrics(values, len(keys), notes=notes)

    def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        keys = sorted(self._scores)
        values = {f"wider_{name}": self._average_precision(keys, name, weights) for name in SETTINGS}
        if self.few_faces is not None:
            chosen = self._few(keys)
            few, few_weights = [keys[i] for i in chosen], weights[:, chosen]
            for name in SETTINGS:
                values[f"wider_{name}_le{self.few_faces}"] = self._average_precision(few, name, few_weights)
        return values

    def _few(self, keys: list[str]) -> list[int]:
        return [i for i, key in enumerate(keys) if len(self.faces[key].boxes) <= self.few_faces]

    def _average_precision(self, keys: list[str], setting: str, weights: np.ndarray) -> np.ndarray:
        """Proposals and recalled faces only add up over images: counted once an image and threshold, then weighed. (r,)"""
        from scipy.sparse import csr_matrix

        kept = np.array([self.faces[key].kept[setting].sum() for key in keys], np.int64)
        columns = np.ascontiguousarray(weights.T, dtype=np.int64)
        n_faces = kept @ columns
        if not keys:
            return np.full(len(weights), np.nan)
        scores = _stretch(np.concatenate([self._scores[key] for key in keys]))
        found = [self._found[key][setting] for key in keys]
        image = np.repeat(np.arange(len(keys)), [len(one.proposals) for one in found])
        proposals, recalls = (np.concatenate(parts) for parts in zip(*found, strict=True))
        thresholds = 1 - np.arange(1, N_THRESHOLDS + 1) / N_THRESHOLDS
        first = np.searchsorted(-thresholds, -scores)  # the first threshold that a detection reaches
        n_proposals, n_recalled = (
            np.cumsum(csr_matrix((marks.astype(np.int64), (first, image)), (N_THRESHOLDS, len(keys))) @ columns, axis=0)
            for marks in (proposals, recalls)
        )
        precision = n_recalled / np.maximum(n_proposals, 1)
        return np.where(n_faces > 0, area_under_curve(n_recalled / np.maximum(n_faces, 1), precision), np.nan)


def list_sha256(keys: Iterable[str]) -> str:
    """Of a list of images: sorted keys ("event/name", no file ending), one a line, each line ended by a newline."""
    return hashlib.sha256("".join(f"{key}\n" for key in sorted(keys)).encode()).hexdigest()


def match(faces: Faces, boxes: np.ndarray) -> dict[str, _Found]:
    """Match the detections of one image, (n, 4) xyxy best first, with its faces, in each setting."""
    nothing = np.zeros(len(boxes), bool)
    if not len(boxes) or not len(faces.boxes):
        return dict.fromkeys(SETTINGS, _Found(nothing, nothing))
    iou = overlap(boxes, faces.boxes, extra=1.0)
    best = iou.argmax(axis=1)
    near = iou[np.arange(len(best)), best] >= IOU_THRESHOLD
    found = {}
    for name in SETTINGS:
        on_kept = near & faces.kept[name][best]
        candidates = np.flatnonzero(on_kept)
        recalls = nothing.copy()
        recalls[candidates[first_of_each(best[candidates])]] = True
        found[name] = _Found(~near | on_kept, recalls)
    return found


def _stretch(scores: np.ndarray) -> np.ndarray:
    """Min-max over all detections of all images: (n,) -> (n,) in [0, 1]."""
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)
