"""The journal of an evaluation on a device: what was found in each picture, on disk before the next one begins.

    journal.jsonl   a line that says what is evaluated, then a line a picture, appended and synced

A process that is killed leaves at most a torn last line, which is dropped. Going on demands the same model, firmware,
pictures and settings; what is in the journal is not run again, so an interrupted evaluation ends with the same bytes.
"""

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from firmware.device import DetectRecord

FORMAT_VERSION = 1
_COUNTS = ("instructions", "detect_instructions", "stack", "touched", "repeats")


class JournalError(ValueError):
    """A journal that is damaged or belongs to another evaluation."""


class Journal:
    """Results by image id, in `folder`/journal.jsonl. `head` says what is evaluated; values are strings or numbers."""

    def __init__(self, folder: Path, head: Mapping[str, Any], ids: Sequence[str]) -> None:
        """Make a journal or go on with one. Raises JournalError for one of something else, or a damaged one."""
        self.folder = folder
        self.ids = tuple(ids)
        self.records: dict[str, DetectRecord] = {}
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        self.head = {"format_version": FORMAT_VERSION, **head, "images": len(ids), "image_ids_sha256": digest}
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "journal.jsonl").open("a+b")
        self._read()

    @property
    def state(self) -> str:
        """`complete`, or `partial n/N`."""
        done = sum(image in self.records for image in self.ids)
        return "complete" if done == len(self.ids) else f"partial {done}/{len(self.ids)}"

    def append(self, image_id: str, record: DetectRecord) -> None:
        """Keep a picture's result; it is on the disk when this returns."""
        self._write({"image": image_id, **_plain(record)})
        self.records[image_id] = record

    def in_order(self) -> list[tuple[str, DetectRecord]]:
        """Results in the order of the data set, as far as they are there."""
        return [(image, self.records[image]) for image in self.ids if image in self.records]

    def close(self) -> None:
        self._file.close()

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> None:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        self._file.truncate(sum(len(line) + 1 for line in lines[:-1]))  # what a killed process began to write
        for number, line in enumerate(lines[:-1]):
            try:
                content = json.loads(line)
                if number == 0:
                    self._check(content)
                else:
                    self.records[content["image"]] = _record(content)
            except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, zlib.error) as error:
                if isinstance(error, JournalError):
                    raise
                raise JournalError(f"{self._file.name}, line {number + 1} is damaged: remove it and what follows") from error
        if len(lines) == 1:
            self._write(self.head)

    def _check(self, found: Mapping[str, Any]) -> None:
        for key in [*self.head, *found]:
            if found.get(key) != self.head.get(key):
                raise JournalError(
                    f"{self.folder} holds another evaluation: {key} was {found.get(key)}, is {self.head.get(key)}; "
                    "give --resume another folder"
                )


def fresh_folder(root: Path) -> Path:
    """The first of root/eval-1, root/eval-2, ... that does not exist."""
    number = 1
    while (root / f"eval-{number}").exists():
        number += 1
    return root / f"eval-{number}"


@contextmanager
def resumable(journals: Sequence[Journal]) -> Iterator[None]:
    """Whatever ends the block too early says how far the journals are, and how to go on."""
    try:
        yield
    except (ValueError, OSError, KeyboardInterrupt) as error:
        if not journals:
            raise
        states = "; ".join(f"{journal.state} in {journal.folder}, go on with --resume {journal.folder}" for journal in journals)
        raise JournalError(f"{str(error) or 'interrupted'}; {states}") from error


def _plain(record: DetectRecord) -> dict[str, Any]:
    heads = None
    if record.heads is not None:
        heads = {name: [list(values.shape), _packed(values)] for name, values in record.heads.items()}
    profile = None if record.profile is None else [int(count) for count in record.profile]
    counts = {name: getattr(record, name) for name in _COUNTS}
    return {"boxes": record.boxes.tolist(), **counts, "profile": profile, "heads": heads}


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes())).decode()


def _record(content: Mapping[str, Any]) -> DetectRecord:
    heads = content["heads"]
    if heads is not None:
        heads = {
            name: np.frombuffer(zlib.decompress(base64.b64decode(data)), np.int8).reshape(shape)
            for name, (shape, data) in heads.items()
        }
    profile = None if content["profile"] is None else np.array(content["profile"], np.uint64)
    boxes = np.array(content["boxes"], np.int32).reshape(-1, 6)
    return DetectRecord(boxes, heads, profile=profile, **{name: content[name] for name in _COUNTS})
