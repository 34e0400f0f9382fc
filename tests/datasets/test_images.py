"""Pictures are decoded by content; sizes come from headers or from the table of originals."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.config import DataError
from datasets.images import OriginalSizes, decode_image, image_size, read_original_sizes, verify_image

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.mark.parametrize("style", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_names_do_not_matter(tmp_path: Path, style: str, mode: str) -> None:
    path = tmp_path / "x.jpg"
    options = {"lossless": True} if style == "WEBP" else {}
    Image.fromarray(PIXELS).convert(mode).save(path, style, **options)
    image = decode_image(path)
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8
    assert image_size(path) == verify_image(path) == (30, 20)
    if style in ("PNG", "WEBP") and mode == "RGB":
        assert (image == PIXELS).all()


def test_exif_rotation_counts_only_where_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", exif=exif)
    assert decode_image(tmp_path / "x.jpg").shape == (20, 30, 3) and image_size(tmp_path / "x.jpg") == (30, 20)
    assert decode_image(tmp_path / "x.jpg", exif=True).shape == (30, 20, 3)
    assert image_size(tmp_path / "x.jpg", exif=True) == (20, 30)


def test_truncated_pictures_are_found_by_verify(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"x\.jpg: broken picture: .*truncated"):
        verify_image(path)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBPVP8 ", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_broken_headers_never_crash(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for read in (decode_image, image_size, verify_image):
        with pytest.raises(DataError, match=r"x\.jpg: broken picture"):
            read(path)
        with pytest.raises(DataError, match="picture is missing"):
            read(tmp_path / "none.jpg")


def test_original_sizes_are_found_in_folders_above(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "a" / "b").mkdir(parents=True)
    (tmp_path / "original_sizes.csv").write_text("image,width,height\nset/a/b/x.jpg,1,1\n")  # above the root: unseen
    (root / "original_sizes.csv").write_text("image,width,height\na/b/x.jpg,10,20\na/b/y.jpg,11,21\n")
    (root / "a" / "original_sizes.csv").write_text("image,width,height\nb/x.jpg,30,40\n")
    sizes = OriginalSizes(root)
    assert sizes.lookup(root / "a/b/x.jpg") == (30, 40)  # the nearest wins
    assert sizes.lookup(root / "a/b/y.jpg") == (11, 21)
    assert sizes.lookup(root / "a/b/z.jpg") is None and sizes.lookup(tmp_path / "q.jpg") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,w,h\n", r"sizes\.csv:1: expected the header"),
        ("", r"sizes\.csv:1: expected the header"),
        ("image,width,height\nx,1\n", r"sizes\.csv:2: expected image,width,height, found x,1"),
        ("image,width,height\nx,1,0\n", r"sizes\.csv:2: expected"),
        ("image,width,height\nx,1,2\nx,2,2\n", r"sizes\.csv:3: x stands twice with different sizes"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "original_sizes.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_original_sizes(path)
