"""What a person sees while a network trains."""

import math

import pytest

from detection.progress import Progress, duration
from detection.runs import COLUMNS

ROW = dict.fromkeys(COLUMNS, math.nan) | {"epoch": 2, "time": 90.0, "train/box_loss": 0.5, "train/obj_loss": 1.25,
                                         "lr/pg0": 0.004, "images_per_s": 30.0}  # fmt: skip


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3599, "59:59"), (3725, "1:02:05")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_epoch_is_one_plain_line_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(8, 10, True) as progress:
        for iteration in range(1, 11):
            progress.step(iteration, iteration / 10, 2.0, math.nan, 4)
        advance = progress.validation(3)
        advance(2)
        advance(1)
        progress.report(ROW)
        progress.report(ROW | {"metrics/mAP50(B)": 0.25, "train/cls_loss": 0.125})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "epoch 2/8  box 0.500  obj 1.250  mAP50 -  lr 4.00e-03  30 img/s  1:30 gone, 4:30 left"
    assert "cls 0.125  mAP50 0.250" in second


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(8, 10, False) as progress:
        progress.step(1, 0.1, 2.0, 0.5, 4)
        progress.report(ROW)
    assert capsys.readouterr() == ("", "")


def test_speed_counts_from_the_begin_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("detection.progress.time.monotonic", lambda: now)
    progress = Progress(2, 2, False)
    now = 102.0
    progress.step(1, 2.0, 1.0, math.nan, 10)
    assert progress.images_per_s == 5
    now = 200.0  # a long validation
    progress.begin_epoch()
    now = 201.0
    progress.step(2, 3.0, 1.0, math.nan, 10)
    assert progress.images_per_s == 10
