"""What a host must know of a model.tess to embed and feed it: sizes, names, work memory. The rest is the runtime's.

The file is described in SPEC.md; this reader checks no more than it uses: magic, version, length, checksum, and that what
it follows lies inside of the file.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

HEADER_SIZE = 96
SUPPORTED_VERSION = 2
NODE_SIZE = 68
DECODE_SIZE, LEVEL_SIZE = 32, 24
TESS_T_SIZE = 128  # sizeof(tess_t) on a 32-bit chip, as peak_sram counts it


class ModelFileError(ValueError):
    """Bytes that are no model.tess."""


@dataclass(frozen=True)
class TessHeader:
    """The facts of one model.tess. Sizes in bytes."""

    name: str
    input_shape: tuple[int, int, int]  # (h, w, c)
    outputs: tuple[tuple[str, tuple[int, int, int]], ...]  # name and (h, w, c), in the order of the graph's outputs
    n_nodes: int
    n_segments: int
    segments: tuple[tuple[int, int], ...]  # nodes [first, stop) of each
    arena: int  # work memory, SPEC section 3
    class_names: tuple[str, ...]  # empty without a decoder
    max_detections: int  # 0 without a decoder
    score_threshold: int  # Q15, 0 without a decoder: no box has less
    score_levels: int  # scores that the head can give: steps of average precision on the device; 0 without a decoder

    @property
    def peak_sram(self) -> int:
        return self.arena + TESS_T_SIZE

    @property
    def precision_words(self) -> int:
        """Words of 4 B in which a device counts average precision: counters, and two scores a word (tess_ap.h)."""
        return (1 + 2 * self.score_levels) * len(self.class_names) + (self.score_levels + 1) // 2


def load_tess(model: bytes | bytearray | memoryview | str | Path) -> bytes:
    """The file's bytes, whether `model` is them or a path."""
    return Path(model).read_bytes() if isinstance(model, str | Path) else bytes(model)


def read_header(data: bytes, check: bool = True) -> TessHeader:
    """Read the facts. Raise ModelFileError for damaged bytes; `check=False` leaves out length and checksum."""
    if data[:4] != b"TESS":
        raise ModelFileError("not a model.tess: it does not begin with 'TESS'")
    if len(data) < HEADER_SIZE:
        raise ModelFileError(f"model.tess is cut off: {len(data)} B, the header alone has {HEADER_SIZE}")
    version, _, total, crc = struct.unpack_from("<HHII", data, 4)
    if version != SUPPORTED_VERSION:
        raise ModelFileError(
            f"model.tess has format version {version}, the runtime {SUPPORTED_VERSION}: export it again"
        )
    if check and total != len(data):
        raise ModelFileError(f"model.tess is damaged: {len(data)} B long, its header says {total}")
    if check and crc != zlib.crc32(data[16:]):
        raise ModelFileError("model.tess is damaged: its checksum does not fit; export or copy it again")
    try:
        return _read(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ModelFileError(f"model.tess is damaged: {error}") from error


def _read(data: bytes) -> TessHeader:
    (activations,) = struct.unpack_from("<I", data, 16)
    height, width, channels = struct.unpack_from("<HHH", data, 20)
    n_nodes, n_segments, n_outputs = struct.unpack_from("<HHH", data, 28)
    nodes, segments, outputs, decode = struct.unpack_from("<IIII", data, 36)
    (name,) = struct.unpack_from("<I", data, 60)
    starts = [struct.unpack_from("<HH", data, segments + 16 * i) for i in range(n_segments)]
    lengths = [length for _, length in starts]
    class_names: tuple[str, ...] = ()
    max_candidates = max_detections = score_threshold = score_levels = 0
    if decode:
        n_levels, n_classes, score_threshold, _, max_candidates, max_detections, names = struct.unpack_from("<6HI", data, decode)
        class_names = tuple(_strings(data, names, n_classes))
        score_levels = _score_levels(data, decode + DECODE_SIZE, n_levels, score_threshold)
    parts = (activations, 12 * max(lengths, default=0), 16 * max_candidates)
    return TessHeader(
        name=_strings(data, name, 1)[0],
        input_shape=(height, width, channels),
        outputs=tuple(_output(data, nodes, outputs + 8 * i) for i in range(n_outputs)),
        n_nodes=n_nodes,
        n_segments=n_segments,
        segments=tuple((first, first + length) for first, length in starts),
        arena=sum((part + 15) // 16 * 16 for part in parts),
        class_names=class_names,
        max_detections=max_detections,
        score_threshold=score_threshold,
        score_levels=score_levels,
    )


def _output(data: bytes, nodes: int, at: int) -> tuple[str, tuple[int, int, int]]:
    node, _, name = struct.unpack_from("<HHI", data, at)
    return _strings(data, name, 1)[0], struct.unpack_from("<HHH", data, nodes + NODE_SIZE * node + 12)


def _score_levels(data: bytes, levels: int, count: int, threshold: int) -> int:
    """How many scores tess_ap_levels finds: the threshold, and what the objectness tables hold above it."""
    tables = [struct.unpack_from("<I", data, levels + LEVEL_SIZE * i + 8)[0] for i in range(count)]
    values = {value for table in tables for value in struct.unpack_from("<256H", data, table)}
    return 1 + sum(value > threshold for value in values)


def _strings(data: bytes, at: int, count: int) -> list[str]:
    """`count` NUL-terminated strings, one after the other."""
    result = []
    for _ in range(count):
        end = data.find(b"\0", at)
        if end < 0:
            raise IndexError("a name does not end")
        result.append(data[at:end].decode())
        at = end + 1
    return result
