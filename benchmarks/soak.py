"""Random networks under random schedules, everywhere the same bytes: `make soak`, or `python -m benchmarks.soak --graphs N`.

For each seed a random graph: the interpreter whole, under two random schedules and both ends of the search's front, the C
runtime on each of these, and TFLM. The first difference stops the run and names its seed. Resumable: the outcome file
says how far it came.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

from firmware.compiler.execute import execute
from firmware.compiler.image import write_image
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.judges import run_tflm
from firmware.compiler.program import build_program
from firmware.compiler.search import deploy, search_front
from firmware.compiler.tflite import write_tflite
from firmware.host import HostModel
from tests.firmware.graphs import random_graph, random_image
from tests.firmware.schedules import random_schedule


def check_seed(seed: int) -> int:
    """Number of runs compared for one seed. Raises AssertionError naming seed, way and schedule where bytes differ."""
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    program, frame, interpreter = build_program(graph), random_image(rng, graph), Interpreter(graph)
    expected = interpreter.run(frame)
    judged = dict(zip(graph.outputs, run_tflm(write_tflite(graph), frame, isolated=False), strict=True))
    _same(expected, judged, seed, "TFLM", "whole")
    front = search_front(program)
    deployments = [deploy(program, random_schedule(rng, program)) for _ in range(2)] + [front[0], front[-1]]
    for deployment in deployments:
        name = str(deployment.schedule)
        _same(expected, execute(deployment.scheduled, deployment.plan, frame, interpreter), seed, "interpreter", name)
        runtime = HostModel(write_image(deployment, None, bytes(32))).run(frame.view(np.uint8) ^ 0x80)
        _same(expected, runtime, seed, "C runtime", name)
    return 1 + 2 * len(deployments)


def _same(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], seed: int, way: str, schedule: str) -> None:
    for name, values in expected.items():
        if not np.array_equal(values, found[name]):
            raise AssertionError(f"seed {seed}: {way} differs in '{name}' under {schedule}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="first seed of a new run (default: 0)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/soak.json"), help="outcome; an unfinished run goes on")
    options = parser.parse_args()
    state = {"first": options.first, "graphs": 0, "runs": 0, "seconds": 0.0}
    if options.json.is_file():
        known = json.loads(options.json.read_text())
        if known["first"] == options.first and known["graphs"] < options.graphs:
            state = {key: known[key] for key in state}
            print(f"going on after {state['graphs']} graphs")
    while state["graphs"] < options.graphs:
        started = time.monotonic()
        state["runs"] += check_seed(options.first + state["graphs"])
        state["graphs"] += 1
        state["seconds"] = round(state["seconds"] + time.monotonic() - started, 3)
        if state["graphs"] % 50 == 0 or state["graphs"] == options.graphs:
            _write(options.json, state | {"differences": 0, "python": platform.python_version()})
            print(f"{state['graphs']} of {options.graphs} graphs, {state['runs']} runs equal", flush=True)
    return 0


def _write(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
