"""Tiny classification, MCUNetV2's other task: is an object of a class in the picture? Head map -> one answer a class.

An answer is a detection like any other: a box that covers the whole picture, a score and a label, so predictors, doors and
drawings need no second kind. The chip only computes the logits; 256 sigmoids are a table here as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from detection.arch import PRESENCE
from firmware.compiler.decode import Q4, score_table
from firmware.compiler.graph import Graph

TASK = "presence"  # in the metadata of a model.tflite


@dataclass(frozen=True)
class PresenceSpec:
    """How to read the one output of a classifier."""

    class_names: tuple[str, ...]
    scores: np.ndarray  # uint16 (256,): sigmoid in Q15 of q = -128..127

    def decode(self, heads: Mapping[str, np.ndarray], content: tuple[int, int]) -> np.ndarray:
        """int8 (1, 1, K) by output name -> int32 (K, 6) as `firmware.compiler.decode.decode` writes them, best first, then
        by class; boxes are the content, (width, height) in network pixels."""
        scores = self.scores[heads[PRESENCE].reshape(-1).astype(np.int64) + 128].astype(np.int32)
        labels = np.argsort(-scores, kind="stable").astype(np.int32)
        rows = np.zeros((len(labels), 6), np.int32)
        rows[:, 2:4] = np.array(content) * Q4
        rows[:, 4], rows[:, 5] = scores[labels], labels
        return rows


def presence_spec(graph: Graph, metadata: Mapping[str, Any] | None) -> PresenceSpec | None:
    """None for a network that is no classifier of ours."""
    if not metadata or metadata.get("task") != TASK or graph.outputs != (PRESENCE,):
        return None
    return PresenceSpec(tuple(metadata["classes"]), score_table(graph.tensors[PRESENCE].quant))
