"""A Graph as the nodes that a schedule runs: the picture's source, the operators, and the sinks that outputs leave by.

SPEC.md section 1 defines nodes. A tensor is named by the node that makes it, so a Program is a list in topological order
where `inputs` are indices of earlier nodes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from firmware.compiler import ops
from firmware.compiler.axis import Axis, identity_axis
from firmware.compiler.graph import Graph, Shape

Kind = Literal["source", "op", "sink"]


@dataclass(frozen=True)
class Node:
    """One step of the network. A sink makes nothing; its `shape` has the height and width of what it takes."""

    name: str
    kind: Kind
    op: int | None  # index into graph.ops
    inputs: tuple[int, ...]  # nodes
    shape: Shape
    y: tuple[Axis, ...]  # for each input, its rows that rows of the output need
    x: tuple[Axis, ...]
    macs_per_cell: int  # multiply-accumulates for all channels of one output pixel

    @property
    def row_bytes(self) -> int:
        return 0 if self.kind == "sink" else self.shape.w * self.shape.c

    @property
    def size(self) -> int:
        """Bytes of the whole tensor."""
        return 0 if self.kind == "sink" else self.shape.size


@dataclass(frozen=True)
class Program:
    graph: Graph
    nodes: tuple[Node, ...]
    sink_of_output: tuple[int, ...]  # node, in the order of graph.outputs

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes that read what it makes."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for source in dict.fromkeys(node.inputs):
                readers[source].append(index)
        return tuple(tuple(r) for r in readers)

    @cached_property
    def reads(self) -> tuple[tuple[tuple[int, Axis, Axis], ...], ...]:
        """For each node, (reader, rows, columns) of everything that reads what it makes; nothing twice."""
        reads: list[dict[tuple[int, Axis, Axis], None]] = [{} for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for source, y, x in zip(node.inputs, node.y, node.x, strict=True):
                reads[source][index, y, x] = None
        return tuple(tuple(r) for r in reads)

    @cached_property
    def read_whole(self) -> tuple[bool, ...]:
        """For each node, whether somebody reads all its rows for each of his."""
        return tuple(any(y.stride == 0 for _, y, _ in reads) for reads in self.reads)

    @cached_property
    def last_reader(self) -> tuple[int, ...]:
        """For each node, the last node that reads it; the node itself when nobody does."""
        return tuple(max(r, default=i) for i, r in enumerate(self.readers))

    @cached_property
    def node_of_tensor(self) -> dict[str, int]:
        made = {self.graph.input: 0}
        made.update({self.graph.ops[n.op].output: i for i, n in enumerate(self.nodes) if n.op is not None})
        return made

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the network, nothing computed twice."""
        return sum(node.macs_per_cell * node.shape.h * node.shape.w for node in self.nodes)


def build_program(graph: Graph) -> Program:
    """Put the source first, every operator in the graph's order, and every sink right after the last of its inputs."""
    picture = graph.tensors[graph.input].shape
    nodes = [Node(graph.input, "source", None, (), picture, (), (), 0)]
    made = {graph.input: 0}
    groups = _group_outputs(graph)
    sink_of_output: dict[int, int] = {}
    waiting = list(groups)

    def place_sinks() -> None:
        for group in [g for g in waiting if all(graph.outputs[o] in made for o in g)]:
            names = [graph.outputs[o] for o in group]
            shapes = [graph.tensors[n].shape for n in names]
            shape = Shape(shapes[0].h, shapes[0].w, sum(s.c for s in shapes))
            sink_of_output.update({o: len(nodes) for o in group})
            y, x = (identity_axis(shape.h),) * len(names), (identity_axis(shape.w),) * len(names)
            nodes.append(Node("+".join(names), "sink", None, tuple(made[n] for n in names), shape, y, x, 0))
            waiting.remove(group)

    for index, op in enumerate(graph.ops):
        shape = graph.tensors[op.output].shape
        y, x = zip(*ops.axes(graph, op), strict=True)
        cell_macs = ops.macs(graph, op) // (shape.h * shape.w)
        nodes.append(Node(op.name, "op", index, tuple(made[t] for t in op.inputs), shape, y, x, cell_macs))
        made[op.output] = len(nodes) - 1
        place_sinks()
    place_sinks()
    return Program(graph, tuple(nodes), tuple(sink_of_output[o] for o in range(len(graph.outputs))))


MAX_SINK_INPUTS = 4


def _group_outputs(graph: Graph) -> list[tuple[int, ...]]:
    """Consecutive outputs of one height and width leave together: the maps of one detector level."""
    groups: list[list[int]] = []
    for index, name in enumerate(graph.outputs):
        shape = graph.tensors[name].shape
        if groups and len(groups[-1]) < MAX_SINK_INPUTS:
            previous = graph.tensors[graph.outputs[groups[-1][0]]].shape
            kinds = [graph.outputs[o].rpartition("/")[2] for o in groups[-1]]
            if (previous.h, previous.w) == (shape.h, shape.w) and name.rpartition("/")[2] not in kinds:
                groups[-1].append(index)
                continue
        groups.append([index])
    return [tuple(g) for g in groups]
