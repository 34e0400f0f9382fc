"""Random networks under random schedules, everywhere the same bytes: `make soak`, or `python -m benchmarks.soak --graphs N`.

For each seed a random graph: the interpreter whole, under two random schedules and both ends of its best order's front, the C
runtime on each of these, and TFLM. A sample of the seeds goes through the emulated Cortex-M7 as well (`emulated`), another under
AddressSanitizer, where each step may touch its own tensors only and the plan's peak is the highest byte touched (`watched`). The
first difference stops the run and names its seed. Resumable: the outcome file says how far each of the three came.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from firmware.compiler.execute import execute
from firmware.compiler.image import write_image
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.judges import run_tflm
from firmware.compiler.program import build_program
from firmware.compiler.search import deploy, search_orders
from firmware.compiler.tflite import write_tflite
from firmware.device import open_emulator
from firmware.host import HostModel
from tests.firmware.graphs import random_graph, random_image
from tests.firmware.schedules import random_schedule
from tests.firmware.shadow import planned_peak, touched

BOARD = "mps2-an500"


def check_seed(seed: int) -> int:
    """Number of runs compared for one seed. Raises AssertionError naming seed, way and schedule where bytes differ."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    program, frame, interpreter = build_program(graph), random_image(rng, graph), Interpreter(graph)
    expected = interpreter.run(frame)
    judged = dict(zip(graph.outputs, run_tflm(write_tflite(graph), frame, isolated=False), strict=True))
    _same(expected, judged, seed, "TFLM", "whole")
    front = search_orders(graph)
    deployments = [deploy(program, random_schedule(rng, program)) for _ in range(2)] + [front[0], front[-1]]
    for deployment in deployments:
        name = str(deployment.schedule)
        _same(expected, execute(deployment.scheduled, deployment.plan, frame), seed, "interpreter", name)
        runtime = HostModel(write_image(deployment, None, bytes(32))).run(frame.view(np.uint8) ^ 0x80)
        _same(expected, runtime, seed, "C runtime", name)
    return 1 + 2 * len(deployments)


def check_emulated(seed: int) -> int:
    """One run of the seed's network in the emulator, under a random schedule. Raises AssertionError where bytes differ."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    program, frame = build_program(graph), random_image(rng, graph)
    deployment = deploy(program, random_schedule(rng, program))
    device = open_emulator(write_image(deployment, None, bytes(32)), BOARD)
    found = device.run_frames([frame.view(np.uint8) ^ 0x80])[0].heads
    _same(Interpreter(graph).run(frame), found, seed, BOARD, str(deployment.schedule))
    return 1


def check_watched(seed: int) -> int:
    """One run of the seed's network where AddressSanitizer watches the plan. Raises AssertionError naming the seed."""
    rng = np.random.default_rng(seed)
    program = build_program(random_graph(rng))
    deployment = deploy(program, random_schedule(rng, program))
    with tempfile.TemporaryDirectory() as folder:
        peak, planned = touched(deployment, Path(folder)), planned_peak(deployment)
    if peak != planned:
        raise AssertionError(f"seed {seed}: {peak} B touched, {planned} planned, under {deployment.schedule}")
    return 1


def _same(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], seed: int, way: str, schedule: str) -> None:
    for name, values in expected.items():
        if not np.array_equal(values, found[name]):
            raise AssertionError(f"seed {seed}: {way} differs in '{name}' under {schedule}")


PARTS: dict[str, Callable[[int], int]] = {"graphs": check_seed, "emulated": check_emulated, "watched": check_watched}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=10_000)
    parser.add_argument("--emulated", type=int, default=200, help="how many of them in the emulator, too")
    parser.add_argument("--watched", type=int, default=1000, help="how many of them under AddressSanitizer, too")
    parser.add_argument("--first", type=int, default=0, help="first seed of a new run (default: 0)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/soak.json"), help="outcome; an unfinished run goes on")
    options = parser.parse_args()
    state = {"first": options.first, "graphs": 0, "emulated": 0, "watched": 0, "runs": 0, "seconds": 0.0}
    if options.json.is_file():
        known = json.loads(options.json.read_text())
        if known["first"] == options.first and any(known.get(part, 0) < getattr(options, part) for part in PARTS):
            state = {key: known.get(key, 0) for key in state}
            print(f"going on after {', '.join(f'{state[part]} {part}' for part in PARTS)}")
    for part, check in PARTS.items():
        _go_through(part, check, getattr(options, part), state, options.json)
    return 0


def _go_through(part: str, check: Callable[[int], int], count: int, state: dict, path: Path) -> None:
    while state[part] < count:
        started = time.monotonic()
        state["runs"] += check(state["first"] + state[part])
        state[part] += 1
        state["seconds"] = round(state["seconds"] + time.monotonic() - started, 3)
        if state[part] % 50 == 0 or state[part] == count:
            write_outcome(path, state | {"differences": 0, "python": platform.python_version()})
            print(f"{state[part]} of {count} {part}, {state['runs']} runs equal", flush=True)


def write_outcome(path: Path, content: dict) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
