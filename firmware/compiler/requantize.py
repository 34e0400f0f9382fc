"""From int32 accumulators to int8: TFLite's reference fixed-point arithmetic, double rounding included.

`multiply_by_quantized_multiplier` is written to be compared with TFLite's C++ line by line. `Requantizer` is the same
arithmetic with everything that depends on the channel only folded beforehand; tests hold the two equal.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from firmware.compiler.graph import Clamp, Conv2D, DepthwiseConv2D, FullyConnected, GraphError, Quantization

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


class Multiplier(NamedTuple):
    """A positive real number as multiplier * 2**(shift - 31); the multiplier is Q31: in [2**30, 2**31), or 0."""

    multiplier: int
    shift: int  # positive = left


def quantize_multiplier(real: float) -> Multiplier:
    """Nearest fixed-point number, as TFLite's QuantizeMultiplier; below 2**-32 it is 0."""
    if real == 0:
        return Multiplier(0, 0)
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)  # halves away from zero: the fraction is positive
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    if shift < -31:
        return Multiplier(0, 0)
    return Multiplier(multiplier, shift)


def quantize_multipliers(reals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`quantize_multiplier` of each element: (multipliers int64 (n,), shifts int64 (n,))."""
    pairs = np.array([quantize_multiplier(float(real)) for real in reals], np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def channel_multipliers(input_scale: float, weight_scales: np.ndarray, output_scale: float) -> np.ndarray:
    """Real factor from accumulator to output step, float64 (c_out,); the order of operations is TFLite's."""
    return float(input_scale) * np.asarray(weight_scales, np.float64) / float(output_scale)


def accumulator_multipliers(
    params: Conv2D | DepthwiseConv2D | FullyConnected, input_scale: float, output_scale: float
) -> np.ndarray:
    """`channel_multipliers` of an operator with weights. A fully connected one with a single weight scale multiplies the two
    scales in float32."""
    scales = params.weights.scales
    if isinstance(params, FullyConnected) and len(np.unique(scales)) == 1:
        product = np.float32(input_scale) * scales.astype(np.float32)
        return product.astype(np.float64) / float(output_scale)
    return channel_multipliers(input_scale, scales, output_scale)


def saturating_rounding_doubling_high_mul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """High half of 2*a*b of int32 values (in int64 arrays), halves rounded up."""
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    high = (a * b + (1 << 30)) >> 31
    return np.where((a == INT32_MIN) & (b == INT32_MIN), INT32_MAX, high)


def rounding_divide_by_pot(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """x / 2**exponent (exponent 0..31), halves rounded away from zero; int64."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + ((x & mask) > threshold)


def multiply_by_quantized_multiplier(x: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """x * real as TFLite does it, in two roundings; x << shift must fit in int32. Arguments broadcast; int64."""
    left, right = np.maximum(shift, 0), np.maximum(np.negative(shift), 0)
    return rounding_divide_by_pot(
        saturating_rounding_doubling_high_mul(np.asarray(x, np.int64) << left, multiplier), right
    )


def clamp_for(name: str, quant: Quantization) -> Clamp:
    """The Clamp that a fused activation ("NONE", "RELU", "RELU6") means for an output so quantised, as TFLite's."""
    low, high = -128, 127
    if name in ("RELU", "RELU6"):
        low = max(low, quant.zero_point)
    if name == "RELU6":
        with np.errstate(divide="ignore", over="ignore"):  # a tiny scale clamps at 127
            six = np.float32(6) / np.float32(quant.scale)
        high = min(high, quant.zero_point + _round_half_away(six))
    if name not in ("NONE", "RELU", "RELU6"):
        raise GraphError(f"activation {name} is not one of NONE, RELU, RELU6")
    return Clamp(name, low, high)


def _round_half_away(value: np.float32) -> int:
    """Nearest integer of a non-negative float32. Saturates where int32 ends, far beyond any int8 limit."""
    return min(math.floor(float(value) + 0.5), INT32_MAX) if np.isfinite(value) else INT32_MAX


@dataclass(frozen=True, eq=False)
class Requantizer:
    """acc -> clamp(zero_point + (acc + bias) * real), all channels at once. Build with `Requantizer.build`."""

    multiplier: np.ndarray  # int64 (c,): Q31 multiplier, left shift included
    offset: np.ndarray  # int64 (c,): bias * multiplier + the first rounding
    half: np.ndarray  # int64 (c,): the second rounding + zero point, both before the right shift
    right: np.ndarray  # int64 (c,)
    toward: np.ndarray | None  # int64 (c,): -1 where a negative half must round away from zero; None: everywhere
    clamp: Clamp

    @staticmethod
    def build(reals: np.ndarray, bias: np.ndarray, zero_point: int, clamp: Clamp) -> "Requantizer":
        """`reals` float64 (c,) real factors, `bias` integers (c,) added to the accumulator before scaling."""
        multiplier, shift = quantize_multipliers(reals)
        left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
        multiplier = multiplier << left
        half = ((np.int64(1) << right) >> 1) + (np.int64(zero_point) << right)
        offset = np.asarray(bias, np.int64) * multiplier + (1 << 30)
        toward = None if (right > 0).all() else np.where(right > 0, np.int64(-1), np.int64(0))
        return Requantizer(multiplier, offset, half, right, toward, clamp)

    def __call__(self, acc: np.ndarray, out: np.ndarray) -> None:
        """Requantize exact integers `acc` (..., c) of any dtype into `out` int8 of the same shape."""
        value = acc.astype(np.int64)
        value *= self.multiplier
        value += self.offset
        value >>= 31
        negative = value >> 63  # -1 where negative: there, halves go down
        if self.toward is not None:
            negative &= self.toward
        value += negative
        value += self.half
        value >>= self.right
        np.clip(value, self.clamp.low, self.clamp.high, out=out, casting="unsafe")


def mean_multiplier(count: int, source_scale: float, target_scale: float) -> Multiplier:
    """Fixed-point factor from a sum of `count` values to the output step; the division by `count` is part of it."""
    real = quantize_multiplier(source_scale / target_scale)
    shift = min(count.bit_length() - 1, 31 + real.shift)
    return Multiplier((real.multiplier << shift) // count, real.shift - shift)


class Addition(NamedTuple):
    """Fixed-point factors of TFLite's int8 ADD: both inputs are brought to one scale, `left_shift` bits finer."""

    first: Multiplier
    second: Multiplier
    out: Multiplier
    left_shift: int = 20  # TFLite's headroom of 8-bit additions

    @staticmethod
    def build(first_scale: float, second_scale: float, out_scale: float) -> "Addition":
        twice_max = 2 * max(first_scale, second_scale)
        return Addition(
            quantize_multiplier(first_scale / twice_max),
            quantize_multiplier(second_scale / twice_max),
            quantize_multiplier(twice_max / (2**20 * out_scale)),
        )
