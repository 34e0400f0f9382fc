"""The instruction model of firmware/compiler/instructions.py, fitted and judged: `python -m benchmarks.instruction_model`.

Networks of single operators, several side by side on one picture, run on the emulated Cortex-M7 layer by layer, streamed, and
under random schedules with strips and rows done again. A profiling build counts instructions node by node; the rest of a run is
the planning of bands. Coefficients are least squares of the relative error, none of them negative. The error that counts is
that on whole networks, which nothing was fitted to.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.networks import MOBILENET_V2, backbone
from firmware.compiler.graph import Add, Graph, Mul, Padding, Shape, Sub, Window
from firmware.compiler.image import write_image
from firmware.compiler.instructions import (
    BAND_TERMS,
    COEFFICIENTS,
    TERMS,
    band_terms,
    count_instructions,
    kind_of,
    load_coefficients,
    node_terms,
)
from firmware.compiler.program import Program, build_program
from firmware.compiler.schedule import Schedule, layer_by_layer, patches, stream
from firmware.compiler.search import Deployment, deploy, search_front
from firmware.compiler.tflite import read_tflite
from firmware.device import open_emulator
from tests.firmware.graphs import Builder, random_window, same_window
from tests.firmware.schedules import random_schedule

BOARD = "mps2-an500"
NETWORKS = 120
OPERATORS = 8  # in each of them


def single_operators(rng: np.random.Generator) -> Graph:
    """Operators that all read the picture and are outputs."""
    size = [int(rng.integers(4, 33)) for _ in range(2)]
    b = Builder(rng, Shape(*size, int(rng.choice([1, 3, 4, 8, 16, 24, 40, 64]))))
    outputs = [_operator(b) for _ in range(OPERATORS)]
    return b.graph(tuple(dict.fromkeys(outputs)))


def _operator(b: Builder) -> str:
    rng, source, shape = b.rng, b.input, b.shape(b.input)
    channels = int(rng.choice([1, 2, 4, 8, 16, 32, 64]))
    square = same_window(shape, int(rng.choice([3, 5, 7])), int(rng.integers(1, 3)))
    known: list[Callable[[], str]] = [
        lambda: b.conv(source, channels, Window((1, 1), (1, 1), Padding())),
        lambda: b.conv(source, channels, same_window(shape, 1, 2)),
        lambda: b.conv(source, channels, square),
        lambda: b.conv(source, channels, square),
        lambda: b.depthwise(source, square),
        lambda: b.depthwise(source, square),
        lambda: b.depthwise(source, square, int(rng.integers(2, 4))),
        lambda: b.pool(source, random_window(rng, shape)),
        lambda: b.average(source, square),
        lambda: b.add(source, source),
        lambda: b.pair(source, source, [Add, Sub, Mul][int(rng.integers(3))]),
        lambda: b.mean(source),
        lambda: b.softmax(source),
        lambda: b.lookup(source, "LOGISTIC"),
        lambda: b.upsample(source, (2, 2)),
        lambda: b.concat([source, source]),
        lambda: b.slice(source),
        lambda: b.pad(source),
        lambda: b.reshape(source),
        lambda: b.transpose(source),
    ]
    if max(shape[:2]) <= 12:
        known += [lambda: b.fully_connected(source, channels)] * 3
    return known[int(rng.integers(len(known)))]()


def run(deployment: Deployment, profile: bool) -> tuple[int, np.ndarray | None]:
    """(instructions of a run, of each node in a profiling build)."""
    device = open_emulator(write_image(deployment, None, bytes(32)), BOARD, profile=profile, timeout=600)
    frame = np.random.default_rng(0).integers(0, 256, device.header.input_shape, np.uint8)
    record = device.run_frames([frame])[0]
    return int(record.instructions), record.profile


def measure(rng: np.random.Generator, number: int) -> Iterator[tuple[str, bool, list[float], int]]:
    """(kind or "bands", carried, terms, instructions) of everything in one network of single operators."""
    program = build_program(single_operators(rng))
    chance = random_schedule(rng, program)
    deployment = deploy(program, (layer_by_layer(program), stream(program), chance, chance)[number % 4])
    total, _ = run(deployment, False)
    _, profile = run(deployment, True)
    for flow in deployment.scheduled.flows:
        terms = node_terms(program, flow)
        for local, i in enumerate(flow.segment.nodes):
            yield kind_of(program, i), flow.segment.carry, terms[local].tolist(), int(profile[i])
    planning = {carry: np.zeros(len(BAND_TERMS)) for carry in (True, False)}
    for flow in deployment.scheduled.flows:
        planning[flow.segment.carry] += band_terms(program, flow)
    yield "bands", True, [*planning[True].tolist(), *planning[False].tolist()], total - int(profile.sum())


def fit(terms: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Least squares of the relative error; (terms,), none negative."""
    scale = np.maximum(np.abs(terms).max(axis=0), 1.0)
    found, _ = nnls(terms / scale / counts[:, None], np.ones(len(counts)))
    return found / scale


