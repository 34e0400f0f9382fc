"""docs/own_data.md with real files: its YAMLs are written as printed there, its commands run as printed there."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets import check
from datasets.config import load_data_config
from datasets.voc import CLASSES, read_voc

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "own_data.md").read_text()
YAMLS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line.split() for line in TEXT.splitlines() if line.startswith("    python ")]
QUICK = {  # what a test may spend
    "train": ["train.epochs=1", "train.limit=8", "train.batch_size=4", "train.workers=0", "train.warmup_iterations=1",
              "train.val_images=2", "train.val_every=1", "input.height=64", "input.width=64", "train.cache=false"],
    "export": ["--calibration", "4", "--verification", "1", "--sample", "2", "--max-drop", "100"],
    "eval": ["--resamples", "20"],
}  # fmt: skip


@pytest.fixture
def pictures(shared_data: Path, tmp_path: Path) -> Path:
    """A user's folder: VOC pictures of people and cars in both kinds of labels."""
    folder, names = tmp_path / "mydata", ("person", "car")
    for split, image_set, count in (("train", "VOC2012/train", 9), ("val", "VOC2012/val", 3)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        coco = {"images": [], "annotations": [], "categories": [{"id": n + 1, "name": name} for n, name in enumerate(names)]}
        for item in read_voc(shared_data / "VOCdevkit", image_set):
            chosen = [n for n, name in enumerate(item.names) if name in names]
            if not chosen:
                continue
            width, height = item.size
            shutil.copy(item.path, folder / "images" / split / item.path.name)
            coco["images"].append({"id": len(coco["images"]), "file_name": item.path.name, "width": width, "height": height})
            lines = []
            for n in chosen:
                x1, y1, x2, y2 = item.boxes[n]
                label = names.index(item.names[n])
                shares = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                lines.append(" ".join([str(label), *(f"{share:.6f}" for share in shares)]))
                box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": label + 1, "image_id": len(coco["images"]) - 1}
                coco["annotations"].append({"id": len(coco["annotations"]), **box})
            (folder / "labels" / split / f"{item.path.stem}.txt").write_text("\n".join(lines))
            if len(coco["images"]) == count:
                break
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(coco))
    assert set(names) < set(CLASSES)
    return folder


def run(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One command of the page, its folders moved to `folder`'s parent; returns the script's name."""
    words = [re.sub(r"\b(mydata|runs)/", lambda match: f"{folder.parent / match[1]}/", word) for word in words[1:]]
    if words[0] == "-m":
        assert words[1] == "datasets.check" and check.main(words[2:]) == 0
        return words[1]
    script = words[0].removesuffix(".py")
    more = ["--runs", str(folder.parent / "runs")] if script == "train" else []
    monkeypatch.setattr(sys, "argv", [*words, *QUICK.get(script, []), *more])
    assert importlib.import_module(script).main() == 0
    return script


def test_the_walk_with_yolo_labels(pictures: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    (pictures / "data.yaml").write_text(YAMLS[0])
    walked = [run(words, pictures, monkeypatch) for words in COMMANDS]
    assert walked == ["datasets.check", "train", "export", "eval", "demo", "train", "export"]  # the last two in int8
    printed = capsys.readouterr().out
    assert "every picture can be read" in printed and "started from zoo/face_vga/checkpoint.pt" in printed
    assert "= int8" in printed and "rounding as int8 does: ranges by mse" in printed
    assert len(list((pictures.parent / "runs" / "own" / "found").iterdir())) == 3
    assert all((pictures.parent / "runs" / name / "export" / "model.tess").is_file() for name in ("own", "own_int8"))


def test_the_same_boxes_from_a_coco_file(pictures: Path, capsys) -> None:
    from datasets.catalog import open_dataset

    found = []
    for number, text in enumerate(YAMLS):
        (pictures / f"{number}.yaml").write_text(text)
        config = load_data_config(pictures / f"{number}.yaml")
        assert check.main([str(pictures / f"{number}.yaml")]) == 0
        data = open_dataset(config, "train")
        shares = [data.truth(i).boxes / np.tile(data.size(i), 2) for i in range(len(data))]  # YOLO's size is the file's own
        by_name = {Path(data.image_ids[i]).name: (data.truth(i).labels.tolist(), shares[i]) for i in range(len(data))}
        found.append((data.classes, by_name))
    (yolo_classes, yolo), (coco_classes, coco) = found
    assert yolo_classes == coco_classes == ("person", "car") and yolo.keys() == coco.keys() and len(yolo) == 9
    for name, (labels, shares) in yolo.items():
        assert labels == coco[name][0] and shares == pytest.approx(coco[name][1], abs=1e-5)


def test_the_template_is_the_pages_yaml() -> None:
    template = (ROOT / "configs" / "data" / "own.yaml").read_text()
    assert template.partition("\n")[2] == YAMLS[0]
