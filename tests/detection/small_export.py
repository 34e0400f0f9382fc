"""The small detector all the way to files: int8 graph, model.tflite, model.tess, and a run folder that holds them."""

from pathlib import Path
from typing import NamedTuple

import torch

from detection.checkpoint import Checkpoint, save_checkpoint
from detection.config import Config, DecodeConfig
from detection.lower import lower
from detection.model.detector import Detector
from detection.quantize import calibrate
from firmware.compiler.decode import DecodeSpec, make_decode_spec
from firmware.compiler.graph import Graph
from firmware.compiler.image import write_image
from firmware.compiler.program import build_program
from firmware.compiler.schedule import stream
from firmware.compiler.search import deploy
from firmware.compiler.tflite import write_tflite
from tests.detection.small_detector import ARCH, make_frames
from tests.detection.small_detector import make_detector as make_shy_detector

HEIGHT, WIDTH = 32, 48
CLASSES = ("circle", "square", "triangle")
SETTINGS = DecodeConfig(score_threshold=0.02, iou_threshold=0.5, max_candidates=60, max_detections=20)


class Small(NamedTuple):
    graph: Graph
    spec: DecodeSpec
    tflite: bytes
    tess: bytes


def make_detector() -> Detector:
    """Heads with weights large enough to find things of all scores, sizes and classes."""
    detector = make_shy_detector()
    with torch.no_grad():
        for name, unit in detector.convs.items():
            if unit.norm is None:
                unit.conv.weight.normal_(std=0.25, generator=torch.Generator().manual_seed(len(name)))
                unit.conv.bias.fill_(0.6 if name.endswith("box") else -1.0)
    return detector


def build() -> Small:
    calibration = calibrate(make_detector(), make_frames(8, HEIGHT, WIDTH))
    graph = lower(ARCH, calibration)
    spec = make_decode_spec(graph, ARCH.strides, CLASSES, SETTINGS)
    metadata = {
        "format": 1,
        "classes": list(CLASSES),
        "strides": list(ARCH.strides),
        "decode": SETTINGS.model_dump(),
    }
    tflite = write_tflite(graph, metadata)
    program = build_program(graph)
    deployment = deploy(program, stream(program), spec.max_candidates)
    return Small(graph, spec, tflite, write_image(deployment, spec, bytes(32)))


def write_run(folder: Path, small: Small) -> Path:
    """A run folder with weights and an export, and data.yaml beside it, as train.py and export.py leave them."""
    (folder / "weights").mkdir(parents=True)
    (folder / "export").mkdir()
    data = folder / "data.yaml"
    scenes = f"count_train: 4, count_val: 6, width: 60, height: 40, classes: [{', '.join(CLASSES)}]"
    data.write_text(f"format: scenes\nscenes: {{{scenes}}}\n")
    config = Config(name="small", data=data, input={"height": HEIGHT, "width": WIDTH}, arch=ARCH, decode=SETTINGS)
    state = make_detector().state_dict()
    save_checkpoint(folder / "weights" / "last.pt", Checkpoint(ARCH, config.as_dict(), CLASSES, state, 1, 1))
    (folder / "export" / "model.tflite").write_bytes(small.tflite)
    (folder / "export" / "model.tess").write_bytes(small.tess)
    return folder
