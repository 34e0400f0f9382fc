"""`python -m firmware.device` and `python -m firmware.build` as a user meets them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firmware.compiler.image import write_image
from firmware.compiler.interpreter import run as interpret
from firmware.compiler.program import build_program
from firmware.compiler.schedule import stream
from firmware.compiler.search import deploy
from firmware.link.ports import HostPort
from tests.firmware.graphs import random_graph
from tests.firmware.test_device import needs_toolchain

ROOT = Path(__file__).resolve().parents[2]
GRAPH = random_graph(np.random.default_rng(11), max_ops=5)


def call(module: str, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"firmware.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.tess"
    program = build_program(GRAPH)
    path.write_bytes(write_image(deploy(program, stream(program)), None, bytes(32)))
    return path


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, *GRAPH.tensors[GRAPH.input].shape), dtype=np.uint8)


@needs_toolchain
def test_all_places_give_the_interpreters_outputs(model: Path, frames: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", frames)
    for number, place in enumerate(("host", "emulator", "emulator:netduinoplus2")):
        output = tmp_path / f"{number}.npz"
        done = call("device", "run", place, "--model", model, "--input", tmp_path / "in.npy", "--output", output)
        assert done.returncode == 0, done.stderr
        with np.load(output) as heads:
            assert set(heads.files) == set(GRAPH.outputs)
            for i, frame in enumerate(frames):
                expected = interpret(GRAPH, frame)
                assert all(np.array_equal(heads[name][i].ravel(), expected[name].ravel()) for name in heads.files)


def test_int8_and_single_frames(model: Path, frames: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "u8.npy", frames[0])
    np.save(tmp_path / "i8.npy", (frames[0].astype(np.int16) - 128).astype(np.int8))
    for name in ("u8", "i8"):
        files = ("--input", tmp_path / f"{name}.npy", "--output", tmp_path / f"{name}.npz")
        done = call("device", "run", "host", "--model", model, *files)
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "u8.npz") as one, np.load(tmp_path / "i8.npz") as two:
        for name in GRAPH.outputs:
            assert one[name].dtype == np.int8 and one[name].ndim == 3
            assert np.array_equal(one[name], two[name])


def test_errors_are_one_line_and_leave_no_file(model: Path, frames: np.ndarray, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.npy", tmp_path / "bad.npy"
    np.save(good, frames)
    np.save(bad, frames[:, 1:])
    (tmp_path / "text.npy").write_text("hello")
    damaged = tmp_path / "damaged.tess"
    damaged.write_bytes(model.read_bytes()[:-16])
    cases = (
        (model, "host", bad, "the network takes uint8 or int8"),
        (model, "host", tmp_path / "text.npy", "is not a .npy file"),
        (model, "host", tmp_path / "none.npy", "No such file"),
        (model, "emulator:mps2-an385", good, "target 'mps2-an385' does not exist; did you mean 'mps2-an386'?"),
        (model, "moon", good, "moon: there is no such port; ports of this machine:"),
        (damaged, "host", good, "damaged"),
    )
    for tess, place, source, message in cases:
        done = call("device", "run", place, "--model", tess, "--input", source, "--output", tmp_path / "out.npz")
        assert done.returncode == 1 and message in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_info_selftest_load_and_a_port_by_name(model: Path, tmp_path: Path) -> None:
    """Through the pseudo-terminal of a process that outlives the commands, as a board does."""
    port = HostPort(model.read_bytes())
    port._serial.close()
    try:
        shown = call("device", "info", port.path, "--model", model)
        assert shown.returncode == 0 and "this tree's" in shown.stdout and "in the image" in shown.stdout, shown.stderr
        loaded = call("device", "load", port.path, model)
        assert loaded.returncode == 0 and "opened and tested (place 1" in loaded.stdout, loaded.stderr
        assert "loaded, place 1" in call("device", "info", port.path).stdout
        assert call("device", "selftest", port.path, "--model", model).returncode == 0
        port._serial.open()
        busy = call("device", "info", port.path)
        assert busy.returncode == 1 and busy.stderr == f"error: {port.path}: the port is busy: another program has it open\n"
    finally:
        port.close()


@needs_toolchain
def test_build_command(model: Path, tmp_path: Path) -> None:
    done = call("build", "--target", "netduinoplus2", "--model", model, "--output", tmp_path)
    assert done.returncode == 0 and "work memory" in done.stdout
    assert (tmp_path / "firmware.elf").exists()
    done = call("build", "--target", "openmv-h7", "--model", model)
    assert done.returncode == 1 and done.stderr.startswith("error: target 'openmv-h7' is a budget")
    made = subprocess.run(["make", "-C", "firmware", f"MODEL={model}"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0 and "mps2-an500" in made.stdout
