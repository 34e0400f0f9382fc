"""Five predictors on one small network: the integer ones equal to the byte, the float one close to them."""

import shutil
from collections.abc import Sequence

import numpy as np
import pytest

from datasets.annotations import GroundTruth, Sample
from detection.evaluate import evaluate_together
from detection.metrics.common import overlap
from detection.metrics.voc import VocEvaluator
from detection.predictors import DevicePredictor, FloatPredictor, Int8Predictor, PredictorError, TflitePredictor
from firmware.compiler.preprocess import letterbox
from firmware.compiler.tflite import read_tflite
from firmware.device import DetectRecord, Device, open_emulator, open_host
from tests.detection.small_detector import make_frames
from tests.detection.small_export import CLASSES, HEIGHT, SETTINGS, WIDTH, Small, build, make_detector


@pytest.fixture(scope="module")
def small() -> Small:
    return build()


def samples(seed: int = 0) -> list[Sample]:
    """Pictures of all shapes; originals twice as large as their copies."""
    rng = np.random.default_rng(seed)
    result = []
    for i, (height, width) in enumerate(((32, 48), (47, 31), (100, 90), (8, 61), (64, 96), (1, 1))):
        coarse = rng.integers(0, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)
        image = (coarse[:height, :width] + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)
        result.append(Sample(image, GroundTruth.empty(), f"picture{i}", 2 * width, 2 * height))
    return result


def integer_predictors(small: Small) -> list:
    return [
        Int8Predictor(small.graph, small.spec),
        TflitePredictor(small.tflite, read_tflite(small.tflite), small.spec),
        DevicePredictor(open_host(small.tess), "host"),
    ]


def test_integer_predictors_agree_to_the_byte_on_every_picture(small: Small) -> None:
    pictures = samples()
    results = evaluate_together(integer_predictors(small), pictures, lambda: [VocEvaluator(CLASSES)])
    assert [(r.compared, r.unequal, r.difference) for r in results[1:]] == [(len(pictures), 0, None)] * 2
    assert sum(len(p.detections.boxes) for p in Int8Predictor(small.graph, small.spec).predict(pictures)) > 20


def test_emulator_agrees_to_the_byte_and_counts(small: Small) -> None:
    if not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")):
        pytest.skip("no emulator or no cross compiler")
    emulator = DevicePredictor(open_emulator(small.tess, "mps2-an500"), "emulator", batch=4)
    results = evaluate_together([Int8Predictor(small.graph, small.spec), emulator], samples(), lambda: [])
    assert (results[1].compared, results[1].unequal, results[1].difference) == (6, 0, None)
    assert results[1].instructions > 10_000


def test_a_wrong_byte_is_found_and_named(small: Small) -> None:
    class Wrong(TflitePredictor):
        def head_maps(self, frame: np.ndarray) -> dict[str, np.ndarray]:
            maps = {name: values.copy() for name, values in super().head_maps(frame).items()}
            maps["head8/box"][1, 2, 3] ^= 1
            return maps

    wrong = Wrong(small.tflite, small.graph, small.spec)
    result = evaluate_together([Int8Predictor(small.graph, small.spec), wrong], samples(), lambda: [])[1]
    assert result.unequal == 6
    assert "image 'picture0': head8/box[1, 2, 3] is " in str(result.difference)


def test_all_boxes_lie_in_the_original_and_come_best_first(small: Small) -> None:
    float_predictor = FloatPredictor(make_detector(), (HEIGHT, WIDTH), SETTINGS)
    for predictor in [float_predictor, *integer_predictors(small)]:
        for sample, prediction in zip(samples(), predictor.predict(samples()), strict=True):
            found = prediction.detections
            assert found.boxes.dtype == found.scores.dtype == np.float32 and found.labels.dtype == np.int64
            assert (found.boxes >= 0).all() and (found.boxes <= [sample.width, sample.height] * 2).all()
            assert (np.diff(found.scores) <= 0).all()
            assert len(found.boxes) == len(found.scores) == len(found.labels) <= SETTINGS.max_detections


