"""One experiment as data: frozen, strict, without torch. `load_config` reads YAML plus `key=value` arguments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from datasets.strict import SettingError, StrictModel, merge_overrides, parse, read_yaml
from datasets.transforms import AugmentConfig
from detection.arch import Arch, shapes
from detection.observers import Method

ConfigError = SettingError  # what a wrong setting raises, wherever it is found
ROOT = Path(__file__).resolve().parents[1]


class InputConfig(StrictModel):
    """Size of the network's input, pixels; also of the training crops, unless `train.crop` says otherwise."""

    height: int = Field(ge=32, le=4096)
    width: int = Field(ge=32, le=4096)


class DecodeConfig(StrictModel):
    """From head maps to boxes."""

    score_threshold: float = Field(0.05, gt=0, lt=1)
    iou_threshold: float = Field(0.45, gt=0, lt=1)
    max_candidates: int = Field(400, ge=1)  # kept by score before suppression
    max_detections: int = Field(100, ge=1)


class LossConfig(StrictModel):
    """Weights and kinds of the loss terms."""

    box: float = Field(2.0, ge=0)
    objectness: float = Field(2.0, ge=0)
    classes: float = Field(1.0, ge=0)
    teacher: float = Field(1.0, ge=0)  # of the teacher's scores, where there is a teacher
    teacher_box: float = Field(1.0, ge=0)  # and of its boxes
    teacher_from: float = Field(12.0, ge=0)  # pixels: side from which the teacher sees faces; of smaller ones it is not asked
    box_kind: Literal["ciou", "eiou"] = "ciou"
    objectness_kind: Literal["quality_focal", "bce"] = "quality_focal"
    iou_floor: float = Field(0.2, ge=0, le=1)  # objectness target of an assigned cell = floor + (1 - floor) * IoU
    radius: int = Field(1, ge=0, le=4)  # candidates: cells up to this far from the centre's


CropSide = Annotated[int, Field(ge=32, le=4096)]


class TrainConfig(StrictModel):
    """The run. The learning rate follows iterations, not time, so that a run can be repeated."""

    epochs: int = Field(100, ge=1)
    init: Path | None = None  # weights to start from: a checkpoint's averaged ones, or an ImageNet file (imagenet.py)
    int8: Method | None = None  # train init's network as int8 rounds it, in ranges chosen so on training pictures
    extra: tuple[Path, ...] = ()  # data YAMLs of the same classes: their training pictures join
    crop: tuple[CropSide, CropSide] | None = None  # height and width of the training crops, pixels
    batch_size: int = Field(16, ge=1)  # a process
    lr: float = Field(8e-3, gt=0)  # peak
    decay: float = Field(1.0, gt=0, le=1)  # share of the run, its last, in which the rate falls, by a cosine
    final_lr: float = Field(0.01, ge=0, le=1)  # share of the peak at the end of the cosine
    weight_decay: float = Field(0.01, ge=0)  # of weights only
    warmup_iterations: int = Field(500, ge=0)
    clip_norm: float = Field(10.0, gt=0)
    ema_decay: float = Field(0.9998, ge=0, lt=1)
    ema_ramp: float = Field(2000.0, gt=0)  # iterations: decay * (1 - exp(-n / ramp))
    calm_epochs: int = Field(0, ge=0)  # the last ones without mosaic, anchor sampling and extra colours
    seed: int = Field(0, ge=0)
    workers: int = Field(1, ge=0)  # loader processes; 0 loads in the training process
    threads: int = Field(1, ge=1)  # of torch
    compile: bool = False  # torch.compile: minutes at the start, then faster steps; needs a C++ compiler
    cache: bool = True  # decode once, into runs/cache
    cache_side: int | None = Field(None, ge=16)  # pixels: longer pictures are shrunk in the cache
    tuning: float = Field(0.0, ge=0, lt=1)  # share of the training pictures held out to validate on; 0: the val split
    teacher: Path | None = None  # YuNet's .onnx: distil its scores and boxes (one class, strides 8, 16, 32)
    val_every: int = Field(5, ge=1)  # epochs
    val_images: int = Field(400, ge=1)  # at most; evenly spread over the split
    save_every_s: float = Field(120.0, gt=0)  # last.pt within an epoch
    max_minutes: float | None = Field(None, gt=0)  # stop after the epoch that passes it; resume goes on
    device: str = "auto"
    limit: int | None = Field(None, ge=1)  # training pictures, for experiments

    @model_validator(mode="after")
    def _int8_needs_a_network(self) -> "TrainConfig":
        if self.int8 is not None and self.init is None:
            raise ValueError("train.int8 goes on with a trained network: name its checkpoint as train.init")
        return self


class Config(StrictModel):
    """Everything that a training run depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    data: Path  # data YAML; absolute in memory, saved relative to the repository when it lies inside
    input: InputConfig
    arch: Arch
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    loss: LossConfig = LossConfig()
    decode: DecodeConfig = DecodeConfig()

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return (ROOT / value.expanduser()).resolve()

    @field_serializer("data")
    def _portable(self, value: Path) -> str:
        """A moved or cloned repository still finds the data YAMLs that it brings along."""
        return value.relative_to(ROOT).as_posix() if value.is_relative_to(ROOT) else str(value)

    @property
    def crop(self) -> tuple[int, int]:
        """(height, width) of a training sample."""
        return self.train.crop or (self.input.height, self.input.width)

    @model_validator(mode="after")
    def _input_fits(self) -> "Config":
        try:
            shapes(self.arch.layers(), self.input.height, self.input.width)
        except ValueError as error:
            raise ValueError(f"input: {error}") from None
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain data, fit for YAML and JSON; `parse` turns it back."""
        return self.model_dump(mode="json")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment; its `data` is relative to the file's folder.

    Raises:
        ConfigError: see strict.load_yaml; or an input that the architecture's levels do not fit.
    """
    return _read(path, overrides, Path(path).resolve().parent)


def load_saved_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read what `Config.as_dict` wrote (args.yaml); its `data` is relative to the repository. Raises as `load_config`."""
    return _read(path, overrides, ROOT)


def _read(path: str | Path, overrides: Sequence[str], base: Path) -> Config:
    settings = merge_overrides(read_yaml(path), overrides, Config)
    if isinstance(settings.get("data"), str):
        if any(override.partition("=")[0].strip() == "data" for override in overrides):
            base = Path.cwd()  # typed on the command line
        settings["data"] = str(base / Path(settings["data"]).expanduser())
    return parse(settings, Config, str(path))
