"""What export.py writes for an OpenMV Cam, without a camera: alignment in the ROMFS, budgets, and what to install."""

import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.annotations import GroundTruth, Sample
from detection.card import bitmap, truth_lines
from firmware.compiler.target import load_target
from firmware.openmv import micropython, package
from firmware.openmv.micropython import MicroPythonError
from firmware.openmv.package import ROMFS_ALIGN, PackageError, plan_package, romfs_image, write_package

FACES = (Path(__file__).resolve().parents[2] / "zoo" / "face_qvga" / "model.tess").read_bytes()
needs_tools = pytest.mark.skipif(
    micropython.find_tree() is None or shutil.which("arm-none-eabi-gcc") is None,
    reason=f"no MicroPython source or no cross-compiler: {micropython.GET}",
)


def read_uint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    while True:
        value, at = value << 7 | data[at] & 0x7F, at + 1
        if not data[at - 1] & 0x80:
            return value, at


def files_of(image: bytes) -> dict[str, tuple[int, int]]:
    """A reader of ROMFS of our own: name -> (offset, size) of each file at the top."""
    assert image[:3] == b"\xd2\xcd\x31" and len(image) % 2 == 0
    size, at = read_uint(image, 3)
    assert at + size == len(image)
    found = {}
    while at < len(image):
        kind, at = read_uint(image, at)
        size, at = read_uint(image, at)
        if kind == 5:
            length, name_at = read_uint(image, at)
            inner, data_at = read_uint(image, name_at + length)
            data_size, data_at = read_uint(image, data_at)
            assert inner == 2
            found[image[name_at : name_at + length].decode()] = (data_at, data_size)
        at += size
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 70), st.integers(0, 400), st.text("abcdefgh.", min_size=1, max_size=20))
def test_the_model_lies_at_a_multiple_of_16_in_any_romfs(before: int, size: int, name: str) -> None:
    model = bytes([7]) * (size * 16) + b"end"
    image = romfs_image({name + "0": bytes(before), "model.tess": model}, "model.tess")
    at, length = files_of(image)["model.tess"]
    assert at % ROMFS_ALIGN == 0 and image[at : at + length] == model
    assert files_of(image)[name + "0"][1] == before


@needs_tools
def test_the_package_is_whole_and_within_the_memories(tmp_path: Path) -> None:
    target = load_target("openmv-h7")
    made = write_package(FACES, target, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files.json", "main.py", "romfs.img", "tessera.mpy"]
    module = (tmp_path / "tessera.mpy").read_bytes()
    assert module[:2] == b"M\x06" and module[2] >> 2 == 7 and module[2] & 3 == 3  # version 6.3, armv7emsp
    assert json.loads((tmp_path / "files.json").read_text()) == {
        "model.tess": [len(FACES), zlib.crc32(FACES)],
        "tessera.mpy": [len(module), zlib.crc32(module)],
    }
    assert made.romfs <= 128 * 1024 and made.module < 40_000
    assert made.work_memory < max(target.openmv.heap)
    assert f"{made.romfs:,}" in made.table() and f"{made.work_memory:,}" in made.table()
    at, size = files_of((tmp_path / "romfs.img").read_bytes())["model.tess"]
    assert at % ROMFS_ALIGN == 0 and size == len(FACES)


@needs_tools
@pytest.mark.parametrize(
    ("camera", "words"),
    [
        ({"romfs": 100_000}, "the ROMFS of 'openmv-h7' has 100,000 B"),
        ({"heap": (50_000, 50_000)}, "in one piece, the largest heap block of 'openmv-h7' has 50,000 B"),
        ({"heap": (62_000, 62_000)}, "scripts need 40,960 B"),
    ],
)
def test_a_model_too_big_for_the_camera_is_one_clear_line(camera: dict, words: str) -> None:
    target = load_target("openmv-h7")
    with pytest.raises(PackageError, match="export|train") as caught:
        plan_package(FACES, replace(target, openmv=replace(target.openmv, **camera)))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("named", [None, "/nowhere"])
def test_a_missing_source_tree_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None) -> None:
    monkeypatch.setattr(micropython, "TREE", tmp_path)
    monkeypatch.delenv("MICROPYTHON", raising=False)
    if named:
        monkeypatch.setenv("MICROPYTHON", named)
    with pytest.raises(MicroPythonError, match="MICROPYTHON" if named else "get_micropython.sh"):
        package.build_module()


@needs_tools
@pytest.mark.parametrize("program", ["arm-none-eabi-gcc", "qemu-system-arm", "make"])
def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else which(name))
    with pytest.raises(MicroPythonError, match=f"{program} is not installed: apt-get install"):
        micropython.require_tools(rehearsal=True)


@needs_tools
def test_another_version_of_native_modules_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "py").mkdir()
    (tmp_path / "py" / "dynruntime.h").touch()
    (tmp_path / "py" / "persistentcode.h").write_text("#define MPY_VERSION 6\n#define MPY_SUB_VERSION 1\n")
    monkeypatch.setenv("MICROPYTHON", str(tmp_path))
    with pytest.raises(MicroPythonError, match="6.1, cameras take 6.3"):
        micropython.require_tools()


def test_bitmaps_are_read_by_others(tmp_path: Path) -> None:
    """PIL reads what the camera will read: 16 bits a pixel, odd widths, top line first."""
    pixels = np.arange(7 * 5, dtype=np.uint16).reshape(5, 7) * 1861
    (tmp_path / "a.bmp").write_bytes(bitmap(pixels))
    read = np.asarray(Image.open(tmp_path / "a.bmp").convert("RGB")).astype(int)
    assert (read[..., 0] >> 3 == pixels >> 11).all() and (read[..., 1] >> 2 == pixels >> 5 & 63).all()
    assert (read[..., 2] >> 3 == pixels & 31).all()


def test_truth_lines_keep_sixteenths() -> None:
    truth = GroundTruth(np.float32([[1.0625, 2, 1023.5, 7.03]]), np.array([1]), np.array([True]))
    image = np.zeros((1, 1, 3), np.uint8)
    assert truth_lines("a.bmp", Sample(image, truth, "a", 1024, 768), ("x", "y")) == [
        "a.bmp,1024,768,1.0625,2,1023.5,7,y,1"
    ]
    assert truth_lines("b.bmp", Sample(image, GroundTruth.empty(), "b", 4, 3), ("x",)) == ["b.bmp,4,3"]
