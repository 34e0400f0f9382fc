"""Which protocols a data set is scored by: its own, and AP50 beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from detection.metrics.coco import CocoEvaluator
from detection.metrics.common import Evaluator
from detection.metrics.voc import VocEvaluator
from detection.metrics.wider import SETTINGS, WiderEvaluator, load_faces

FEW_FACES = 3  # RNNPool's subset of WIDER FACE


def evaluators_for(data_format: str, root: Path, split: str, classes: Sequence[str]) -> Callable[[], list[Evaluator]]:
    """A maker of fresh evaluators: AP50 for everything, beside it what the format's own
    protocol is: VOC's 11 points, WIDER FACE's three settings, or COCO.

    WIDER FACE's own protocol needs its validation split and `eval_tools/ground_truth/*.mat` below `root`; without them
    only AP50 is given (`missing_note` says why).
    """
    if data_format == "wider" and split == "val" and _has_lists(root):
        faces = load_faces(_ground_truth(root))
        return lambda: [WiderEvaluator(faces, FEW_FACES), VocEvaluator(classes, eleven_points=False)]
    if data_format in ("wider", "voc"):
        return lambda: [VocEvaluator(classes, eleven_points=data_format == "voc")]
    return lambda: [CocoEvaluator(classes), VocEvaluator(classes, eleven_points=False)]


def missing_note(data_format: str, root: Path, split: str) -> str | None:
    """Why a data set is not scored by its own protocol, None where it is."""
    if data_format != "wider" or (split == "val" and _has_lists(root)):
        return None
    if split != "val":
        return f"WIDER FACE's protocol is defined for its validation images, not for '{split}'"
    return f"WIDER FACE's easy / medium / hard need the official lists: {_ground_truth(root)}/*.mat is missing"


def _ground_truth(root: Path) -> Path:
    return root / "eval_tools" / "ground_truth"


def _has_lists(root: Path) -> bool:
    return all((_ground_truth(root) / f"wider_{name}_val.mat").is_file() for name in ("face", *SETTINGS))
