"""eval.py and demo.py from the outside: what they print, write, refuse, and their exit codes."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.images import decode_image
from detection.evaluate import Difference, Evaluation
from detection.metrics.common import Metrics
from detection.pictures import MAX_SIDE, PictureError, find_pictures, load_picture, output_names, save_picture
from detection.predictors import PredictorError
from detection.results import agreement, results_json, results_table, write_json
from detection.sources import check_classes, find_source, open_predictor, split_names, truth_for
from detection.videos import VideoReader, VideoWriter
from firmware.compiler.tflite import read_tflite, write_tflite
from tests.detection.small_export import build, write_run

Script = Callable[..., int]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "small", build())


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Script:
    def call(script: str, *arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        return importlib.import_module(script).main()

    return call


def test_eval_prints_a_row_each_and_writes_everything(run_folder: Path, tmp_path: Path, call: Script, capsys) -> None:
    out = tmp_path / "made" / "metrics.json"
    data = run_folder / "data.yaml"
    assert call("eval", run_folder, "--data", data, "--on", "host,float,tflite,int8", "--limit", 4, "--json", out) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("│")] == ["float", "int8", "tflite", "host"]
    assert printed.count("= int8") == 2

    document = json.loads(out.read_text())
    assert document["dataset"] == {
        "name": "data", "format": "scenes", "split": "val", "images": 4, "images_in_split": 6, "limit": 4, "frames": "rgb888",
    }  # fmt: skip
    assert set(document["sha256"]) == {"last.pt", "model.tflite", "model.tess"}
    assert all(len(digest) == 64 for digest in document["sha256"].values())
    assert {"coco_ap", "voc_ap50_area"} <= set(document["protocols"])
    by_name = {entry["name"]: entry for entry in document["results"]}
    assert by_name["host"]["values"] == by_name["int8"]["values"]
    assert by_name["host"]["bytes"] == {
        "equal": True, "truth": "int8", "compared": 4, "unequal": 0, "first_difference": None,
    }  # fmt: skip
    assert by_name["float"]["bytes"]["equal"] is None


def test_int8_is_the_truth_even_when_nobody_asked_for_its_row(run_folder: Path, call: Script, capsys) -> None:
    assert call("eval", run_folder, "--data", run_folder / "data.yaml", "--on", "host", "--limit", 2) == 0
    printed = capsys.readouterr().out
    assert "= int8" in printed and "│ int8" not in printed


def test_eval_fails_where_a_byte_differs(run_folder: Path, tmp_path: Path, monkeypatch, call: Script, capsys) -> None:
    from detection.predictors import TflitePredictor

    genuine = TflitePredictor.head_maps

    def spoiled(self: TflitePredictor, frame: np.ndarray) -> dict[str, np.ndarray]:
        maps = {name: values.copy() for name, values in genuine(self, frame).items()}
        maps["head4/class"][0, 1, 2] ^= 64
        return maps

    monkeypatch.setattr(TflitePredictor, "head_maps", spoiled)
    out = tmp_path / "metrics.json"
    with pytest.raises(ValueError, match=r"image '.*': head4/class\[0, 1, 2\] is -?\d+ in int8 and -?\d+ in tflite"):
        call("eval", run_folder, "--data", run_folder / "data.yaml", "--on", "tflite", "--limit", 2, "--json", out)
    assert "2 of 2 differ from int8" in capsys.readouterr().out
    found = json.loads(out.read_text())["results"][0]["bytes"]
    assert found["equal"] is False and found["first_difference"]["tensor"] == "head4/class"


def test_the_process_ends_with_one_line_and_1(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "eval.py", str(tmp_path / "none"), "--data", "configs/data/scenes.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'none'}: no such run, export folder or model\n"


@pytest.mark.parametrize("on", ["host", "int8", "float", "tflite", "board:host"])
def test_demo_draws_and_prints_a_line_a_picture(run_folder: Path, tmp_path: Path, on: str, call: Script, capsys) -> None:
    rng = np.random.default_rng(0)
    for name in ("a/x.png", "a/y.jpg", "b/x.jpg"):
        save_picture(tmp_path / name, rng.integers(0, 256, (50, 70, 3), np.uint8))
    arguments = [tmp_path / "a", tmp_path / "b" / "x.jpg", "--on", on, "--out", tmp_path / "out", "--score", 0.1]
    assert call("demo", run_folder, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(" ms" in line and "box" in line for line in lines)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x-2.jpg", "x.jpg", "y.jpg"]
    assert decode_image(tmp_path / "out" / "y.jpg").shape == (50, 70, 3)


def test_demo_on_the_emulator_counts_instructions(run_folder: Path, tmp_path: Path, call: Script, capsys) -> None:
    if not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")):
        pytest.skip("no emulator or no cross compiler")
    save_picture(tmp_path / "x.png", np.full((40, 60, 3), 90, np.uint8))
    assert call("demo", run_folder, tmp_path / "x.png", "--on", "emulator", "--out", tmp_path / "out") == 0
    assert " instructions" in capsys.readouterr().out


def test_a_broken_picture_is_named_and_the_others_are_done(run_folder: Path, tmp_path: Path, call: Script, capsys) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    save_picture(tmp_path / "b.jpg", np.full((40, 60, 3), 90, np.uint8))
    assert call("demo", run_folder, tmp_path / "a.jpg", tmp_path / "b.jpg", "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "a.jpg: broken picture" in captured.err
    assert "b.jpg" in captured.out and (tmp_path / "out" / "b.jpg").is_file()


def write_clip(path: Path, count: int, height: int = 51, width: int = 70) -> None:
    with VideoWriter(path, 12.5) as writer:
        for seed in range(count):
            coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
            writer.write(np.kron(coarse, np.ones((height // 6 + 1, width // 8 + 1, 1), np.uint8))[:height, :width])


def test_a_video_goes_in_and_a_video_comes_out(run_folder: Path, tmp_path: Path, call: Script, capsys) -> None:
    write_clip(tmp_path / "in" / "clip.mp4", 9)
    save_picture(tmp_path / "in" / "still.png", np.full((40, 60, 3), 90, np.uint8))
    assert call("demo", run_folder, tmp_path / "in", "--out", tmp_path / "out", "--score", 0.05) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "clip.mp4: 9 frames, " in lines[0] and "frames/s here" in lines[0] and "still.jpg" in lines[1]
    reader, source = VideoReader(tmp_path / "out" / "clip.mp4"), VideoReader(tmp_path / "in" / "clip.mp4")
    drawn, plain = list(reader.frames()), list(source.frames())
    assert (len(drawn), reader.rate, reader.width, reader.height) == (9, 12.5, source.width, source.height)
    changed = [np.abs(a.astype(int) - b).max() for a, b in zip(drawn, plain, strict=True)]
    assert max(changed) > 80, "boxes were drawn"
    boxes = int(re.search(r"frames, (\d+) box", lines[0])[1])
    host = open_predictor(find_source(run_folder), "host", raw=False)
    assert boxes == sum(int((host(frame, 70, 51).scores >= 0.05).sum()) for frame in plain) > 0


def test_a_broken_video_is_named_and_leaves_nothing(run_folder: Path, tmp_path: Path, call: Script, capsys) -> None:
    write_clip(tmp_path / "whole.mp4", 9)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:700])
    (tmp_path / "empty.mp4").write_bytes(b"")
    arguments = [tmp_path / f"{name}.mp4" for name in ("cut", "empty", "whole")]
    assert call("demo", run_folder, *arguments, "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert [line.split(": ")[:3] for line in captured.err.splitlines()] == [
        ["error", str(tmp_path / f"{name}.mp4"), "not a video that can be read"] for name in ("cut", "empty")
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole.mp4"]


def test_demo_says_what_it_needs(run_folder: Path, tmp_path: Path, call: Script) -> None:
    with pytest.raises(ValueError, match="name pictures and a folder to write to"):
        call("demo", run_folder)
    with pytest.raises(ValueError, match="one folder, video or webcam"):
        call("demo", run_folder, "a", "b", "--live", "emulator")
    with pytest.raises(ValueError, match="--live needs model.tess"):
        call("demo", run_folder / "weights" / "last.pt", "--live", "scenes")


def test_sources_of_every_kind(run_folder: Path) -> None:
    whole, export = find_source(run_folder), find_source(run_folder / "export")
    assert whole.checkpoint == export.checkpoint == run_folder / "weights" / "last.pt"
    assert whole.tflite == export.tflite == run_folder / "export" / "model.tflite"
    single = find_source(whole.tess)
    assert (single.tess, single.tflite, single.checkpoint) == (whole.tess, None, None)
    assert find_source(whole.tess, whole.checkpoint).checkpoint == whole.checkpoint


def test_zoo_folder(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder / "export", tmp_path / "face")
    shutil.copy(run_folder / "weights" / "last.pt", tmp_path / "face" / "checkpoint.pt")
    assert set(find_source(tmp_path / "face").sha256()) == {"checkpoint.pt", "model.tflite", "model.tess"}


def test_what_is_missing_is_named_with_the_command_that_makes_it(run_folder: Path, tmp_path: Path) -> None:
    checkpoint = find_source(run_folder / "weights" / "last.pt")
    for name, file in (("int8", "model.tflite"), ("host", "model.tess"), ("emulator", "model.tess")):
        with pytest.raises(PredictorError, match=f"'{name}' needs {file} .* has none: python export.py .*last.pt --out"):
            open_predictor(checkpoint, name)
    with pytest.raises(PredictorError, match="--checkpoint"):
        open_predictor(find_source(run_folder / "export" / "model.tess"), "float")
    with pytest.raises(PredictorError, match="holds no checkpoint"):
        find_source(tmp_path)
    (tmp_path / "x.onnx").touch()
    with pytest.raises(PredictorError, match="neither"):
        find_source(tmp_path / "x.onnx")


def test_other_peoples_tflite_is_refused_kindly(run_folder: Path, tmp_path: Path) -> None:
    graph = read_tflite((run_folder / "export" / "model.tflite").read_bytes())
    (tmp_path / "theirs.tflite").write_bytes(write_tflite(graph))
    with pytest.raises(PredictorError, match="theirs.tflite is no detector of ours"):
        open_predictor(find_source(tmp_path / "theirs.tflite"), "int8")


def test_names_are_sorted_and_checked() -> None:
    assert split_names("host, float,emulator:x,int8") == ("float", "int8", "host", "emulator:x")
    for wrong in ("", "gpu", "host:x"):
        with pytest.raises(PredictorError, match="choose from"):
            split_names(wrong)


def test_truth_is_added_only_where_something_is_compared(run_folder: Path) -> None:
    source = find_source(run_folder)
    assert truth_for(("float",), source) == ("float",)
    assert truth_for(("float", "host"), source) == ("float", "int8", "host")
    assert truth_for(("host",), replace(source, tflite=None)) == ("host",)


def test_classes_must_be_the_data_sets(run_folder: Path) -> None:
    source = find_source(run_folder)
    check_classes(source, ("circle", "square", "triangle"))
    for one in (source.checkpoint, source.tess, source.tflite):
        with pytest.raises(PredictorError, match=r"\(circle, square, triangle\), the data set holds \(face\)"):
            check_classes(find_source(one), ("face",))


def test_results_of_a_difference_and_of_undefined_values(tmp_path: Path) -> None:
    difference = Difference("p", "host", "int8", "boxes", (0, 4), "3", "4")
    metrics = Metrics({"voc_ap50_area": 0.5, "coco_ap": float("nan")}, 3, notes=("few",))
    result = Evaluation("host", metrics, 3, 0.5, 1e6, 3, 1, "int8", difference)
    assert agreement(result) == "1 of 3 differ from int8"
    assert [column.header for column in results_table([result], "t").columns] == [
        "predictor", "COCO AP", "VOC AP50", "images/s", "instructions an image", "bytes",
    ]  # fmt: skip
    document = results_json([result], "x", {}, {}, ["note"])
    assert document["notes"] == ["note", "few"]
    assert document["results"][0]["values"] == {"voc_ap50_area": 0.5, "coco_ap": None}
    write_json(tmp_path / "m.json", document)
    assert json.loads((tmp_path / "m.json").read_text()) == json.loads(json.dumps(document))
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_pictures_are_found_shrunk_and_never_overwritten(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "wide.jpg", np.full((10, MAX_SIDE + 100, 3), 70, np.uint8))
    (tmp_path / "in" / "notes.txt").touch()
    pictures = find_pictures([tmp_path / "in"])
    assert [path.name for path in pictures] == ["wide.jpg"]
    sample = load_picture(pictures[0])
    assert (sample.width, sample.height) == (MAX_SIDE + 100, 10)
    assert sample.image.shape == (10, MAX_SIDE, 3)
    assert list(output_names(pictures, tmp_path / "in")) == [tmp_path / "in" / "wide-2.jpg"]
    (tmp_path / "empty").mkdir()
    for wrong, message in ((tmp_path / "none.jpg", "no such picture"), (tmp_path / "empty", "no pictures in this folder")):
        with pytest.raises(PictureError, match=message):
            find_pictures([wrong])
