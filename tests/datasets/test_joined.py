"""Data sets as one: nothing lost, nothing moved, no name twice."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.catalog import open_dataset
from datasets.config import DataError, load_data_config
from datasets.dataset import Dataset
from datasets.joined import Joined
from datasets.subset import Subset

SCENES = Path(__file__).parents[2] / "configs" / "data" / "scenes.yaml"


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset(load_data_config(SCENES), "train", 12)


@given(st.lists(st.lists(st.integers(0, 11), min_size=0, max_size=4, unique=True), min_size=1, max_size=4))
def test_every_picture_of_every_part_is_there_in_turn(scenes: Dataset, choice: list[list[int]]) -> None:
    joined = Joined(tuple(Subset(scenes, tuple(indices)) for indices in choice))
    flat = [index for indices in choice for index in indices]
    assert isinstance(joined, Dataset) and len(joined) == len(flat) == len(joined.image_ids) == len(set(joined.image_ids))
    for at, index in enumerate(flat):
        assert joined.image_ids[at].partition("/")[2] == scenes.image_ids[index] and joined.size(at) == scenes.size(index)
        assert np.array_equal(joined.truth(at).boxes, scenes.truth(index).boxes)
    with pytest.raises(IndexError):
        joined[len(flat)]


def test_pictures_and_their_names_belong_together(scenes: Dataset) -> None:
    joined = Joined((Subset(scenes, (5,)), Subset(scenes, (1, 5))))
    assert joined.image_ids == (f"0/{scenes.image_ids[5]}", f"1/{scenes.image_ids[1]}", f"1/{scenes.image_ids[5]}")
    for at, index in enumerate((5, 1, 5)):
        assert joined[at].image_id == joined.image_ids[at] and np.array_equal(joined[at].image, scenes[index].image)
        assert np.array_equal(joined.fetch(at)[0], scenes.fetch(index)[0])
    assert joined.fingerprint() != Joined((Subset(scenes, (5, 1)), Subset(scenes, (5,)))).fingerprint()


def test_other_classes_are_refused(scenes: Dataset) -> None:
    other = open_dataset(load_data_config(SCENES, ("scenes.classes=[circle]",)), "train", 2)
    with pytest.raises(DataError, match=r"must have the same classes: .*circle.* and \('circle',\) differ"):
        Joined((scenes, other))
