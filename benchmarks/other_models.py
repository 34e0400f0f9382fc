"""Other people's int8 .tflite files on the host and on an emulated chip, byte for byte against TFLM on the file as it is.

    python -m benchmarks.other_models ../shared/data/models/*.tflite

Each file goes through the door, `export.py FILE --target mps2-an500`, and its model.tess through the host library and the
emulator. Outputs are compared with TFLM's on the original file: nothing of ours stands between the file and the judge.
What export.py refuses is a row as well, with its message.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from firmware.compiler.image import selftest_frame
from firmware.compiler.judges import run_tflm_many
from firmware.compiler.preprocess import to_int8
from firmware.compiler.tflite import read_tflite
from firmware.device import open_emulator, open_host

ROOT = Path(__file__).resolve().parents[1]
JUDGE_TIMEOUT_S = 1800
COLUMNS = ["model", "input", "MACs", "peak SRAM, B", "model.tess, B", "frames", "host", "emulated M7", "instructions", "stack, B"]
NOTE = (
    "Schedules at 0 % recomputation. Host and emulator: output bytes compared with those of TFLM on the file as it is, and how "
    "many differ. Peak SRAM is the planner's; on the emulator, no byte above it was touched."
)


def measure(path: Path, target: str, frames: int) -> dict[str, Any]:
    """One model: exported, run and compared, or the reason why not."""
    content = path.read_bytes()
    found: dict[str, Any] = {"model": path.stem, "sha256": hashlib.sha256(content).hexdigest()}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "export")
        command = ["export.py", path.resolve(), "--target", target, "--out", made, "--verification", 1]
        done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            return found | {"exported": False, "error": done.stderr.strip().splitlines()[-1]}
        plan = json.loads((made / "plan.json").read_text())
        found |= {"exported": True, "plan": {key: plan[key] for key in ("input", "macs", "recompute", "peak_sram", "paper_sram")}}
        found["plan"]["arena"], found["plan"]["front"] = plan["arena"], plan["front"]
        found |= {"tess_bytes": plan["flash"]["model"], "tess_sha256": plan["sha256"]["model.tess"]}
        return found | {"frames": frames, "devices": _compare(content, made / "model.tess", target, frames)}


def _compare(content: bytes, tess: Path, target: str, frames: int) -> dict[str, Any]:
    graph = read_tflite(content)
    pictures = [selftest_frame(*graph.tensors[graph.input].shape, seed=1 + n) for n in range(frames)]
    judged = run_tflm_many(content, [to_int8(picture) for picture in pictures], timeout_s=JUDGE_TIMEOUT_S)
    expected = [dict(zip(graph.outputs, outputs, strict=True)) for outputs in judged]
    opened = {"host": open_host(tess), f"emulator:{target}": open_emulator(tess, target, timeout=JUDGE_TIMEOUT_S)}
    devices = {}
    for where, device in opened.items():
        records = device.run_frames(pictures)
        pairs = [(e[name], r.heads[name]) for e, r in zip(expected, records, strict=True) for name in graph.outputs]
        devices[where] = {
            "compared": sum(ours.size for _, ours in pairs),
            "unequal": sum(int((theirs != ours).sum()) for theirs, ours in pairs),
            "instructions": max((r.instructions for r in records if r.instructions), default=None),
            "stack": device.info.stack,
            "touched": device.info.touched,
            "arena": device.info.arena,
        }
    return devices


def row(found: dict[str, Any]) -> list[Any]:
    """A line of the table."""
    if not found["exported"]:
        return [found["model"], *["-"] * 5, "refused", "refused", "-", "-"]
    plan, (host, chip) = found["plan"], found["devices"].values()
    height, width, _ = plan["input"]
    return [
        found["model"],
        f"{width}x{height}",
        f"{plan['macs'] / 1e6:.1f} M",
        plan["peak_sram"],
        found["tess_bytes"],
        found["frames"],
        *(_verdict(device) for device in (host, chip)),
        f"{chip['instructions'] / 1e6:,.1f} M",
        chip["stack"],
    ]


def _verdict(device: dict[str, Any]) -> str:
    compared, unequal = device["compared"], device["unequal"]
    return f"{unequal:,} of {compared:,} bytes differ" if unequal else f"equal ({compared:,} bytes)"


def good(found: dict[str, Any]) -> bool:
    """Refused with a reason, or equal everywhere and within the planned memory."""
    return not found["exported"] or all(
        device["unequal"] == 0 and (device["touched"] or 0) <= device["arena"] for device in found["devices"].values()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", help=".tflite files")
    parser.add_argument("--target", default="mps2-an500", help="an emulated board of configs/targets")
    parser.add_argument("--frames", type=int, default=2, help="noise pictures for each model (default: 2)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/other_models.json"))
    options = parser.parse_args()
    models = []
    for path in options.models:
        models.append(measure(path, options.target, options.frames))
        document = {"columns": COLUMNS, "rows": [row(m) for m in models], "note": NOTE, "target": options.target}
        document["models"] = models
        options.json.write_text(json.dumps(document, indent=1) + "\n")
        print(" | ".join(map(str, document["rows"][-1])), flush=True)
    return 0 if all(good(found) for found in models) else 1


if __name__ == "__main__":
    sys.exit(main())
