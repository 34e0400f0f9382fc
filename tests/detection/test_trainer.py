"""Whole runs on generated scenes: repeatable, resumable to the same bits, and with errors that say what to do."""

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.catalog import open_dataset
from datasets.config import load_data_config
from detection import runs, trainer
from detection.batches import Schedule, TrainPictures, training_batches
from detection.checkpoint import CheckpointError, load_checkpoint, load_detector, load_fake_quantized
from detection.config import Config, ConfigError, load_config
from detection.distributed import World
from detection.drop import Drop, DropError, check_drop
from detection.exporter import ExportError, load_network
from detection.fake_quantize import FakeQuantDetector
from detection.model.detector import normalise
from detection.optimizer import learning_rate
from detection.trainer import Trainer, TrainingError, make_trainer
from firmware.compiler.preprocess import letterbox

TINY = Path(__file__).parents[2] / "configs" / "tiny.yaml"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config_with(*overrides: str) -> Config:
    return load_config(TINY, ["train.epochs=3", *overrides])


def make(config: Config, run: Path) -> Trainer:
    data = load_data_config(config.data)
    train, val = open_dataset(data, "train", config.train.limit), open_dataset(data, "val", 4)
    return make_trainer(config, train, val, run, World())


def start(tmp_path: Path, *overrides: str) -> Trainer:
    config = config_with(*overrides)
    return make(config, runs.new_run(tmp_path, config, World()))


def state(run: Path) -> dict[str, torch.Tensor]:
    saved = load_checkpoint(run / "weights" / "last.pt")
    return {f"{part}.{k}": v for part in ("model", "ema") for k, v in getattr(saved, part).items()}


def assert_same(one: Path, other: Path) -> None:
    a, b = state(one), state(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_its_files_and_a_loadable_best(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.fit()
    assert {"args.yaml", "results.csv", "weights"} <= set(os.listdir(run.run))
    rows = runs.read_results(run.run / "results.csv", 99)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and all(np.isfinite(row["train/box_loss"]) for row in rows)
    detector, checkpoint = load_detector(run.run / "weights" / "best.pt")
    assert checkpoint.class_names == run.classes and detector.arch.num_classes == len(run.classes)


def test_workers_do_not_change_a_run(tmp_path: Path) -> None:
    one, other = start(tmp_path, "train.workers=0"), start(tmp_path, "train.workers=2")
    one.fit()
    other.fit()
    assert_same(one.run, other.run)


@pytest.mark.parametrize("stop_at", [4, 6])  # the end of an epoch, the middle of one
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start(tmp_path)
    whole.fit()
    broken = start(tmp_path)
    step = Trainer.step

    def interrupted(self: Trainer, *args: object) -> object:
        if self.iteration + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", interrupted)
    broken.fit()
    assert load_checkpoint(broken.run / "weights" / "last.pt").iteration == stop_at
    monkeypatch.undo()
    resumed = make(runs.read_run(broken.run), broken.run)
    resumed.resume()
    resumed.fit()
    assert_same(whole.run, broken.run)
    kept = ("epoch", "train/box_loss", "train/obj_loss", "metrics/mAP50(B)", "lr/pg0")
    a, b = (runs.read_results(run.run / "results.csv", 9) for run in (whole, resumed))
    assert [[row[key] for key in kept] for row in a] == [[row[key] for key in kept] for row in b]


def test_a_signal_to_the_whole_process_group_stops_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path, "train.workers=2")
    step = Trainer.step

    def terminated(self: Trainer, *args: object) -> object:
        processes = (*multiprocessing.active_children(), multiprocessing.current_process())
        # From outside: where its parent is the one that kills, a loader ends quietly.
        subprocess.run(["sh", "-c", 'kill "$@"', "sh", *(str(one.pid) for one in processes)], check=True)
        time.sleep(0.2)  # a loader that dies of it is dead by now
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", terminated)
    run.fit()
    assert run.iteration == 1 and load_checkpoint(run.run / "weights" / "last.pt").iteration == 1
    assert not multiprocessing.active_children()


def test_max_minutes_stops_after_an_epoch(tmp_path: Path) -> None:
    run = start(tmp_path, "train.max_minutes=1e-6")
    run.fit()
    assert run.epoch == 1 and run.iteration < run.total


def test_a_loss_that_is_no_number_names_its_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path)
    real = trainer.detection_loss

    def poisoned(*args: object) -> object:
        loss = real(*args)
        return loss._replace(terms=loss.terms | {"box": loss.terms["box"] * float("nan")})

    monkeypatch.setattr(trainer, "detection_loss", poisoned)
    before = [p.clone() for p in run.model.parameters()]
    with pytest.raises(TrainingError, match="the box loss is nan at iteration 0 .*lower train.lr"):
        run.fit()
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


