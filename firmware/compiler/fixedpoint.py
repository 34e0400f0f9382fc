"""Exponential, logistic function and hyperbolic tangent in fixed point, as TFLite's reference kernels (gemmlowp) have them.

Numbers are int32 in int64 arrays; "Qk" has k integer bits, so 1.0 is 2**(31 - k), and Q0 holds [-1, 1). Every step rounds
exactly as there: the constants are nearest integers, products round halves up, shifts to the left saturate.
"""

import math

import numpy as np

from firmware.compiler.requantize import INT32_MAX, INT32_MIN, rounding_divide_by_pot, saturating_rounding_doubling_high_mul

ONE = INT32_MAX  # of Q0


def _constant(value: float, integer_bits: int) -> int:
    return round(value * 2 ** (31 - integer_bits))


def _multiply(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    return saturating_rounding_doubling_high_mul(a, b)


def _shift_left(x: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(x << bits, INT32_MIN, INT32_MAX)


def _exp_of_last_quarter(a: np.ndarray) -> np.ndarray:
    """exp of Q0 numbers in [-1/4, 0): four terms of the series around -1/8. Q0."""
    constant, third = _constant(math.exp(-1 / 8), 0), _constant(1 / 3, 0)
    x = a + (1 << 28)
    x2 = _multiply(x, x)
    x3, x4 = _multiply(x2, x), _multiply(x2, x2)
    tail = rounding_divide_by_pot(_multiply(rounding_divide_by_pot(x4, 2) + x3, third) + x2, 1)
    return constant + _multiply(x + tail, constant)


def exp_of_negative(a: np.ndarray, integer_bits: int) -> np.ndarray:
    """exp of Q(integer_bits) numbers up to 0, integer_bits at most 5. Q0."""
    a, fraction = np.asarray(a, np.int64), 31 - integer_bits
    quarter = 1 << (fraction - 2)
    rest = (a & (quarter - 1)) - quarter
    result = _exp_of_last_quarter(_shift_left(rest, integer_bits))
    quarters = rest - a
    for exponent in range(-2, integer_bits):
        factor = _constant(math.exp(-(2.0**exponent)), 0)
        result = np.where(quarters & (1 << (fraction + exponent)), _multiply(result, factor), result)
    return np.where(a == 0, ONE, result)


def _divided_by_half_denominator(a: np.ndarray) -> np.ndarray:
    """2 / (1 + a) of Q0 numbers in [0, 1), by three steps of Newton and Raphson. Q2."""
    half = (a + ONE + 1) // 2
    x = _constant(48 / 17, 2) + _multiply(half, _constant(-32 / 17, 2))
    for _ in range(3):
        missing = (1 << 29) - _multiply(half, x)
        x = x + _shift_left(_multiply(x, missing), 2)
    return x


def one_over_one_plus(a: np.ndarray) -> np.ndarray:
    """1 / (1 + a) of Q0 numbers in [0, 1). Q0."""
    return _shift_left(_divided_by_half_denominator(a), 1)


def logistic(a: np.ndarray, integer_bits: int) -> np.ndarray:
    """1 / (1 + exp(-a)) of Q(integer_bits) numbers. Q0."""
    a = np.asarray(a, np.int64)
    positive = one_over_one_plus(exp_of_negative(-np.abs(a), integer_bits))
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, ONE - positive))


def tanh(a: np.ndarray, integer_bits: int) -> np.ndarray:
    """Hyperbolic tangent of Q(integer_bits) numbers, integer_bits at most 4. Q0."""
    a = np.asarray(a, np.int64)
    # the same integer read with one more integer bit is the double
    x = _divided_by_half_denominator(exp_of_negative(-np.abs(a), integer_bits + 1))
    size = _shift_left(x - (1 << 29), 2)
    return np.where(a == 0, 0, np.where(a > 0, size, -size))
