"""Folding, ranges, calibration and fake quantisation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.arch import INPUT, Arch
from detection.calibration import (
    INPUT_QUANTIZATION,
    CalibrationError,
    Convolution,
    dequantize,
    quantization_of_range,
    quantize,
    quantize_weights,
)
from detection.fake_quantize import FakeQuantDetector, fake_quantize_weight
from detection.model.detector import normalise
from detection.observers import BINS, METHODS, Histogram, Range, choose_range
from detection.quantize import LOWEST_BOX, LOWEST_LOGIT, FoldedDetector, calibrate
from tests.detection.small_detector import ARCH, make_detector, make_frames


def to_batch(frames: list[np.ndarray]) -> torch.Tensor:
    return normalise(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2))


@settings(deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_range_is_covered_and_zero_is_exact(first: float, second: float) -> None:
    low, high = min(first, second), max(first, second)
    quantization = quantization_of_range(low, high)
    assert float(np.float32(quantization.scale)) == quantization.scale > 0
    assert -128 <= quantization.zero_point <= 127
    assert dequantize(quantize(np.zeros(1), quantization), quantization) == 0
    ends = dequantize(np.array([-128, 127], np.int8), quantization)
    assert ends[0] <= min(low, 0) + quantization.scale and ends[1] >= max(high, 0) - quantization.scale
    inside = np.linspace(ends[0], ends[1], 97)
    error = np.abs(dequantize(quantize(inside, quantization), quantization) - inside)
    assert error.max() <= 0.5001 * quantization.scale


def test_relu6_gets_255_steps_from_its_zero() -> None:
    quantization = quantization_of_range(0, 6)
    assert quantization.zero_point == -128 and quantization.scale == pytest.approx(6 / 255, rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_what_is_no_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(CalibrationError, match="not a range"):
        quantization_of_range(low, high)


def test_weights_use_all_127_steps_of_their_channel_and_never_more() -> None:
    rng = np.random.default_rng(1)
    weight = (rng.normal(size=(5, 4, 3, 3)) * 10.0 ** np.arange(-2, 3)[:, None, None, None]).astype(np.float32)
    weights = quantize_weights(Convolution(weight, rng.normal(size=5).astype(np.float32)), 0.02, 0.05)
    assert (np.abs(weights.values.reshape(5, -1)).max(1) == 127).all()
    assert np.allclose(weights.values * weights.scales[:, None, None, None], weight, atol=weights.scales.max() * 0.51)
    assert weights.scales.dtype == np.float32 and weights.bias.dtype == np.int32


@pytest.mark.parametrize("bias", [0.0, 1.5, -300.0])
def test_a_dead_channel_keeps_its_bias(bias: float) -> None:
    scale_in, scale_out = 0.02, 0.03
    convolution = Convolution(np.full((1, 8, 1, 1), 1e-30, np.float32), np.array([bias], np.float32))
    weights = quantize_weights(convolution, scale_in, scale_out)
    assert weights.bias[0] * scale_in * float(weights.scales[0]) == pytest.approx(bias, abs=scale_out / 100)
    assert abs(int(weights.bias[0])) <= 2**30


def histogram_of(values: np.ndarray) -> Histogram:
    counts, edges = np.histogram(values, BINS)
    return Histogram(counts.astype(float), Range(edges[0], edges[-1]))


def error_of(values: np.ndarray, chosen: Range) -> float:
    quantization = quantization_of_range(*chosen)
    return float(((dequantize(quantize(values, quantization), quantization) - values) ** 2).mean())


@pytest.mark.parametrize("method", METHODS)
def test_a_chosen_range_lies_within_what_was_seen_and_holds_zero(method: str) -> None:
    for values in (np.random.default_rng(0).normal(2, 1, 5000), np.full(7, 3.5), np.zeros(3), -np.ones(9)):
        chosen = choose_range(histogram_of(values), method)
        assert min(values.min(), 0) - 1 <= chosen.low <= 0 <= chosen.high <= max(values.max(), 0) + 1


def test_outliers_widen_minmax_only() -> None:
    values = np.random.default_rng(0).normal(0, 1, 200_000)
    values[0], values[1] = -100, 80
    ranges = {method: choose_range(histogram_of(values), method) for method in METHODS}
    assert ranges["minmax"] == (-100, 80)
    assert -10 < ranges["percentile"].low and ranges["percentile"].high < 10
    assert error_of(values[2:], ranges["mse"]) < error_of(values[2:], ranges["minmax"])


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="'kl' is no way.*minmax, percentile, mse"):
        choose_range(histogram_of(np.arange(5.0)), "kl")


def test_folding_batch_norm_changes_nothing() -> None:
    detector = make_detector()
    x = to_batch(make_frames(2))
    with torch.no_grad():
        for expected, got in zip(detector(x), FoldedDetector.of(detector)(x), strict=True):
            assert torch.allclose(expected, got, atol=1e-4, rtol=1e-4)
    assert all(unit.norm is not None for name, unit in detector.convs.items() if name not in ARCH.outputs)


def test_calibration_covers_every_tensor_and_is_deterministic() -> None:
    detector, frames = make_detector(), make_frames(6)
    calibration = calibrate(detector, frames)
    again = calibrate(detector, frames)
    assert calibration.quantizations == again.quantizations
    assert set(calibration.quantizations) == {INPUT, *(layer.name for layer in ARCH.layers())}
    assert calibration.quantizations[INPUT] == INPUT_QUANTIZATION
    assert (calibration.height, calibration.width) == (32, 48)
    for layer in ARCH.layers():
        quantization = calibration.quantizations[layer.name]
        if layer.kind in ("upsample", "maxpool"):
            assert quantization == calibration.quantizations[layer.inputs[0]]
        if layer.relu6:
            assert quantization.zero_point == -128 and quantization.scale * 255 <= 6.001


def test_the_batch_size_does_not_matter() -> None:
    detector, frames = make_detector(), make_frames(5)
    one, all_ = (calibrate(detector, frames, "minmax", batch) for batch in (1, 5))
    for name, quantization in one.quantizations.items():
        assert quantization.scale == pytest.approx(all_.quantizations[name].scale, rel=1e-4)


def test_steps_are_not_spent_on_hopeless_logits_or_on_boxes_of_hopeless_cells() -> None:
    detector, frames = make_detector(), make_frames(4)
    with torch.no_grad():
        for name in ("head4/objectness", "head4/box"):
            weight = detector.convs[name].conv.weight
            weight.copy_(-3000 * weight.abs())
    calibration = calibrate(detector, frames)

    def lowest(name: str) -> float:
        quantization = calibration.quantizations[name]
        return quantization.scale * (-128 - quantization.zero_point)

    maps = FoldedDetector.of(detector).activations(to_batch(frames))
    assert maps["head4/objectness"].min() < 2 * LOWEST_LOGIT
    assert maps["head4/box"].min() < 2 * LOWEST_BOX
    for name, limit in (("head4/objectness", LOWEST_LOGIT), ("head4/box", LOWEST_BOX)):
        assert lowest(name) == pytest.approx(limit, abs=calibration.quantizations[name].scale)


def test_a_detector_that_diverged_is_named() -> None:
    detector = make_detector()
    with torch.no_grad():
        detector.convs["block1/expand"].conv.weight.fill_(float("nan"))
    with pytest.raises(CalibrationError, match="'block1/expand' is not finite"):
        calibrate(detector, make_frames(1))


def test_no_frames_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="no calibration frames"):
        calibrate(make_detector(), [])


def test_fake_quantised_weights_are_the_integer_ones() -> None:
    detector = make_detector()
    calibration = calibrate(detector, make_frames(2))
    for name, convolution in calibration.convolutions.items():
        source = next(layer for layer in ARCH.layers() if layer.name == name).inputs[0]
        scales = (calibration.quantizations[source].scale, calibration.quantizations[name].scale)
        weights = quantize_weights(convolution, *scales)
        real = weights.values * weights.scales[:, None, None, None].astype(np.float64)
        fake = fake_quantize_weight(torch.from_numpy(convolution.weight)).numpy()
        assert np.abs(real - fake).max() <= 1e-6 * np.abs(real).max() + weights.scales.max() * 1e-4


def test_fake_quantisation_trains_and_gives_its_calibration_back() -> None:
    frames = make_frames(4)
    calibration = calibrate(make_detector(), frames)
    qat = FakeQuantDetector(ARCH)
    qat.load_calibration(calibration)
    unchanged = qat.calibration()
    assert unchanged.quantizations == calibration.quantizations
    for name, convolution in calibration.convolutions.items():
        assert (unchanged.convolutions[name].weight == convolution.weight).all()

    optimizer = torch.optim.SGD(qat.parameters(), 0.01)
    before = None
    for _ in range(5):
        loss = sum((out - 0.5).square().mean() for out in qat(to_batch(frames)))
        before = before if before is not None else loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < before
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in qat.parameters())

    restored = FakeQuantDetector(ARCH)
    restored.load_state_dict(qat.state_dict())
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(qat(to_batch(frames)), restored(to_batch(frames)), strict=True))
    assert (qat.calibration().height, qat.calibration().width) == (32, 48)


def test_another_networks_calibration_is_refused() -> None:
    other = Arch.model_validate(ARCH.model_dump() | {"stem": {"channels": 4}})
    calibration = calibrate(make_detector(), make_frames(1))
    with pytest.raises(CalibrationError, match="'stem'.*another network"):
        FakeQuantDetector(other).load_calibration(calibration)
