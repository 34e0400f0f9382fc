"""How much int8 costs, layer by layer: signal to quantisation-noise ratio of the interpreter against the float network."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from detection.calibration import dequantize
from detection.model.detector import Detector, normalise
from detection.quantize import FoldedDetector, useful_range
from firmware.compiler.graph import Graph
from firmware.compiler.interpreter import Interpreter


class LayerSqnr(NamedTuple):
    """10 log10 of signal power / error power over all frames; infinite when int8 is exact."""

    name: str
    db: float


@torch.no_grad()
def layer_sqnr(detector: Detector, graph: Graph, frames: Sequence[np.ndarray]) -> list[LayerSqnr]:
    """SQNR of every operator's output, in the graph's order, over letterboxed uint8 frames (h, w, 3).

    Errors are those accumulated since the input. Head maps are compared where decoding can tell values apart: an
    objectness of -12 that int8 holds as -8 is no error. Raises ValueError when there are no frames.
    """
    if not len(frames):
        raise ValueError("there are no frames to compare on; at least one is needed")
    folded, interpreter = FoldedDetector.of(detector), Interpreter(graph)
    device = next(folded.parameters()).device
    names = [op.output for op in graph.ops]
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for frame in frames:
        images = torch.from_numpy(np.array(frame)).to(device).permute(2, 0, 1)[None]
        real = folded.activations(normalise(images))
        integer = interpreter.run(frame, keep=names)
        for name in names:
            limits = useful_range(detector.arch, name)
            expected = real[name][0].permute(1, 2, 0).double().cpu().numpy().clip(*limits)
            got = dequantize(integer[name], graph.tensors[name].quant).astype(np.float64).clip(*limits)
            signal[name] += float((expected**2).sum())
            noise[name] += float(((got - expected) ** 2).sum())
    return [LayerSqnr(name, _decibels(signal[name], noise[name])) for name in names]


def worst_layer(ratios: Sequence[LayerSqnr]) -> LayerSqnr:
    """The layer that int8 hurts most; the first of equals."""
    return min(ratios, key=lambda ratio: ratio.db)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
