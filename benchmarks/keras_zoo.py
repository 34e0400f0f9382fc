"""Keras networks through the compiler: what is read, what is refused and why, and the ends of the front of what is read.

    python -m benchmarks.keras_zoo --tensorflow PYTHON       # a Python that has TensorFlow (`make setup EXTRAS=tf`)
    python -m benchmarks.keras_zoo --files DIR               # .tflite files that `keras_models.py` has written already

`keras_models.py` builds and converts each network in a process of its own. Here the file is read, scheduled, and run on the host
by the C runtime under the schedule with the least memory; its bytes are compared with TFLM's on the file as TensorFlow wrote it.
Networks of more than `--search` nodes are run layer by layer and not searched.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from firmware.compiler.image import selftest_frame, write_image
from firmware.compiler.judges import JudgeError, run_tflm
from firmware.compiler.preprocess import to_int8
from firmware.compiler.program import build_program
from firmware.compiler.schedule import layer_by_layer
from firmware.compiler.search import deploy, search_front
from firmware.compiler.tflite import TfliteError, read_tflite
from firmware.compiler.tflite_parse import parse
from firmware.host import HostModel

MODELS = Path(__file__).with_name("keras_models.py")
COLUMNS = ["network", "operators in the file", "layer by layer, B", "0 %, B", "least, B", "same bytes as TFLM", "or refused"]


def measure(path: Path, search: int = 150) -> dict[str, Any]:
    """One file. `search`: most nodes for which the front is searched."""
    content = path.read_bytes()
    found: dict[str, Any] = {"model": path.stem, "operators": dict(Counter(op.kind for op in parse(content).operators))}
    try:
        graph = read_tflite(content)
    except TfliteError as error:
        return found | {"exported": False, "error": str(error)}
    program = build_program(graph)
    whole = deploy(program, layer_by_layer(program))
    front = search_front(program) if len(program.nodes) <= search else ()
    found |= {"exported": True, "macs": program.macs, "nodes": len(program.nodes), "layer": whole.cost.peak_sram}
    found["front"] = [{"peak_sram": d.cost.peak_sram, "recompute": d.cost.recompute} for d in front]
    return found | {"tflm": _compared(content, graph, front[-1] if front else whole)}


def _compared(content: bytes, graph, deployment) -> dict[str, Any]:
    """Bytes that the C runtime and TFLM make of noise."""
    frame = selftest_frame(*graph.tensors[graph.input].shape)
    try:
        expected = dict(zip(graph.outputs, run_tflm(content, to_int8(frame), timeout_s=1800), strict=True))
    except JudgeError as error:
        return {"error": str(error)}
    made = HostModel(write_image(deployment, None, bytes(32))).run(frame)
    unequal = sum(int((made[name] != values).sum()) for name, values in expected.items())
    values = sum(v.size for v in expected.values())
    distinct = max(len(np.unique(v)) for v in expected.values())
    return {"compared": values, "unequal": unequal, "distinct": distinct}


def row(found: dict[str, Any]) -> list[Any]:
    """A line of the table."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(found["operators"].items()))
    if not found["exported"]:
        return [found["model"], kinds, None, None, None, "-", found["error"]]
    tflm, front = found["tflm"], found["front"]
    verdict = tflm.get("error") or (f"{tflm['unequal']:,} differ" if tflm["unequal"] else f"yes ({tflm['compared']:,})")
    nothing_again = min((point["peak_sram"] for point in front if not point["recompute"]), default=None)
    least = min((point["peak_sram"] for point in front), default=None)
    return [found["model"], kinds, found["layer"], nothing_again, least, verdict, "-"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tensorflow", type=Path, metavar="PYTHON", help="a Python that has TensorFlow")
    source.add_argument("--files", type=Path, metavar="DIR", help="a folder of .tflite files")
    parser.add_argument("--search", type=int, default=150, metavar="NODES", help="search no larger networks (default: 150)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/keras_zoo.json"))
    parser.add_argument("names", nargs="*", help="networks; all of them when none is named")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = options.files or Path(folder)
        if options.tensorflow:
            subprocess.run([options.tensorflow, MODELS, "--out", files, *options.names], check=True)
        paths = [path for path in sorted(files.glob("*.tflite")) if not options.names or path.stem in options.names]
        models = []
        for path in sorted(paths, key=lambda path: path.stat().st_size):
            models.append(measure(path, options.search))
            document = {"columns": COLUMNS, "rows": [row(m) for m in models], "models": models}
            options.json.write_text(json.dumps(document, indent=1) + "\n")
            print(" | ".join(map(str, document["rows"][-1])), flush=True)
    return 1 if any(m["exported"] and m["tflm"].get("unequal") for m in models) else 0


if __name__ == "__main__":
    sys.exit(main())
