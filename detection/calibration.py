"""What quantisation decided about a detector, as plain values: folded weights and one scale and zero point a tensor.

numpy only. `quantize.py` makes a `Calibration` from a trained detector, `lower.py` turns it into an int8 graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from firmware.compiler.graph import Quantization, Weights

INPUT_QUANTIZATION = Quantization(1 / 128, 0)  # int8 = uint8 - 128; real = (uint8 - 128) / 128
_SMALLEST_RANGE = 1e-6  # of a tensor that is always zero; any scale would do


class CalibrationError(ValueError):
    """Ranges or weights that cannot be quantised. The message names the layer."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with its batch norm folded in."""

    weight: np.ndarray  # float32 (c_out, c_in, k_h, k_w); depthwise (c, 1, k_h, k_w)
    bias: np.ndarray  # float32 (c_out,)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A detector's parameters and the quantisation of each of its tensors, the input's included."""

    height: int  # of the network input the ranges were taken at
    width: int
    convolutions: Mapping[str, Convolution]  # by layer name
    quantizations: Mapping[str, Quantization]  # by tensor name; the input's too


def quantization_of_range(low: float, high: float) -> Quantization:
    """The int8 quantisation that covers [low, high], widened to hold 0; 0 is exact, the scale a float32.

    Raises CalibrationError for ranges that are not finite or are empty.
    """
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        raise CalibrationError(f"[{low}, {high}] is not a range")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, _SMALLEST_RANGE) / 255))
    zero_point = int(np.clip(np.round(-128 - low / scale), -128, 127))
    return Quantization(scale, zero_point)


def quantize(real: np.ndarray, quantization: Quantization) -> np.ndarray:
    """Nearest int8 of real values, ties to even as torch's fake quantisation does."""
    scaled = np.round(np.asarray(real, np.float64) / quantization.scale) + quantization.zero_point
    return np.clip(scaled, -128, 127).astype(np.int8)


def dequantize(values: np.ndarray, quantization: Quantization) -> np.ndarray:
    """float32 of int8 values."""
    return ((values.astype(np.float64) - quantization.zero_point) * quantization.scale).astype(np.float32)


def weight_scales(convolution: Convolution, scale_in: float, scale_out: float) -> np.ndarray:
    """float32 (c_out,): the symmetric scale of each output channel's weights, largest magnitude at 127.

    Two floors keep a dead channel (batch norm's gamma near 0) representable: its bias must fit 31 bits, and its factor
    scale_in * scale / scale_out must not fall under 2^-20, where fixed-point requantisation would lose the bias.
    Weights that small move the output by less than a step.
    """
    largest = np.abs(convolution.weight.reshape(len(convolution.weight), -1)).max(axis=1).astype(np.float64)
    for_bias = np.abs(convolution.bias.astype(np.float64)) / (scale_in * 2**30)
    scales = np.maximum(np.maximum(largest / 127, for_bias), scale_out / scale_in * 2**-20)
    return scales.astype(np.float32)


def quantize_weights(convolution: Convolution, scale_in: float, scale_out: float) -> Weights:
    """int8 weights in -127..127, layout as torch's (c_out, c_in, k_h, k_w); bias int32 with scale_in * scales.

    Raises CalibrationError when a weight or bias is not finite.
    """
    if not (np.isfinite(convolution.weight).all() and np.isfinite(convolution.bias).all()):
        raise CalibrationError("has weights that are not finite (did the training diverge?)")
    scales = weight_scales(convolution, scale_in, scale_out)
    per_channel = scales.astype(np.float64)[:, None, None, None]
    values = np.clip(np.round(convolution.weight.astype(np.float64) / per_channel), -127, 127).astype(np.int8)
    bias_scales = np.float64(np.float32(scale_in)) * scales.astype(np.float64)
    bias = np.clip(np.round(convolution.bias.astype(np.float64) / bias_scales), -(2**30), 2**30).astype(np.int32)
    return Weights(values, scales, bias)
