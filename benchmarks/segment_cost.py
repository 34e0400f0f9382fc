"""What a segment costs by its flow alone, step by step: the slow definition that the search's tables are held against."""

from firmware.compiler.cost import NODE_STATE_BYTES
from firmware.compiler.memory import align, overlaps_of
from firmware.compiler.program import Program
from firmware.compiler.schedule import Segment, latches, segment_flow


def peak_and_work(program: Program, segment: Segment) -> tuple[int, int]:
    """(bytes alive at the worst step, multiply-accumulates done again) of one segment, from its flow alone, step by step."""
    flow = segment_flow(program, segment)
    nodes, last_reader = program.nodes, program.last_reader
    sizes = {i: align(node.size) for i, node in enumerate(nodes)}
    crossing = sum(sizes[i] for i in range(segment.first) if last_reader[i] >= segment.first)
    results = sum(sizes[i] for i in segment.nodes if last_reader[i] >= segment.stop)
    rings = {}
    for local, i in enumerate(segment.nodes):
        if last_reader[i] < segment.stop and nodes[i].kind != "sink":
            row, (rows, kept, fresh) = int(flow.ring_cols[local]) * nodes[i].shape.c, (int(r[local]) for r in flow.alive)
            if segment.latch and latches(program, segment.first, flow.alive)[local]:
                rings[i] = align(kept * row), align(fresh * row)  # always, and from the maker to the last reader
            else:
                rings[i] = (align(rows * row), 0) if kept else (0, align(rows * row))
    letterbox = 4 * int(flow.ring_cols[0]) * nodes[0].shape.c if segment.first == 0 else 0
    steps = [
        sum(always + passing * (i <= step <= last_reader[i]) for i, (always, passing) in rings.items()) + letterbox * (step == 0)
        for step in segment.nodes
    ]
    saved, used = 0, set()
    for o in sorted(overlaps_of(program, flow), key=lambda o: (-o.saving(sizes), o.below, o.above)):
        if not {o.below, o.above} & used:
            saved += o.saving(sizes)
            used |= {o.below, o.above}
    again = sum(
        int(cells) * nodes[i].macs_per_cell - nodes[i].macs_per_cell * nodes[i].shape.h * nodes[i].shape.w
        for i, cells in zip(segment.nodes, flow.cells(), strict=True)
    )
    state = NODE_STATE_BYTES * (segment.stop - segment.first)
    return crossing + results + state + max(steps) - saved, max(0, again)
