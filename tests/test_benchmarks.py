"""Benchmarks start from figures that others published, and what they wrote says that bytes were equal."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablations, keras_zoo, other_models, paper_tables, unseen_events
from benchmarks.networks import MOBILENET_V2, MOBILENET_V2_RD, backbone
from datasets import cli
from datasets.catalog import open_dataset
from datasets.config import DataError, load_data_config
from datasets.strict import load_yaml
from detection.config import load_config
from detection.metrics.sizes import SizeEvaluator, input_scales
from firmware.compiler.graph import Shape
from firmware.compiler.program import build_program
from firmware.compiler.schedule import patches
from firmware.compiler.search import deploy
from tests.firmware.graphs import Builder, same_window

YUNET = Path(__file__).resolve().parents[2] / "shared" / "data" / "models" / "yunet_s_dynamic.onnx"


@pytest.mark.parametrize(("blocks", "patch", "recompute"), [(MOBILENET_V2, 75, 0.093), (MOBILENET_V2_RD, 63, 0.029)])
def test_mcunet_v2_table_1(blocks: tuple, patch: int, recompute: float) -> None:
    graph = backbone("network", blocks, 224)
    split = paper_tables.patch_split(graph)
    assert round(max(paper_tables.paper_layers(graph)) / 1024) == 1372
    assert round(paper_tables.paper_patches(graph, split) / 1024) == 172
    assert paper_tables.input_patch(graph, split) == patch
    program = build_program(graph)
    assert deploy(program, patches(program, 4, 4, split)).cost.recompute == pytest.approx(recompute, abs=5e-4)


def test_the_committed_table_reproduced_the_paper() -> None:
    document = json.loads(Path("benchmarks/paper_tables.json").read_text())
    paper_tables.check_paper(document["networks"])
    for row in document["networks"]:
        peaks = [point["all_in"] for point in row["front"]]
        assert peaks == sorted(peaks, reverse=True) and peaks[0] < row["layer"]["all_in"]


def test_the_cache_in_both_axes_is_counted_as_streamnet_does() -> None:
    """By hand: 8x8 map in 2x2 tiles, two 3x3 convolutions of 4 and 2 channels; the first one's map keeps 2 rows and 2 columns."""
    b = Builder(np.random.default_rng(0), Shape(8, 8, 3))
    b.conv(b.conv("image", 4, same_window(Shape(8, 8, 3), 3), "first"), 2, same_window(Shape(8, 8, 4), 3), "second")
    caches, tiles, output = 2 * (8 + 4) * 4, 4 * 4 * 4 + 4 * 4 * 2, 8 * 8 * 2
    assert paper_tables.paper_streams(b.graph(("second",)), 2, 2) == caches + tiles + output


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is optional: make setup EXTRAS=tf")
def test_keras_networks_run_as_tensorflow_wrote_them(tmp_path: Path) -> None:
    names = ["concat_rows", "subtract_from_constant_channels", "prelu"]
    subprocess.run([sys.executable, keras_zoo.MODELS, "--out", tmp_path, *names], check=True, capture_output=True)
    joined, subtracted, refused = (keras_zoo.measure(tmp_path / f"{name}.tflite") for name in names)
    assert joined["tflm"]["unequal"] == subtracted["tflm"]["unequal"] == 0 and joined["tflm"]["distinct"] > 10
    assert "unsupported operator PRELU" in refused["error"] and "--outputs " in refused["error"]


def test_the_committed_keras_networks_gave_tflms_bytes() -> None:
    models = json.loads(Path("benchmarks/keras_zoo.json").read_text())["models"]
    assert sum(m["exported"] for m in models) > 20
    for model in models:
        named = "(#" in model.get("error", "") or "'" in model.get("error", "")  # the operator, by number or by name
        assert model["tflm"]["unequal"] == 0 if model["exported"] else named, model["model"]


def test_the_committed_foreign_models_gave_tflms_bytes_on_host_and_emulator() -> None:
    models = json.loads(Path("benchmarks/other_models.json").read_text())["models"]
    assert sum(m["exported"] for m in models) >= 4 and all(other_models.good(m) for m in models)


