"""Generated scenes: the same for the same seed, boxes that fit what is drawn."""

import numpy as np
import pytest

from datasets.catalog import open_dataset
from datasets.config import DataConfig, DataError, SceneConfig
from datasets.dataset import Dataset
from datasets.scenes import SceneDataset, _paint, _place, draw_scene

CONFIG = DataConfig(format="scenes", scenes=SceneConfig(count_train=40, count_val=10))


def test_scenes_depend_on_seed_split_and_index_only() -> None:
    first, second = open_dataset(CONFIG, "train"), open_dataset(CONFIG, "train")
    assert isinstance(first, Dataset) and len(first) == 40
    second[3]
    assert (first[7].image == second[7].image).all()
    assert (first.truth(7).boxes == second.truth(7).boxes).all()
    others = [open_dataset(CONFIG, "val")[7].image, first[8].image]
    other_seed = DataConfig(format="scenes", scenes=SceneConfig(seed=1))
    others.append(open_dataset(other_seed, "train")[7].image)
    assert all((first[7].image != image).mean() > 0.5 for image in others)


def test_scenes_are_well_formed() -> None:
    dataset = open_dataset(CONFIG, "train")
    labels, empty = [], 0
    for index in range(len(dataset)):
        sample = dataset[index]
        boxes = sample.truth.boxes
        assert sample.image.shape == (128, 160, 3) and sample.image.dtype == np.uint8
        assert boxes.shape == (len(sample.truth.labels), 4) and boxes.dtype == np.float32
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (160, 128)).all() and (boxes[:, :2] < boxes[:, 2:]).all()
        assert len(boxes) <= 5
        labels += sample.truth.labels.tolist()
        empty += not len(boxes)
    assert set(labels) == {0, 1, 2, 3} and 0 < empty < 12
    assert dataset.image_ids[7] == "train/000007"


@pytest.mark.parametrize("name", ["circle", "square", "triangle", "cross"])
def test_boxes_enclose_the_painted_pixels(name: str) -> None:
    rng = np.random.default_rng(5)
    config = SceneConfig()
    for _ in range(20):
        corners = _place(rng, config, name, [])
        image, owner = np.zeros((128, 160, 3), np.uint8), np.zeros((128, 160), np.uint8)
        assert _paint(rng, image, owner, corners, 1)
        rows, columns = np.nonzero(owner)
        low, high = np.maximum(corners.min(0), 0), np.minimum(corners.max(0), (160, 128))
        painted = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(painted - np.concatenate([low, high])).max() <= 1.6


def test_hidden_shapes_are_ignored() -> None:
    crowded = SceneConfig(max_objects=20, min_size=0.3)
    truths = [draw_scene(crowded, 0, index)[1] for index in range(20)]
    share = np.concatenate([truth.ignore for truth in truths]).mean()
    assert 0.05 < share < 0.6


def test_other_sizes_classes_and_limit() -> None:
    scenes = SceneConfig(width=64, height=96, classes=("cross", "circle"))
    dataset = open_dataset(DataConfig(format="scenes", scenes=scenes, keep=["circle"]), "val", limit=5)
    assert isinstance(dataset, SceneDataset) and len(dataset) == 5 and dataset.classes == ("circle",)
    assert all(dataset[index].image.shape == (96, 64, 3) for index in range(5))
    assert all((dataset.truth(index).labels == 0).all() for index in range(5))
    with pytest.raises(IndexError):
        dataset[5]
    with pytest.raises(DataError, match="no split 'test'"):
        open_dataset(CONFIG, "test")
    with pytest.raises(DataError, match="splits train and val"):
        open_dataset(DataConfig(format="scenes", train="trian"), "train")
