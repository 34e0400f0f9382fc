"""Real photographs beside the repository: the numbers that their README gives. Skipped where they are absent."""

from pathlib import Path

import numpy as np
import pytest

from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.dataset import Dataset

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"


def open_real(shared_data: Path, name: str, split: str) -> Dataset:
    folder = {"wider": "wider_face", "voc9": "VOCdevkit", "facemask": "facemask853"}[name]
    config = load_data_config(CONFIGS / f"{name}.yaml", (f"path={shared_data / folder}",))
    return open_dataset(config, split)


@pytest.mark.parametrize(
    ("name", "split", "pictures", "boxes"),
    [
        ("wider", "train", 3048, 62784),
        ("wider", "val", 3226, 39697),
        ("voc9", "train", 3044, 6314),
        ("voc9", "val", 2944, 5921),
        ("facemask", "train", 677, 3106),
        ("facemask", "val", 171, 915),
    ],
)
def test_counts(shared_data: Path, name: str, split: str, pictures: int, boxes: int) -> None:
    dataset = open_real(shared_data, name, split)
    truths = [dataset.truth(index) for index in range(len(dataset))]
    assert len(dataset) == pictures
    assert sum(len(truth.boxes) for truth in truths) == boxes
    for index in range(0, pictures, 101):
        sample = dataset[index]
        height, width = sample.image.shape[:2]
        assert abs(width * sample.height - height * sample.width) <= max(sample.width, sample.height)
        limits = np.array([sample.width, sample.height], np.float32)
        assert (sample.truth.boxes >= 0).all() and (sample.truth.boxes[:, 2:] <= limits).all()


def test_wider_quirks(shared_data: Path) -> None:
    dataset = open_real(shared_data, "wider", "val")
    assert dataset.classes == ("face",)
    without = [name for index, name in enumerate(dataset.image_ids) if not len(dataset.truth(index).boxes)]
    assert "37--Soccer/37_Soccer_soccer_ball_37_281.jpg" in without
    assert all("width" in item.reason for item in dataset.dropped) and len(dataset.dropped) == 11
    assert sum(int(dataset.truth(index).ignore.sum()) for index in range(len(dataset))) == 585


def test_voc_objects_of_all_twenty_classes(shared_data: Path) -> None:
    config = load_data_config(CONFIGS / "voc9.yaml", (f"path={shared_data / 'VOCdevkit'}", "keep=null"))
    dataset = open_dataset(config.model_copy(update={"difficult": "ignore"}), "train")
    assert len(dataset.classes) == 20
    assert open_real(shared_data, "facemask", "val").classes == ("face",)
