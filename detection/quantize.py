"""Post-training quantisation: fold batch norm, watch the network on calibration frames, choose every tensor's range.

    calibration = calibrate(detector, frames)   # -> detection.calibration.Calibration
    graph = lower(detector.arch, calibration)   # -> int8

Quantisation-aware training starts from the same `Calibration`: `fake_quantize.py`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from datasets.dataset import Dataset
from detection.arch import INPUT, Arch
from detection.calibration import (
    INPUT_QUANTIZATION,
    Calibration,
    CalibrationError,
    Convolution,
    quantization_of_range,
)
from detection.model.detector import ConvUnit, Detector, normalise
from detection.observers import BINS, Histogram, Method, Range, choose_range
from firmware.compiler.graph import Quantization
from firmware.compiler.preprocess import letterbox

DEFAULT_METHOD: Method = "mse"
PICTURES = 256  # to choose ranges on
LOWEST_LOGIT = -8.0  # sigmoid = 0.0003: what is below scores under any useful threshold and needs no steps
LOWEST_BOX = -4.0  # exp = 0.018 strides: what is below moves a side by less
CONFIDENT_LOGIT = -4.0  # boxes count where objectness is above; the others are never decoded
_FEWEST_CONFIDENT = 64  # cells a level; with fewer its boxes are observed everywhere
_BATCH = 8


class FoldedDetector(Detector):
    """A detector without batch norm: every convolution has a bias. Its parameters are what a chip stores, in float."""

    def __init__(self, arch: Arch) -> None:
        super().__init__(arch)
        for unit in self.convs.values():
            unit.norm = None
            unit.conv.bias = nn.Parameter(torch.zeros(unit.conv.out_channels))

    @classmethod
    def of(cls, detector: Detector) -> "FoldedDetector":
        """Same function as `detector` in evaluation mode; a copy, on the same device."""
        device = next(detector.parameters()).device
        folded = cls(detector.arch).to(device)
        folded.load_convolutions({name: fold_batch_norm(unit) for name, unit in detector.convs.items()})
        return folded.eval()

    def convolutions(self) -> dict[str, Convolution]:
        """Parameters as numpy, by layer name."""
        return {name: fold_batch_norm(unit) for name, unit in self.convs.items()}

    @torch.no_grad()
    def load_convolutions(self, convolutions: Mapping[str, Convolution]) -> None:
        """Take over parameters. Raises CalibrationError when they are another network's."""
        for name, unit in self.convs.items():
            if name not in convolutions or convolutions[name].weight.shape != tuple(unit.conv.weight.shape):
                raise CalibrationError(f"the calibration lacks '{name}' or has it in another shape: another network's")
            unit.conv.weight.copy_(torch.from_numpy(convolutions[name].weight))
            unit.conv.bias.copy_(torch.from_numpy(convolutions[name].bias))

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Every tensor of the network, NCHW, by name, the input `x` included."""
        maps = {INPUT: x}
        for layer in self.layers:
            maps[layer.name] = self._run(layer, [maps[name] for name in layer.inputs])
        return maps


def fold_batch_norm(unit: ConvUnit) -> Convolution:
    """The convolution whose output equals convolution + batch norm in evaluation mode; computed in float64."""
    weight = unit.conv.weight.detach().double()
    bias = torch.zeros(len(weight)).to(weight) if unit.conv.bias is None else unit.conv.bias.detach().double()
    if unit.norm is not None:
        norm = unit.norm
        factor = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = weight * factor[:, None, None, None]
        bias = norm.bias.detach().double() + (bias - norm.running_mean.double()) * factor
    return Convolution(weight.float().cpu().numpy(), bias.float().cpu().numpy())


def calibration_frames(train: Dataset, count: int, height: int, width: int) -> list[np.ndarray]:
    """At most `count` pictures of the training split, evenly spaced: letterboxed uint8 (height, width, 3)."""
    picked = np.linspace(0, len(train) - 1, min(count, len(train))).astype(int)
    return [letterbox(train.fetch(int(index))[0], height, width) for index in picked]


def calibrate(
    detector: Detector, frames: Sequence[np.ndarray], method: Method = DEFAULT_METHOD, batch: int = _BATCH
) -> Calibration:
    """Ranges of all tensors over `frames`, letterboxed uint8 (h, w, 3) of one size; a few hundred are plenty.

    Two passes: extremes, then histograms between them. Deterministic in the order of frames.
    Raises CalibrationError when there are no frames or a tensor is not finite.
    """
    if not len(frames):
        raise CalibrationError("there are no calibration frames; at least one is needed")
    folded = FoldedDetector.of(detector)
    extremes = _extremes(folded, frames, batch)
    ranges = {name: seen.within(useful_range(folded.arch, name)) for name, seen in extremes.items()}
    if method != "minmax":
        hidden = {name: seen for name, seen in extremes.items() if name not in folded.arch.outputs}
        for name, histogram in _histograms(folded, frames, batch, hidden).items():
            ranges[name] = choose_range(histogram, method)
    height, width, _ = frames[0].shape
    return Calibration(height, width, folded.convolutions(), _quantizations(folded.arch, ranges))


def _quantizations(arch: Arch, ranges: Mapping[str, Range]) -> dict[str, Quantization]:
    """One a tensor; what only moves values around (upsampling, pooling) keeps its input's."""
    known = {INPUT: INPUT_QUANTIZATION}
    for layer in arch.layers():
        if layer.kind in ("upsample", "maxpool"):
            known[layer.name] = known[layer.inputs[0]]
        else:
            known[layer.name] = quantization_of_range(*ranges[layer.name])
    return known


