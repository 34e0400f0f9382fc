"""The training run: batches -> loss -> weights, with validation, checkpoints, and resuming to the same bits on a CPU."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from datasets.dataset import Dataset
from detection import imagenet, runs
from detection.batches import Batch, Schedule, training_batches
from detection.checkpoint import (
    Checkpoint,
    check_same,
    load_alike,
    load_checkpoint,
    load_detector,
    load_weights,
    save_checkpoint,
)
from detection.config import Config, ConfigError
from detection.distributed import World, any_process, barrier, parallel
from detection.ema import Ema
from detection.fake_quantize import FakeQuantDetector
from detection.loss import Loss, detection_loss
from detection.model.detector import Detector, normalise
from detection.optimizer import learning_rate, make_optimizer, set_learning_rate
from detection.progress import Progress
from detection.quantize import PICTURES, calibrate, calibration_frames
from detection.teacher import STRIDES
from detection.validate import Validation, ValidationSet, validate


class TrainingError(ValueError):
    """Training cannot go on. The message names the loss term or the file."""


class Trainer:
    """One run. Build it, perhaps `resume()`, then `fit()`."""

    def __init__(self, config: Config, train: Dataset, val: ValidationSet, run: Path, world: World) -> None:
        self.config, self.run, self.world, self.val = config, run, world, val
        self.train_set, self.classes = train, train.classes
        self.arch = config.arch.with_classes(len(train.classes))
        torch.manual_seed(config.train.seed)
        network = Detector if config.train.int8 is None else FakeQuantDetector
        self.model = network(self.arch).to(world.device, memory_format=torch.channels_last)
        self.ema = Ema(self.model, config.train.ema_decay, config.train.ema_ramp)
        self.optimizer = make_optimizer(self.model, config.train)
        self.half = world.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.half)
        self.schedule = Schedule(len(train), config.train.batch_size, config.train.seed, world)
        self.total = self.schedule.iterations_per_epoch * config.train.epochs
        self.fingerprint = train.fingerprint()
        self.iteration = 0  # completed
        self.seconds = 0.0  # trained before this process began
        self.best = -1.0  # AP50
        self.last_ap = math.nan
        self.validation: Validation | None = None  # of this epoch, when it was due
        self.sums: dict[str, float] = {}  # of loss terms in this epoch
        self.rows: list[dict[str, float]] = []
        self._stop = False

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.iteration // self.schedule.iterations_per_epoch

    def start(self) -> None:
        """Take the averaged weights of `train.init`, where one is given: all tensors of the same name and shape; of a .tflite or
        .pth file MobileNetV2's ImageNet weights. Under `train.int8` all of them, batch norm folded, and ranges of int8.

        Raises:
            CheckpointError: no or damaged checkpoint, or one that shares no convolution; under int8 another architecture's.
            ImagenetError: no ImageNet weights in the file, or blocks that are not MobileNetV2's.
        """
        path = self.config.train.init
        if self.config.train.int8 is not None:
            self._start_int8()
        elif path is not None and path.suffix in imagenet.SUFFIXES:
            imagenet.load_imagenet(self.model, path, self.train_set, *self.config.crop)
            self.ema.model.load_state_dict(self.model.state_dict())
        elif path is not None:
            saved = load_checkpoint(path)
            for model in (self.model, self.ema.model):
                unlike = load_alike(model, saved.ema, saved.arch, str(path))
            if self.world.is_main:
                runs.keep_history(self.run, path, saved.epoch)
                print(f"started from {path}" + (f", but for {', '.join(unlike)}" if unlike else ""), flush=True)

    def _start_int8(self) -> None:
        path, method, size = self.config.train.init, self.config.train.int8, self.config.input
        detector, saved = load_detector(path)
        check_same(self.arch, saved.arch, str(path))
        frames = calibration_frames(self.train_set, PICTURES, size.height, size.width)
        calibration = calibrate(detector, frames, method)
        for model in (self.model, self.ema.model):
            model.load_calibration(calibration)
        if self.world.is_main:
            runs.keep_history(self.run, path, saved.epoch)
            print(f"started from {path}, rounding as int8 does: ranges by {method} of {len(frames)} pictures", flush=True)

    def resume(self) -> None:
        """Go on where `weights/last.pt` of the run left off.

        Raises:
            CheckpointError: no or damaged checkpoint, or one of another architecture.
            TrainingError: the data set, or the number of iterations in an epoch, has changed.
        """
        path = self.run / "weights" / "last.pt"
        saved = load_checkpoint(path)
        load_weights(self.model, saved.model, saved.arch, str(path))
        if saved.dataset_fingerprint != self.fingerprint or saved.class_names != self.classes:
            raise TrainingError(f"{path} was trained on other pictures or classes; start a new run instead")
        steps = self.schedule.iterations_per_epoch
        if saved.progress.get("iterations_per_epoch", steps) != steps or saved.iteration // steps != saved.epoch:
            raise TrainingError(f"{path}: epochs of {steps} iterations here: keep train.batch_size and the number of processes")
        load_weights(self.ema.model, saved.ema, saved.arch, str(path))
        self.optimizer.load_state_dict(saved.optimizer)
        self.scaler.load_state_dict(saved.scaler)
        self.iteration = saved.iteration
        progress = saved.progress
        self.ema.updates, self.best = progress["ema_updates"], progress["best_fitness"]
        self.seconds, self.sums, self.last_ap = progress["seconds"], progress["sums"], progress["last_ap"]
        if saved.rng_state is not None:
            torch.set_rng_state(saved.rng_state)
        self.rows = runs.read_results(self.run / "results.csv", self.epoch)

    def fit(self, on_epoch: Callable[["Trainer"], None] | None = None) -> None:
        """Train to the last epoch, to `max_minutes`, or until SIGINT / SIGTERM; the state is saved in each case.

        Raises:
            TrainingError: a loss term is not finite.
        """
        steps = self.schedule.iterations_per_epoch
        module = parallel(self.model, self.world)
        if self.config.train.compile:
            module = torch.compile(module)
        batches = training_batches(self.train_set, self.config, self.schedule, self.iteration, self.total)
        started = last_save = time.monotonic()
        before = self.seconds
        with Progress(self.config.train.epochs, steps, self.world.is_main) as progress, _signals(self._request_stop):
            for batch in batches:
                loss = self.step(module, batch)
                self.iteration += 1
                self.seconds = before + time.monotonic() - started
                count = len(batch.images) * self.world.size
                progress.step(self.iteration, self.seconds, float(loss.total.detach()), self.last_ap, count)
                if self.iteration % steps == 0:
                    self._end_epoch(progress)
                    last_save = time.monotonic()
                    if on_epoch is not None and self.world.is_main:
                        on_epoch(self)
                    progress.begin_epoch()
                    if self._out_of_time() or any_process(self._stop, self.world):
                        break
                elif self.world.size == 1 and self._stop:
                    self._save("last.pt")
                    break
                elif time.monotonic() - last_save > self.config.train.save_every_s:
                    self._save("last.pt")
                    last_save = time.monotonic()
        barrier(self.world)

    def step(self, module: nn.Module, batch: Batch) -> Loss:
        """One iteration: loss, gradients, weights, average. Raises TrainingError where a loss term is not finite."""
        config, device = self.config.train, self.world.device
        module.train()
        set_learning_rate(self.optimizer, learning_rate(config, self.iteration, self.total))
        images = normalise(batch.images.to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, enabled=self.half):
            outputs = module(images)
        teacher = None if batch.teacher is None else batch.teacher.to(device, non_blocking=True)
        loss = detection_loss(self.arch, outputs, batch.truth.to(device), self.config.loss, teacher)
        self._check(loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss.total).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update(self.model)
        return loss

    def _check(self, loss: Loss) -> None:
        """Add the terms to the epoch's sums; stop when one is no number."""
        for name, term in loss.terms.items():
            value = float(term.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {name} loss is {value} at iteration {self.iteration} (epoch {self.epoch + 1}): lower "
                    f"train.lr={self.config.train.lr:g}; the last good state is {self.run / 'weights' / 'last.pt'}"
                )
            self.sums[name] = self.sums.get(name, 0.0) + value

    def _end_epoch(self, progress: Progress) -> None:
        """Validate when it is time, write results.csv and the checkpoints."""
        due = self.epoch % self.config.train.val_every == 0 or self.epoch == self.config.train.epochs
        ap, self.validation = math.nan, None
        if self.world.is_main and due:
            advance = progress.validation(len(self.val))
            self.validation = validate(self.ema.model, self.val, self.config.decode, advance)
            ap = self.last_ap = self.validation.ap
        if self.world.is_main:
            self.rows.append(self._row(ap, progress.images_per_s))
            runs.write_results(self.run / "results.csv", self.rows)
            progress.report(self.rows[-1])
        self.sums = {}
        if due and (ap > self.best or self.best < 0):
            self.best = max(self.best, ap if ap == ap else 0.0)
            self._save("best.pt")
        self._save("last.pt")

    def _row(self, ap: float, images_per_s: float) -> dict[str, float]:
        steps = self.schedule.iterations_per_epoch
        means = {name: value / steps for name, value in self.sums.items()}
        return {
            "epoch": self.epoch,
            "time": round(self.seconds, 1),
            "train/box_loss": means.get("box", math.nan),
            "train/obj_loss": means.get("objectness", math.nan),
            "train/cls_loss": means.get("class", math.nan),
            "train/teacher_loss": means.get("teacher", math.nan),
            "train/teacher_box_loss": means.get("teacher_box", math.nan),
            "metrics/mAP50(B)": ap,
            "lr/pg0": self.optimizer.param_groups[0]["lr"],
            "iteration": self.iteration,
            "images_per_s": round(images_per_s, 1),
        }

    def _save(self, name: str) -> None:
        if not self.world.is_main:
            return
        whole = name == "last.pt"
        checkpoint = Checkpoint(
            arch=self.arch,
            config=self.config.as_dict(),
            class_names=self.classes,
            ema=self.ema.model.state_dict(),
            epoch=self.epoch,
            iteration=self.iteration,
            model=self.model.state_dict() if whole else {},
            optimizer=self.optimizer.state_dict() if whole else {},
            scaler=self.scaler.state_dict(),
            progress={
                "ema_updates": self.ema.updates,
                "best_fitness": self.best,
                "seconds": self.seconds,
                "sums": self.sums,
                "last_ap": self.last_ap,
                "iterations_per_epoch": self.schedule.iterations_per_epoch,
                "pictures": len(self.train_set),
            },
            dataset_fingerprint=self.fingerprint,
        )
        save_checkpoint(self.run / "weights" / name, checkpoint)

    def _out_of_time(self) -> bool:
        limit = self.config.train.max_minutes
        return any_process(limit is not None and self.seconds > 60 * limit, self.world)

    def _request_stop(self) -> None:
        self._stop = True


def make_trainer(config: Config, train: Dataset, val: Dataset, run: Path, world: World) -> Trainer:
    """Check that the splits belong together, letterbox the validation pictures, build the trainer."""
    if train.classes != val.classes:
        raise ConfigError(f"{config.data}: train has classes {train.classes}, val has {val.classes}")
    if config.train.teacher is not None and (len(train.classes) > 1 or config.arch.strides != STRIDES):
        raise ConfigError(f"train.teacher finds faces at strides {STRIDES}: the data must have one class, the head these strides")
    limit = config.train.val_images if world.is_main else 0  # the others do not validate
    pictures = ValidationSet(val, config.input.height, config.input.width, limit)
    return Trainer(config, train, pictures, run, world)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks to stop after this iteration; the second acts as usual."""
    previous: dict[int, object] = {}

    def handle(number: int, _: object) -> None:
        stop()
        signal.signal(number, previous[number])  # type: ignore[arg-type]

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread: signals are somebody else's
        pass
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
