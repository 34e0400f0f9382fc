"""Colour changes of an augmented picture; boxes do not move. OpenCV tables, or Albumentations where asked for."""

import functools
import os
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from datasets.transforms import AugmentConfig

_VALUES = np.arange(256, dtype=np.float32)


def jitter_colour(image: np.ndarray, rng: np.random.Generator, settings: "AugmentConfig") -> np.ndarray:
    """uint8 (h, w, 3) RGB -> the same; hue, saturation and value by table, then grey, then the extras."""
    if rng.random() < settings.grey:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        value = _table(1 + settings.hsv[2] * rng.uniform(-1, 1))
        image = cv2.cvtColor(cv2.LUT(grey, value), cv2.COLOR_GRAY2RGB)
    elif rng.random() < settings.hsv_share and any(settings.hsv):
        hue, saturation, value = 1 + np.array(settings.hsv) * rng.uniform(-1, 1, 3)
        tables = np.stack([(_VALUES + (hue - 1) * 180) % 180, _VALUES * saturation, _VALUES * value], 1)
        tables = np.clip(tables, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
        image = cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables), cv2.COLOR_HSV2RGB)
    if settings.colour == "albumentations":
        image = _albumentations_change(image, int(rng.integers(1 << 31)))
    return image


def _table(gain: float) -> np.ndarray:
    return np.clip(_VALUES * gain, 0, 255).astype(np.uint8)


def _albumentations_change(image: np.ndarray, seed: int) -> np.ndarray:
    pipeline = _pipeline()
    pipeline.set_random_seed(seed)  # the same sample for the same seed, whatever ran before
    return pipeline(image=image)["image"]


@functools.cache
def _pipeline() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    import albumentations as A

    return A.Compose(
        [
            A.RandomBrightnessContrast(brightness_limit=0.3, contrast_limit=0.3, p=0.5),
            A.RandomGamma(gamma_limit=(60, 220), p=0.3),
            A.RandomToneCurve(scale=0.3, p=0.2),
            A.PlanckianJitter(p=0.2),
            A.OneOf(
                [
                    A.RandomShadow(shadow_roi=(0, 0, 1, 1), shadow_intensity_range=(0.3, 0.7)),
                    A.Illumination(intensity_range=(0.1, 0.2)),
                ],
                p=0.25,
            ),
            A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.MotionBlur(blur_limit=(3, 7))], p=0.15),
            A.GaussNoise(std_range=(0.01, 0.05), p=0.15),
            A.ImageCompression(quality_range=(40, 95), p=0.15),
        ]
    )