def test_resuming_with_another_network_or_other_pictures_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path)
    run.fit()
    with pytest.raises(CheckpointError, match="another architecture"):
        make(config_with("arch.stem.channels=4"), run.run).resume()
    with pytest.raises(TrainingError, match="other pictures"):
        make(config_with("train.limit=12"), run.run).resume()


def test_a_run_starts_from_the_average_of_another(tmp_path: Path) -> None:
    first = start(tmp_path, "train.epochs=1")
    first.fit()
    weights = first.run / "weights" / "last.pt"
    second = start(tmp_path, f"train.init={weights}")
    second.start()
    average = first.ema.model.state_dict()
    for model in (second.model, second.ema.model):
        assert all(torch.equal(value, average[name]) for name, value in model.state_dict().items())
    other = start(tmp_path, f"train.init={weights}", "arch.stem.channels=12")
    fresh = {name: value.clone() for name, value in other.model.state_dict().items()}
    other.start()
    for name, value in other.model.state_dict().items():  # the stem and what reads it differ
        assert torch.equal(value, average[name] if value.shape == average[name].shape else fresh[name])
    kept = "convs.block2/depthwise.conv.weight"
    assert not torch.equal(other.model.state_dict()[kept], fresh[kept])


def test_a_deeper_network_begins_as_the_one_that_it_started_from(tmp_path: Path) -> None:
    first = start(tmp_path, "train.epochs=1")
    first.fit()
    weights = first.run / "weights" / "last.pt"
    middle, last = "{expand: 2, channels: 16, stride: 2, repeat: 3}", "{expand: 2, channels: 24, stride: 2, repeat: 2}"
    deeper = start(tmp_path, f"train.init={weights}", f"arch.blocks=[{{expand: 1.5, channels: 12, stride: 2}}, {middle}, {last}]")
    deeper.start()
    images = torch.rand(2, 3, 96, 96) - 0.5
    with torch.no_grad():
        outputs = zip(first.ema.model.eval()(images), deeper.model.eval()(images), deeper.ema.model.eval()(images), strict=True)
    assert all(torch.equal(old, new) and torch.equal(old, average) for old, new, average in outputs)
    deeper.fit()
    state = deeper.ema.model.state_dict()
    assert all(state[f"convs.block{n}/project.norm.weight"].abs().min() > 0 for n in (3, 4, 6))  # and learns to be more
    shallow = start(tmp_path, f"train.init={deeper.run}/weights/last.pt")
    shallow.start()  # of three blocks in one place the first
    kept = "depthwise.conv.weight"
    assert torch.equal(shallow.model.state_dict()[f"convs.block3/{kept}"], state[f"convs.block5/{kept}"])


def test_crops_of_their_own_size(tmp_path: Path) -> None:
    config = config_with("train.crop=[64, 128]")
    source = open_dataset(load_data_config(config.data), "train", 4)
    batch = next(training_batches(source, config, Schedule(4, 4, 0, World()), 0, 1))
    assert batch.images.shape == (4, 3, 64, 128) and batch.teacher is None


def test_a_teacher_needs_faces_at_its_own_strides(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one class"):
        start(tmp_path, "train.teacher=yunet.onnx")


def test_a_picture_depends_on_seed_epoch_and_index_only() -> None:
    config = config_with()
    source = open_dataset(load_data_config(config.data), "train", 4)
    schedule = Schedule(4, 2, config.train.seed, World())
    keys = schedule.batch(3)
    pictures = TrainPictures(source, config)
    _ = pictures[schedule.batch(0)[0]]
    first, again = pictures[keys[0]].sample, TrainPictures(source, config)[keys[0]].sample
    assert np.array_equal(first.image, again.image) and np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, pictures[keys[0]._replace(epoch=9)].sample.image)


def test_batches_are_channels_last_bytes_with_boxes_inside() -> None:
    config = config_with()
    source = open_dataset(load_data_config(config.data), "train", 8)
    batch = next(training_batches(source, config, Schedule(8, 4, 0, World()), 0, 1))
    assert batch.images.dtype == torch.uint8 and batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.shape == (4, 3, 96, 96)
    assert (batch.truth.boxes >= 0).all() and (batch.truth.boxes <= 96).all() and (batch.truth.image.diff() >= 0).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_an_epoch_without_overlap(size: int) -> None:
    worlds = [Schedule(25, 4, 7, World(rank, size)) for rank in range(size)]
    steps = worlds[0].iterations_per_epoch
    for epoch in range(2):
        seen = [key.index for s in worlds for step in range(steps) for key in s.batch(epoch * steps + step)]
        assert len(seen) == len(set(seen)) == steps * 4 * size


