"""Strict settings: typos name themselves and the nearest key."""

from pathlib import Path

import pytest

from datasets.config import DataConfig, DataError, load_data_config
from datasets.strict import SettingError, StrictModel, load_yaml, merge_overrides, parse

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "data"


class Inner(StrictModel):
    epochs: int = 3
    rate: float = 0.1
    name: str = "x"


class Outer(StrictModel):
    train: Inner = Inner()
    sides: tuple[int, ...] = ()
    extra: Inner | None = None
    free: dict[str, int] = {}


def read(tmp_path: Path, text: str, *overrides: str) -> Outer:
    (tmp_path / "x.yaml").write_text(text)
    return load_yaml(tmp_path / "x.yaml", Outer, overrides)


def test_values_and_overrides(tmp_path: Path) -> None:
    config = read(tmp_path, "train: {epochs: 5, rate: 1e-3, name: no}\nsides: [1, 2]", "train.epochs=7", "extra.rate=2.")
    assert config.train == Inner(epochs=7, rate=1e-3, name="no")
    assert config.sides == (1, 2) and config.extra == Inner(rate=2.0)
    assert read(tmp_path, "") == Outer()
    assert read(tmp_path, "", "free.a=1").free == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epohcs: 5}", r"x\.yaml: train\.epohcs is not a setting \(did you mean train\.epochs\?\)"),
        ("epochs: 5", r"epochs is not a setting \(did you mean train\.epochs\?\)"),
        ("extra: {rat: 1}", r"extra\.rat is not a setting \(did you mean extra\.rate\?\)"),
        ("train: {epochs: many}", r"train\.epochs is 'many', should be a valid integer"),
        ("train: {rate: .nan}", r"train\.rate is '\.nan', should be a valid number"),
        ("train: 5", r"train is 5, should be a valid dictionary"),
        ("train: {epochs: 5, epochs: 6}", r"line 1: the key 'epochs' stands twice"),
        ("train: [", r"x\.yaml: line 1: "),
        ("- 1", "expected 'key: value' lines, found a list"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epohcs=5", r"train\.epohcs is not a setting \(did you mean train\.epochs\?\)"),
        ("train.epochs.x=5", "is not a setting"),
        ("train.epochs", "is not of the form key=value"),
        ("train.epochs=[", "train.epochs=\\["),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        merge_overrides({}, [override], Outer)


def test_missing_file_suggests_a_neighbour() -> None:
    with pytest.raises(SettingError, match=r"voc99\.yaml: no such file \(did you mean .*voc9\.yaml\?\)"):
        load_yaml(CONFIGS / "voc99.yaml", DataConfig)


def test_overrides_do_not_change_their_source() -> None:
    data = {"train": {"epochs": 1}}
    assert parse(merge_overrides(data, ["train.epochs=2"], Outer), Outer, "x").train.epochs == 2
    assert data == {"train": {"epochs": 1}}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_load_and_survive_a_dump(path: Path) -> None:
    config = load_data_config(path)
    assert config.path.is_absolute()
    assert DataConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "yolo"}, "names is missing"),
        ({"format": "voc", "names": {0: "a", 2: "b"}}, "without gaps"),
        ({"format": "voc", "names": ["a", "a"]}, "names holds a twice"),
        ({"format": "voc", "names": ["a"], "keep": ["b"]}, "keep: b is not in names"),
        ({"format": "voc", "scenes": {}}, "belongs to format: scenes"),
        ({"format": "scenes", "scenes": {"classes": ["disc"]}}, "different names out of circle"),
        ({"format": "scenes", "scenes": {"min_size": 0.5, "max_size": 0.2}}, "larger than"),
        ({"format": "pascal"}, "format is 'pascal'"),
        ({"format": "voc", "trian": "x"}, r"did you mean train\?"),
    ],
)
def test_data_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        parse(settings, DataConfig, "data.yaml")


def test_ultralytics_names_and_single_entries() -> None:
    config = parse({"format": "yolo", "names": {0: "a", 1: "b"}, "train": "t", "val": ["v", "w"]}, DataConfig, "x")
    assert config.names == ("a", "b") and config.entries("train") == ("t",) and config.entries("val") == ("v", "w")
    with pytest.raises(DataError, match="no split 'test': add 'test:'"):
        config.entries("test")
