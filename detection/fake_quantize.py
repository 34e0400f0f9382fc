"""Quantisation-aware training: a detector that rounds weights and activations as int8 will, gradients passing through.

    qat = FakeQuantDetector(detector.arch)
    qat.load_calibration(calibrate(detector, frames))
    ... train qat like a Detector, at a small learning rate (`train.int8`) ...
    graph = lower(qat.arch, qat.calibration())

Ranges stay as calibrated: the weights learn to live with them.
One layer agrees with the integer arithmetic within one step; over a whole network the two drift apart by a few, so
accuracy carries over, bytes do not.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from detection.arch import INPUT, Arch, Layer
from detection.calibration import Calibration, CalibrationError
from detection.model.detector import ConvUnit, pad_same
from detection.quantize import FoldedDetector
from firmware.compiler.graph import Quantization

_SMALLEST_SCALE = 2.0**-40  # of an all-zero channel: dividing by it is harmless


class FakeQuantDetector(FoldedDetector):
    """Same inputs and outputs as `Detector`, batch norm folded. The state dict holds ranges too, so a checkpoint of it
    restores with `FakeQuantDetector(arch).load_state_dict(...)`."""

    def __init__(self, arch: Arch) -> None:
        super().__init__(arch)
        names = [INPUT, *(layer.name for layer in self.layers)]
        self._index = {name: i for i, name in enumerate(names)}
        self.register_buffer("size", torch.zeros(2, dtype=torch.int64))  # height, width of the calibration frames
        self.register_buffer("scales", torch.ones(len(names), dtype=torch.float32))
        self.register_buffer("zero_points", torch.zeros(len(names), dtype=torch.int32))

    def calibration(self) -> Calibration:
        """What training made of it; the input of `lower`."""
        scales, zeros = self.scales.tolist(), self.zero_points.tolist()
        height, width = self.size.tolist()
        ranges = {name: Quantization(scales[i], zeros[i]) for name, i in self._index.items()}
        return Calibration(height, width, self.convolutions(), ranges)

    @torch.no_grad()
    def load_calibration(self, calibration: Calibration) -> None:
        """Take over weights and ranges. Raises CalibrationError when they are another network's."""
        self.load_convolutions(calibration.convolutions)
        if missing := [name for name in self._index if name not in calibration.quantizations]:
            raise CalibrationError(f"the calibration has no range for '{missing[0]}'; calibrate this network again")
        known = [calibration.quantizations[name] for name in self._index]
        self.size.copy_(torch.tensor([calibration.height, calibration.width]))
        self.scales.copy_(torch.tensor([q.scale for q in known]))
        self.zero_points.copy_(torch.tensor([q.zero_point for q in known], dtype=torch.int32))

    def _run(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        if layer.kind in ("upsample", "maxpool"):  # they move values that are quantised already
            return super()._run(layer, inputs)
        if layer.kind in ("add", "mean"):
            return self._fake_quantize(layer.name, super()._run(layer, inputs))
        unit = self.convs[layer.name]
        return self._fake_quantize(layer.name, _quantized_convolution(unit, inputs[0]))

    def _fake_quantize(self, name: str, x: Tensor) -> Tensor:
        i = self._index[name]
        return torch.fake_quantize_per_tensor_affine(x.float(), self.scales[i], self.zero_points[i], -128, 127)


def _quantized_convolution(unit: ConvUnit, x: Tensor) -> Tensor:
    weight = fake_quantize_weight(unit.conv.weight)
    padded = x if unit.stride == 1 else pad_same(x, unit.kernel, unit.stride)
    out = F.conv2d(padded, weight, unit.conv.bias, unit.conv.stride, unit.conv.padding, groups=unit.conv.groups)
    return F.relu6(out) if unit.relu6 else out


def fake_quantize_weight(weight: Tensor) -> Tensor:
    """(c_out, c_in, k_h, k_w) rounded to -127..127 steps of each output channel's largest magnitude."""
    scales = (weight.detach().abs().amax(dim=(1, 2, 3)) / 127).clamp(min=_SMALLEST_SCALE)
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -127, 127)
