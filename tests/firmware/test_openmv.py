"""tessera.mpy and main.py in MicroPython on an emulated Cortex-M7: the host's boxes to the byte, and no way to crash it."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from datasets.annotations import GroundTruth, Sample
from datasets.catalog import open_dataset
from datasets.config import load_data_config
from datasets.images import decode_image
from detection.card import make_card
from firmware.compiler.decode import to_original
from firmware.compiler.preprocess import letterbox, to_rgb565
from firmware.compiler.target import load_target
from firmware.header import read_header
from firmware.host import HostModel
from firmware.openmv import rehearsal
from firmware.openmv.package import write_package
from tests.detection import small_export
from tests.firmware.openmv_board import Camera, feed, write_tree

ROOT = Path(__file__).resolve().parents[2]
FACES = ROOT / "zoo" / "face_qvga" / "model.tess"
BOX = np.dtype([("corners", np.int16, 4), ("score", np.uint16), ("label", np.uint16)])
pytestmark = pytest.mark.skipif(
    rehearsal.built() is None,
    reason="MicroPython for the rehearsal is not built: make openmv-test builds it once (needs apt-get or MICROPYTHON)",
)


def as_bytes(boxes: np.ndarray) -> bytes:
    """int32 (n, 6) of HostModel as the records that the camera writes."""
    packed = np.zeros(len(boxes), BOX)
    packed["corners"], packed["score"], packed["label"] = boxes[:, :4], boxes[:, 4], boxes[:, 5]
    return packed.tobytes()


def scenes(folder: Path, count: int) -> list:
    config = folder / "data.yaml"
    config.write_text(
        f"format: scenes\nscenes: {{count_train: 1, count_val: {count}, width: 60, height: 40, "
        f"classes: [{', '.join(small_export.CLASSES)}]}}\n"
    )
    whole = open_dataset(load_data_config(config), "val")
    return [whole[i] for i in range(count)]


def photographs(folder: Path) -> list[np.ndarray]:
    """Two frames of a QVGA camera, uint16 RGB565: real faces where the photographs are, generated scenes elsewhere."""
    faces = sorted((ROOT.parent / "shared" / "data" / "wider_face" / "WIDER_val").rglob("*_Parade_*.jpg"))[:2]
    images = [decode_image(path) for path in faces] or [
        np.kron(scene.image, np.ones((4, 4, 1), np.uint8)) for scene in scenes(folder, 2)
    ]
    return [to_rgb565(letterbox(image, 240, 320)) for image in images]


def with_some_found(model: HostModel, scene: Sample) -> Sample:
    """The scene with truth near some of what an untrained model finds in it, so that there is something to count."""
    pixels = to_rgb565(letterbox(scene.image, 32, 48))
    found = to_original(model.detect(rgb565_le(pixels), "rgb565_le"), model.content, (scene.width, scene.height))
    picked = slice(0, None, 3)
    ignore = np.arange(len(found.labels)) % 4 == 3
    truth = GroundTruth(found.boxes[picked] + np.float32([0, 0, 1, 0.5]), found.labels[picked], ignore[picked])
    return scene._replace(truth=GroundTruth(*map(np.concatenate, zip(truth, scene.truth, strict=True))))


def rgb565_le(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype("<u2").view(np.uint8).reshape(*pixels.shape, 2)


class World:
    """The camera and what lies in its memories."""

    def __init__(self, work: Path) -> None:
        self.small = small_export.build()
        target = load_target("openmv-h7")
        self.frames = photographs(work)
        self.host, self.faces = HostModel(self.small.tess), HostModel(FACES.read_bytes())
        folder = work / "face"
        folder.mkdir()
        write_package(FACES.read_bytes(), target, folder)
        self.samples = [with_some_found(self.host, scene) for scene in scenes(work, 5)]
        self.card = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.rom = self.card.pop("romfs.img")
        small = work / "small"
        small.mkdir()
        write_package(self.small.tess, target, small)
        (small / "model.tess").write_bytes(self.small.tess)
        self.expected = make_card(small / "model.tess", self.samples, small / "pictures")
        self.small_card = {str(p.relative_to(small)): p.read_bytes() for p in small.rglob("*") if p.is_file()}
        self.small_card.pop("romfs.img")
        places = {
            "rom": self.rom, "rom_small": (small / "romfs.img").read_bytes(), "feed": feed(self.frames),
            "feed_low_first": feed(self.frames, "<u2"),
            "card": write_tree(self.card),
            "card_small": write_tree(self.small_card), "card_cut": write_tree(self.cut_card()),
            "card_big": write_tree(self.small_card | {"pictures/00002.bmp": self.small_card["pictures/00002.bmp"][:900]}),
        }  # fmt: skip
        self.camera = Camera(places, work)

    def cut_card(self) -> dict[str, bytes]:
        return self.card | {"tessera.mpy": self.card["tessera.mpy"][:20000]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("openmv"))
    yield made
    made.camera.board.close()


@pytest.mark.parametrize(("firmware", "frames"), [(5, "feed"), (4, "feed_low_first")])
def test_main_gives_the_hosts_boxes_to_the_byte(world: World, firmware: int, frames: str) -> None:
    """The exported ROMFS and card, the committed face model, whole main.py: boxes, drawing, log on USB and card."""
    camera = world.camera
    camera.start("card", feed=frames, firmware=firmware)
    lines = camera.main("main.EVALUATE = None\nmain.THRESHOLD = 0.1")
    records = [json.loads(line) for line in lines]
    assert [record["picture"] for record in records] == [1, 2]
    assert camera.run("print(open('tessera.jsonl').read(), end='')").splitlines() == lines
    rectangles = []
    for record, frame in zip(records, world.frames, strict=True):
        boxes = world.faces.detect(frame.astype(">u2").view(np.uint8).reshape(240, 320, 2), "rgb565_be")
        shown = boxes[boxes[:, 4] >= 0.1 * 32768][:100]
        assert [found[2:] for found in record["found"]] == (shown[:, :4] // 16).tolist()
        assert [round(found[1] * 32768) for found in record["found"]] == pytest.approx(shown[:, 4].tolist(), abs=2)
        rectangles += [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (shown[:, :4] // 16).tolist()]
    assert rectangles
    drawn = json.loads(camera.run("import json, image\nprint(json.dumps([d for d in image.drawn if len(d) == 4]))"))
    assert drawn == rectangles


@pytest.mark.parametrize(("layout", "order"), [("RGB565_BE", ">u2"), ("RGB565_LE", "<u2")])
def test_raw_boxes_equal_the_hosts_bytes_without_allocation(world: World, layout: str, order: str) -> None:
    """The frame is read where it lies (the guest's heap has no room for it) and detecting leaves the heap as it was."""
    camera = world.camera
    camera.start("card")
    at, size = camera.board.files_at["feed"]
    offset = feed(world.frames).index(world.frames[0].astype(">u2").tobytes())
    printed = camera.run(
        "import tessera, gc, uctypes, binascii\n"
        "detector = main.open_detector(tessera, '/rom/model.tess')\nboxes = bytearray(12 * 300)\n"
        f"frame = uctypes.bytearray_at({at + offset}, 153600)\n"
        + ("" if layout.endswith("BE") else "for i in range(0, 153600, 2): frame[i], frame[i + 1] = frame[i + 1], frame[i]\n")
        + f"n = detector.detect(frame, 320, 240, tessera.{layout}, boxes)\n"
        "gc.collect()\nbefore = gc.mem_alloc()\ngc.disable()\n"
        f"n = detector.detect(frame, 320, 240, tessera.{layout}, boxes)\n"
        "print(gc.mem_alloc() - before < 64, detector.content(), type(main.load_model('/rom/model.tess')).__name__)\n"
        "print(binascii.hexlify(boxes[:12 * n]).decode())\n"
        + ("" if layout.endswith("BE") else "for i in range(0, 153600, 2): frame[i], frame[i + 1] = frame[i + 1], frame[i]\n")
    ).splitlines()
    pixels = world.frames[0].astype(order).view(np.uint8).reshape(240, 320, 2)
    expected = world.faces.detect(pixels, layout.lower())
    assert printed[0] == "True (320, 240) memoryview"
    assert bytes.fromhex(printed[1]) == as_bytes(expected)
    assert len(expected) > 5


def test_evaluation_on_the_card_is_the_hosts_to_the_bit(world: World) -> None:
    """Pictures read line by line from FAT, truth from CSV: the same boxes, the same average precision in 1/2^30."""
    camera = world.camera
    camera.start("card_small")
    lines = camera.main("def no_camera(*_):\n    raise KeyboardInterrupt\nmain.watch = no_camera\nmain.ROM = '/nothing/'")
    *pictures, result = [json.loads(line) for line in lines]
    assert result["ap50_q30"] == world.expected.mean
    assert 0 < world.expected.mean < 2**30
    assert result["by_class_q30"] == world.expected.by_class
    assert result["equals_host"] is True and result["pictures"] == 5
    for record, sample in zip(pictures, world.samples, strict=True):
        pixels = to_rgb565(letterbox(sample.image, 32, 48))
        boxes = world.host.detect(rgb565_le(pixels), "rgb565_le")
        assert (record["boxes"], record["crc32"]) == (len(boxes), zlib.crc32(as_bytes(boxes)))


PRELUDE = """
import tessera
data = main.load_model('/rom/model.tess')
def flipped(at):
    made = bytearray(data)
    made[at] ^= 1
    return bytes(made)
arena = bytearray(tessera.needed(data))
detector = tessera.Detector(data, arena)
frame, boxes = bytes(32 * 48 * 2), bytearray(240)
ap = tessera.AveragePrecision(detector, bytearray(detector.ap_needed(4)))
from array import array
truth = array('i', [0, 0, 160, 160, 0, 0] * 4)
LE = tessera.RGB565_LE
class Odd:
    def __int__(self):
        arena.extend(bytes(20000))
        return 48
"""
WRONG = [  # expression, exception, word of its message
    ("tessera.Detector()", "TypeError", "argument"),
    ("tessera.Detector(data)", "TypeError", "argument"),
    ("tessera.Detector(5, arena)", "TypeError", "buffer"),
    ("tessera.Detector(data, 5)", "TypeError", "buffer"),
    ("tessera.Detector(data, bytes(len(arena)))", "TypeError", "buffer"),
    ("tessera.Detector(bytearray(data), arena)", "TypeError", "read-only"),
    ("tessera.Detector(data[1:], arena)", "ValueError", "multiple of 4"),
    ("tessera.Detector(data, memoryview(arena)[:-1])", "ValueError", "too small"),
    ("tessera.Detector(b'', arena)", "ValueError", ""),
    ("tessera.Detector(b'TESS', arena)", "ValueError", "not a model.tess"),
    ("tessera.Detector(data[:-16], arena)", "ValueError", "cut off"),
    ("tessera.Detector(flipped(400), arena)", "ValueError", "damaged"),
    ("tessera.needed(None)", "TypeError", "buffer"),
    ("detector.detect()", "TypeError", "argument"),
    ("detector.detect(frame, 48, 32, LE)", "TypeError", "argument"),
    ("detector.detect(frame, '48', 32, LE, boxes)", "TypeError", "int"),
    ("detector.detect(frame, 0, 32, LE, boxes)", "ValueError", "width"),
    ("detector.detect(frame, 48, -1, LE, boxes)", "ValueError", "height"),
    ("detector.detect(frame, 65536, 32, LE, boxes)", "ValueError", "width"),
    ("detector.detect(frame, 48, 31, LE, boxes)", "ValueError", "expected"),
    ("detector.detect(frame, 48, 32, 3, boxes)", "ValueError", "expected"),
    ("detector.detect(frame, 48, 32, 4, boxes)", "ValueError", "format"),
    ("detector.detect(frame, 48, 32, -1, boxes)", "ValueError", "format"),
    ("detector.detect(frame, 48, 32, LE, bytearray(11))", "ValueError", "too small"),
    ("detector.detect(frame, 48, 32, LE, bytes(240))", "TypeError", "buffer"),
    ("detector.detect(frame, 48, 32, LE, memoryview(boxes)[1:])", "ValueError", "multiple"),
    ("detector.detect(None, 48, 32, LE, boxes)", "TypeError", "callable"),
    ("detector.detect(lambda y: None, 48, 32, LE, boxes)", "TypeError", "buffer"),
    ("detector.detect(lambda y: bytes(95), 48, 32, LE, boxes)", "ValueError", "too short"),
    ("detector.detect(lambda y: 1 // 0, 48, 32, LE, boxes)", "ZeroDivisionError", ""),
    ("detector.detect(lambda y: detector.selftest(), 48, 32, LE, boxes)", "RuntimeError", "at work"),
    ("type(detector).detect(ap, frame, 48, 32, LE, boxes)", "TypeError", "wrong type"),
    ("type(detector).detect(7, frame, 48, 32, LE, boxes)", "TypeError", "wrong type"),
    ("type(detector).selftest(None)", "TypeError", "wrong type"),
    ("tessera.AveragePrecision(ap, boxes)", "TypeError", "Detector"),
    ("tessera.AveragePrecision(detector, bytearray(8))", "ValueError", "too small"),
    ("ap.add(boxes, 21, truth, 1, 48, 32)", "ValueError", "too small"),
    ("ap.add(boxes, 0, truth, 5, 48, 32)", "ValueError", "too small"),
    ("ap.add(boxes, 0, array('i', [0] * 30), 5, 48, 32)", "ValueError", "too many"),
    ("ap.add(boxes, 0, array('i', [9, 0, 8, 16, 0, 0]), 1, 48, 32)", "ValueError", ""),
    ("ap.add(boxes, 0, array('i', [0, 0, 8, 16, 3, 0]), 1, 48, 32)", "ValueError", ""),
    ("ap.add(boxes, 0, array('i', [0, 0, 8, 16, -1, 0]), 1, 48, 32)", "ValueError", "label"),
    ("ap.add(boxes, 1, truth, 0, 48, 32)", "ValueError", ""),  # a box without area
    ("ap.result(3)", "ValueError", ""),
    ("ap.result(-1)", "ValueError", "label"),
    ("type(ap).mean(detector)", "TypeError", "wrong type"),
]  # fmt: skip


def test_every_wrong_argument_is_a_clear_exception_and_the_detector_lives_on(world: World) -> None:
    camera = world.camera
    camera.start("card_small", rom="rom_small")
    table = "".join(
        f"try:\n    {call}\n    print('nothing raised')\n"
        "except Exception as error:\n    print(type(error).__name__, error.args[0] if error.args else '')\n"
        for call, _, _ in WRONG
    )
    camera.run(PRELUDE)
    for (call, kind, word), line in zip(WRONG, camera.run(table).splitlines(), strict=True):
        assert line.startswith(kind) and word in line, f"{call}: {line}"
    assert camera.run("detector.selftest(); print(detector.detect(frame, 48, 32, LE, boxes) >= 0)") == "True\n"


def test_memory_that_moves_under_the_detector_is_noticed(world: World) -> None:
    camera = world.camera
    for victim in ("arena.extend(bytes(20000))", "detector.detect(frame, Odd(), 32, LE, boxes)"):
        camera.start("card_small", rom="rom_small")
        camera.run(PRELUDE)
        printed = camera.run(
            f"try:\n    {victim}\n    detector.detect(frame, 48, 32, LE, boxes)\n"
            "except RuntimeError as error:\n    print(error)\nimport gc\ngc.collect()\nprint('alive')"
        )
        assert printed == "a buffer was resized after it was handed over\nalive\n"
    camera.start("card_small", rom="rom_small")
    camera.run(PRELUDE)
    printed = camera.run(
        "def line(y):\n    if len(arena) < 20000: arena.extend(bytes(20000))\n    return frame\n"
        "for _ in range(2):\n    try:\n        detector.detect(line, 48, 32, LE, boxes)\n"
        "    except RuntimeError as error:\n        print(error)\n"
    ).splitlines()
    assert "resized" in printed[0] and "at work" in printed[1]


def test_damaged_models_never_crash_the_interpreter(world: World) -> None:
    """Bytes flipped behind a valid checksum as well: the loader refuses them, or they run and give some answer."""
    camera = world.camera
    camera.start("card_small", rom="rom_small")
    camera.run(PRELUDE)
    printed = camera.run(
        "import binascii, struct, gc\nseed, ends = 1, set()\nfor i in range(60):\n"
        "    seed = (seed * 1103515245 + 12345) & 0x7fffffff\n    at = 16 + seed % (1024 if i % 2 else len(data) - 16)\n"
        "    bad = bytearray(data)\n    bad[at] ^= 1 << (seed >> 8) % 8\n"
        "    struct.pack_into('<I', bad, 12, binascii.crc32(memoryview(bad)[16:]))\n    bad = bytes(bad)\n    gc.collect()\n"
        "    try:\n        memory = bytearray(tessera.needed(bad))\n"
        "        tessera.Detector(bad, memory).detect(frame, 48, 32, LE, boxes)\n        ends.add('ran')\n"
        "    except (ValueError, MemoryError) as error:\n        ends.add('refused')\nprint(sorted(ends))\ndetector.selftest()"
    )
    assert printed == "['ran', 'refused']\n"


def test_a_cut_file_a_missing_one_and_a_model_too_big_are_one_line(world: World) -> None:
    camera = world.camera
    camera.start("card_cut")
    size = len(world.card["tessera.mpy"])
    assert camera.main() == [f"error: tessera.mpy has 20000 bytes and should have {size}: copy it again"]
    camera.start("card_big")
    last = camera.main("main.ROM = '/nothing/'")[-1]
    assert last.startswith("error: pictures/00002.bmp is cut off in line ")
    camera.start("card_small")
    assert camera.main("main.ROM = '/nothing/'\nimport os\nos.remove('model.tess')") == [
        "error: model.tess is missing: copy it to the card"
    ]
    camera.start("card_small")
    assert camera.main()[0].endswith(f"should have {len(world.small.tess)}: write romfs.img anew (mpremote romfs deploy)")
    for name in ("files.json", "pictures/expected.json"):
        cut = f"data = open('{name}').read()\nwith open('{name}', 'w') as file: file.write(data[:20])\n"
        assert camera.main(f"main.ROM = '/nothing/'\n{cut}")[-1] == f"error: {name} is damaged: copy it again"
        camera.start("card_small")
    camera.start("card")
    hog = "hog = [bytearray(20000) for _ in range(8)]"
    needed = read_header(FACES.read_bytes()).arena + 15
    assert camera.main(hog)[0].startswith(f"error: /rom/model.tess needs {needed} bytes of work memory in one piece")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("00001.bmp,60", "pictures/truth.csv, line 1: expected name,width,height[,x1,y1,x2,y2,class,ignore]"),
        ("00001.bmp,60,40,1,2,3,x,circle,0", "pictures/truth.csv, line 1: expected name,width,height[,x1,y1,x2,y2,class,ignore]"),
        ("00001.bmp,60,40,1,2,3,4,horse,0", "00001.bmp: the model knows no 'horse', only circle, square, triangle"),
        ("files.json,60,40", "pictures/files.json is no .bmp, or cut off"),
        ("1.bmp,60,40,1,2,inf,4,circle,0", "pictures/truth.csv, line 1: expected name,width,height[,x1,y1,x2,y2,class,ignore]"),
        ("\xff\xfe,60,40", "pictures/truth.csv, line 1: expected name,width,height[,x1,y1,x2,y2,class,ignore]"),
        ("00001.bmp,60,40,9,2,3,4,circle,0", "00001.bmp: its truth: "),
    ],
)
def test_bad_truth_is_one_line(world: World, line: str, error: str) -> None:
    camera = world.camera
    camera.start("card_small")
    camera.run(
        f"for name, data in (('truth.csv', {line.encode('latin1') + bytes([10])!r}), ('files.json', b'{{}}')):\n"
        "    with open('pictures/' + name, 'wb') as file:\n        file.write(data)"
    )
    last = camera.main("main.ROM = '/nothing/'")[-1]
    assert last == f"error: {error}" or error.endswith(": ") and last.startswith(f"error: {error}")


