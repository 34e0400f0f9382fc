"""The judge that every graph must pass, at every door: names, order, quantisation, and each operator's own rules."""

import numpy as np

from firmware.compiler.graph import Graph, GraphError, Tensor
from firmware.compiler.ops import verify_op


def verify(graph: Graph) -> Graph:
    """Return the graph when every rule holds, raise GraphError naming the culprit otherwise."""
    if graph.input not in graph.tensors:
        raise GraphError(f"input '{graph.input}' is not a tensor of the graph")
    for name, tensor in graph.tensors.items():
        _verify_tensor(name, tensor)
    known = {graph.input}
    for op in graph.ops:
        for name in op.inputs:
            if name not in known:
                raise GraphError(f"{op.kind} '{op.name}' reads '{name}' before anything makes it")
        if op.output in known:
            raise GraphError(f"{op.kind} '{op.name}' makes '{op.output}' a second time")
        if op.output not in graph.tensors:
            raise GraphError(f"{op.kind} '{op.name}' makes '{op.output}', which is not a tensor of the graph")
        verify_op(graph, op)
        known.add(op.output)
    _verify_outputs(graph, known)
    if orphans := set(graph.tensors) - known:
        raise GraphError(f"tensor '{sorted(orphans)[0]}' belongs to no operator")
    return graph


def _verify_outputs(graph: Graph, known: set[str]) -> None:
    if not graph.outputs:
        raise GraphError("the graph has no output")
    for name in graph.outputs:
        if name not in known:
            raise GraphError(f"output '{name}' is made by no operator")
        if name == graph.input:
            raise GraphError(f"output '{name}' is the input itself: no operator lies between them")
    if len(set(graph.outputs)) < len(graph.outputs):
        raise GraphError(f"an output is named twice in {graph.outputs}")


def _verify_tensor(name: str, tensor: Tensor) -> None:
    if name != tensor.name:
        raise GraphError(f"tensor '{tensor.name}' is filed under the name '{name}'")
    if min(tensor.shape) < 1:
        raise GraphError(f"tensor '{name}' has an empty shape {tuple(tensor.shape)}")
    scale, zero_point = tensor.quant.scale, tensor.quant.zero_point
    if not (np.isfinite(scale) and scale > 0 and float(np.float32(scale)) == scale):
        raise GraphError(f"tensor '{name}' has scale {scale}: not a positive float32")
    if not -128 <= zero_point <= 127:
        raise GraphError(f"tensor '{name}' has zero point {zero_point}: outside -128..127")
