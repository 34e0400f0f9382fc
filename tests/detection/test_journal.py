"""Evaluations on a device: killed at any moment on either side, they go on and end with the same bytes."""

import importlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection.journal import Journal, JournalError, fresh_folder
from detection.latency import latency_csv, percentile, summary
from detection.pictures import load_picture
from firmware.compiler.decode import to_original
from firmware.device import DetectRecord, DeviceInfo
from firmware.host import HostModel
from firmware.link import ports
from firmware.link.client import Answer, Client, Found
from firmware.link.counting import Counting, Truth
from firmware.profile import node_costs
from tests.datasets.dataset_files import write_image, write_text
from tests.detection.small_export import build, write_run
from tests.firmware.link_rig import MortalEmulator

ROOT = Path(__file__).resolve().parents[2]
IDS = ("a", "b/c", "d")
HEAD = {"model_sha256": "00", "board": "host"}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "small", build())
    write_believed(run)
    return run


def write_believed(run: Path) -> None:
    """Replace data.yaml's scenes by pictures in which some of what the network finds is true, so that its AP is a number."""
    model, rng = HostModel((run / "export" / "model.tess").read_bytes()), np.random.default_rng(1)
    for number in range(6):
        write_image(run / f"images/val/{number}.png", 60, 40, seed=number)
        boxes = model.detect(load_picture(run / f"images/val/{number}.png").image)
        corners = to_original(boxes, model.content, (60, 40))[0] / (60, 40, 60, 40)
        centres, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        fields = zip(boxes[:, 5], *centres.T, *sides.T, strict=True)
        lines = [" ".join(map(str, field)) + "\n" for field in fields if rng.random() < 0.4]
        write_text(run / f"labels/val/{number}.txt", "".join(lines))
    names = "names: [circle, square, triangle]"
    (run / "data.yaml").write_text(f"path: .\nformat: yolo\ntrain: images/val\nval: images/val\n{names}\n")


def record(seed: int) -> DetectRecord:
    rng = np.random.default_rng(seed)
    boxes = rng.integers(-9, 40000, (seed, 6), dtype=np.int32)
    heads = {"x/y": rng.integers(-128, 128, (3, 4, 2), dtype=np.int8)}
    profile = rng.integers(0, 1 << 40, 5, dtype=np.uint64)
    return DetectRecord(boxes, heads, 1 << 40, 7, 960, 5000 + seed, profile if seed else None, seed)


def same(a: DetectRecord, b: DetectRecord) -> bool:
    counts = ("instructions", "detect_instructions", "stack", "touched", "repeats")
    return (
        np.array_equal(a.boxes, b.boxes) and a.boxes.dtype == b.boxes.dtype and np.array_equal(a.heads["x/y"], b.heads["x/y"])
        and all(getattr(a, name) == getattr(b, name) for name in counts)
        and (a.profile is None) == (b.profile is None) and (a.profile is None or np.array_equal(a.profile, b.profile))
    )  # fmt: skip


def test_a_journal_cut_at_any_byte_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "whole", HEAD, IDS)
    assert journal.state == "partial 0/3"
    for seed, image in enumerate(IDS):
        journal.append(image, record(seed))
    assert journal.state == "complete"
    journal.close()
    whole = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    for cut in range(0, len(whole) + 1, 37):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        (folder / "journal.jsonl").write_bytes(whole[:cut])
        again = Journal(folder, HEAD, IDS)
        done = max(whole[:cut].count(b"\n") - 1, 0)
        assert list(again.records) == list(IDS[:done])
        for seed, image in enumerate(IDS):
            if image not in again.records:
                again.append(image, record(seed))
        again.close()
        assert (folder / "journal.jsonl").read_bytes() == whole
    found = Journal(tmp_path / "whole", HEAD, IDS).in_order()
    assert [image for image, _ in found] == list(IDS)
    assert all(same(kept, record(seed)) for seed, (_, kept) in enumerate(found))


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, HEAD, IDS).close()
    with pytest.raises(JournalError, match="holds another evaluation: model_sha256 was 00, is 11; give --resume another folder"):
        Journal(tmp_path, {**HEAD, "model_sha256": "11"}, IDS)
    with pytest.raises(JournalError, match="images was 3, is 2"):
        Journal(tmp_path, HEAD, IDS[:2])
    with pytest.raises(JournalError, match="image_ids_sha256"):
        Journal(tmp_path, HEAD, IDS[::-1])
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b"{not json}\n")
    with pytest.raises(JournalError, match="line 2 is damaged"):
        Journal(tmp_path, HEAD, IDS)
    assert fresh_folder(tmp_path) == tmp_path / "eval-1"


