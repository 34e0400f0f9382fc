"""The search's loops in C: under sanitizers, and the cheapest path against one that numpy finds, equals and all."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from firmware.cc import BuildError, compile_c
from firmware.compiler import segments
from firmware.compiler.choices import MODES, Choices
from firmware.compiler.geometry import COLUMNS, forget, geometry_of
from firmware.compiler.program import build_program
from firmware.compiler.segments import NEVER, Taste, cheapest_path
from tests.firmware.graphs import detector_graph

SANITIZED = ("-O1", "-g", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{segments.SOURCE.parent}")
FINE = 1 << 20


def slow_path(work: np.ndarray, peaks: np.ndarray, leaning: np.ndarray, taste: Taste, most: int, limit: int) -> list:
    side = work.shape[1]
    lengths = np.arange(side) - np.arange(side)[:, None]
    fits = (peaks <= limit) & (lengths > 0)
    price = np.where(fits, work, 0) * FINE + 1
    if taste == "calm":
        price += peaks * lengths * (FINE // 4) // most
    if taste == "apart":
        price += leaning * (FINE // 4) // most + lengths**2 // 16
    price = np.where(fits, price, NEVER)
    least, came_from = [0], [0]
    for stop in range(1, side):
        reached = np.array(least) + price[:, :stop, stop].min(axis=0)
        came_from.append(int(reached.argmin()))
        least.append(min(int(reached.min()), int(NEVER)))
    path, stop = [], side - 1
    while stop and least[-1] < NEVER:
        path.append((int(price[:, came_from[stop], stop].argmin()), came_from[stop], stop))
        stop = came_from[stop]
    return path[::-1]


@pytest.mark.parametrize("taste", ["calm", "apart", "few"])
def test_the_cheapest_path_is_the_one_that_numpy_finds(taste: Taste) -> None:
    rng, found = np.random.default_rng(1), 0
    for _ in range(150):
        shape = (int(rng.integers(1, 5)), *[int(rng.integers(2, 14))] * 2)
        work, peaks, leaning = (rng.integers(0, top, shape) for top in (3, 5, 3))  # few numbers: many equals
        impossible = rng.random(shape) < 0.3
        work[impossible] = peaks[impossible] = NEVER
        where = work, np.where(impossible, 1 << 20, peaks), leaning
        limit = int(rng.integers(1, 5))
        path = cheapest_path(*where, taste, 50, limit)
        assert path == slow_path(*where, taste, 50, limit)
        found += len(path) > 1
    assert found > 50


def test_the_loops_under_sanitizers() -> None:
    try:
        harness = compile_c([segments.SOURCE, Path(__file__).parent / "c" / "segments.c"], SANITIZED, "segments")
    except BuildError as error:
        pytest.skip(f"no compiler with sanitizers (apt-get install gcc libc6-dev): {error}")
    forget()
    program = build_program(detector_graph(np.random.default_rng(3)))
    count, flows = len(program.nodes), geometry_of(program)
    before = Choices(program)
    tables = before.measures.arrays
    names = ("row_bytes", "reader", "widest", "whole", "savable", "work", "peak", "likely", "latched")
    fresh = [tables[name].copy() for name in names]
    for push, first, stop in ((True, 0, count), (False, 0, count), (False, count // 2, count - 1), (True, count - 1, count)):
        served = flows.flow(push, first, stop)
        flow = [served.rings.first, len(served.rings.latches), len(served.firsts), push]
        measured, leaning = Choices(program), np.zeros_like(before.work)
        arrays = [*fresh, leaning, served.rings.table, served.firsts, served.stops]
        for number, taste in enumerate(("calm", "apart", "few")):
            head = [count, len(COLUMNS), len(MODES), *flow, number, limit := 1 << 40]
            sent = np.concatenate([np.ravel(a).astype(np.int64) for a in (head, *arrays)]).tobytes()
            done = subprocess.run([harness], input=sent, capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr.decode()[:3000]
            numbers = np.array(done.stdout.split(), np.int64)
            peaks, path = numbers[: 3 * before.work.size].reshape(-1, 3).T, numbers[3 * before.work.size :].reshape(-1, 3)
            runs = np.s_[:, served.firsts, served.stops]
            own = [m for m, mode in enumerate(MODES) if mode.push == push]
            for found, name in zip(peaks, ("peak", "likely", "latched"), strict=True):
                assert (found.reshape(before.work.shape)[runs][own] == measured.measures.arrays[name][runs][own]).all(), name
            peak = np.ascontiguousarray(peaks[0].reshape(before.work.shape))
            assert path[::-1].tolist() == [list(s) for s in cheapest_path(before.work, peak, leaning, taste, 1000, limit)]
