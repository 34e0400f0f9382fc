"""Training state on disk: plain tensors, numbers and strings only, so that loading a stranger's file runs no code.

Written whole or not at all: a kill in the middle of a save leaves the previous file.
"""

import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from detection.arch import Arch, block_places
from detection.fake_quantize import FakeQuantDetector
from detection.model.detector import Detector
from detection.quantize import FoldedDetector

FORMAT_VERSION = 1
_REQUIRED = ("format_version", "arch", "config", "class_names", "ema", "epoch", "iteration")


class CheckpointError(ValueError):
    """A file that is no checkpoint, or one that does not fit what it is asked for."""


@dataclass
class Checkpoint:
    """What `last.pt` and `best.pt` hold."""

    arch: Arch
    config: dict[str, Any]  # Config.as_dict()
    class_names: tuple[str, ...]
    ema: dict[str, torch.Tensor]  # what to evaluate and export
    epoch: int  # epochs completed
    iteration: int  # iterations completed
    model: dict[str, torch.Tensor] = field(default_factory=dict)  # empty in best.pt
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)  # ema_updates, best_fitness, seconds, sums of the epoch, pictures
    dataset_fingerprint: str = ""
    rng_state: torch.Tensor | None = None  # torch's; data has a generator of its own per picture


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write atomically: temporary file beside it, fsync, rename."""
    path = Path(path)
    content = {
        "format_version": FORMAT_VERSION,
        "arch": checkpoint.arch.model_dump_json(),
        "config": json.dumps(checkpoint.config),
        "class_names": list(checkpoint.class_names),
        "ema": _on_cpu(checkpoint.ema),
        "model": _on_cpu(checkpoint.model),
        "optimizer": checkpoint.optimizer,
        "scaler": checkpoint.scaler,
        "epoch": checkpoint.epoch,
        "iteration": checkpoint.iteration,
        "progress": json.dumps(checkpoint.progress),
        "dataset_fingerprint": checkpoint.dataset_fingerprint,
        "rng_states": {"torch": checkpoint.rng_state if checkpoint.rng_state is not None else torch.get_rng_state()},
        "git_commit": _git_commit(),
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
    }
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: missing, damaged, from a newer version, or not ours.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a file such as {path}/weights/best.pt")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parsers meet: RuntimeError, UnpicklingError, EOFError, ...
        reason = str(error).split("\n")[0][:120]
        raise CheckpointError(f"{path}: damaged, or no checkpoint of Tessera: {reason}") from None
    missing = [key for key in _REQUIRED if not isinstance(content, dict) or key not in content]
    if missing:
        raise CheckpointError(f"{path}: no checkpoint of Tessera: '{missing[0]}' is missing")
    if content["format_version"] > FORMAT_VERSION:
        raise CheckpointError(f"{path}: format {content['format_version']} is newer than this program ({FORMAT_VERSION})")
    try:
        arch = Arch.model_validate_json(content["arch"])
    except ValidationError as error:
        raise CheckpointError(f"{path}: its architecture is not valid: {error.errors()[0]['msg']}") from None
    return Checkpoint(
        arch=arch,
        config=json.loads(content["config"]),
        class_names=tuple(content["class_names"]),
        ema=content["ema"],
        epoch=content["epoch"],
        iteration=content["iteration"],
        model=content.get("model", {}),
        optimizer=content.get("optimizer", {}),
        scaler=content.get("scaler", {}),
        progress=json.loads(content.get("progress", "{}")),
        dataset_fingerprint=content.get("dataset_fingerprint", ""),
        rng_state=content.get("rng_states", {}).get("torch"),
    )


def load_detector(path: str | Path) -> tuple[Detector, Checkpoint]:
    """The averaged network of a checkpoint, in eval mode on the CPU, and the checkpoint itself.

    It is in float: of one that was trained as int8 rounds (`train.int8`), the weights of it without the rounding.
    """
    checkpoint = load_checkpoint(path)
    if (rounding := load_fake_quantized(checkpoint, str(path))) is not None:
        return FoldedDetector.of(rounding), checkpoint
    detector = Detector(checkpoint.arch)
    load_weights(detector, checkpoint.ema, checkpoint.arch, str(path))
    return detector.eval(), checkpoint


def load_fake_quantized(checkpoint: Checkpoint, where: str) -> FakeQuantDetector | None:
    """The averaged network with its ranges, where it was trained as int8 rounds (`train.int8`); None where it was not."""
    if not _rounds(checkpoint.ema):
        return None
    detector = FakeQuantDetector(checkpoint.arch)
    load_weights(detector, checkpoint.ema, checkpoint.arch, where)
    return detector


def _rounds(state: dict[str, torch.Tensor]) -> bool:
    return "scales" in state


def load_weights(detector: Detector, state: dict[str, torch.Tensor], arch: Arch, where: str) -> None:
    """Fill `detector` with the weights of a network `arch`.

    Raises:
        CheckpointError: the two architectures differ; the first differing layer is named.
    """
    check_same(detector.arch, arch, where)
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{where}: weights do not fit: {str(error).splitlines()[-1].strip()}") from None


def check_same(wanted: Arch, arch: Arch, where: str) -> None:
    """Raise CheckpointError where the checkpoint at `where`, of a network `arch`, is not of `wanted`."""
    for mine, theirs in zip(wanted.layers(), arch.layers(), strict=False):
        if mine != theirs:
            raise CheckpointError(
                f"{where} is a checkpoint of another architecture: layer '{theirs.name}' "
                f"({theirs.kind}, {theirs.channels} channels, kernel {theirs.kernel}, stride {theirs.stride}), here "
                f"'{mine.name}' ({mine.kind}, {mine.channels}, {mine.kernel}, {mine.stride})"
            )
    if len(wanted.layers()) != len(arch.layers()):
        raise CheckpointError(
            f"{where} is a checkpoint of another architecture: {len(arch.layers())} layers, "
            f"here {len(wanted.layers())}"
        )


def load_alike(detector: Detector, state: dict[str, torch.Tensor], arch: Arch, where: str) -> list[str]:
    """Fill the convolutions of `detector` that `state`, of a network `arch`, has in the same place and shape.

    A block's place is its stride and its number at that stride. Residual blocks that `arch` has none for begin as the identity,
    so that a deeper network finds at first what the other one does.

    Returns:
        Names of the convolutions that were not filled.

    Raises:
        CheckpointError: there is no such convolution, or batch norm is folded into them.
    """
    if _rounds(state):
        raise CheckpointError(f"{where} was trained as int8 rounds, batch norm is gone: train.init needs what that began from")
    mine = detector.state_dict()
    moved = _renamed_blocks(state, arch, detector.arch)
    alike = {name: value for name, value in moved.items() if name in mine and mine[name].shape == value.shape}
    if not any(value.ndim == 4 for value in alike.values()):
        raise CheckpointError(f"{where} shares no convolution with this network: train.init needs one of a similar architecture")
    known, adds = set(block_places(arch).values()), {layer.name for layer in detector.arch.layers() if layer.kind == "add"}
    for name, place in block_places(detector.arch).items():
        if place not in known and f"{name}/add" in adds:
            gamma = f"convs.{name}/project.norm.weight"
            alike[gamma] = torch.zeros_like(mine[gamma])
    detector.load_state_dict(alike, strict=False)
    return [name for name in detector.convs if f"convs.{name}.conv.weight" not in alike]


def _renamed_blocks(state: dict[str, torch.Tensor], theirs: Arch, mine: Arch) -> dict[str, torch.Tensor]:
    """A network's weights under the names that `mine` has for blocks in the same place; what it has none for is left out."""
    names = {place: name for name, place in block_places(mine).items()}
    now = {f"convs.{name}": names.get(place) for name, place in block_places(theirs).items()}
    moved = {}
    for key, value in state.items():
        block, slash, rest = key.partition("/")
        if block not in now:
            moved[key] = value
        elif now[block] is not None:
            moved[f"convs.{now[block]}{slash}{rest}"] = value
    return moved


def _on_cpu(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu() for name, value in state.items()}


def _git_commit() -> str:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
