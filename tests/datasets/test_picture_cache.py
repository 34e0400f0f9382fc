"""The picture cache: same pixels, built once, never half."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from dataset_files import ITEMS, NAMES, write_image, write_voc

from datasets.cache import cache_dataset
from datasets.catalog import open_dataset
from datasets.config import DataConfig, DataError, SceneConfig
from datasets.dataset import Dataset


def open_voc(root: Path) -> Dataset:
    return open_dataset(DataConfig(path=root, format="voc", train="V/train", names=NAMES), "train")


def test_cache_holds_the_same_samples(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    dataset = open_voc(tmp_path)
    seen = []
    cached = cache_dataset(dataset, tmp_path / "cache", progress=lambda done, total: seen.append((done, total)))
    assert isinstance(cached, Dataset) and seen == [(3, 3)]
    for index in range(3):
        assert (cached[index].image == dataset[index].image).all()
        assert (cached[index].truth.boxes == dataset[index].truth.boxes).all()
        assert cached[index][2:] == dataset[index][2:]
    with pytest.raises(ValueError, match="read-only"):
        cached.image(0)[0] = 0
    assert len(list((tmp_path / "cache").iterdir())) == 2
    again = pickle.loads(pickle.dumps(cached))
    assert (again.image(1) == cached.image(1)).all()
    assert len(pickle.dumps(cached)) < 10_000


def test_cache_is_built_once_and_again_when_pictures_change(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    first = cache_dataset(open_voc(tmp_path), tmp_path / "cache")
    stamp = first.path.stat().st_mtime_ns
    assert cache_dataset(open_voc(tmp_path), tmp_path / "cache").path.stat().st_mtime_ns == stamp
    write_image(tmp_path / "V/JPEGImages/one.jpg", 60, 40, seed=99)
    second = cache_dataset(open_voc(tmp_path), tmp_path / "cache")
    assert second.path != first.path and (second.image(0) != first.image(0)).any()


def test_damaged_caches_are_rebuilt(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    path = cache_dataset(open_voc(tmp_path), tmp_path / "cache").path
    for damage in (lambda: path.write_bytes(b"short"), lambda: path.with_suffix(".json").write_text("{")):
        damage()
        cached = cache_dataset(open_voc(tmp_path), tmp_path / "cache")
        assert (cached.image(2) == open_voc(tmp_path)[2].image).all()


def test_long_side_shrinks_and_boxes_follow(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    cached = cache_dataset(open_voc(tmp_path), tmp_path / "cache", long_side=30)
    image, truth = cached.fetch(0)
    assert image.shape == (20, 30, 3) and np.allclose(truth.boxes, np.array(ITEMS[0].boxes) / 2)
    assert cached.size(0) == (60, 40)


def test_a_broken_picture_leaves_nothing_behind(tmp_path: Path) -> None:
    write_voc(tmp_path, ITEMS)
    dataset = open_voc(tmp_path)
    (tmp_path / "V/JPEGImages/two.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"two\.jpg: broken picture"):
        cache_dataset(dataset, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    write_voc(tmp_path, ITEMS)
    with pytest.raises(DataError, match="cannot be written"):
        cache_dataset(dataset, tmp_path / "file" / "cache")


def test_scenes_can_be_cached(tmp_path: Path) -> None:
    scenes = open_dataset(DataConfig(format="scenes", scenes=SceneConfig(count_train=4)), "train")
    cached = cache_dataset(scenes, tmp_path)
    assert (cached[2].image == scenes[2].image).all()
