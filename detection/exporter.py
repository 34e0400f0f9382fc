"""From a source to a folder that runs: quantise and lower (or read a .tflite), choose a schedule, write, prove.

The folder appears only when everything in it is proven: files are written beside it and moved into place at the end.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.strict import parse
from datasets.subset import Subset, evenly_spaced
from detection.presence import TASK, presence_spec
from firmware.compiler import choose, plan_picture, report
from firmware.compiler.decode import DecodeSpec, make_decode_spec
from firmware.compiler.graph import Graph
from firmware.compiler.image import selftest_frame, write_image
from firmware.compiler.program import build_program
from firmware.compiler.published import Published, compare
from firmware.compiler.search import Deployment
from firmware.compiler.target import Target
from firmware.compiler.tflite import read_metadata, read_tflite, write_tflite
from firmware.openmv.package import Package, plan_package, write_package
from firmware.proof import Proof, prove

if TYPE_CHECKING:
    from detection.drop import FloatNetwork

METADATA_FORMAT = 1
MAX_DROP = 2.0  # points of AP50
QUALITY_FRAMES = 4  # training pictures that signal to noise is measured on
TRAINED_RANGES = "trained"  # the weights were trained in them, `train.int8`
Say = Callable[[str], None]


class ExportError(ValueError):
    """A source that cannot be exported."""


@dataclass(frozen=True)
class Network:
    """A quantised network, where it came from, and pictures to prove it on (uint8 network frames)."""

    graph: Graph
    metadata: dict[str, Any] | None  # as written into model.tflite; None for other people's networks
    frames: Sequence[np.ndarray]
    quality: list[dict[str, Any]]  # signal to noise per layer, dB; empty without a float network
    origin: "FloatNetwork | None" = None  # the float network
    worst: str = ""  # layer that int8 hurts most
    ranges: str | None = None  # how int8's were chosen: observers.METHODS, or TRAINED_RANGES; None without a float network


@dataclass(frozen=True)
class Export:
    """What an export made."""

    folder: Path
    deployment: Deployment
    front: tuple[Deployment, ...]
    published: tuple[Published, ...]
    proof: Proof
    network: Network
    tess_size: int
    package: Package | None  # what an OpenMV Cam's memories hold


def decode_spec(graph: Graph, metadata: dict[str, Any] | None) -> DecodeSpec | None:
    """The decoder that a model.tflite of ours describes; None for a network that is no detector of ours."""
    if not metadata or "strides" not in metadata:
        return None
    try:
        settings = _Settings(**metadata["decode"])
        return make_decode_spec(graph, metadata["strides"], metadata["classes"], settings)
    except (KeyError, TypeError) as error:
        raise ExportError(f"the metadata of {graph.name} is not of format {METADATA_FORMAT}: {error}") from error


@dataclass(frozen=True)
class _Settings:
    score_threshold: float
    iou_threshold: float
    max_candidates: int
    max_detections: int


def load_network(
    source: Path,
    calibration: int,
    verification: int,
    method: str | None,
    data: str | None,
    say: Say,
    outputs: Sequence[str] | None = None,
    sample: int = 0,
) -> Network:
    """Read a checkpoint (or a run folder, its last weights) or an int8 .tflite, which may be cut at other `outputs`.

    Args:
        calibration, verification: training pictures for ranges, and frames for the proof of equal bytes.
        sample: validation pictures that the float network and the int8 one are to be compared on.
    """
    if source.suffix == ".tflite":
        return _read_network(source, verification, outputs)
    if outputs is not None:
        raise ExportError(f"{source}: --outputs cuts .tflite files; a checkpoint's outputs are its heads")
    if data is None and (source / "model.tflite").is_file() and not _has_training_pictures(find_checkpoint(source)):
        say(f"the training pictures of {source} are not here: taking its model.tflite as it is")
        return _read_network(source / "model.tflite", verification, None)
    return _quantise_network(find_checkpoint(source), calibration, verification, method, data, say, sample)


def find_checkpoint(source: Path) -> Path:
    """The checkpoint that a path means: itself, a run's weights/last.pt, or a zoo folder's checkpoint.pt."""
    if source.is_file():
        return source
    for name in ("checkpoint.pt", "weights/last.pt"):
        if (source / name).is_file():
            return source / name
    raise ExportError(f"{source}: no checkpoint there (a .pt file, a run folder with weights/last.pt, or a .tflite is expected)")


def _has_training_pictures(path: Path) -> bool:
    """Whether the data set that a checkpoint was trained on is on this machine."""
    from detection.checkpoint import load_checkpoint
    from detection.config import Config

    checkpoint = load_checkpoint(path)
    try:
        return len(open_dataset(load_data_config(parse(checkpoint.config, Config, str(path)).data), "train")) > 0
    except (ValueError, OSError):
        return False


def _read_network(path: Path, verification: int, outputs: Sequence[str] | None) -> Network:
    content = path.read_bytes()
    graph, metadata = read_tflite(content, outputs), None if outputs else read_metadata(content)  # describes all outputs
    graph = Graph(graph.tensors, graph.ops, graph.input, graph.outputs, graph.input_is_uint8, path.stem)
    shape = graph.tensors[graph.input].shape
    frames = [selftest_frame(*shape, seed=1 + n) for n in range(verification)]
    return Network(graph, metadata, frames, [])


def _quantise_network(
    path: Path, calibration: int, verification: int, method: str | None, data: str | None, say: Say, sample: int
) -> Network:
    from detection.checkpoint import load_detector, load_fake_quantized
    from detection.config import Config
    from detection.drop import FloatNetwork
    from detection.lower import lower
    from detection.quantize import DEFAULT_METHOD, calibrate, calibration_frames
    from detection.sqnr import layer_sqnr, worst_layer

    detector, checkpoint = load_detector(path)
    config = parse(checkpoint.config, Config, str(path))
    pictures = load_data_config(data or config.data)
    train = open_dataset(pictures, "train")
    rounding = load_fake_quantized(checkpoint, str(path))
    count = calibration if rounding is None else max(verification, QUALITY_FRAMES)  # ranges that were trained stay as they are
    frames = calibration_frames(train, count, config.input.height, config.input.width)
    if rounding is None:
        say(f"calibrating on {len(frames)} training pictures")
        ranges = method or DEFAULT_METHOD
        calibrated = calibrate(detector, frames, ranges)
    elif method is None:
        ranges, calibrated = TRAINED_RANGES, rounding.calibration()
    else:
        raise ExportError(f"{path} was trained in ranges of int8 (train.int8) and keeps them: leave out --method")
    graph = lower(detector.arch, calibrated)
    graph = Graph(graph.tensors, graph.ops, graph.input, graph.outputs, False, config.name)
    ratios = layer_sqnr(detector, graph, frames[:: max(1, len(frames) // QUALITY_FRAMES)][:QUALITY_FRAMES])
    worst = worst_layer(ratios)
    worst_text = f"'{worst.name}' ({worst.db:.1f} dB)"
    say(f"signal to quantisation noise: worst layer {worst_text}")
    metadata: dict[str, Any] = {"format": METADATA_FORMAT, "classes": list(checkpoint.class_names)}
    if detector.arch.classifier is None:
        metadata |= {"strides": list(detector.arch.strides), "decode": config.decode.model_dump()}
    else:
        metadata["task"] = TASK
    quality = [{"layer": ratio.name, "sqnr_db": round(ratio.db, 2)} for ratio in ratios]
    proving = frames[:: max(1, len(frames) // verification)][:verification]
    if not sample:
        return Network(graph, metadata, proving, quality, ranges=ranges)
    val = open_dataset(pictures, "val")
    origin = FloatNetwork(detector, config, Subset(val, evenly_spaced(len(val), sample)), val.classes)
    return Network(graph, metadata, proving, quality, origin, worst_text, ranges)


def export(
    network: Network, target: Target, schedule: str, sram: int | None, folder: Path, say: Say, max_drop: float = MAX_DROP
) -> Export:
    """Plan, write and prove; `folder` gets model.tflite, model.tess, plan.json, plan.png and verify.json, or nothing.

    For an OpenMV Cam also tessera.mpy, main.py, files.json and romfs.img.

    Args:
        max_drop: points of AP50 that int8 may lose on the sample of a network with a float origin.
    """
    program, spec = build_program(network.graph), decode_spec(network.graph, network.metadata)
    say(f"searching schedules of {len(program.nodes)} nodes for {target.name}")
    candidates = spec.max_candidates if spec else 0
    chosen, front = choose.choose(program, schedule, target, sram, candidates)
    tflite = write_tflite(network.graph, network.metadata)
    tess = write_image(chosen, spec, hashlib.sha256(tflite).digest())
    if len(tess) > target.flash:
        raise choose.BudgetError(f"model.tess is {len(tess):,} B, target '{target.name}' has {target.flash:,} B of flash")
    if target.openmv:
        plan_package(tess, target)  # what is missing is said before the long proof
    say(report.describe(chosen))
    say(f"proving equal bytes on {len(network.frames)} frames")
    proof = prove(network.graph, chosen, tflite, tess, network.frames)
    methods = compare(program, candidates)
    plan = report.plan_json(chosen, front, methods, tflite, tess, target.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
        work = Path(scratch)
        (work / "model.tflite").write_bytes(tflite)
        (work / "model.tess").write_bytes(tess)
        (work / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")
        quality = {"ranges": network.ranges, "quality": network.quality}
        verified = {**proof.as_json(), **quality, "sha256_of_files": plan["sha256"]}
        if network.origin is not None:
            verified["drop"] = _checked_drop(network, work / "model.tess", max_drop, say)
        (work / "verify.json").write_text(json.dumps(verified, indent=1) + "\n")
        plan_picture.draw_plan(chosen, front, methods, work / "plan.png")
        package = write_package(tess, target, work) if target.openmv else None
        folder.mkdir(exist_ok=True)
        for made in sorted(work.iterdir()):
            shutil.move(made, folder / made.name)
    return Export(folder, chosen, front, methods, proof, network, len(tess), package)


def _checked_drop(network: Network, tess: Path, max_drop: float, say: Say) -> dict[str, Any]:
    from detection.drop import check_drop, measure_drop

    say(f"comparing AP of float and int8 on {len(network.origin.pictures)} validation pictures")
    drop = measure_drop(network.origin, tess, presence_spec(network.graph, network.metadata))
    say(f"AP {drop.float_ap:.3f} in float, {drop.int8_ap:.3f} in int8: {drop.points:+.1f} points lost")
    check_drop(drop, max_drop, network.worst, trained=network.ranges == TRAINED_RANGES)
    return drop.as_json()
