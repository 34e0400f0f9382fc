"""Picture files: decoded by content, whatever the name says, and the sizes of the originals of shrunk copies."""

import csv
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from datasets.config import DataError

ORIGINAL_SIZES = "original_sizes.csv"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_ORIENTATION = 0x0112  # EXIF tag; 5..8 are quarter turns
_MAX_PIXELS = 1 << 28  # a larger header is damage or an attack, no photograph


def decode_image(path: str | Path, exif: bool = False) -> np.ndarray:
    """A picture as uint8 (h, w, 3) RGB. Grey is repeated, transparency left out.

    VOC, COCO and WIDER FACE annotate the stored pixels, so the EXIF rotation is ignored unless `exif` asks for it.

    Raises:
        DataError: the file is missing or holds no picture.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: picture is missing") from None
    except OSError as error:
        raise DataError(f"{path}: picture cannot be read: {error.strerror}") from None
    flags = cv2.IMREAD_COLOR_RGB | (0 if exif else cv2.IMREAD_IGNORE_ORIENTATION)
    image = None
    if data.size:
        try:
            image = cv2.imdecode(data, flags)
        except cv2.error:  # a header that promises more pixels than OpenCV accepts
            image = None
    return image if image is not None else _decode_with_pil(path, exif)


def _decode_with_pil(path: str | Path, exif: bool) -> np.ndarray:
    """GIF, TIFF variants and what else OpenCV was built without."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if exif and picture.getexif().get(_ORIENTATION, 1) != 1:
                    from PIL import ImageOps

                    picture = ImageOps.exif_transpose(picture)
                return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{path}: broken picture: {_reason(error, path)}") from None


def image_size(path: str | Path, exif: bool = False) -> tuple[int, int]:
    """(width, height) in pixels from the header; pixels are not decoded.

    Raises:
        DataError: the file is missing or holds no picture.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = exif and picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise DataError(f"{path}: picture is missing") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: broken picture: {_reason(error, path)}") from None
    if not 0 < width * height <= _MAX_PIXELS:
        raise DataError(f"{path}: broken picture: its header says {width} x {height} pixels")
    return (height, width) if turned else (width, height)


def verify_image(path: str | Path) -> tuple[int, int]:
    """Decode every pixel strictly (OpenCV fills a truncated JPEG with grey and says nothing); returns (width, height).

    Raises:
        DataError: missing, broken or truncated.
    """
    size = image_size(path)
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: broken picture: {_reason(error, path)}") from None
    return size


def _reason(error: BaseException, path: str | Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        size = Path(path).stat().st_size if Path(path).exists() else 0
        return "the file is empty" if size == 0 else f"its {size} bytes are no known picture format"
    return str(error) or type(error).__name__


def read_original_sizes(path: Path) -> dict[str, tuple[int, int]]:
    """`original_sizes.csv`: image (path below the CSV's folder) -> (width, height).

    Raises:
        DataError: with file and line of what is wrong.
    """
    sizes: dict[str, tuple[int, int]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows, None)
        if header is None or [cell.strip() for cell in header] != ["image", "width", "height"]:
            raise DataError(f"{path}:1: expected the header image,width,height")
        for row in rows:
            if not row:
                continue
            try:
                name, width, height = row[0], int(row[1]), int(row[2])
                if len(row) != 3 or width <= 0 or height <= 0:
                    raise ValueError
            except (ValueError, IndexError):
                raise DataError(f"{path}:{rows.line_num}: expected image,width,height, found {','.join(row)}") from None
            if sizes.setdefault(name, (width, height)) != (width, height):
                raise DataError(f"{path}:{rows.line_num}: {name} stands twice with different sizes")
    return sizes


class OriginalSizes:
    """Looks a picture up in the `original_sizes.csv` of its folder or of a folder above it, up to the data set's root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tables: dict[Path, dict[str, tuple[int, int]]] = {}
        self._chains: dict[Path, tuple[tuple[str, dict[str, tuple[int, int]]], ...]] = {}

    def lookup(self, image: Path) -> tuple[int, int] | None:
        """(width, height) of the original, or None where no table knows the picture."""
        chain = self._chains.get(image.parent)
        if chain is None:
            chain = self._chains[image.parent] = self._tables_above(image.parent)
        for prefix, table in chain:
            size = table.get(prefix + image.name)
            if size is not None:
                return size
        return None

    def _tables_above(self, folder: Path) -> tuple[tuple[str, dict[str, tuple[int, int]]], ...]:
        inside = folder == self._root or self._root in folder.parents
        folders = [folder, *folder.parents]
        folders = folders[: folders.index(self._root) + 1] if inside else folders[:1]
        chain = []
        for above in folders:
            if above not in self._tables:
                file = above / ORIGINAL_SIZES
                self._tables[above] = read_original_sizes(file) if file.is_file() else {}
            if self._tables[above]:
                relative = folder.relative_to(above).as_posix()
                chain.append(("" if relative == "." else relative + "/", self._tables[above]))
        return tuple(chain)
