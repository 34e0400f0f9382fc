"""Seeds of the fuzzers: tiny synthetic models of every operator and kind of schedule, `python -m tests.fuzz.seeds`.

Writes tests/fuzz/corpus/{tess,tflite,link,openmv}/seed-*; found-* beside them are inputs that once found a bug and stay.
"""

from pathlib import Path

import numpy as np

from firmware.compiler import tflite_schema as schema
from firmware.compiler.graph import Quantization
from firmware.compiler.image import write_image
from firmware.compiler.program import build_program
from firmware.compiler.schedule import layer_by_layer, patches, stream
from firmware.compiler.search import deploy
from firmware.compiler.tflite import write_tflite
from tests.firmware.graphs import random_graph
from tests.firmware.schedules import random_schedule
from tests.firmware.tess_bytes import layers, write
from tests.firmware.test_loader import every_kind, model, small
from tests.firmware.test_tflite import edited
from tests.firmware.test_tflite_foreign import Editing, flat_classifier, start

CORPUS = Path(__file__).parent / "corpus"
RANDOM_GRAPHS = (1, 5, 8, 9, 12, 19)  # seeds
SHA256 = bytes([40, 30, 0, 90, *range(28)])  # fuzz_tess.c takes size, format and colour of its picture from here


def tess_seeds() -> dict[str, bytes]:
    """model.tess files by name: a decoder with two levels, every kind of node, random networks; whole, streamed, in patches."""
    net, decode = small()
    files = {
        "decoder-carry": model(1, 1),
        "decoder-strips": model(2, 0),
        "decoder-layers": write(net, layers(net), decode),
    }
    program = build_program(every_kind())
    schedules = {"layers": layer_by_layer(program), "stream": stream(program), "patches": patches(program, 2, 2, 1)}
    for name, schedule in schedules.items():
        files[f"kinds-{name}"] = write_image(deploy(program, schedule), None, SHA256)
    for seed in RANDOM_GRAPHS:
        rng = np.random.default_rng(seed)
        program = build_program(random_graph(rng, max_ops=8, max_size=9, max_channels=4))
        files[f"random-{seed}"] = write_image(deploy(program, random_schedule(rng, program)), None, SHA256)
    return files


def foreign() -> bytes:
    """What our writer never writes: SPLIT, many inputs joined, PAD before a maximum, flat outputs, uint8 at the end."""
    data, body = start()
    h, w, c = body.shape

    def change(model, subgraph) -> None:
        edit, last = Editing(model, subgraph), subgraph.outputs[0]
        halves = [edit.tensor(f"half{n}", (1, h, w, c // 2), body.quant) for n in range(2)]
        edit.operator("SPLIT", [edit.integers("axis", [3]), last], halves, "SplitOptions", numSplits=2)
        joined = edit.tensor("joined", (1, h, w, 5 * c // 2), body.quant)
        edit.operator("CONCATENATION", [*halves, *halves, halves[0]], [joined], "ConcatenationOptions", axis=3)
        sides = edit.tensor("sides", (4, 2), None, schema.INT32, np.array([[0, 0], [1, 0], [0, 1], [0, 0]], "<i4"))
        padded = edit.tensor("padded", (1, h + 1, w + 1, 5 * c // 2), body.quant)
        edit.operator("PAD", [joined, sides], [padded], "PadOptions")
        other = Quantization(float(np.float32(body.quant.scale * 0.9)), 120)
        unsigned = edit.tensor("unsigned", (1, h + 1, w + 1, 5 * c // 2), other, schema.UINT8)
        edit.operator("QUANTIZE", [padded], [unsigned], "QuantizeOptions")
        flat = edit.tensor("flat", (1, h * w, c), body.quant)
        edit.operator("RESHAPE", [last, edit.integers("shape", [1, h * w, c])], [flat], "ReshapeOptions", version=1)
        subgraph.outputs = [unsigned, flat]

    return edited(data, change)


def tflite_seeds() -> dict[str, bytes]:
    """.tflite files by name: ours with every operator, other people's, random networks."""
    files = {"kinds": write_tflite(every_kind(), {"classes": ["face"]}), "foreign": foreign()}
    files["classifier"] = flat_classifier([0, 3, 1, 2])
    for seed in RANDOM_GRAPHS:
        files[f"random-{seed}"] = write_tflite(random_graph(np.random.default_rng(seed), max_ops=6, max_size=9, max_channels=4))
    return files


def link_seeds() -> dict[str, bytes]:
    """Scripts of fuzz_link.c by name: what a friendly host says."""
    request, chunk, rows, poll = 4, 5, 6, 3
    ask, selftest, load, run, after = 0, 1, 2, 3, 8
    score = bytes((after, 1, 2, 0, 0, *bytes(8), 40, 0, 30, 0, 9, 0, 9, 0, 0, 0))
    truth = bytes((after, 2, 2, 0, 0, *bytes(8), 99, 0, 0, 0, 99, 0, 0, 0, *bytes(22)))
    tell = bytes((after, 3, 0, 0, 0, *bytes(4)))
    track = bytes((after, 4, 0, 0, 0, *bytes(8), 0, 64, 0, 32, 0, 32, 2, 0, 3, 0, *bytes(8)))
    found = bytes((after, 0, 2, 0, 0)) + bytes((8, 0, 8, 0, 80, 0, 80, 0, 0, 80, 0, 0)) * 2
    feed = bytes((rows, 255, 90, rows, 30, 200)) * 60
    return {
        "network": bytes((request, run, 4, 3, 8, 8)) + feed,
        "camera": bytes((request, run, 2, 3, 33, 20)) + feed,
        "questions": bytes((request, ask, request, selftest, poll, request, ask)),
        "load": bytes((request, load, 1)) + b"".join(bytes((chunk, part)) for part in range(12)) + bytes((request, selftest)),
        "after": bytes((request, run, 4, 2, 8, 8)) + feed + score + truth + tell + track + found + track,
        "again": bytes((request, run, 5, 1, 8, 8)) + feed[:18] + bytes((2, request, run, 0, 2, 20, 20)) + feed,
    }


def openmv_seeds() -> dict[str, bytes]:
    """Choices of openmv/script.py by name: without meaning, but from a few bytes a fuzzer takes long to get to many."""
    return {f"choices-{seed}": np.random.default_rng(seed).bytes(500) for seed in range(3)}


def main() -> None:
    for kind, files in (("tess", tess_seeds()), ("tflite", tflite_seeds()), ("link", link_seeds()), ("openmv", openmv_seeds())):
        folder = CORPUS / kind
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for name, content in files.items():
            (folder / f"seed-{name}.{kind}").write_bytes(content)
        print(f"{folder}: {len(files)} seeds, {sum(map(len, files.values()))} B")


if __name__ == "__main__":
    main()
