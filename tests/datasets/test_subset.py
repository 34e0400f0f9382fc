"""Fixed parts of a data set: the same on every run, apart from one another, and data sets themselves."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.dataset import Dataset
from datasets.subset import Subset, evenly_spaced, hold_out

SCENES = Path(__file__).parents[2] / "configs" / "data" / "scenes.yaml"


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset(load_data_config(SCENES), "train", 40)


@given(st.integers(1, 500), st.integers(1, 500))
def test_even_spacing_is_fixed_spread_and_ascending(n: int, limit: int) -> None:
    indices = evenly_spaced(n, limit)
    assert len(indices) == min(n, limit)
    assert indices == tuple(sorted(set(indices))) and 0 <= indices[0] and indices[-1] < n
    gaps = np.diff([*indices, indices[0] + n])
    assert gaps.max() - gaps.min() <= 1


def test_even_spacing_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        evenly_spaced(10, 0)


def test_a_subset_is_a_data_set_of_its_own_pictures(scenes: Dataset) -> None:
    subset = Subset(scenes, (3, 1))
    assert isinstance(subset, Dataset) and len(subset) == 2 and subset.classes == scenes.classes
    assert subset.image_ids == (scenes.image_ids[3], scenes.image_ids[1])
    assert [sample.image_id for sample in subset] == list(subset.image_ids)
    assert np.array_equal(subset.truth(0).boxes, scenes.truth(3).boxes) and subset.size(1) == scenes.size(1)
    assert np.array_equal(subset.fetch(1)[0], scenes.fetch(1)[0])
    assert subset.fingerprint() not in (scenes.fingerprint(), Subset(scenes, (1, 3)).fingerprint())


def test_what_is_held_out_depends_on_names_alone(scenes: Dataset) -> None:
    rest, held = hold_out(scenes, 0.25)
    assert sorted(rest.indices + held.indices) == list(range(40)) and 3 <= len(held) <= 20
    backwards = Subset(scenes, tuple(reversed(range(40))))
    assert set(hold_out(backwards, 0.25)[1].image_ids) == set(held.image_ids)
    assert set(held.image_ids) <= set(hold_out(scenes, 0.5)[1].image_ids)
    assert len(hold_out(scenes, 0)[1]) == 0
