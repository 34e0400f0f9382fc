"""Fetch a large file over a bad line, check it, unpack it safely. Standard library only."""

import hashlib
import http.client
import os
import re
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from datasets.config import DataError

_CHUNK = 1 << 20
_BROKEN = (TimeoutError, ConnectionError, http.client.HTTPException, urllib.error.URLError)


class _Interrupted(Exception):
    """The line broke; what has arrived is kept."""


def download(
    url: str,
    path: Path,
    checksum: str | None = None,
    attempts: int = 6,
    wait: float = 2.0,
    progress: Callable[[int, int | None], None] | None = None,
) -> str:
    """Fetch `url` into `path`, going on where an earlier try stopped; returns the file's SHA-256.

    Args:
        checksum: "md5:...", "sha1:..." or "sha256:..."; None where none is published (nothing is checked but the size).
        attempts: how often in a row the line may break without a byte arriving.
        wait: seconds before the second attempt; doubles.

    Raises:
        DataError: not reachable, refused, wrong checksum (the file is removed), disk full.
    """
    if path.is_file():
        return verify(path, checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    failures = 0
    while True:
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            _fetch(url, partial, progress)
            break
        except _Interrupted as error:
            arrived = partial.stat().st_size if partial.is_file() else 0
            failures = 0 if arrived > before else failures + 1
            if failures >= attempts:
                raise DataError(f"{url}: {error}; {arrived:,} bytes are kept, run the command again to go on") from None
            time.sleep(min(wait * 2 ** min(failures, 5), 60))
    try:
        digest = verify(partial, checksum)
    except DataError:
        _clear(partial)
        raise
    os.replace(partial, path)
    _clear(partial)
    return digest


def verify(path: Path, checksum: str | None) -> str:
    """SHA-256 of a file after comparing its published checksum; written to `<file>.sha256` where none is published.

    Raises:
        DataError: the checksum differs.
    """
    kind, _, expected = (checksum or "sha256:").partition(":")
    published, sha256 = hashlib.new(kind, usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            published.update(chunk)
            sha256.update(chunk)
    if expected and published.hexdigest() != expected.lower():
        raise DataError(
            f"{path}: {kind} is {published.hexdigest()}, should be {expected}: the file is damaged or not the "
            "published one; remove it and fetch it again"
        )
    return sha256.hexdigest()


def _fetch(url: str, partial: Path, progress: Callable[[int, int | None], None] | None) -> None:
    have = partial.stat().st_size if partial.is_file() else 0
    tag_path = partial.with_name(partial.name + ".etag")
    headers = {"User-Agent": "tessera-datasets", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag_path.is_file():  # another version on the server: it sends the whole file instead of a wrong rest
            headers["If-Range"] = tag_path.read_text()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
            start, total = _place(response, have)
            tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            if tag and not tag.startswith("W/"):
                tag_path.write_text(tag)
            elif start == 0:
                tag_path.unlink(missing_ok=True)
            _require_space(partial, None if total is None else total - start)
            with partial.open("r+b" if start else "wb") as file:
                file.truncate(start)
                file.seek(start)
                _copy(response, file, start, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # asked for what lies behind the end
            if _total(error.headers.get("Content-Range")) == have:
                return
            _clear(partial)
            raise _Interrupted("the server's file is shorter than what had arrived; beginning anew") from None
        if error.code in (408, 429, 500, 502, 503, 504):
            raise _Interrupted(f"server answers {error.code} {error.reason}") from None
        raise DataError(f"{url}: server answers {error.code} {error.reason}") from None
    except _BROKEN as error:
        raise _Interrupted(str(getattr(error, "reason", error)) or type(error).__name__) from None


def _place(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """(first byte that will come, size of the whole file where the server tells it)."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length else None
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range") or "")
    if not match or int(match[1]) > have:
        raise _Interrupted("the server sent another part than asked for")
    return int(match[1]), _total(response.headers.get("Content-Range"))


def _total(content_range: str | None) -> int | None:
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match[1]) if match else None


def _copy(
    response: IO[bytes],
    file: IO[bytes],
    done: int,
    total: int | None,
    progress: Callable[[int, int | None], None] | None,
) -> None:
    while chunk := response.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    if total is not None and done < total:
        raise _Interrupted(f"the line broke after {done:,} of {total:,} bytes")
    if total is not None and done > total:
        raise _Interrupted(f"the server sent {done:,} bytes instead of {total:,}")


def _require_space(path: Path, needed: int | None) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed is not None and needed > free:
        raise DataError(f"{path.parent}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")


def _clear(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    partial.with_name(partial.name + ".etag").unlink(missing_ok=True)


def extract(archive: Path, folder: Path) -> int:
    """Unpack a .tar or .zip; returns the number of files. Files of the right size that are there already are kept.

    Raises:
        DataError: no archive, damaged, too large for the disk, or a member that leads out of the folder or is a link.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as pack:
                members = [(info.filename, info.file_size) for info in pack.infolist() if not info.is_dir()]
                if any(stat.S_ISLNK(info.external_attr >> 16) for info in pack.infolist()):
                    raise DataError(f"{archive}: holds a symbolic link; nothing was unpacked")
                return _unpack(archive, folder, members, lambda name: pack.open(name))
        with tarfile.open(archive) as pack:
            infos = {info.name: info for info in _plain(archive, pack)}
            members = [(name, info.size) for name, info in infos.items()]
            return _unpack(archive, folder, members, lambda name: pack.extractfile(infos[name]))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{archive}: damaged archive: {error}; remove it and fetch it again") from None


def _plain(archive: Path, pack: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for info in pack:
        if info.isfile():
            yield info
        elif not info.isdir():
            raise DataError(f"{archive}: member {info.name} is neither file nor folder; nothing was unpacked")


def _unpack(archive: Path, folder: Path, members: list[tuple[str, int]], open_member: Callable[[str], IO[bytes] | None]) -> int:
    root = folder.resolve()
    targets = []
    for name, size in members:
        target = (root / name).resolve()
        if root not in target.parents or "\\" in name or name.startswith("/"):
            raise DataError(f"{archive}: member '{name}' leads out of {folder}; nothing was unpacked")
        targets.append((name, size, target))
    folder.mkdir(parents=True, exist_ok=True)
    todo = [item for item in targets if not (item[2].is_file() and item[2].stat().st_size == item[1])]
    _require_space(root / "x", sum(size for _, size, _ in todo))
    for name, _, target in todo:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        try:
            with open_member(name) as source, partial.open("wb") as file:  # type: ignore[union-attr]
                shutil.copyfileobj(source, file, _CHUNK)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    return len(targets)
