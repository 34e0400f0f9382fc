"""Which protocols a data set is scored by, and what each value's name stands for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from detection.metrics.coco import CocoEvaluator
from detection.metrics.common import Evaluator
from detection.metrics.presence import PresenceEvaluator
from detection.metrics.sizes import SIZES, SizeEvaluator
from detection.metrics.voc import VocEvaluator
from detection.metrics.wider import SETTINGS, WiderEvaluator, load_faces

FEW_FACES = 3  # RNNPool's subset of WIDER FACE

_COCO = {
    "ap": "AP, mean over IoU .50:.95", "ap50": "AP at IoU .50", "ap75": "AP at IoU .75",
    "ap_small": "AP .50:.95, objects under 32^2 px of the original", "ap_medium": "AP .50:.95, 32^2 to 96^2 px",
    "ap_large": "AP .50:.95, over 96^2 px", "ar1": "recall .50:.95 with 1 detection an image",
    "ar10": "recall .50:.95 with 10", "ar100": "recall .50:.95 with 100", "ar_small": "recall .50:.95, small objects",
    "ar_medium": "recall .50:.95, medium objects", "ar_large": "recall .50:.95, large objects",
}  # fmt: skip
PROTOCOLS: dict[str, str] = {
    **{f"wider_{name}": f"WIDER FACE {name}, official evaluation, 1000 thresholds, one scale" for name in SETTINGS},
    **{
        f"wider_{name}_le{FEW_FACES}": f"WIDER FACE {name} over the images with at most {FEW_FACES} annotated boxes"
        for name in SETTINGS
    },
    "voc_ap50_area": "PASCAL VOC AP at IoU >= .5, area under the curve (2010 and later), mean over classes",
    "voc_ap50_11": "PASCAL VOC AP at IoU >= .5, 11 points (2007), mean over classes",
    **{f"coco_{name}": f"COCO {text}, pycocotools" for name, text in _COCO.items()},
    **{
        name: f"PASCAL VOC AP at IoU >= .5, area; objects with a side of {words} in the network's input"
        for name, words in SIZES.items()
    },
    "presence_accuracy": "share of pictures, object of at least 0.5 % of the picture (Visual Wake Words), score >= .5",
    "presence_majority": "accuracy of always giving the commoner answer, which a classifier must beat",
    "presence_balanced": "mean of the shares of pictures with and without such an object that are told right",
    "presence_ap": "AP of pictures ranked by score, area under the curve (VOC's classification task)",
}  # every value that an evaluation writes: name -> its protocol in words


def evaluators_for(
    data_format: str,
    root: Path,
    split: str,
    classes: Sequence[str],
    scales: Mapping[str, float] | None = None,
    presence: bool = False,
) -> Callable[[], list[Evaluator]]:
    """A maker of fresh evaluators: AP50 for everything, with `scales` (`sizes.input_scales`) also by size, beside it what
    the format's own protocol is: VOC's 11 points, WIDER FACE's three settings, or COCO.

    WIDER FACE's own protocol needs its validation split and `eval_tools/ground_truth/*.mat` below `root`; without them
    only AP50 is given (`missing_note` says why). With `presence` the data set is scored as a classifier's.
    """
    if presence:
        return lambda: [PresenceEvaluator(classes)]
    faces = load_faces(_ground_truth(root)) if data_format == "wider" and split == "val" and _has_lists(root) else None

    def make() -> list[Evaluator]:
        made: list[Evaluator] = []
        if faces is not None:
            made.append(WiderEvaluator(faces, FEW_FACES))
        if data_format not in ("wider", "voc"):
            made.append(CocoEvaluator(classes))
        made.append(VocEvaluator(classes, eleven_points=data_format == "voc"))
        if scales is not None:
            made.append(SizeEvaluator(classes, scales))
        return made

    return make


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