def test_float_and_int8_find_nearly_the_same(small: Small) -> None:
    """Same scores within quantisation steps, on pictures like those of the calibration."""
    frames = make_frames(4, HEIGHT, WIDTH)
    pictures = [Sample(f, GroundTruth.empty(), str(i), WIDTH, HEIGHT) for i, f in enumerate(frames)]
    exact = FloatPredictor(make_detector(), (HEIGHT, WIDTH), SETTINGS).predict(pictures)
    rounded = Int8Predictor(small.graph, small.spec).predict(pictures)
    for a, b in zip(exact, rounded, strict=True):
        assert a.raw is None and b.raw is not None
        assert a.detections.scores[:3] == pytest.approx(b.detections.scores[:3], abs=0.02)


def test_float_and_int8_put_boxes_at_the_same_place_of_a_narrow_original(small: Small) -> None:
    frame = make_frames(1, HEIGHT, WIDTH)[0][:, :24]  # half of the network's frame stays grey
    sample = Sample(np.ascontiguousarray(frame), GroundTruth.empty(), "narrow", 240, 320)
    exact = FloatPredictor(make_detector(), (HEIGHT, WIDTH), SETTINGS).predict([sample])[0].detections
    rounded = Int8Predictor(small.graph, small.spec).predict([sample])[0].detections
    assert len(exact.boxes) >= 3
    assert overlap(exact.boxes[:3], rounded.boxes).max(axis=1).min() > 0.7


def test_a_predictor_is_a_function_of_one_picture(small: Small) -> None:
    sample = samples()[2]
    for predictor in integer_predictors(small):
        found = predictor(sample.image, sample.width, sample.height)
        assert np.array_equal(found.boxes, predictor.predict([sample])[0].detections.boxes)


def test_float_does_not_depend_on_the_batch() -> None:
    predictor = FloatPredictor(make_detector(), (HEIGHT, WIDTH), SETTINGS)
    together = predictor.predict(samples())
    for sample, expected in zip(samples(), together, strict=True):
        found = predictor(sample.image, sample.width, sample.height)
        assert found.scores == pytest.approx(expected.detections.scores, abs=1e-5)


def test_boxes_scale_with_the_original(small: Small) -> None:
    sample = samples()[0]
    predictor = Int8Predictor(small.graph, small.spec)
    once = predictor(sample.image, 48, 32)
    thrice = predictor(sample.image, 144, 96)
    assert thrice.boxes == pytest.approx(3 * once.boxes, rel=1e-5)


def test_device_gets_the_picture_itself_not_a_frame() -> None:
    class Header:
        input_shape = (HEIGHT, WIDTH, 3)

    class Spy(Device):
        header = Header()
        seen: list[tuple[int, ...]] = []

        def detect_many(self, images: Sequence[np.ndarray], raw: bool = False) -> list[DetectRecord]:
            self.seen += [image.shape for image in images]
            return [DetectRecord(np.array([[0, 0, 48 * 16, 16 * 16, 32768, 1]], np.int32), None, 5)] * len(images)

        info = run_frames = selftest = None

    spy = Spy()
    sample = Sample(np.zeros((20, 60, 3), np.uint8), GroundTruth.empty(), "x", 600, 200)
    prediction = DevicePredictor(spy, "board").predict([sample])[0]
    assert spy.seen == [(20, 60, 3)]
    assert letterbox(sample.image, HEIGHT, WIDTH)[16:].min() == 114  # content is 48 x 16
    assert prediction.detections.boxes.tolist() == [[0, 0, 600, 200]]
    assert (prediction.detections.scores[0], prediction.detections.labels[0]) == (1.0, 1)
    assert prediction.instructions == 5


def test_litert_refuses_what_is_no_model(small: Small) -> None:
    with pytest.raises(PredictorError, match="LiteRT refuses"):
        TflitePredictor(b"nothing" * 10, small.graph, small.spec)
