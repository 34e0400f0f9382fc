"""model.tess by hand: small networks written byte by byte from SPEC.md, and slow loops that say what they compute.

Shares no code with firmware/compiler, so that runtime and compiler cannot be wrong in the same way. Plans are trivial: each
buffer has its own place; `layers()` keeps every tensor whole, `fused()` runs all nodes in one segment over rings.
"""

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

SOURCE, CONV, DEPTHWISE, ADD, MAXPOOL, RESIZE, SINK = range(7)
SEED = 12345


@dataclass(frozen=True)
class Node:
    """One node of SPEC.md section 1 with its constants."""

    kind: int
    inputs: tuple[int, ...]
    shape: tuple[int, int, int]
    zero_point: int = 0
    clamp: tuple[int, int] = (-128, 127)
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    multiplier: int = 0
    weights: np.ndarray | None = None  # int8; add: int32 (7,)
    bias: np.ndarray | None = None
    multipliers: np.ndarray | None = None
    shifts: np.ndarray | None = None


@dataclass(frozen=True)
class Segment:
    first: int
    count: int
    reference: int
    columns: int = 1
    rows: int = 1
    carry: int = 1


@dataclass(frozen=True)
class Level:
    stride: int
    sink: int
    objectness: np.ndarray  # uint16 (256,)
    classes: np.ndarray | None  # uint16 (256,)
    distances: np.ndarray  # int16 (256,)


@dataclass(frozen=True)
class Decode:
    levels: tuple[Level, ...]
    names: tuple[str, ...] = ("face",)
    score_threshold: int = 8192
    iou_threshold: int = 16384
    max_candidates: int = 20
    max_detections: int = 10


