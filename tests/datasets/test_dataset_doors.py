"""python -m datasets.check and .shrink, called as functions and once as a user would."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset_files import ITEMS, NAMES, Item, write_coco, write_image, write_text, write_voc, write_wider, write_yolo

from datasets import check
from datasets import shrink as shrink_door
from datasets.catalog import open_dataset
from datasets.cli import run
from datasets.config import DataConfig, DataError, load_data_config
from datasets.shrink import shrink

ROOT = Path(__file__).resolve().parents[2]


def write_config(root: Path, **more: object) -> str:
    config = {"path": str(root), "format": "voc", "train": "V/train", "names": list(NAMES), **more}
    return str(write_text(root.parent / "data.yaml", yaml.safe_dump(config)))


def test_check_reports_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(tmp_path / "set", (*ITEMS, Item("four", (60, 40), [(50, 30, 80, 60), (9, 9, 9, 9)], [1, 1])))
    assert check.main([write_config(tmp_path / "set")]) == 0
    text = capsys.readouterr().out
    assert "train: 4 pictures (1 without objects), 4 boxes, 0 of them ignored" in text
    assert "cat                        1        0         1" in text
    assert "boxes dropped: 1" in text and "V/four [9, 9, 9, 9]: width 0, height 0" in text
    assert "boxes clipped: 1" in text and "reaches 20 px out of the 60 x 40 picture" in text
    assert "every picture can be read" in text


def test_check_finds_broken_and_shared_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "set"
    write_voc(root, ITEMS)
    write_text(root / "V/ImageSets/Main/val.txt", "three\n")
    picture = root / "V/JPEGImages/one.jpg"
    picture.write_bytes(picture.read_bytes()[:1000])  # cut off: OpenCV alone would not mind
    write_image(root / "V/JPEGImages/two.jpg", 47, 33)  # of another shape than annotated
    with pytest.raises(DataError, match="2 pictures are missing, broken or of another shape"):
        check.main([write_config(root, val="V/val")])
    text = capsys.readouterr().out
    assert "one.jpg: broken picture" in text
    assert "two.jpg: picture is 47 x 33, its annotations speak of 33 x 47" in text
    assert "pictures in two splits: 1" in text and "train V/three = val V/three" in text
    picture.unlink()
    with pytest.raises(DataError, match="2 pictures"):
        check.main([write_config(root)])
    assert "one.jpg: picture is missing" in capsys.readouterr().out


@pytest.mark.parametrize("style", ["voc", "coco", "yolo", "wider"])
def test_shrunk_copies_are_the_same_data_set(tmp_path: Path, style: str) -> None:
    root, out = tmp_path / "set", tmp_path / "small"
    {"voc": write_voc, "coco": write_coco, "yolo": write_yolo, "wider": write_wider}[style](root, ITEMS)
    entry = {"voc": "V/train", "coco": "train.json:pictures", "yolo": "images/train", "wider": "train"}[style]
    names = None if style == "wider" else NAMES
    config = DataConfig(path=root, format=style, train=entry, names=names)
    assert shrink(config, out, 30) == 3
    before, after = open_dataset(config, "train"), open_dataset(load_data_config(out / "data.yaml"), "train")
    assert after.image_ids == before.image_ids and after.classes == before.classes
    for index in range(3):
        assert after.size(index) == before.size(index)
        assert np.allclose(after.truth(index).boxes, before.truth(index).boxes)
        assert max(after[index].image.shape) == 30
    assert not list(out.rglob("*.partial"))


def test_shrink_goes_on_where_it_stopped(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "small"
    write_voc(root, ITEMS)
    config = DataConfig(path=root, format="voc", train="V/train", names=NAMES)
    broken = root / "V/JPEGImages/two.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    with pytest.raises(DataError, match="two.jpg: broken picture"):
        shrink(config, out, 30, webp=True)
    broken.write_bytes(whole)
    done = out / "V/JPEGImages/one.jpg"
    stamp = done.stat().st_mtime_ns
    shrink(config, out, 30, webp=True)
    assert done.stat().st_mtime_ns == stamp
    assert done.read_bytes()[8:12] == b"WEBP"
    with pytest.raises(DataError, match="was begun with"):
        shrink(config, out, 20)
    for bad, message in ((root / "in", "lie inside each other"), (tmp_path, "lie inside"), (ROOT / "docs", "inside")):
        if bad != ROOT / "docs":
            with pytest.raises(DataError, match=message):
                shrink(config, bad, 30)
    with pytest.raises(DataError, match="generated scenes"):
        shrink(DataConfig(format="scenes"), tmp_path / "s", 30)


def test_shrink_refuses_a_foreign_folder(tmp_path: Path) -> None:
    write_voc(tmp_path / "set", ITEMS)
    write_text(tmp_path / "mine" / "letter.txt", "dear")
    with pytest.raises(DataError, match="is not empty"):
        shrink_door.main([write_config(tmp_path / "set"), str(tmp_path / "mine")])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("a\n b"), "error: a b\n"),
        (FileNotFoundError(2, "No such file", "x"), "error: x: No such file\n"),
        (KeyboardInterrupt(), "error: interrupted\n"),
    ],
)
def test_run_prints_one_line(error: BaseException, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 1 and capsys.readouterr().err == text


def test_run_returns_the_code_and_lets_bugs_through() -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda: 3)
    assert caught.value.code == 3
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)


def test_as_a_user_would(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "datasets.check", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"error: {tmp_path}/none.yaml: no such file\n"
