"""Orders in which a graph's operators can run: where branches part, the order decides what waits in memory.

A chain has one. A pyramid or a detector with several heads has many; a few that are good for a reason are tried, and the search
compares what each allows (`search.best_order`).
"""

from dataclasses import replace

from firmware.compiler.graph import Graph

Order = tuple[int, ...]  # indices into graph.ops


def orders(graph: Graph) -> tuple[Graph, ...]:
    """The graph as it is, then the same in other orders, each once."""
    given = tuple(range(len(graph.ops)))
    distinct = dict.fromkeys((given, _least_alive(graph), _last_output_first(graph)))
    return (graph, *(replace(graph, ops=tuple(graph.ops[i] for i in order)) for order in list(distinct)[1:]))


def _least_alive(graph: Graph) -> Order:
    """Of all operators that could run next, the one after which the fewest bytes are alive; the given order among equals."""
    waiting: dict[str, set[int]] = {name: set() for name in graph.tensors}
    for index, op in enumerate(graph.ops):
        for name in op.inputs:
            waiting[name].add(index)
    made, left, order = {graph.input}, dict.fromkeys(range(len(graph.ops))), []

    def growth(index: int) -> int:
        op = graph.ops[index]
        born = graph.tensors[op.output].shape.size if waiting[op.output] else 0  # what only leaves is not kept
        return born - sum(graph.tensors[name].shape.size for name in set(op.inputs) if waiting[name] == {index})

    while left:
        index = min((i for i in left if made.issuperset(graph.ops[i].inputs)), key=lambda i: (growth(i), i))
        del left[index]
        order.append(index)
        made.add(graph.ops[index].output)
        for name in graph.ops[index].inputs:
            waiting[name].discard(index)
    return tuple(order)


def _last_output_first(graph: Graph) -> Order:
    """Depth first: all that the last output needs, then what the one before it needs besides; at last what none needs."""
    maker = {op.output: index for index, op in enumerate(graph.ops)}
    order: dict[int, None] = {}
    stack = [(name, False) for name in (*(op.output for op in reversed(graph.ops)), *graph.outputs)]
    while stack:
        name, ready = stack.pop()
        if name not in maker or maker[name] in order:
            continue
        if ready:
            order[maker[name]] = None
        else:
            stack += [(name, True), *((source, False) for source in reversed(graph.ops[maker[name]].inputs))]
    return tuple(order)
