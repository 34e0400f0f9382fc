"""Tiny classification through the same doors: arch, loss, metrics by hand, the same bytes everywhere, from training to eval."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.annotations import GroundTruth, Sample
from detection.arch import PRESENCE, Arch, layer_macs, macs, shapes
from detection.assign import Truth
from detection.config import DecodeConfig, LossConfig
from detection.decode import decode
from detection.detections import Detections
from detection.evaluate import evaluate_together
from detection.loss import detection_loss
from detection.lower import lower
from detection.metrics.common import MetricsError
from detection.metrics.presence import PresenceEvaluator
from detection.model.detector import Detector, normalise
from detection.predictors import FloatPredictor, Int8Predictor, PredictorError, TflitePredictor, device_predictor
from detection.presence import TASK, presence_spec
from detection.quantize import calibrate
from firmware import device_cli
from firmware.compiler.image import write_image
from firmware.compiler.program import build_program
from firmware.compiler.schedule import stream
from firmware.compiler.search import deploy
from firmware.compiler.tflite import read_metadata, read_tflite, write_tflite
from firmware.device import open_host
from firmware.emulator import DeviceError
from tests.detection.small_detector import make_frames

CLASSES = ("cat", "dog", "person")
ARCH = Arch.model_validate(
    {
        "stem": {"channels": 8},
        "blocks": [{"channels": 12, "stride": 2, "expand": 2}, {"channels": 16, "stride": 2, "expand": 2, "repeat": 2}],
        "classifier": {"channels": 24},
        "num_classes": 3,
    }
)


def test_a_classifier_has_one_output_and_no_levels() -> None:
    assert ARCH.outputs == (PRESENCE,) and ARCH.strides == ()
    known = shapes(ARCH.layers(), 32, 48)
    assert known["classifier/mean"] == (1, 1, 24) and known[PRESENCE] == (1, 1, 3)
    counts = layer_macs(ARCH.layers(), 32, 48)
    backbone = sum(count for name, count in counts.items() if name.startswith(("stem", "block")))
    assert macs(ARCH, 32, 48) == backbone + 16 * 24 * 4 * 6 + 24 * 3
    assert Arch.model_validate_json(ARCH.model_dump_json()) == ARCH


def truth_of(*rows: tuple[int, int, bool]) -> Truth:
    """(image, label, ignore) of every object; boxes do not matter."""
    image, labels, ignore = (torch.tensor(part) for part in zip(*rows, strict=True))
    return Truth(torch.tensor([[0.0, 0.0, 9.0, 9.0]]).expand(len(rows), 4), labels, ignore, image)


def test_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0], [3.0, 0.0, 0.0]])
    truth = truth_of((0, 1, False), (0, 2, True), (1, 0, True), (1, 0, False))
    loss = detection_loss(ARCH, (logits[:, :, None, None],), truth, LossConfig(classes=2.0))
    soft = torch.nn.functional.softplus
    # picture 0: no cat, a dog, the person unsure; picture 1: a cat (an ignored one beside it), no dog, no person
    expected = soft(torch.tensor(0.0)) + soft(torch.tensor(-2.0)) + soft(torch.tensor(-3.0)) + 2 * soft(torch.tensor(0.0))
    assert float(loss.total) == pytest.approx(2.0 * float(expected) / 5)
    assert list(loss.terms) == ["class"] and loss.positives == 2


def answer(*scores: float, size: tuple[float, float] = (100.0, 50.0)) -> Detections:
    order = np.argsort(-np.array(scores), kind="stable")
    boxes = np.tile(np.array([0, 0, *size], np.float32), (len(scores), 1))
    return Detections(boxes, np.array(scores, np.float32)[order], order.astype(np.int64))


def truth(*rows: tuple[float, int, bool]) -> GroundTruth:
    """(side, label, ignore) of square objects."""
    boxes = np.array([[0, 0, side, side] for side, _, _ in rows], np.float32).reshape(-1, 4)
    labels, ignore = np.array([row[1] for row in rows], np.int64), np.array([row[2] for row in rows], bool)
    return GroundTruth(boxes, labels, ignore)


def test_metrics_by_hand() -> None:
    """One class. 0.5 % of 100 x 50 pixels are 25: a side of 5 counts, one of 4.9 does not."""
    evaluator = PresenceEvaluator(("a",))
    evaluator.add("1", truth((5.0, 0, False)), answer(0.9))  # hit
    evaluator.add("2", truth((4.9, 0, False)), answer(0.8))  # too small: wrongly said to be there
    evaluator.add("3", truth((20.0, 0, False), (30.0, 0, True)), answer(0.5))  # hit, just
    evaluator.add("4", truth(), answer(0.2))  # rejected
    evaluator.add("5", truth((20.0, 0, False)), answer(0.1))  # missed
    evaluator.add("6", truth((20.0, 0, True)), answer(0.95))  # counts neither way
    values = evaluator.result().values
    assert values["presence_accuracy"] == pytest.approx(3 / 5)
    assert values["presence_majority"] == pytest.approx(3 / 5)  # the one that counts neither way left out
    assert values["presence_balanced"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert values["presence_ap"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert evaluator.result().by_class["a"] == pytest.approx(values)


def test_weights_are_copies_and_absent_classes_undefined() -> None:
    rng = np.random.default_rng(3)
    pairs = [(truth((20.0, int(rng.integers(2)), bool(rng.random() < 0.2))), answer(*rng.random(3))) for _ in range(9)]
    weights = rng.integers(0, 3, (2, len(pairs)))
    evaluator = PresenceEvaluator(CLASSES)
    for i, pair in enumerate(pairs):
        evaluator.add(f"{i}", *pair)
    for row, weighted in enumerate(weights):
        judge = PresenceEvaluator(CLASSES)
        for i, count in enumerate(weighted):
            for copy in range(count):
                judge.add(f"{i}-{copy}", *pairs[i])
        for name, values in evaluator.resampled(weights).items():
            assert values[row] == pytest.approx(judge.result().values[name], nan_ok=True)
    assert np.isnan(evaluator.result().by_class["person"]["presence_ap"])  # nobody there


def test_bad_answers_name_the_image() -> None:
    with pytest.raises(MetricsError, match="'x': a classifier answers once for each of 3 classes"):
        PresenceEvaluator(CLASSES).add("x", truth(), answer(0.5, 0.4))


def test_float_answers_cover_the_picture_and_are_sorted() -> None:
    logits = torch.tensor([[0.0, 2.0, 0.0]])[:, :, None, None]
    (found,) = decode(ARCH, (logits,), DecodeConfig(), torch.tensor([[40.0, 30.0]]))
    assert found.labels.tolist() == [1, 0, 2] and found.boxes.tolist() == [[0.0, 0.0, 40.0, 30.0]] * 3
    assert found.scores.tolist() == pytest.approx([1 / (1 + np.exp(-2)), 0.5, 0.5])


@pytest.fixture(scope="module")
def network() -> tuple[Detector, bytes, bytes]:
    """Float network, model.tflite and model.tess."""
    torch.manual_seed(0)
    detector = Detector(ARCH).eval()
    with torch.no_grad():
        detector.convs[PRESENCE].conv.weight.normal_(std=0.5)
    graph = lower(ARCH, calibrate(detector, make_frames(8)))
    tflite = write_tflite(graph, {"format": 1, "classes": list(CLASSES), "task": TASK})
    program = build_program(graph)
    return detector, tflite, write_image(deploy(program, stream(program)), None, bytes(32))


def test_predictors_agree_to_the_byte(network: tuple[Detector, bytes, bytes]) -> None:
    detector, tflite, tess = network
    graph = read_tflite(tflite)
    spec = presence_spec(graph, read_metadata(tflite))
    predictors = [
        Int8Predictor(graph, spec),
        TflitePredictor(tflite, graph, spec),
        device_predictor(open_host(tess), "host", spec),
        FloatPredictor(detector, (32, 48), DecodeConfig()),
    ]
    frames = make_frames(6, 40, 40, seed=5)
    samples = [Sample(frame, truth((30.0, n % 3, False)), f"{n}", 80, 80) for n, frame in enumerate(frames)]
    results = evaluate_together(predictors, samples, lambda: [PresenceEvaluator(CLASSES)], resamples=20)
    assert [(r.compared, r.unequal) for r in results[1:3]] == [(6, 0)] * 2
    for sample in samples:
        exact, real = (predictor.predict([sample])[0].detections for predictor in (predictors[0], predictors[3]))
        assert exact.boxes.tolist() == [[0, 0, 80, 80]] * 3
        order = np.argsort(exact.labels), np.argsort(real.labels)
        assert exact.scores[order[0]] == pytest.approx(real.scores[order[1]], abs=0.1)


def test_a_classifier_on_the_link(
    network: tuple[Detector, bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """eval.py gets the answers of int8 from a board, and goes on with its journal; firmware.device run gets the logits."""
    folder, data = tmp_path / "export", tmp_path / "data.yaml"
    folder.mkdir()
    drawn = ("circle", "square", "triangle")
    metadata = {"format": 1, "classes": list(drawn), "task": TASK}
    (folder / "model.tflite").write_bytes(write_tflite(read_tflite(network[1]), metadata))
    (folder / "model.tess").write_bytes(network[2])
    scenes = f"count_train: 1, count_val: 5, width: 60, height: 40, classes: [{', '.join(drawn)}]"
    data.write_text(f"format: scenes\nscenes: {{{scenes}}}\n")
    command = [folder, "--data", data, "--on", "int8,board:host", "--json", tmp_path / "m.json", "--resamples", 0]
    documents = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, command), "--resume", str(tmp_path / "journal")])
        assert importlib.import_module("eval").main() == 0
        documents.append(json.loads((tmp_path / "m.json").read_text()))
    assert documents[0]["results"][1]["bytes"] == documents[1]["results"][1]["bytes"]
    assert documents[0]["results"][1]["bytes"]["equal"] and documents[0]["latency"]["pictures"] == 5
    assert (tmp_path / "journal" / "journal.jsonl").read_text().count("\n") == 6
    monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, command), "--frames", "rgb565"])
    with pytest.raises(ValueError, match="is a classifier: it takes frames that the host letterboxed"):
        importlib.import_module("eval").main()

    frames = np.stack(make_frames(2, *open_host(network[2]).header.input_shape[:2]))
    np.save(tmp_path / "frames.npy", frames)
    port = ["run", "host", "--model", folder / "model.tess", "--input", tmp_path / "frames.npy", "--output", tmp_path / "out.npz"]
    monkeypatch.setattr(sys, "argv", ["firmware.device", *map(str, port)])
    device_cli.main()
    expected = [record.heads for record in open_host(network[2]).run_frames(frames)]
    assert all(np.array_equal(np.load(tmp_path / "out.npz")[name], [heads[name] for heads in expected]) for name in expected[0])
    with pytest.raises(DeviceError, match="has no decoder: run_frames gives its outputs"):
        monkeypatch.setattr(sys, "argv", ["firmware.device", *map(str, port), "--mode", "boxes"])
        device_cli.main()


def test_other_networks_are_no_classifiers(network: tuple[Detector, bytes, bytes]) -> None:
    graph = read_tflite(network[1])
    assert presence_spec(graph, None) is None
    assert presence_spec(graph, {"format": 1, "classes": ["a"], "strides": [8]}) is None


def test_it_learns_a_loud_class() -> None:
    """Pictures with a bright half or without: gradients reach the backbone through the mean."""
    torch.manual_seed(0)
    detector = Detector(ARCH.with_classes(1)).train()
    optimizer = torch.optim.AdamW(detector.parameters(), 0.01)
    frames = np.stack(make_frames(16))
    frames[::2, :16] = 250
    x = normalise(torch.from_numpy(frames).permute(0, 3, 1, 2))
    shown = truth_of(*((image, 0, False) for image in range(0, 16, 2)))
    for _ in range(15):
        loss = detection_loss(detector.arch, detector(x), shown, LossConfig())
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert float(loss.total.detach()) < 0.35  # 0.69 knows nothing


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch):
    def call(script: str, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        return importlib.import_module(script).main()

    return call


def test_from_training_to_the_c_runtime(tmp_path: Path, call, capsys) -> None:
    """train.py, export.py and eval.py on generated scenes: is there a circle, a square, ...?"""
    config = tmp_path / "c.yaml"
    root = Path(__file__).resolve().parents[2]
    text = (root / "configs" / "tiny.yaml").read_text().replace("data/scenes.yaml", str(root / "configs/data/scenes.yaml"))
    config.write_text(text.replace("  head: {strides: [8, 16], channels: [16, 24]}", "  classifier: {channels: 24}"))
    assert call("train", "--config", config, "--runs", tmp_path, "train.epochs=1", "input.height=64", "input.width=64") == 0
    run = tmp_path / "tiny"
    options = ["--calibration", 8, "--verification", 1, "--sample", 8, "--max-drop", 100]
    assert call("export", run, *options, "--out", run / "export") == 0
    data = root / "configs/data/scenes.yaml"
    out = tmp_path / "m.json"
    assert call("eval", run, "--data", data, "--on", "float,host", "--limit", 6, "--json", out) == 0
    results = {one["name"]: one for one in json.loads(out.read_text())["results"]}
    assert set(results["host"]["values"]) == {"presence_accuracy", "presence_majority", "presence_balanced", "presence_ap"}
    assert results["host"]["bytes"]["equal"] is True
    assert json.loads((run / "export" / "verify.json").read_text())["drop"]["metric"] == "presence_ap"
    assert "balanced accuracy" in capsys.readouterr().out
    with pytest.raises(PredictorError, match="model.tess names no classes, as a classifier's .tess does not: give the folder"):
        call("eval", run / "export" / "model.tess", "--data", data, "--on", "host", "--limit", 1)