def errors(terms: np.ndarray, counts: np.ndarray, found: np.ndarray) -> dict[str, float]:
    relative = np.abs(terms @ found / counts - 1)
    return {"points": len(counts), "median": float(np.median(relative)), "max": float(relative.max())}


def whole_networks(models: list[Path]) -> Iterator[tuple[str, Program]]:
    for path in models:
        yield path.stem if path.stem != "model" else path.parent.name, build_program(read_tflite(path.read_bytes()))
    yield "MobileNetV2-0.35 144", build_program(backbone("MobileNetV2-0.35", MOBILENET_V2, 144, 0.35))


def judge(name: str, program: Program) -> Iterator[dict[str, Any]]:
    """The model against the emulator under schedules of all sorts."""
    front = search_front(program)
    schedules: dict[str, Schedule] = {
        "layer by layer": layer_by_layer(program),
        "stream": stream(program),
        "3x3 patches of 5 operators": patches(program, 3, 3, 5),
        "front, no recomputation": front[0].schedule,
        "front, middle": front[len(front) // 2].schedule,
        "front, least memory": front[-1].schedule,
    }
    for way, schedule in schedules.items():
        deployment = deploy(program, schedule)
        counted, modelled = run(deployment, False)[0], count_instructions(deployment.scheduled)
        found = {"network": name, "schedule": way, "macs": deployment.cost.scheduled_macs, "instructions": counted}
        yield found | {"model": modelled, "error": modelled / counted - 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", help="int8 .tflite files to judge by as well")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/instruction_model.json"))
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    points: dict[str, list[tuple[list[float], int]]] = defaultdict(list)
    for number in range(NETWORKS):
        for kind, _, terms, count in measure(rng, number):
            if count > 0:
                points[kind].append((terms, count))
        print(f"measured {number + 1} of {NETWORKS} networks", flush=True)
    fitted, quality = {}, {}
    for kind, found in sorted(points.items()):
        terms, counts = np.array([t for t, _ in found]), np.array([c for _, c in found], float)
        fitted[kind] = fit(terms, counts)
        quality[kind] = errors(terms, counts, fitted[kind])
    bands, count = fitted.pop("bands"), len(BAND_TERMS)
    document = {
        "target": BOARD,
        "kernels": "ref",
        "kinds": {kind: _named(TERMS, values) for kind, values in fitted.items()},
        "bands": {"carried": _named(BAND_TERMS, bands[:count]), "recomputed": _named(BAND_TERMS, bands[count:])},
    }
    COEFFICIENTS.write_text(json.dumps(document, indent=1) + "\n")
    load_coefficients.cache_clear()
    judged = [row for name, program in whole_networks(options.models) for row in judge(name, program)]
    off = [abs(row["error"]) for row in judged]
    summary = {"networks": judged, "median_error": float(np.median(off)), "max_error": max(off)}
    measured = {kind: [{"terms": t, "instructions": c} for t, c in found] for kind, found in sorted(points.items())}
    result = {"unit": "instructions of tess_run", "terms": TERMS, "band_terms": BAND_TERMS, **document, "fit": quality, **summary}
    options.json.write_text(json.dumps(result | {"points": measured}) + "\n")
    for row in judged:
        print(f"{row['network']}, {row['schedule']}: {row['instructions']:,} counted, {row['error']:+.1%}")
    print(f"whole networks: median error {summary['median_error']:.1%}, max {summary['max_error']:.1%}")


def _named(terms: tuple[str, ...], values: np.ndarray) -> dict[str, float]:
    return {term: round(float(value), 4) for term, value in zip(terms, values, strict=True) if value}


if __name__ == "__main__":
    main()
