"""Operators whose answers fit a table: functions of one int8 (256 answers) or of two (65,536), and softmax's exponentials.

TFLite's reference arithmetic. LiteRT's BUILTIN_REF and TFLM agree but for LOGISTIC of inputs with a scale of 2 or more, where
TFLM's fixed-point number saturates; this is TFLM's answer.
"""

import math
from collections.abc import Callable

import numpy as np

from firmware.compiler import fixedpoint, requantize
from firmware.compiler.graph import Add, Clamp, Lookup, Mul, Quantization, Sub
from firmware.compiler.requantize import multiply_by_quantized_multiplier, quantize_multiplier

Q = np.arange(-128, 128, dtype=np.int64)  # every int8, in the order of a table
ACTIVATION_BITS = 4  # integer bits of the numbers that LOGISTIC and TANH compute with
SOFTMAX_BITS = 5  # of the differences that softmax takes the exponential of


def pair_table(params: Add | Sub | Mul, first: Quantization, second: Quantization, target: Quantization) -> np.ndarray:
    """int8 (256, 256): the answer for (first q + 128, second q + 128)."""
    a, b = (Q - first.zero_point)[:, None], (Q - second.zero_point)[None, :]
    if isinstance(params, Mul):
        return _finish(multiply_by_quantized_multiplier(a * b, *product_multiplier(first, second, target)), target, params.clamp)
    factors = requantize.Addition.build(first.scale, second.scale, target.scale)
    a, b = (
        multiply_by_quantized_multiplier(values << factors.left_shift, *factor)
        for values, factor in ((a, factors.first), (b, factors.second))
    )
    total = multiply_by_quantized_multiplier(a - b if isinstance(params, Sub) else a + b, *factors.out)
    return _finish(total, target, params.clamp)


def product_multiplier(first: Quantization, second: Quantization, target: Quantization) -> requantize.Multiplier:
    """Fixed-point factor from the product of two int8 to the output step."""
    return quantize_multiplier(first.scale * second.scale / target.scale)


def _finish(values: np.ndarray, target: Quantization, clamp: Clamp) -> np.ndarray:
    return np.clip(values + target.zero_point, clamp.low, clamp.high).astype(np.int8)


def lookup_table(params: Lookup, source: Quantization, target: Quantization) -> np.ndarray:
    """int8 (256,): the answer for q + 128."""
    if params.operand is not None:
        return _with_constant(params, source, target)
    return FUNCTIONS[params.function](params, source, target)


def _with_constant(params: Lookup, source: Quantization, target: Quantization) -> np.ndarray:
    kind, operand = PAIRS[params.function](params.clamp), params.operand
    if operand.first:
        return pair_table(kind, operand.quant, source, target)[operand.value + 128]
    return pair_table(kind, source, operand.quant, target)[:, operand.value + 128]


def _rescaled(params: Lookup, source: Quantization, target: Quantization) -> np.ndarray:
    values = multiply_by_quantized_multiplier(Q - source.zero_point, *quantize_multiplier(source.scale / target.scale))
    clamp = requantize.clamp_for("NONE" if params.function == "QUANTIZE" else params.function, target)
    return _finish(values, target, clamp)


def _leaky_relu(params: Lookup, source: Quantization, target: Quantization) -> np.ndarray:
    x, scale, out = Q - source.zero_point, np.float32(source.scale), np.float32(target.scale)
    straight = multiply_by_quantized_multiplier(x, *quantize_multiplier(float(scale / out)))
    bent = multiply_by_quantized_multiplier(x, *quantize_signed(float(scale * np.float32(params.alpha) / out)))
    return _finish(np.where(x >= 0, straight, bent), target, Clamp())


def quantize_signed(real: float) -> requantize.Multiplier:
    """`quantize_multiplier` that keeps the sign, in the multiplier."""
    multiplier, shift = quantize_multiplier(abs(real))
    return requantize.Multiplier(int(math.copysign(multiplier, real)), shift)


