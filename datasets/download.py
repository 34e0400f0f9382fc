"""Fetch and unpack well-known data sets.

    python -m datasets.download --list
    python -m datasets.download voc2007 --to data

Interrupted downloads go on where they stopped. Published checksums are checked; where none is published, the SHA-256
of what arrived is printed and stored beside the archive, so that a second machine can compare. You accept the terms
of the data sets' own sites.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.cli import run
from datasets.config import DataError
from datasets.transfer import download, extract, verify

_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"
_WIDER = "http://shuoyang1213.me/WIDERFACE"


@dataclass(frozen=True)
class Archive:
    """One file of a data set. `url` None: only a browser can fetch it, from `page`."""

    filename: str
    url: str | None
    checksum: str | None  # "md5:..."; None where nobody has published one
    folder: str  # below --to, where its members go
    page: str = ""


# Checksums: VOC and WIDER FACE as in torchvision 0.29 (datasets/voc.py, widerface.py), COCO as several public loaders
# agree; for the evaluation tools of WIDER FACE none is published.
KNOWN: dict[str, tuple[Archive, ...]] = {
    "voc2007": (
        Archive(
            "VOCtrainval_06-Nov-2007.tar",
            f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
            "md5:c52e279531787c972589f7e41ab4ae64",
            ".",
        ),
        Archive(
            "VOCtest_06-Nov-2007.tar",
            f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar",
            "md5:b6e924de25625d8de591ea690078ad9f",
            ".",
        ),
    ),
    "voc2012": (
        Archive(
            "VOCtrainval_11-May-2012.tar",
            f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
            "md5:6cd6e144f989b92b3379bac3b3de84fd",
            ".",
        ),
    ),
    "coco-annotations": (
        Archive(
            "annotations_trainval2017.zip",
            f"{_COCO}/annotations/annotations_trainval2017.zip",
            "md5:f4bbac642086de4f52a3fdda2de5fa2c",
            "coco",
        ),
    ),
    "coco-val2017": (Archive("val2017.zip", f"{_COCO}/zips/val2017.zip", "md5:442b8da7639aecaf257c1dceb8ba8c80", "coco"),),
    "coco-train2017": (Archive("train2017.zip", f"{_COCO}/zips/train2017.zip", "md5:cced6f7f71b7629ddf16f17bbcfab6b2", "coco"),),
    "wider": (
        Archive(
            "wider_face_split.zip",
            f"{_WIDER}/support/bbx_annotation/wider_face_split.zip",
            "md5:0e3767bcf0e326556d407bf5bff5d27c",
            "wider_face",
        ),
        Archive("eval_tools.zip", f"{_WIDER}/support/eval_script/eval_tools.zip", None, "wider_face"),
        Archive("WIDER_train.zip", None, "md5:3fedf70df600953d25982bcd13d91ba2", "wider_face", f"{_WIDER}/"),
        Archive("WIDER_val.zip", None, "md5:dfa7d7e790efa35df3788964cf0bbaea", "wider_face", f"{_WIDER}/"),
    ),
}


def fetch_set(name: str, to: Path, base_url: str | None = None, attempts: int = 6, wait: float = 2.0) -> list[str]:
    """Fetch, check and unpack a data set into `to`; returns what remains to be done by hand, one line each.

    Args:
        base_url: a mirror that holds the archives under their file names.

    Raises:
        DataError: unknown name, or what transfer.download and transfer.extract raise.
    """
    if name not in KNOWN:
        raise DataError(f"'{name}' is no known data set; known: {', '.join(KNOWN)}")
    by_hand = []
    for archive in KNOWN[name]:
        path = to / "archives" / archive.filename
        url = archive.url if base_url is None else f"{base_url.rstrip('/')}/{archive.filename}"
        if _unpacked_mark(path).is_file():
            print(f"{archive.filename}: is unpacked already")
            continue
        if url is None and not path.is_file():
            by_hand.append(
                f"{archive.filename}: no automatic download (its host asks a browser): get it from {archive.page}, "
                f"put it into {path.parent} and run this command again"
            )
            continue
        if path.is_file():
            digest = verify(path, archive.checksum)
        else:
            digest = download(url or "", path, archive.checksum, attempts, wait, _progress(archive.filename))
        if archive.checksum is None:
            path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
            print(f"{archive.filename}: no checksum is published; its sha256 is {digest}")
        count = extract(path, to / archive.folder)
        _unpacked_mark(path).write_text(digest + "\n")
        print(f"{archive.filename}: {count} files in {to / archive.folder}")
    return by_hand


def _unpacked_mark(path: Path) -> Path:
    return path.with_name(path.name + ".unpacked")


class _progress:
    """A line on stderr that is rewritten, on a terminal only, every 16 MB."""

    def __init__(self, name: str) -> None:
        self._name, self._shown = name, 0

    def __call__(self, done: int, total: int | None) -> None:
        if sys.stderr.isatty() and (done - self._shown >= 16 << 20 or done == total):
            self._shown = done
            of = f" of {total / 1e6:.0f}" if total else ""
            print(f"\r{self._name}: {done / 1e6:.0f}{of} MB", end="\n" if done == total else "", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m datasets.download", description="Fetch well-known data sets.")
    parser.add_argument("name", nargs="?", help="one of --list")
    parser.add_argument("--to", type=Path, default=Path("data"), help="folder (default data)")
    parser.add_argument("--base-url", help="mirror that holds the archives under their file names")
    parser.add_argument("--attempts", type=int, default=6, help="tries without a byte before giving up (default 6)")
    parser.add_argument("--list", action="store_true", help="list the known data sets")
    options = parser.parse_args(arguments)
    if options.list or options.name is None:
        for name, archives in KNOWN.items():
            print(f"{name:<18}{', '.join(archive.filename for archive in archives)}")
        return 0
    by_hand = fetch_set(options.name, options.to, options.base_url, options.attempts)
    if by_hand:
        raise DataError("; ".join(by_hand))
    return 0


if __name__ == "__main__":
    run(main)