def useful_range(arch: Arch, name: str) -> Range:
    """Reals that are worth steps of int8: for head maps, what decoding can tell apart."""
    kind = name.rpartition("/")[2] if name in arch.outputs else ""
    lowest = {"objectness": LOWEST_LOGIT, "class": LOWEST_LOGIT, "box": LOWEST_BOX}.get(kind, -np.inf)
    return Range(lowest, np.inf)


@torch.no_grad()
def _batches(folded: FoldedDetector, frames: Sequence[np.ndarray], batch: int) -> Iterator[dict[str, Tensor]]:
    device = next(folded.parameters()).device
    for first in range(0, len(frames), batch):
        chunk = np.stack([frames[i] for i in range(first, min(first + batch, len(frames)))])
        images = torch.from_numpy(chunk).to(device).permute(0, 3, 1, 2)
        yield folded.activations(normalise(images).contiguous(memory_format=torch.channels_last))


def _extremes(folded: FoldedDetector, frames: Sequence[np.ndarray], batch: int) -> dict[str, Range]:
    """Lowest and highest value of every tensor; of box maps at confident cells, if there are enough of them."""
    everywhere: dict[str, Range] = {}
    confident: dict[str, Range] = {}
    cells: dict[str, int] = {}
    for maps in _batches(folded, frames, batch):
        for name, values in maps.items():
            _widen(everywhere, name, values)
            if name in folded.arch.outputs and name.endswith("/box"):
                chosen = maps[name.removesuffix("box") + "objectness"][:, 0] >= CONFIDENT_LOGIT
                _widen(confident, name, values.permute(0, 2, 3, 1)[chosen])
                cells[name] = cells.get(name, 0) + int(chosen.sum())
    return everywhere | {name: seen for name, seen in confident.items() if cells[name] >= _FEWEST_CONFIDENT}


def _widen(ranges: dict[str, Range], name: str, values: Tensor) -> None:
    if not values.numel():
        return
    low, high = (float(v) for v in torch.aminmax(values))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise CalibrationError(f"'{name}' is not finite on the calibration frames (did the training diverge?)")
    before = ranges.get(name, Range(low, high))
    ranges[name] = Range(min(low, before.low), max(high, before.high))


def _histograms(
    folded: FoldedDetector, frames: Sequence[np.ndarray], batch: int, ranges: Mapping[str, Range]
) -> dict[str, Histogram]:
    counts = {name: np.zeros(BINS) for name in ranges}
    for maps in _batches(folded, frames, batch):
        for name, seen in ranges.items():
            if seen.low < seen.high:
                counts[name] += torch.histc(maps[name].float(), BINS, seen.low, seen.high).cpu().numpy()
    return {name: Histogram(counts[name], seen) for name, seen in ranges.items()}
