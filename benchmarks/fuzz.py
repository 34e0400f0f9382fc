"""Fuzzes what reads files of others: `make fuzz`, or `python -m benchmarks.fuzz --seconds N --only tflite`.

    tess      model.tess through tess_open and run: libFuzzer with the address and undefined-behaviour sanitizers
    tess32    the same with 32 bits, as on the chips (needs a clang that links 32-bit programs: g++-multilib)
    openmv    the camera's module against hostile scripts, in MicroPython on this machine: libFuzzer, the same sanitizers
    link      the device's end of the link against a hostile host: libFuzzer, the same sanitizers
    tflite    .tflite through the reader: Atheris

One process after the other, an hour each by default. Each run ends as a dated line of docs/reliability.md, written from the
fuzzer's own output. A finding is a file that stays under firmware/build/fuzz: repair what it shows, then keep the file as
tests/fuzz/corpus/*/found-*. Exit code 1 when there is one.
"""

import argparse
import datetime
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.fuzz_interpreter import build as build_interpreter
from firmware.cc import BUILD, BuildError, compile_c
from firmware.cli import run
from firmware.host import LINK, RUNTIME, link_sources, runtime_sources
from firmware.openmv.package import ROOM

FOLDER = Path("tests/fuzz")
WORK = BUILD.parent / "fuzz"
NOTE = Path("docs/reliability.md")
# A hang. The targets themselves measure CPU time, which a busy machine does not stretch.
LIMITS = ("-timeout=300", "-rss_limit_mb=2560", "-print_final_stats=1", "-verbosity=1")
SANITIZERS = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
# A small limit of work: what hostile models cost is part of the test, and thousands of them a second find more.
FLAGS = ("-std=c11", "-O1", "-g", f"-I{RUNTIME}", f"-I{LINK}", "-DTESS_LIBFUZZER", "-DTESS_MAX_WORK=300000", *SANITIZERS)
NO_CLANG = "fuzzing the C runtime needs clang with libFuzzer: apt-get install clang libclang-rt-dev"
NO_ATHERIS = "fuzzing the .tflite reader needs atheris: make setup (there is none for Python 3.14 and newer)"
TARGETS = ("tess", "tess32", "link", "openmv", "tflite")
SOURCES = {"tess": ("fuzz_tess.c", "mutate_tess.c"), "link": ("fuzz_link.c",), "openmv": ("fuzz_openmv.c",)}


class FindingError(ValueError):
    """The fuzzers found something."""


class Outcome(NamedTuple):
    """What a fuzzer said at its end."""

    target: str
    seconds: int  # by the clock
    cpu_seconds: int  # on a busy machine much less
    executions: int
    coverage: int  # edges of the program that were seen
    finding: str  # the file that shows it, empty when there is none

    def row(self, date: datetime.date) -> str:
        found = self.finding or "none"
        duration = f"{self.seconds:,} s | {self.cpu_seconds:,} s"
        return f"| {date} | {self.target} | {duration} | {self.executions:,} | {self.coverage:,} | {found} |"


def command(target: str) -> list[str]:
    """How a target is started, built if need be. Raises BuildError that says what to install."""
    if target == "tflite":
        tried = subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True)
        if tried.returncode:
            raise BuildError(NO_ATHERIS)
        return [sys.executable, "-m", "tests.fuzz.fuzz_tflite"]
    if shutil.which("clang") is None:
        raise BuildError(NO_CLANG)
    width = ("-m32",) if target == "tess32" else ()
    own = [FOLDER / name for name in SOURCES[target.removesuffix("32")]]
    if target == "openmv":
        own.append(ROOM / "tessera.c")
        width = _with_interpreter(build_interpreter(own))
    try:
        sources = [*(link_sources() if target == "link" else runtime_sources()), *own]
        return [str(compile_c(sources, (*FLAGS, *width), f"fuzz_{target}", with_compiler=["clang"]))]
    except BuildError as error:
        if width and "cannot find" in str(error):
            raise BuildError("clang links no 32-bit programs here: apt-get install g++-multilib") from error
        if "cannot find" not in str(error):  # a library of clang's
            raise
        raise BuildError(f"{NO_CLANG} ({error})") from error


def _with_interpreter(folder: Path) -> tuple[str, ...]:
    """Flags for C files that are linked with MicroPython's core; those of a native module among them."""
    headers = ("-std=gnu11", "-w", "-isystem", str(folder), "-DMICROPY_ENABLE_DYNRUNTIME=1")
    core = ("-Wl,--wrap=nlr_jump", "-Wl,--whole-archive", str(folder / "core.a"), "-Wl,--no-whole-archive", "-lm")
    return (*headers, "-fsanitize-address-use-after-return=never", *core)


def fuzz(target: str, options: Sequence[str], folder: Path) -> Outcome:
    """Run a target from the corpus in the repository; what it learns and finds is kept in `folder`."""
    learnt = folder / "corpus"
    learnt.mkdir(parents=True, exist_ok=True)
    known = FOLDER / "corpus" / target.removesuffix("32")
    arguments = [*command(target), str(learnt), str(known), *LIMITS, f"-artifact_prefix={folder}/", *options]
    log = folder / "log.txt"
    started, used = time.monotonic(), _cpu_seconds()
    with log.open("w") as file:
        done = subprocess.run(arguments, stdout=file, stderr=subprocess.STDOUT)
    spent = round(time.monotonic() - started), round(_cpu_seconds() - used)
    return read_outcome(target, log.read_text(errors="replace"), done.returncode, spent)


def _cpu_seconds() -> float:
    """Of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_outcome(target: str, log: str, status: int, spent: tuple[int, int]) -> Outcome:
    """The outcome in a fuzzer's output. Raises BuildError when it did not get as far as fuzzing."""
    progress = re.findall(r"^#(\d+)\s.*cov: (\d+)", log, re.MULTILINE)
    found = re.search(r"Test unit written to \S*?((?:crash|timeout|oom|leak)-\w+)", log)
    if not progress or bool(status) != bool(found):
        raise BuildError(f"the fuzzer of {target} ended with status {status}: {' | '.join(log.splitlines()[-3:])}")
    executions, coverage = progress[-1]
    return Outcome(target, *spent, int(executions), int(coverage), found[1] if found else "")


def note(outcome: Outcome, date: datetime.date, path: Path = NOTE) -> None:
    """Append the outcome to the table at the end of docs/reliability.md."""
    path.write_text(f"{path.read_text().rstrip()}\n{outcome.row(date)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3600, help="for each target (default: 3600)")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=None, help="targets (default: all that can be built)")
    options = parser.parse_args()
    findings = []
    for target in options.only or TARGETS:
        try:
            outcome = fuzz(target, [f"-max_total_time={options.seconds}", "-max_len=16384"], WORK / target)
        except BuildError as error:
            if options.only or target != "tess32":
                raise
            print(f"{target}: left out, {error}")
            continue
        note(outcome, datetime.date.today())
        print(outcome.row(datetime.date.today()), f"({platform.machine()})", flush=True)
        if outcome.finding:
            findings.append(str(WORK / target / outcome.finding))
    if findings:
        raise FindingError(f"found: {', '.join(findings)}")


if __name__ == "__main__":
    run(main)
