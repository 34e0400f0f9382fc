"""Which protocol a data set is scored by."""

from pathlib import Path

from detection.metrics.coco import CocoEvaluator
from detection.metrics.protocols import evaluators_for, missing_note
from detection.metrics.voc import VocEvaluator
from detection.metrics.wider import WiderEvaluator


def kinds(data_format: str, root: Path, split: str = "val") -> list[type]:
    return [type(evaluator) for evaluator in evaluators_for(data_format, root, split, ("face",))()]


def names(data_format: str, root: Path) -> list[str]:
    return [name for evaluator in evaluators_for(data_format, root, "val", ("a",))() for name in evaluator.result().values]


def test_every_format_has_ap50(tmp_path: Path) -> None:
    for data_format in ("voc", "coco", "yolo", "wider", "scenes"):
        assert "voc_ap50_area" in names(data_format, tmp_path)


def test_voc_has_both_rules_and_coco_formats_have_coco(tmp_path: Path) -> None:
    assert names("voc", tmp_path) == ["voc_ap50_area", "voc_ap50_11"]
    for data_format in ("coco", "yolo", "scenes"):
        assert kinds(data_format, tmp_path) == [CocoEvaluator, VocEvaluator]


def test_wider_without_the_official_lists_says_so(tmp_path: Path) -> None:
    assert kinds("wider", tmp_path) == [VocEvaluator]
    assert "wider_face" not in names("wider", tmp_path)
    assert ".mat is missing" in missing_note("wider", tmp_path, "val")
    assert "'train'" in missing_note("wider", tmp_path, "train")
    assert missing_note("voc", tmp_path, "val") is None


def test_wider_with_the_official_lists(shared_data: Path) -> None:
    root = shared_data / "wider_face"
    assert kinds("wider", root) == [WiderEvaluator, VocEvaluator]
    assert kinds("wider", root, "train") == [VocEvaluator]
    assert missing_note("wider", root, "val") is None


def test_evaluators_are_fresh_each_time(tmp_path: Path) -> None:
    make = evaluators_for("voc", tmp_path, "val", ("a",))
    assert make()[0] is not make()[0]
