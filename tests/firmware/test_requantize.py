"""Fixed-point arithmetic against a word-by-word transcription of gemmlowp's, in Python integers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.compiler import requantize
from firmware.compiler.graph import Clamp, GraphError, Quantization

int32 = st.integers(-(2**31), 2**31 - 1)
q31 = st.integers(2**30, 2**31 - 1)


def truncated_division(a: int, b: int) -> int:
    return abs(a) // b * (1 if a >= 0 else -1)


def slow_high_mul(a: int, b: int) -> int:
    if a == b == -(2**31):
        return 2**31 - 1
    nudge = 1 << 30 if a * b >= 0 else 1 - (1 << 30)
    return truncated_division(a * b + nudge, 1 << 31)


def slow_divide_by_pot(x: int, exponent: int) -> int:
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if (x & mask) > threshold else 0)


@given(int32, int32)
def test_high_mul_is_gemmlowps(a, b):
    assert int(requantize.saturating_rounding_doubling_high_mul(a, b)) == slow_high_mul(a, b)


def test_high_mul_saturates_in_its_one_corner():
    lowest = -(2**31)
    assert int(requantize.saturating_rounding_doubling_high_mul(lowest, lowest)) == 2**31 - 1


@given(int32, st.integers(0, 31))
def test_divide_by_pot_is_gemmlowps_and_rounds_halves_away_from_zero(x, exponent):
    found = int(requantize.rounding_divide_by_pot(x, exponent))
    assert found == slow_divide_by_pot(x, exponent)
    assert found == int(math.copysign((2 * abs(x) + (1 << exponent)) // (2 << exponent), x))


@given(st.floats(1e-12, 2.0**30))
def test_quantize_multiplier_is_the_nearest_31_bit_number(real):
    multiplier, shift = requantize.quantize_multiplier(real)
    if multiplier == 0:
        assert real < 2.0**-32
        return
    assert 2**30 <= multiplier < 2**31
    assert abs(multiplier * 2.0 ** (shift - 31) - real) <= 2.0 ** (shift - 32)


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.0, (0, 0)),
        (0.5, (2**30, 0)),
        (1.0, (2**30, 1)),
        (0.75, (3 * 2**29, 0)),
        (1 - 2.0**-33, (2**30, 1)),
        (2.0**-32, (2**30, -31)),
        (2.0**-33, (0, 0)),
    ],
)
def test_quantize_multiplier_known(real, expected):
    assert requantize.quantize_multiplier(real) == expected


channel = st.tuples(q31, st.integers(-31, 6), st.integers(-(2**24), 2**24))


@given(st.lists(channel, min_size=1, max_size=8), st.integers(-128, 127))
def test_requantizer_is_the_plain_arithmetic(channels, zero_point):
    multipliers, shifts, bias = (np.array(column, np.int64) for column in zip(*channels, strict=True))
    reals = multipliers * 2.0 ** (shifts - 31)
    rng = np.random.default_rng(0)
    spread = np.maximum(1, 300 / reals)  # results around the int8 range, so that few are clamped
    acc = np.clip(np.rint(rng.normal(0, 1, (50, len(channels))) * spread), -(2**24), 2**24).astype(np.int64)
    for clamp in (Clamp(), Clamp("RELU", max(-128, zero_point), 127)):
        out = np.empty(acc.shape, np.int8)
        requantize.Requantizer.build(reals, bias, zero_point, clamp)(acc, out)
        slow = requantize.multiply_by_quantized_multiplier(acc + bias, multipliers, shifts) + zero_point
        np.testing.assert_array_equal(out, np.clip(slow, clamp.low, clamp.high))


def test_requantizer_rounds_twice_first_up_then_away_from_zero():
    acc = np.array([[-6], [-5], [-3], [-2], [-1], [0], [1], [2], [3], [5], [6]])
    out = np.empty(acc.shape, np.int8)
    requantize.Requantizer.build(np.array([0.25]), np.array([0]), 0, Clamp())(acc, out)
    # a quarter is 2**30 * 2**-32: halves (-3, -2.5 -> -2, -1.5 -> -1, ..., 2.5 -> 3, 3), then halves of those
    assert out[:, 0].tolist() == [-2, -1, -1, -1, 0, 0, 1, 1, 1, 2, 2]


def test_double_rounding_is_kept():
    # 1.4999... is rounded to 1.5 first and to 2 then; rounding once gives 1
    multiplier, shift = requantize.quantize_multiplier(2.0**-3 * (1 - 2.0**-20))
    assert int(requantize.multiply_by_quantized_multiplier(12, multiplier, shift)) == 2
    assert round(12 * 2.0**-3 * (1 - 2.0**-20)) == 1


@pytest.mark.parametrize(
    ("name", "quant", "expected"),
    [
        ("NONE", Quantization(0.1, 5), (-128, 127)),
        ("RELU", Quantization(0.1, 5), (5, 127)),
        ("RELU6", Quantization(0.0625, -100), (-100, -4)),
        ("RELU6", Quantization(4.0, 3), (3, 5)),  # 6 / 4 is a half: away from zero
        ("RELU6", Quantization(1e-30, 3), (3, 127)),
    ],
)
def test_clamps(name, quant, expected):
    assert requantize.clamp_for(name, quant) == Clamp(name, *expected)


def test_unknown_activation_is_named():
    with pytest.raises(GraphError, match="TANH"):
        requantize.clamp_for("TANH", Quantization(0.1, 0))
