"""Two outside runtimes that say whether our int8 arithmetic is TFLite's: LiteRT's reference kernels and TFLM.

Both are optional packages, imported when used. LiteRT's default kernels (XNNPACK) round differently and judge nothing. Its
reference kernels differ from TFLM's in two places: FULLY_CONNECTED goes through a matrix library that rounds once, not twice, and
LOGISTIC of a coarse input is exact where TFLM saturates. There TFLM alone judges, and LiteRT what comes before: `litert_part`.
TFLM ends the process when it dislikes a model, so it runs in a process of its own unless told otherwise.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from firmware.compiler.graph import FullyConnected, Graph, Lookup, Op
from firmware.compiler.tflite import read_tflite

Judge = Callable[[bytes, np.ndarray], list[np.ndarray]]
_ROOT = Path(__file__).resolve().parents[2]


class JudgeError(ValueError):
    """An outside runtime is missing, refuses the model, or dies on it."""


def litert_part(graph: Graph) -> Graph | None:
    """The network without operators that LiteRT computes differently and what depends on them; it ends in what those read.
    The same graph when there are none, None when nothing remains."""
    lost: set[str] = set()
    for op in graph.ops:
        if _differs_in_litert(graph, op) or not lost.isdisjoint(op.inputs):
            lost.add(op.output)
    if not lost:
        return graph
    read = {name for op in graph.ops if op.output in lost for name in op.inputs}
    ends = [op.output for op in graph.ops if op.output not in lost and op.output in read.union(graph.outputs)]
    if not ends:
        return None
    needed = set(ends)
    for op in reversed(graph.ops):
        if op.output in needed:
            needed.update(op.inputs)
    kept = tuple(op for op in graph.ops if op.output in needed)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in needed}
    return replace(graph, tensors=tensors, ops=kept, outputs=tuple(ends))


def _differs_in_litert(graph: Graph, op: Op) -> bool:
    logistic = isinstance(op.params, Lookup) and op.params.function == "LOGISTIC"
    return isinstance(op.params, FullyConnected) or (logistic and graph.tensors[op.inputs[0]].quant.scale >= 2)


def run_litert_ref(model: bytes, image: np.ndarray) -> list[np.ndarray]:
    """Outputs, int8 (h, w, c) each, in the file's order, by LiteRT's BUILTIN_REF kernels.

    `image` is int8 (h, w, c); a model with uint8 or float32 input or outputs is fed and read in its own type, with its own
    scales, and the answer is given in int8 all the same.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise JudgeError("LiteRT is not installed: pip install ai-edge-litert") from error
    try:
        interpreter = Interpreter(
            model_content=bytes(model), experimental_op_resolver_type=OpResolverType.BUILTIN_REF, num_threads=1
        )
        interpreter.allocate_tensors()
        quant = read_tflite(model)
        detail = interpreter.get_input_details()[0]
        source = quant.tensors[quant.input].quant
        interpreter.set_tensor(detail["index"], _to_type(image, detail["dtype"], source.scale, source.zero_point)[None])
        interpreter.invoke()
        outputs = [interpreter.get_tensor(d["index"])[0] for d in interpreter.get_output_details()]
    except (RuntimeError, ValueError) as error:
        raise JudgeError(f"LiteRT refuses the model: {error}") from error
    return _outputs_to_int8(outputs, quant)


def run_tflm(model: bytes, image: np.ndarray, isolated: bool = True, timeout_s: float = 120) -> list[np.ndarray]:
    """The same by TFLM. `isolated=False` runs it in this process: fast, for models that are known to be good."""
    return run_tflm_many(model, [image], isolated, timeout_s)[0]


def run_tflm_many(
    model: bytes, images: Sequence[np.ndarray], isolated: bool = True, timeout_s: float = 120
) -> list[list[np.ndarray]]:
    """`run_tflm` of several pictures with one start of the process; a list of outputs per picture."""
    graph = read_tflite(model)
    arena_bytes = 4 * sum(tensor.shape.size for tensor in graph.tensors.values()) + (16 << 20)
    if not isolated:
        return _tflm_here(model, images, arena_bytes)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "in.npz"), *images, model=np.frombuffer(model, np.uint8), arena=arena_bytes)
        command = [sys.executable, "-c", f"from firmware.compiler.judges import _tflm_worker as w; w({folder!r})"]
        try:
            done = subprocess.run(
                command, cwd=_ROOT, env={**os.environ, "PYTHONPATH": str(_ROOT)}, capture_output=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as error:
            raise JudgeError(f"TFLM did not answer within {timeout_s:g} s") from error
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
            raise JudgeError(f"TFLM ended with code {done.returncode}: {lines[-1]}")
        with np.load(Path(folder, "out.npz")) as found:
            flat = [found[f"arr_{index}"] for index in range(len(found.files))]
    count = len(flat) // len(images)
    return [flat[first : first + count] for first in range(0, len(flat), count)]


def _tflm_worker(folder: str) -> None:
    with np.load(Path(folder, "in.npz")) as found:
        images = [found[f"arr_{index}"] for index in range(len(found.files) - 2)]
        answers = _tflm_here(found["model"].tobytes(), images, int(found["arena"]))
    np.savez(Path(folder, "out.npz"), *[output for outputs in answers for output in outputs])


def _tflm_here(model: bytes, images: Sequence[np.ndarray], arena_bytes: int) -> list[list[np.ndarray]]:
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise JudgeError("TFLM is not installed: pip install tflite-micro (Linux on x86-64)") from error
    graph = read_tflite(model)
    source = graph.tensors[graph.input].quant
    interpreter = runtime.Interpreter.from_bytes(bytes(model), arena_size=arena_bytes)
    dtype = interpreter.get_input_details(0)["dtype"]
    answers = []
    for image in images:
        interpreter.set_input(_to_type(image, dtype, source.scale, source.zero_point)[None], 0)
        interpreter.invoke()
        outputs = [interpreter.get_output(index)[0] for index in range(len(graph.outputs))]
        answers.append(_outputs_to_int8(outputs, graph))
    return answers


def _to_type(image: np.ndarray, dtype: type, scale: float, zero_point: int) -> np.ndarray:
    """An int8 picture in the type that a model's input has."""
    if dtype == np.int8:
        return np.ascontiguousarray(image)
    if dtype == np.uint8:
        return (image.view(np.uint8) ^ 0x80).copy()
    return (np.float32(scale) * (image.astype(np.float32) - np.float32(zero_point))).astype(np.float32)


def _outputs_to_int8(outputs: list[np.ndarray], graph) -> list[np.ndarray]:
    answers = []
    for name, values in zip(graph.outputs, outputs, strict=True):
        quant = graph.tensors[name].quant
        if values.dtype == np.uint8:
            values = (values ^ 0x80).view(np.int8)
        elif values.dtype == np.float32:
            values = np.clip(np.rint(values / np.float32(quant.scale) + quant.zero_point), -128, 127).astype(np.int8)
        answers.append(np.array(values, np.int8).reshape(graph.tensors[name].shape))
    return answers
