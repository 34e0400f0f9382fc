"""A few seconds of fuzzing from the corpus, and what the campaign makes of a fuzzer's output (benchmarks/fuzz.py)."""

import datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz
from benchmarks.fuzz import Outcome, read_outcome
from firmware.cc import BuildError
from firmware.compiler.tflite import TfliteError, read_tflite
from firmware.host import HostModel, TessError
from tests.fuzz.mutate_tflite import mutate_tflite

CORPUS = Path(__file__).parent / "corpus"
SEEDS = sorted(CORPUS.glob("t*/seed-*"))
STALE = "the formats changed: python -m tests.fuzz.seeds"


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.name)
def test_seeds_run(path: Path) -> None:
    """A seed that is refused teaches a fuzzer nothing."""
    try:
        if path.suffix == ".tess":
            model = HostModel(path.read_bytes())
            model.run(np.zeros(model.input_shape, np.uint8))
        else:
            read_tflite(path.read_bytes())
    except (TessError, TfliteError) as error:
        pytest.fail(f"{path.name} is refused: {error}; {STALE}")


@pytest.mark.parametrize("target, executions", [("tess", 4000), ("link", 800), ("openmv", 100), ("tflite", 500)])
def test_a_short_run_finds_nothing(target: str, executions: int, tmp_path: Path) -> None:
    try:
        outcome = fuzz.fuzz(target, [f"-runs={executions}", "-seed=1", "-max_len=8192"], tmp_path)
    except BuildError as error:
        if "needs" not in str(error):
            raise
        pytest.skip(str(error))
    assert outcome.finding == "", (tmp_path / "log.txt").read_text()[-4000:]
    assert outcome.executions >= executions and outcome.coverage > 500


def test_damage_that_knows_the_format_gets_far() -> None:
    """Some files are still networks, others are refused by what they mean, not by where their bytes lie."""
    data = (CORPUS / "tflite" / "seed-kinds.tflite").read_bytes()
    read, meant = 0, 0
    for seed in range(100):
        damaged = mutate_tflite(data, seed)
        assert damaged == mutate_tflite(data, seed)
        try:
            read_tflite(damaged)
            read += 1
        except TfliteError as error:
            meant += "cut off or damaged" not in str(error)
    assert read > 10 and meant > 10 and read + meant > 70
    assert mutate_tflite(b"no flatbuffer", 1) == b"no flatbuffer"


LOG = """INFO: Loaded 1 modules
#13\tINITED cov: 794 ft: 1897 corp: 12/30Kb exec/s: 0 rss: 32Mb
#4000\tDONE   cov: 901 ft: 1897 corp: 12/30Kb lim: 5184 exec/s: 0 rss: 32Mb
Done 4000 runs in 1 second(s)
"""
CRASH = """#8\tNEW    cov: 700 ft: 1897 corp: 12/30Kb exec/s: 0 rss: 32Mb
==1==ERROR: AddressSanitizer: heap-buffer-overflow
artifact_prefix='there/'; Test unit written to there/crash-d3e9
"""


def test_outcomes_are_read_from_the_fuzzers_output() -> None:
    assert read_outcome("tess", LOG, 0, (61, 40)) == Outcome("tess", 61, 40, 4000, 901, "")
    assert read_outcome("tess", CRASH, 77, (5, 5)) == Outcome("tess", 5, 5, 8, 700, "crash-d3e9")
    for log, status in ((LOG, 1), (CRASH, 0), ("ModuleNotFoundError: atheris", 1), ("", 0)):
        with pytest.raises(BuildError, match="the fuzzer of tess ended with status"):
            read_outcome("tess", log, status, (1, 1))


def test_a_run_is_noted_as_a_dated_line(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text("| date |\n|---|\n\n")
    for finding in ("", "crash-d3e9"):
        fuzz.note(Outcome("tess", 3600, 1800, 1234567, 901, finding), datetime.date(2026, 11, 23), page)
    assert page.read_text().splitlines()[2:] == [
        "| 2026-11-23 | tess | 3,600 s | 1,800 s | 1,234,567 | 901 | none |",
        "| 2026-11-23 | tess | 3,600 s | 1,800 s | 1,234,567 | 901 | crash-d3e9 |",
    ]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match="apt-get install clang libclang-rt-dev"):
        fuzz.command("tess")
