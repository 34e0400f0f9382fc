"""A data set as data: the keys that Ultralytics users know, plus the format and a choice of classes. No reading here."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from datasets.strict import SettingError, StrictModel, load_yaml

Format = Literal["voc", "coco", "yolo", "wider", "scenes"]
Split = Literal["train", "val", "test"]
SCENE_CLASSES = ("circle", "square", "triangle", "cross")


class DataError(ValueError):
    """A data set that cannot be used; the message names the file (and line) and the way out."""


class SceneConfig(StrictModel):
    """Generated pictures of simple shapes (scenes.py): a data set that needs no download."""

    count_train: int = Field(2000, ge=1)
    count_val: int = Field(400, ge=1)
    width: int = Field(160, ge=32, le=4096)  # pixels
    height: int = Field(128, ge=32, le=4096)
    seed: int = Field(0, ge=0)
    classes: tuple[str, ...] = SCENE_CLASSES  # any of SCENE_CLASSES, in the order of their labels
    max_objects: int = Field(5, ge=1, le=50)
    min_size: float = Field(0.16, gt=0, le=1)  # side of an object, as a share of the picture's shorter side
    max_size: float = Field(0.6, gt=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> "SceneConfig":
        unknown = [name for name in self.classes if name not in SCENE_CLASSES]
        if unknown or not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"scenes.classes must be different names out of {', '.join(SCENE_CLASSES)}")
        if self.min_size > self.max_size:
            raise ValueError("scenes.min_size is larger than scenes.max_size")
        return self


class DataConfig(StrictModel):
    """Where a data set lies, how it is written and which classes count.

    Entries of `train`, `val`, `test`, per format:
        voc     "VOC2012/train": folder below `path` and image set
        coco    "annotations/x.json:images": annotation file and image folder, both below `path`
        yolo    "images/train" or "train.txt": image folder or list of pictures
        wider   "train" or "val"
        scenes  "train" or "val"; nothing is read from disk
    """

    path: Path = Path(".")  # relative to the YAML file; absolute once loaded
    format: Format
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None  # class names of the annotation files; known for voc, coco, wider, scenes
    keep: tuple[str, ...] | None = None  # only these, in this order
    merge_to: str | None = None  # all (kept) classes become this one
    difficult: Literal["ignore", "object"] = "ignore"  # VOC: what its `difficult` objects count as
    scenes: SceneConfig | None = None

    @field_validator("train", "val", "test", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @field_validator("names", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if sorted(value) != list(range(len(value))):
            raise ValueError(f"class numbers must be 0 .. {len(value) - 1} without gaps, found {sorted(value)[:20]}")
        return tuple(value[number] for number in range(len(value)))

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if self.names is not None:
            if not self.names:
                raise ValueError("names is empty")
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            if twice:
                raise ValueError(f"names holds {', '.join(twice)} twice")
        if self.keep is not None:
            if not self.keep or len(set(self.keep)) < len(self.keep):
                raise ValueError("keep must hold at least one class, none of them twice")
            unknown = [name for name in self.keep if self.names is not None and name not in self.names]
            if unknown:
                raise ValueError(f"keep: {', '.join(unknown)} is not in names ({', '.join(self.names or ())})")
        if self.format == "yolo" and self.names is None:
            raise ValueError("names is missing: YOLO label files hold class numbers only")
        if self.scenes is not None and self.format != "scenes":
            raise ValueError(f"scenes: belongs to format: scenes, this is format: {self.format}")
        return self

    def entries(self, split: Split) -> tuple[str, ...]:
        """The entries of a split.

        Raises:
            DataError: the split is not named in the configuration.
        """
        found = {"train": self.train, "val": self.val, "test": self.test}[split]
        if not found and self.format == "scenes" and split != "test":
            return (split,)
        if not found:
            raise DataError(f"the data set at {self.path} has no split '{split}': add '{split}:' to its YAML")
        return found


def load_data_config(path: str | Path, overrides: tuple[str, ...] = ()) -> DataConfig:
    """Read a data YAML; `path:` in it is made absolute against the YAML's folder.

    Raises:
        SettingError: see strict.load_yaml.
    """
    config = load_yaml(path, DataConfig, overrides)
    root = (Path(path).resolve().parent / config.path.expanduser()).resolve()
    return config.model_copy(update={"path": root})


__all__ = ["SCENE_CLASSES", "DataConfig", "DataError", "Format", "SceneConfig", "SettingError", "Split", "load_data_config"]