def test_a_full_card_costs_the_log_and_not_the_program(world: World) -> None:
    camera = world.camera
    used = sum(len(data) for name, data in world.small_card.items() if name != "model.tflite")
    camera.start("card_small", size=(used + 60000) // 512 * 512)
    camera.run(
        "import os\nfiller = open('filler', 'wb')\ntry:\n    while True: filler.write(bytes(512))\nexcept OSError:\n    pass\n"
        "try:\n    filler.close()\nexcept OSError:\n    pass"
    )
    lines = camera.main("main.ROM = '/nothing/'\nmain.EVALUATE = None\nmain.THRESHOLD = 0\nmain.SAVE = 'found'")
    assert [line for line in lines if "full" in line and "tessera.jsonl" in line] == [
        "warning: tessera.jsonl: the card is full; going on without it"
    ]
    assert "warning: found: the card is full or locked; no pictures are saved" in lines
    assert [json.loads(line)["picture"] for line in lines if line.startswith("{")] == [1, 2]


def test_actions(world: World) -> None:
    """LED and pin follow what is found; pictures of it are saved, not more often than asked."""
    camera = world.camera
    camera.start("card_small")
    camera.run(
        "import sys\nclass Output:\n    OUT, log = 1, []\n    def __init__(self, name, mode=0): self.name = name\n"
        "    def on(self): Output.log.append(self.name + '+')\n    def off(self): Output.log.append(self.name + '-')\n"
        "class machine: LED, Pin = Output, Output\nsys.modules['machine'] = machine\n"
    )
    camera.main(
        "main.ROM, main.EVALUATE, main.THRESHOLD, main.SAVE_EVERY_MS = '/nothing/', None, 0, 100000\n"
        "main.LED, main.PIN, main.SAVE = 'LED_RED', 'P0', 'found'\n"
    )
    assert camera.run("print(Output.log)") == "['LED_RED+', 'P0+', 'LED_RED+', 'P0+']\n"
    assert camera.run("import os\nprint(os.listdir('found'))") == "['00000.jpg']\n"
