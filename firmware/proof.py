"""The proof that export demands: one network, five ways to run it, the same bytes.

LiteRT's reference kernels and TFLM on model.tflite, our interpreter whole and under the schedule, and the C runtime on
model.tess. Any difference is an ExportError that names who differs, where, and both values.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from firmware.compiler.execute import execute
from firmware.compiler.graph import Graph
from firmware.compiler.interpreter import Interpreter
from firmware.compiler.judges import litert_part, run_litert_ref, run_tflm_many
from firmware.compiler.preprocess import to_int8
from firmware.compiler.search import Deployment
from firmware.compiler.tflite import write_tflite
from firmware.host import HostModel

TRUTH = "interpreter"


class ProofError(ValueError):
    """Two ways to run one network disagree, or a judge is missing."""


@dataclass(frozen=True)
class Proof:
    """What verify.json holds: who was compared on how much, and a digest of the bytes that all of them gave."""

    frames: int
    agreeing: tuple[str, ...]
    outputs: dict[str, list[int]]  # name -> shape
    compared_bytes: int
    sha256: str  # of all outputs of all frames, in order

    def as_json(self) -> dict:
        return {"equal": True, **self.__dict__, "agreeing": list(self.agreeing)}


def prove(
    graph: Graph, deployment: Deployment, tflite: bytes, tess: bytes, frames: Sequence[np.ndarray], scheduled_frames: int = 1
) -> Proof:
    """Run uint8 (h, w, c) network frames through all ways and compare. The scheduled interpreter, slow, sees the first few."""
    interpreter, host = Interpreter(graph), HostModel(tess)
    truth = [interpreter.run(frame) for frame in frames]
    signed = [to_int8(frame) for frame in frames]
    ways = {
        **_litert(graph, interpreter, tflite, signed),
        "tflm": [dict(zip(graph.outputs, outputs, strict=True)) for outputs in run_tflm_many(tflite, signed)],
        "interpreter under the schedule": [
            execute(deployment.scheduled, deployment.plan, f) for f in frames[:scheduled_frames]  # perhaps in another order
        ],
        "C runtime on the host": [host.run(f) for f in frames],
    }
    for way, answers in ways.items():
        for number, (expected, found) in enumerate(zip(truth, answers, strict=False)):
            _compare(way, number, expected, found)
    host.selftest()
    digest = hashlib.sha256()
    for outputs in truth:
        for name in graph.outputs:
            digest.update(outputs[name].tobytes())
    return Proof(
        frames=len(frames),
        agreeing=(TRUTH, *ways),
        outputs={name: list(graph.tensors[name].shape) for name in graph.outputs},
        compared_bytes=sum(a.size for outputs in truth for a in outputs.values()),
        sha256=digest.hexdigest(),
    )


def _litert(graph: Graph, interpreter: Interpreter, tflite: bytes, signed: Sequence[np.ndarray]) -> dict[str, list]:
    """LiteRT's answers, of as much of the network as it can judge; what only that part has is compared here."""
    part = litert_part(graph)
    if part is graph:
        return {"litert BUILTIN_REF": [dict(zip(graph.outputs, run_litert_ref(tflite, f), strict=True)) for f in signed]}
    if part is None:
        return {}
    way, model = "litert BUILTIN_REF as far as it rounds like TFLM", write_tflite(part)
    for number, frame in enumerate(signed):
        expected = interpreter.run(frame, keep=part.outputs)
        found = dict(zip(part.outputs, run_litert_ref(model, frame), strict=True))
        _compare(way, number, {name: expected[name] for name in part.outputs}, found)
    return {way: []}


def _compare(way: str, frame: int, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> None:
    for name, values in expected.items():
        if found[name].shape != values.shape:
            raise ProofError(f"{way} gives '{name}' the shape {found[name].shape}, the {TRUTH} {values.shape}")
        different = np.argwhere(found[name] != values)
        if len(different):
            at = tuple(int(i) for i in different[0])
            raise ProofError(
                f"{way} differs from the {TRUTH} in frame {frame}, '{name}'{list(at)}: {found[name][at]} instead of "
                f"{values[at]} ({len(different)} of {values.size} values differ)"
            )