def test_a_data_set_smaller_than_a_batch_repeats() -> None:
    schedule = Schedule(3, 8, 0, World())
    assert schedule.iterations_per_epoch == 1 and {key.index for key in schedule.batch(0)} == {0, 1, 2}


def test_learning_rate_warms_up_and_falls() -> None:
    train = config_with("train.warmup_iterations=10", "train.lr=1.0", "train.final_lr=0.1").train
    rates = [learning_rate(train, i, 100) for i in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False)) and rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_learning_rate_holds_until_the_decay() -> None:
    train = config_with("train.warmup_iterations=10", "train.lr=1.0", "train.final_lr=0.1", "train.decay=0.25").train
    rates = [learning_rate(train, i, 100) for i in range(101)]
    assert rates[9:76] == [1.0] * 67 and rates[100] == pytest.approx(0.1)
    assert all(a > b for a, b in zip(rates[75:], rates[76:], strict=False))


def test_a_longer_run_only_puts_the_decay_off() -> None:
    train = config_with("train.warmup_iterations=10", "train.decay=0.25").train
    assert [learning_rate(train, i, 100) for i in range(75)] == [learning_rate(train, i, 200) for i in range(75)]


@pytest.fixture
def rounded(tmp_path: Path) -> Trainer:
    """A run that goes on with another one's weights as int8 rounds them."""
    first = start(tmp_path)
    first.fit()
    run = start(tmp_path, "name=rounded", "train.epochs=2", "train.int8=minmax", f"train.init={first.run}/weights/last.pt")
    run.start()
    return run


def test_training_in_int8_starts_where_float_ended(rounded: Trainer) -> None:
    detector, _ = load_detector(rounded.config.train.init)
    frames = rounded.train_set.fetch(0)[0], rounded.train_set.fetch(1)[0]
    size = rounded.config.input.height, rounded.config.input.width
    images = normalise(torch.from_numpy(np.stack([letterbox(frame, *size) for frame in frames])).permute(0, 3, 1, 2))
    with torch.no_grad():
        outputs = zip(detector(images), rounded.model.eval()(images), rounded.ema.model(images), strict=True)
    for plain, rounding, average in outputs:
        assert torch.equal(rounding, average) and not torch.equal(plain, rounding)
        kept = plain.clamp(*(float(v) for v in torch.aminmax(rounding)))  # what int8 does not hold is not worth steps
        assert (kept - rounding).abs().mean() < 0.1 * kept.std() + 0.05


def test_a_network_trained_in_int8_keeps_its_ranges(rounded: Trainer) -> None:
    rounded.fit()
    path = rounded.run / "weights" / "last.pt"
    detector, checkpoint = load_detector(path)
    assert not isinstance(detector, FakeQuantDetector)  # float
    calibration = load_fake_quantized(checkpoint, "it").calibration()
    exported = load_network(rounded.run, 4, 2, None, None, lambda _: None)
    assert exported.ranges == "trained" and len(exported.frames) == 2
    with pytest.raises(DropError, match="train it longer with train.int8"):  # not: other ranges
        check_drop(Drop(0.5, 0.4, 8), 2, exported.worst, trained=True)
    heads = exported.graph.outputs
    assert heads and all(exported.graph.tensors[name].quant == calibration.quantizations[name] for name in heads)
    with pytest.raises(ExportError, match="keeps them: leave out --method"):
        load_network(rounded.run, 4, 2, "mse", None, lambda _: None)
    resumed = make(runs.read_run(rounded.run, ["train.epochs=3"]), rounded.run)
    resumed.resume()
    resumed.fit()
    assert resumed.epoch == 3 and torch.equal(resumed.model.scales, rounded.model.scales)


def test_training_in_int8_needs_the_same_network(rounded: Trainer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name its checkpoint as train.init"):
        config_with("train.int8=mse")
    begun = f"train.init={rounded.config.train.init}"
    with pytest.raises(CheckpointError, match="another architecture"):
        start(tmp_path, "train.int8=mse", begun, "arch.stem.channels=4").start()
    rounded.fit()
    with pytest.raises(CheckpointError, match="batch norm is gone"):
        start(tmp_path, f"train.init={rounded.run}/weights/last.pt").start()
