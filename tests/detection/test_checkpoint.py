"""State on disk: whole or not at all, harmless to load, and only for the network that it belongs to."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from detection import checkpoint as module
from detection.arch import Arch
from detection.checkpoint import Checkpoint, CheckpointError, load_checkpoint, load_detector, save_checkpoint
from detection.ema import Ema
from detection.model.detector import Detector

torch.set_num_threads(1)  # two threads on a busy machine wait for each other

ARCH = Arch.model_validate({"stem": {"channels": 4}, "blocks": [{"channels": 4, "stride": 2, "expand": 1}],
                            "head": {"strides": [4], "channels": [4]}})  # fmt: skip


def make(arch: Arch = ARCH) -> Checkpoint:
    return Checkpoint(arch, {"name": "x"}, ("face",), Detector(arch).state_dict(), 3, 30, progress={"best_fitness": 0.5})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = make()
    save_checkpoint(tmp_path / "last.pt", saved)
    detector, loaded = load_detector(tmp_path / "last.pt")
    assert (loaded.arch, loaded.config, loaded.class_names) == (ARCH, {"name": "x"}, ("face",))
    assert (loaded.epoch, loaded.iteration, loaded.progress) == (3, 30, {"best_fitness": 0.5})
    assert not detector.training and os.listdir(tmp_path) == ["last.pt"]
    assert all(torch.equal(value, saved.ema[name]) for name, value in detector.state_dict().items())


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, make())
    before = path.read_bytes()

    def broken(content: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(module.torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, make())
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["last.pt"]


class _Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("evil",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format_version": 1, "arch": _Evil()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(_Evil()))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(CheckpointError, match="damaged, or no checkpoint"):
            load_checkpoint(name)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.99])
def test_a_damaged_file_is_named(tmp_path: Path, cut: float) -> None:
    save_checkpoint(tmp_path / "x.pt", make())
    data = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(data[: int(cut * len(data)) if cut < 1 else int(cut)])
    with pytest.raises(CheckpointError, match=r"x\.pt: damaged"):
        load_checkpoint(tmp_path / "x.pt")


def test_missing_folder_and_foreign_files_are_named(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.pt")
    for name, message in (("none.pt", "no such"), (".", "is a folder"), ("foreign.pt", "'format_version' is missing")):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / name)


def test_another_architecture_is_named_by_its_first_differing_layer(tmp_path: Path) -> None:
    wide = ARCH.model_copy(update={"stem": ARCH.stem.model_copy(update={"channels": 8})})
    save_checkpoint(tmp_path / "wide.pt", make(wide))
    loaded = load_checkpoint(tmp_path / "wide.pt")
    with pytest.raises(CheckpointError, match="another architecture: layer 'stem' .conv, 8 channels"):
        module.load_weights(Detector(ARCH), loaded.ema, loaded.arch, "wide.pt")


def test_ema_is_a_weighted_mean_that_ramps_up() -> None:
    model = Detector(ARCH)
    ema = Ema(model, decay=0.9, ramp=1e-6)  # full decay at once
    start = {name: value.clone() for name, value in ema.model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    ema.update(model)
    for name, parameter in ema.model.named_parameters():
        assert torch.allclose(parameter, start[name] + 0.1, atol=1e-6)
    slow = Ema(model, decay=0.9, ramp=1e9)  # no decay yet: follows the model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    slow.update(model)
    assert all(torch.allclose(a, b) for a, b in zip(slow.model.parameters(), model.parameters(), strict=True))