def _hard_swish(params: Lookup, source: Quantization, target: Quantization) -> np.ndarray:
    """x * relu6(x + 3) / 6 in 16 bits."""
    fine = (Q - source.zero_point) << 7
    fine_scale = np.float32(1 / 128) * np.float32(source.scale)
    out, out_shift = quantize_multiplier(float(fine_scale / np.float32(target.scale)))
    gate, gate_shift = quantize_multiplier(float(fine_scale / (np.float32(3) / np.float32(32768))))
    output = _high_mul16(fine, _to_int16(out))
    relu = _saturate16(fine << max(gate_shift - 1, 0))
    relu = _high_mul16(relu, _to_int16(gate))
    relu = _saturate16(relu << 1) if gate_shift > 0 else requantize.rounding_divide_by_pot(relu, -gate_shift)
    relu = (relu + (1 << 15)) >> 1
    product = np.sign(relu * output) * (np.abs(relu * output) >> 15)  # towards zero
    return _finish(requantize.rounding_divide_by_pot(product, -out_shift), target, Clamp())


def _to_int16(multiplier: int) -> int:
    """A Q31 multiplier as Q15."""
    return 32767 if multiplier >= 2**31 - 1 - (1 << 15) else (multiplier + (1 << 15)) >> 16


def _high_mul16(a: np.ndarray, b: int) -> np.ndarray:
    return (a * b + (1 << 14)) >> 15


def _saturate16(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -32768, 32767)


def _input_radius(integer_bits: int, shift: int) -> int:
    """Inputs this far from zero are beyond what the fixed-point number can hold."""
    return math.floor(((1 << integer_bits) - 1) * 2.0 ** (31 - integer_bits - shift))


def _sigmoid_like(function: Callable[[np.ndarray, int], np.ndarray], zero_point: int, right: int) -> Callable[..., np.ndarray]:
    def table(params: Lookup, source: Quantization, target: Quantization) -> np.ndarray:
        x = Q - source.zero_point
        factor = quantize_multiplier(source.scale * 2.0 ** (31 - ACTIVATION_BITS))
        radius = _input_radius(ACTIVATION_BITS, factor.shift)
        inside = np.abs(x) < radius
        fixed = multiply_by_quantized_multiplier(np.where(inside, x, 0), *factor)
        values = requantize.rounding_divide_by_pot(function(fixed, ACTIVATION_BITS), right) + zero_point
        return np.where(inside, np.clip(values, -128, 127), np.where(x > 0, 127, -128)).astype(np.int8)

    return table


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "RELU": _rescaled,
    "RELU6": _rescaled,
    "LEAKY_RELU": _leaky_relu,
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _sigmoid_like(fixedpoint.logistic, -128, 23),
    "TANH": _sigmoid_like(fixedpoint.tanh, 0, 24),
    "QUANTIZE": _rescaled,
}
PAIRS = {"ADD": Add, "SUB": Sub, "MUL": Mul}
OUTPUT_QUANTIZATION = {"LOGISTIC": Quantization(1 / 256, -128), "TANH": Quantization(1 / 128, 0)}
SOFTMAX_QUANTIZATION = Quantization(1 / 256, -128)


def softmax_table(beta: float, scale: float) -> np.ndarray:
    """int32 (256,): exp(beta * scale * d) in Q0 for d + 255, d = -255..0; 0 where it is too small to count."""
    real = min(float(np.float32(beta)) * scale * 2.0 ** (31 - SOFTMAX_BITS), 2.0**31 - 1)
    multiplier, shift = quantize_multiplier(real)
    difference = np.arange(-255, 1, dtype=np.int64)
    counts = difference >= -_input_radius(SOFTMAX_BITS, shift)
    fixed = requantize.saturating_rounding_doubling_high_mul(np.where(counts, difference, 0) << max(shift, 0), multiplier)
    return np.where(counts, fixedpoint.exp_of_negative(fixed, SOFTMAX_BITS), 0).astype(np.int32)