@dataclass
class Net:
    """Grows node by node; methods return the new node's index."""

    rng: np.random.Generator
    nodes: list[Node] = field(default_factory=list)
    outputs: list[tuple[int, int, str]] = field(default_factory=list)  # node, sink, name
    computed: dict[tuple[int, bytes], dict[str, np.ndarray]] = field(default_factory=dict)  # the loops are slow

    def source(self, h: int, w: int, c: int, zero_point: int = 0) -> int:
        self.nodes.append(Node(SOURCE, (), (h, w, c), zero_point))
        return 0

    def _window(self, i: int, kernel, stride, pad, extra) -> tuple[int, int]:
        """Output height and width with `extra` rows and columns of padding behind."""
        size = self.nodes[i].shape
        return tuple((size[d] + pad[d] + extra[d] - kernel[d]) // stride[d] + 1 for d in (0, 1))

    def _factors(self, c: int, taps: int) -> dict:
        """Random per-channel constants under which most outputs fit int8."""
        real = self.rng.uniform(0.3, 3.0, c) / (40 * 40 * np.sqrt(taps)) * 60
        fraction, shift = np.frexp(real)
        return {
            "bias": self.rng.integers(-3000, 3000, c, dtype=np.int32),
            "multipliers": np.minimum(np.rint(fraction * 2**31), 2**31 - 1).astype(np.int32),
            "shifts": shift.astype(np.int8),
        }

    def conv(self, i: int, c: int, kernel=(1, 1), stride=(1, 1), pad=(0, 0), extra=(0, 0), clamp=(-128, 127)) -> int:
        c_in = self.nodes[i].shape[2]
        shape = (*self._window(i, kernel, stride, pad, extra), c)
        weights = self.rng.integers(-128, 128, (c, *kernel, c_in), dtype=np.int8)
        factors = self._factors(c, kernel[0] * kernel[1] * c_in)
        zero_point = int(self.rng.integers(-128, 128))
        self.nodes.append(
            Node(CONV, (i,), shape, zero_point, clamp, kernel, stride, pad, weights=weights, **factors)
        )
        return len(self.nodes) - 1

    def depthwise(self, i: int, kernel=(3, 3), stride=(1, 1), pad=(0, 0), extra=(0, 0), multiplier: int = 1) -> int:
        c = self.nodes[i].shape[2] * multiplier
        shape = (*self._window(i, kernel, stride, pad, extra), c)
        weights = self.rng.integers(-128, 128, (*kernel, c), dtype=np.int8)
        factors, zero_point = self._factors(c, kernel[0] * kernel[1]), int(self.rng.integers(-128, 128))
        self.nodes.append(
            Node(DEPTHWISE, (i,), shape, zero_point, (-100, 110), kernel, stride, pad, multiplier, weights, **factors)
        )
        return len(self.nodes) - 1

    def add(self, a: int, b: int) -> int:
        numbers = np.array([1 << 30, 0, 1518500250, -1, 1600000000, -18, 20], np.int32)
        self.nodes.append(Node(ADD, (a, b), self.nodes[a].shape, int(self.rng.integers(-30, 30)), weights=numbers))
        return len(self.nodes) - 1

    def maxpool(self, i: int, kernel=(2, 2), stride=(2, 2), pad=(0, 0), extra=(0, 0)) -> int:
        shape = (*self._window(i, kernel, stride, pad, extra), self.nodes[i].shape[2])
        self.nodes.append(Node(MAXPOOL, (i,), shape, self.nodes[i].zero_point, (-90, 90), kernel, stride, pad))
        return len(self.nodes) - 1

    def resize(self, i: int, factors=(2, 2)) -> int:
        h, w, c = self.nodes[i].shape
        shape = (h * factors[0], w * factors[1], c)
        self.nodes.append(Node(RESIZE, (i,), shape, self.nodes[i].zero_point, stride=factors))
        return len(self.nodes) - 1

    def sink(self, *inputs: int, names: tuple[str, ...] = ()) -> int:
        h, w, _ = self.nodes[inputs[0]].shape
        self.nodes.append(Node(SINK, inputs, (h, w, sum(self.nodes[i].shape[2] for i in inputs))))
        index = len(self.nodes) - 1
        for j, i in enumerate(inputs):
            self.outputs.append((i, index, names[j] if names else f"node{i}"))
        return index


def layers(net: Net) -> list[Segment]:
    """Every node whole, one after the other."""
    return [Segment(i, 1, i, rows=node.shape[0]) for i, node in enumerate(net.nodes)]


def fused(net: Net, columns: int = 1, rows: int = 1, carry: int = 1) -> list[Segment]:
    """One segment over all nodes. Its reference is the tallest node that nobody reads, the last of equals."""
    read = {i for node in net.nodes for i in node.inputs}
    terminals = [i for i in range(len(net.nodes)) if i not in read]
    reference = max(terminals, key=lambda i: (net.nodes[i].shape[0], i))
    return [Segment(0, len(net.nodes), reference, columns, rows, carry)]


class _Data:
    def __init__(self, start: int) -> None:
        self.start, self.bytes = start, bytearray()

    def put(self, piece: bytes | np.ndarray | None) -> int:
        if piece is None:
            return 0
        self.bytes += b"\0" * (-len(self.bytes) % 4)
        at = self.start + len(self.bytes)
        self.bytes += piece if isinstance(piece, bytes) else piece.tobytes()
        return at


def _up(n: int) -> int:
    return -(-n // 16) * 16


def write(
    net: Net,
    segments: list[Segment],
    decode: Decode | None = None,
    rows: dict[int, int] | None = None,
    fresh: dict[int, int] | None = None,
) -> bytes:
    """The file. `rows[i]` sets the height of node i's ring, otherwise each ring has room for the whole tensor; `fresh[i]` is the
    number of rows that stand apart from it."""
    segment_of = {i: k for k, s in enumerate(segments) for i in range(s.first, s.first + s.count)}
    materialised = {j for i, n in enumerate(net.nodes) for j in n.inputs if segment_of[i] > segment_of[j]}
    nodes_at = 96
    segments_at = _up(nodes_at + 68 * len(net.nodes))
    outputs_at = _up(segments_at + 16 * len(segments))
    decode_at = _up(outputs_at + 8 * len(net.outputs))
    data_at = _up(decode_at + (32 + 24 * len(decode.levels) if decode else 0))
    data, body, arena = _Data(data_at), bytearray(data_at), 0
    fresh, last_reader = fresh or {}, {j: i for i, n in enumerate(net.nodes) for j in n.inputs}

    for i, n in enumerate(net.nodes):
        h, w, c = n.shape
        ring = (0, 0) if n.kind == SINK else ((rows or {}).get(i, h), w)
        offset = 0 if n.kind == SINK else arena
        arena += ring[0] * ring[1] * (c if n.kind != SINK else 0)
        apart = (fresh[i], arena) if i in fresh else (0, 0)
        arena += apart[0] * w * c
        inputs = (*n.inputs, *(0xFFFF,) * (4 - len(n.inputs)))
        constants = map(data.put, (n.weights, n.bias, n.multipliers, n.shifts))
        latched = [j for k, j in enumerate(n.inputs) if j in fresh and last_reader[j] == i and j not in n.inputs[:k]]
        flags = int(i in materialised) + sum(16 << n.inputs.index(j) for j in latched)
        head = struct.pack("<4B4H3H", n.kind, len(n.inputs), flags, n.multiplier, *inputs, *n.shape)
        head += struct.pack("<3b", n.zero_point, *n.clamp)
        geometry = struct.pack("<6BB", *n.kernel, *n.stride, *n.pad, 0)
        memory = struct.pack("<I2Hf", offset, *ring, 0.0 if n.kind == SINK else 0.5)
        at = nodes_at + 68 * i
        body[at : at + 68] = head + geometry + memory + struct.pack("<4I4HI", *constants, 0, 0, 0, *apart)
    letterbox = _up(arena)
    arena = letterbox + 4 * net.nodes[0].shape[1] * net.nodes[0].shape[2]
    for k, s in enumerate(segments):
        at = segments_at + 16 * k
        body[at : at + 16] = struct.pack("<5HBBI", s.first, s.count, s.columns, s.rows, s.reference, s.carry, 0, 0)
    for o, (node, sink, name) in enumerate(net.outputs):
        body[outputs_at + 8 * o : outputs_at + 8 * o + 8] = struct.pack("<HHI", node, sink, data.put(name.encode() + b"\0"))
    if decode:
        _write_decode(net, decode, body, decode_at, data)
    name_at = data.put(b"by hand\0")
    total = _up(data_at + len(data.bytes))
    body += data.bytes + b"\0" * (total - data_at - len(data.bytes))
    sequential = all(s.columns == 1 and s.carry for s in segments)
    numbers = (len(net.nodes), len(segments), len(net.outputs), 0)
    offsets = (nodes_at, segments_at, outputs_at, decode_at if decode else 0, data_at, total - data_at, name_at)
    body[16:36] = struct.pack("<I3HBB4H", arena, *net.nodes[0].shape, 114, sequential, *numbers)
    body[36:96] = struct.pack("<9I16x2I", *offsets, SEED, checksum(net, compute(net, selftest_frame(net))), letterbox, 0)
    body[0:12] = struct.pack("<4sHHI", b"TESS", 2, 0, total)
    return mend(bytes(body))


def _write_decode(net: Net, decode: Decode, body: bytearray, at: int, data: _Data) -> None:
    names = data.put(b"".join(name.encode() + b"\0" for name in decode.names))
    limits = (decode.score_threshold, decode.iou_threshold, decode.max_candidates, decode.max_detections)
    body[at : at + 32] = struct.pack("<6H5I", len(decode.levels), len(decode.names), *limits, names, 0, 0, 0, 0)
    cell = 0
    for k, level in enumerate(decode.levels):
        tables = map(data.put, (level.objectness, level.classes, level.distances))
        start = at + 32 + 24 * k
        body[start : start + 24] = struct.pack("<2H5I", level.stride, level.sink, cell, *tables, 0)
        cell += net.nodes[level.sink].shape[0] * net.nodes[level.sink].shape[1]


def mend(model: bytes) -> bytes:
    """The same file with the right checksum."""
    total = struct.unpack_from("<I", model, 8)[0]
    return model[:12] + struct.pack("<I", zlib.crc32(model[16:total])) + model[16:]


def patch(model: bytes, at: int, layout: str, *values) -> bytes:
    """The file with other numbers at `at`, checksum mended."""
    changed = bytearray(model)
    struct.pack_into("<" + layout, changed, at, *values)
    return mend(bytes(changed))


# What a network computes, one value at a time.


def _multiply(x: int, multiplier: int, shift: int) -> int:
    product = (x << max(shift, 0)) * multiplier
    nudge = 2**30 if product >= 0 else 1 - 2**30
    high = abs(product + nudge) // 2**31 * (1 if product + nudge >= 0 else -1)  # truncates like C
    right = max(-shift, 0)
    mask = (1 << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def _finish(value: int, n: Node) -> int:
    return min(max(value + n.zero_point, n.clamp[0]), n.clamp[1])


def _taps(n: Node, size: tuple[int, int, int], y: int, x: int):
    """(kernel row, kernel column, input row, input column) of a window, inside of the picture only."""
    for ky in range(n.kernel[0]):
        for kx in range(n.kernel[1]):
            iy, ix = y * n.stride[0] - n.pad[0] + ky, x * n.stride[1] - n.pad[1] + kx
            if 0 <= iy < size[0] and 0 <= ix < size[1]:
                yield ky, kx, iy, ix


def _pixel(n: Node, sources: list[np.ndarray], zeros: list[int], y: int, x: int) -> list[int]:
    a = sources[0]
    if n.kind == RESIZE:
        return list(a[y // n.stride[0], x // n.stride[1]])
    if n.kind == ADD:
        m = [int(v) for v in n.weights]
        terms = [[(int(v) - z) << m[6] for v in s[y, x]] for s, z in zip(sources, zeros, strict=True)]
        sums = [_multiply(p, m[0], m[1]) + _multiply(q, m[2], m[3]) for p, q in zip(*terms, strict=True)]
        return [_finish(_multiply(s, m[4], m[5]), n) for s in sums]
    taps = list(_taps(n, a.shape, y, x))
    if n.kind == MAXPOOL:
        tops = np.max([a[iy, ix] for _, _, iy, ix in taps], axis=0)
        return [min(max(int(v), n.clamp[0]), n.clamp[1]) for v in tops]
    out = []
    for o in range(n.shape[2]):
        acc = int(n.bias[o])
        for ky, kx, iy, ix in taps:
            if n.kind == CONV:
                acc += int(np.dot(a[iy, ix].astype(np.int64) - zeros[0], n.weights[o, ky, kx].astype(np.int64)))
            else:
                acc += (int(a[iy, ix, o // n.multiplier]) - zeros[0]) * int(n.weights[ky, kx, o])
        out.append(_finish(_multiply(acc, int(n.multipliers[o]), int(n.shifts[o])), n))
    return out


def compute(net: Net, frame: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name for a frame uint8 (h, w, c). Do not change nodes between calls."""
    key = len(net.nodes), frame.tobytes()
    if key not in net.computed:
        net.computed[key] = _compute(net, frame)
    return net.computed[key]


def _compute(net: Net, frame: np.ndarray) -> dict[str, np.ndarray]:
    made: list[np.ndarray | None] = []
    for n in net.nodes:
        if n.kind == SOURCE:
            made.append((frame.astype(np.int16) - 128).astype(np.int8))
            continue
        if n.kind == SINK:
            made.append(None)
            continue
        sources, zeros = [made[i] for i in n.inputs], [net.nodes[i].zero_point for i in n.inputs]
        h, w, _ = n.shape
        made.append(np.array([[_pixel(n, sources, zeros, y, x) for x in range(w)] for y in range(h)], np.int8))
    return {name: made[node] for node, _, name in net.outputs}


def selftest_frame(net: Net) -> np.ndarray:
    """The test picture, uint8 (h, w, c)."""
    h, w, c = net.nodes[0].shape
    rows = []
    for y in range(h):
        x, row = ((SEED + y * 0x9E3779B9) & 0xFFFFFFFF) | 1, []
        for _ in range(w * c):
            x = (x ^ (x << 13)) & 0xFFFFFFFF
            x ^= x >> 17
            x = (x ^ (x << 5)) & 0xFFFFFFFF
            row.append(x >> 24)
        rows.append(row)
    return np.array(rows, np.uint8).reshape(h, w, c)


def checksum(net: Net, outputs: dict[str, np.ndarray]) -> int:
    """The self-test's sum over outputs, in their order."""
    total = 0
    for o, (_, _, name) in enumerate(net.outputs):
        for n, q in enumerate(outputs[name].reshape(-1).tolist()):
            total += (q + 129) * ((((n + o * 0x01000193) * 2654435761) & 0xFFFFFFFF) | 1)
    return total & 0xFFFFFFFF