def evaluate(monkeypatch: pytest.MonkeyPatch, run: Path, folder: Path, *more: str) -> dict:
    """metrics.json of eval.py on all six pictures."""
    out = folder.parent / f"{folder.name}.json"
    arguments = [run, "--data", run / "data.yaml", "--resume", folder, "--json", out, "--resamples", 0, *more]
    arguments += [] if "--on" in more else ["--on", "int8,board:host"]
    monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, arguments)])
    assert importlib.import_module("eval").main() == 0
    return json.loads(out.read_text())


def test_killed_on_either_side_and_gone_on(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = evaluate(monkeypatch, run_folder, tmp_path / "clean")
    board = clean["results"][1]
    assert board["name"] == "board:host" and board["bytes"]["equal"] and board["bytes"]["compared"] == 6
    assert board["values"] == clean["results"][0]["values"]
    assert clean["latency"]["pictures"] == 6 and clean["latency"]["unit"] is None
    counted = clean["device_ap"]
    assert counted["pictures"] == 6 and len(counted["by_class_q30"]) == 3 and 0 < counted["ap50_q30"] < 1 << 30
    assert abs(counted["ap50_q30"] / (1 << 30) - board["values"]["voc_ap50_area"] - counted["minus_sorted"]) < 1e-6

    from firmware.link.ports import HostPort

    folder, write = tmp_path / "cut", HostPort.write
    journal = folder / "journal.jsonl"

    def dies(port: HostPort, data: bytes) -> None:
        if journal.exists() and journal.read_bytes().count(b"\n") == 3:
            port._process.kill()
        write(port, data)

    with monkeypatch.context() as patch:  # the device's side
        patch.setattr(HostPort, "write", dies)
        with pytest.raises(JournalError, match=rf"the port is gone .*; partial \d/6 in {folder}, go on with --resume {folder}"):
            evaluate(patch, run_folder, folder)
    kept = journal.read_bytes()
    assert kept.count(b"\n") == 3

    command = [run_folder, "--data", run_folder / "data.yaml", "--on", "board:host", "--resume", folder]
    tool = subprocess.Popen(
        [sys.executable, "eval.py", *map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while tool.poll() is None and journal.stat().st_size == len(kept):  # the tool's side
        time.sleep(0.005)
    tool.send_signal(signal.SIGKILL)
    tool.wait()
    again = evaluate(monkeypatch, run_folder, folder)
    assert again["device_ap"] == counted  # a device that starts anew, and of some pictures only the journal's boxes
    for found, expected in zip(again["results"], clean["results"], strict=True):
        assert {**found, "images_per_second": 0} == {**expected, "images_per_second": 0}
    assert _results(journal) == _results(tmp_path / "clean" / "journal.jsonl")
    assert len((folder / "latency.csv").read_text().splitlines()) == 7
    page = (folder / "report.html").read_text()
    assert f"{counted['ap50_q30'] / (1 << 30):.4f}" in page and "board:host (= int8)" in page and "Latency" not in page


def test_an_emulator_that_is_killed_again_and_again(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU dies at any byte, also while it is told again what it had counted; each time --resume goes on, to the same end."""
    if not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")):
        pytest.skip("no emulator or no cross compiler")
    clean = evaluate(monkeypatch, run_folder, tmp_path / "clean", "--on", "board:emulator")
    monkeypatch.setattr(ports, "EmulatorPort", MortalEmulator)
    monkeypatch.setattr(MortalEmulator, "killed", 0)
    monkeypatch.setattr(MortalEmulator, "budgets", [700, 9_000, 16_000, 800, 21_000])
    states = []
    while len(states) <= 5:
        try:
            again = evaluate(monkeypatch, run_folder, tmp_path / "killed", "--on", "board:emulator")
            break
        except JournalError as error:
            states.append(re.search(r"(complete|partial \d/6) in", str(error))[1])
    assert MortalEmulator.killed == 5 and len(set(states)) > 2, states
    assert again["device_ap"] == clean["device_ap"] and again["latency"]["count"] == clean["latency"]["count"]
    assert _results(tmp_path / "killed" / "journal.jsonl") == _results(tmp_path / "clean" / "journal.jsonl")


def test_camera_frames_are_letterboxed_on_the_device(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RGB565 all the way: int8 on the widened colours finds the same bytes, and others than in the pictures themselves."""
    plain = evaluate(monkeypatch, run_folder, tmp_path / "plain")
    sent: list[np.ndarray] = []
    run = Client.run

    def watched(self: Client, picture: np.ndarray, *rest) -> Answer:
        sent.append(picture)
        return run(self, picture, *rest)

    monkeypatch.setattr(Client, "run", watched)
    found = evaluate(monkeypatch, run_folder, tmp_path / "camera", "--frames", "rgb565", "--on", "int8,host,board:host")
    assert [one["bytes"]["equal"] for one in found["results"]] == [None, True, True]
    assert [picture.shape for picture in sent] == [(40, 60, 2)] * 6
    assert found["dataset"]["frames"] == "rgb565" and found["device_ap"]["pictures"] == 6
    assert _results(tmp_path / "camera" / "journal.jsonl")[1:] != _results(tmp_path / "plain" / "journal.jsonl")[1:]
    assert plain["dataset"]["frames"] == "rgb888"
    with pytest.raises(JournalError, match="frames was rgb565, is rgb888"):
        evaluate(monkeypatch, run_folder, tmp_path / "camera")


def test_a_device_that_counts_otherwise_is_an_error(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send = Counting.add

    def ignoring(counting: Counting, boxes: np.ndarray, truth: Truth, found: Found | None) -> None:
        send(counting, boxes, truth._replace(ignore=~truth.ignore), found)

    monkeypatch.setattr(Counting, "add", ignoring)
    with pytest.raises(ValueError, match=r"AP50 is None / 2\^30 on the device and \d+ here: please report this; complete in"):
        evaluate(monkeypatch, run_folder, tmp_path / "other")


def test_a_device_without_room_to_count_says_so(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = Client._info
    monkeypatch.setattr(Client, "_info", lambda self: replace(info(self), precision_words=10))
    assert evaluate(monkeypatch, run_folder, tmp_path / "none")["device_ap"] is None
    assert "the device has 40 B for counters of average precision, the model needs" in capsys.readouterr().out


def _results(journal: Path) -> list[dict]:
    """All lines but for what depends on the speed of this machine."""
    return [{k: v for k, v in json.loads(line).items() if k != "repeats"} for line in journal.read_text().splitlines()]


def test_percentiles_are_values_that_were_measured() -> None:
    values = list(range(1, 21))
    assert [percentile(values, share) for share in (0.5, 0.95, 1.0)] == [10, 19, 20]
    assert percentile([5], 0.95) == 5 and percentile([3, 1, 2], 0.5) == 2


def test_latency_log(run_folder: Path) -> None:
    model = (run_folder / "export" / "model.tess").read_bytes()
    profile = np.arange(1, 2000, dtype=np.uint64)
    rows = [(f"p{n}", DetectRecord(np.zeros((0, 6), np.int32), {}, 1000 * n, n, 900 + n, 50, profile, n)) for n in (1, 2, 3)]
    info = DeviceInfo("chip", "cycles", "cycles", 1_000_000, 64, None, None, None, None, None, 1)
    found = summary(rows, info, model)
    assert found["count"] == {"p50": 2000, "p95": 3000, "max": 3000} and found["ms"] == {"p50": 2.0, "p95": 3.0, "max": 3.0}
    assert found["stack_most"] == 903 and found["repeated_frames"] == 6
    assert summary(rows, replace(info, unit="instructions"), model)["ms"] is None
    head, *lines = [line.split(",") for line in latency_csv(rows, info, model).splitlines()]
    assert head[:6] == ["image", "cycles", "detect_cycles", "stack", "work_memory", "repeated_frames"]
    costs = node_costs(model, profile)
    whole = sum(cost.count for cost in costs)
    parts = {group: [part for part in found["parts"] if part["group"] == group] for group in ("picture", "segment", "operator")}
    assert parts["picture"] == [{"group": "picture", "name": "boxes, from the candidates", "p50": 2, "p95": 3, "max": 3}]
    assert sum(part["p50"] for part in parts["segment"]) == sum(part["max"] for part in parts["operator"]) == whole
    assert [part["p50"] for part in parts["operator"]] == sorted((part["p50"] for part in parts["operator"]), reverse=True)
    segments = [i for i, name in enumerate(head) if name.startswith("segment_")]
    assert len(segments) == len({cost.segment for cost in costs}) and costs[0].operator == "source"
    assert [sum(int(line[i]) for i in segments) for line in lines] == [whole] * 3
    assert [sum(int(value) for value in line[segments[-1] + 1 :]) for line in lines] == [whole] * 3
