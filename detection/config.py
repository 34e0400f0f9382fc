"""One experiment as data: frozen, strict, without torch. `load_config` reads YAML plus `key=value` arguments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from datasets.strict import SettingError, StrictModel, load_yaml
from datasets.transforms import AugmentConfig
from detection.arch import Arch, ArchError, shapes

ConfigError = SettingError  # what a wrong setting raises, wherever it is found


class InputConfig(StrictModel):
    """Size of the network's input, pixels; also of the training crops."""

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
    box_kind: Literal["ciou", "eiou"] = "ciou"
    objectness_kind: Literal["quality_focal", "bce"] = "quality_focal"
    iou_floor: float = Field(0.2, ge=0, le=1)  # objectness target of an assigned cell = floor + (1 - floor) * IoU
    radius: int = Field(1, ge=0, le=4)  # candidates: cells up to this far from the centre's


class TrainConfig(StrictModel):
    """The run. The learning rate follows iterations, not time, so that a run can be repeated."""

    epochs: int = Field(100, ge=1)
    batch_size: int = Field(16, ge=1)  # a process
    lr: float = Field(8e-3, gt=0)  # peak
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
    cache: bool = True  # decode once, into runs/cache
    cache_side: int | None = Field(None, ge=16)  # pixels: longer pictures are shrunk in the cache
    val_every: int = Field(5, ge=1)  # epochs
    val_images: int = Field(400, ge=1)  # at most; evenly spread over the split
    save_every_s: float = Field(120.0, gt=0)  # last.pt within an epoch
    max_minutes: float | None = Field(None, gt=0)  # stop after the epoch that passes it; resume goes on
    device: str = "auto"
    limit: int | None = Field(None, ge=1)  # training pictures, for experiments


class Config(StrictModel):
    """Everything that a training run depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    data: Path  # data YAML; relative to the config file
    input: InputConfig
    arch: Arch
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    loss: LossConfig = LossConfig()
    decode: DecodeConfig = DecodeConfig()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, fit for YAML and JSON; `parse` turns it back."""
        return self.model_dump(mode="json")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment; `data` is made absolute against the file's folder.

    Raises:
        ConfigError: see strict.load_yaml; or an input that the architecture's levels do not fit.
    """
    config = load_yaml(path, Config, overrides)
    given = any(override.startswith("data=") for override in overrides)  # on the command line: relative to here
    data = config.data.resolve() if given else (Path(path).resolve().parent / config.data).resolve()
    try:
        shapes(config.arch.layers(), config.input.height, config.input.width)
    except ArchError as error:
        raise ConfigError(f"{path}: input: {error}") from None
    return config.model_copy(update={"data": data})