def ablate(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ablations", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(ablations.main)
    return ended.value.code  # type: ignore[return-value]


def test_arms_are_trained_once_and_compared_on_unseen_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scenes.yaml").write_text("{format: scenes, scenes: {count_train: 60, count_val: 2}}")
    plan = tmp_path / "plan.yaml"
    settings = f"data={tmp_path / 'scenes.yaml'}, train.tuning=0.4, train.limit=20, train.val_every=9"
    plan.write_text(
        f"config: tiny.yaml\nset: [{settings}]\narms:\n  base: {{what: as it is}}\n"
        "  small: {what: smaller crops, set: ['train.crop=[64,64]']}\n  late: {what: not trained}\n"
    )
    call = (str(plan), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--resamples", "20")
    assert ablate(monkeypatch, *call, "--only", "huge") == 1
    assert "has no arm 'huge'; it has base, small, late" in capfd.readouterr().err
    assert ablate(monkeypatch, *call, "--only", "base", "small") == 0
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/weights/last.pt")}
    document = json.loads((tmp_path / "ablations_plan.json").read_text())
    assert list(document["arms"]) == ["base", "small"] and document["arms"]["small"]["macs"] == document["arms"]["base"]["macs"]
    assert 10 < document["dataset"]["images"] < 40 and document["differences"][0]["of"] == "small"
    base, small = document["rows"]
    assert base[:2] == ["as it is", "1.4"] and small[:2] == ["smaller crops", "1.4"] and len(base) == len(document["columns"])
    assert base[2] == f"{document['results'][0]['values']['voc_ap50_area']:.3f}" and base[3] == "-" and "[" in small[3]
    assert ablate(monkeypatch, *call, "--only", "base", "small") == 0
    assert trained == {path: path.stat().st_mtime_ns for path in trained} and len(trained) == 2


def test_arms_need_pictures_that_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.yaml").write_text("{config: tiny.yaml, set: [train.epochs=1], arms: {base: {what: all}}}")
    assert ablate(monkeypatch, str(tmp_path / "plan.yaml")) == 1
    assert "train.tuning=SHARE is missing" in capfd.readouterr().err


@pytest.mark.parametrize("plan", sorted(Path("configs/ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_plans_name_settings_that_exist(plan: Path) -> None:
    arms = load_yaml(plan, ablations.Ablations)
    for name in arms.arms:
        load_config(Path("configs") / arms.config, arms.settings(name))


class _Named:
    """A data set of names."""

    classes = ("face",)

    def __init__(self, *names: str) -> None:
        self.image_ids = names

    def __len__(self) -> int:
        return len(self.image_ids)


def test_pictures_are_told_apart_by_the_event_that_they_show() -> None:
    train, val = _Named("1--Riot/a", "1--Riot/b", "3--Fun/c"), _Named("1--Riot/d", "10--Rain/e", "3--Fun/f", "2--Sun/g")
    parts = unseen_events.groups(train, val, None)
    names = [part.image_ids for part in parts.values()]
    assert names == [("1--Riot/a", "1--Riot/b", "3--Fun/c"), ("1--Riot/d", "3--Fun/f"), ("10--Rain/e", "2--Sun/g")]
    with pytest.raises(DataError, match="nothing to compare"):
        unseen_events.groups(train, _Named("1--Riot/d"), None)


@pytest.mark.skipif(not YUNET.is_file(), reason="the peer is not here")
def test_the_peer_finds_faces_where_they_are() -> None:
    """In a picture wider than its input and in one higher, whatever the padding of its canvas."""
    pictures = open_dataset(load_data_config("configs/data/wider.yaml"), "train", 12)
    scales = input_scales(pictures, 240, 320)
    sizes = {sample.width > sample.height for sample in pictures}
    evaluator = SizeEvaluator(pictures.classes, scales)
    peer = unseen_events.Yunet(YUNET, 240, 320, load_config("configs/face_qvga.yaml", []).decode)
    for sample in pictures:
        evaluator.add(sample.image_id, sample.truth, peer.predict([sample])[0].detections)
    assert sizes == {True, False} and evaluator.result().values["input_ap50_medium"] > 0.7
