"""The planner's word against the bytes that the C runtime touches: c/shadow.c under AddressSanitizer."""

import struct
import subprocess
from functools import cache
from pathlib import Path

from firmware.cc import compile_c
from firmware.compiler.image import write_image
from firmware.compiler.memory import LETTERBOX, Key, fresh_key
from firmware.compiler.search import Deployment
from firmware.host import RUNTIME, runtime_sources

WRAPPED = ("-Wl,--wrap=tess_plan_band", "-Wl,--wrap=tess_compute", "-Wl,--wrap=tess_decode_row")
FLAGS = ("-std=c11", "-O1", "-g", "-fsanitize=address", f"-I{RUNTIME}", *WRAPPED)


@cache
def program() -> Path:
    """The built shadow.c. Raises BuildError where the compiler has no sanitizers."""
    return compile_c([*runtime_sources(), Path(__file__).parent / "c" / "shadow.c"], FLAGS, "shadow")


def buffers(deployment: Deployment) -> dict[Key, tuple[int, int]]:
    """Offset and size of each buffer, to the byte."""
    scheduled, nodes, sizes = deployment.scheduled, deployment.scheduled.program.nodes, {}
    for i, buffer in enumerate(scheduled.buffers):
        if buffer is not None:
            row = buffer.cols * nodes[i].shape.c
            sizes[i], sizes[fresh_key(i)] = buffer.rows * row, buffer.fresh * row
    sizes[LETTERBOX] = 4 * scheduled.buffers[0].cols * nodes[0].shape.c
    return {key: (deployment.plan.offsets[key], size) for key, size in sizes.items() if size}


def planned_peak(deployment: Deployment) -> int:
    """End of the highest byte that the plan gives to anybody."""
    return max(offset + size for offset, size in buffers(deployment).values())


def touched(deployment: Deployment, folder: Path) -> int:
    """End of the highest byte that the C runtime writes.

    Raises AssertionError with the sanitizer's words when a step touches anything but its own buffer and those of its inputs, as
    long as the plan says that they are alive.
    """
    place, table = buffers(deployment), b""
    alive = {t.key: range(t.first, t.stop) for t in deployment.scheduled.lifetimes}
    for i, node in enumerate(deployment.scheduled.program.nodes):
        keys = {LETTERBOX, i, fresh_key(i), *node.inputs, *map(fresh_key, node.inputs)}
        own = [place[key] for key in keys if key in place and i in alive[key]]
        table += struct.pack(f"<{1 + 2 * len(own)}I", len(own), *(number for piece in own for number in piece))
    (folder / "model.tess").write_bytes(write_image(deployment, None, bytes(32)))
    (folder / "table").write_bytes(table)
    done = subprocess.run([program(), folder / "model.tess", folder / "table"], capture_output=True, text=True)
    assert done.returncode == 0, f"{deployment.schedule}: {done.stderr[:3000]}"
    return int(done.stdout)
