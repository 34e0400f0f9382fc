"""Downloads against a local server that breaks lines, lies and resumes; archives that try to escape."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets import download as door
from datasets.config import DataError
from datasets.download import Archive, fetch_set
from datasets.transfer import download, extract

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes


@dataclass
class Server:
    """A file server with Range support whose faults a test chooses."""

    files: dict[str, bytes] = field(default_factory=lambda: {"/a.bin": CONTENT})
    breaks: int = 0  # the first answers stop in the middle
    ranges: bool = True
    status: int = 0  # answer everything with this
    etag: str = '"v1"'
    requests: list[str | None] = field(default_factory=list)  # Range of each
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append(asked)
            data = state.files.get(self.path)
            if state.status or data is None:
                self.send_error(state.status or 404)
                return
            start = 0
            if asked and state.ranges and self.headers.get("If-Range", state.etag) == state.etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            body = data[start:]
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", state.etag)
            self.end_headers()
            if state.breaks:
                state.breaks -= 1
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()


def fetch(server: Server, path: Path, checksum: str | None = None, attempts: int = 3) -> str:
    return download(f"{server.url}/a.bin", path, checksum, attempts, wait=0.01)


def test_download_checks_and_keeps(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.bin"
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch(server, path, f"md5:{md5}") == hashlib.sha256(CONTENT).hexdigest()
    assert path.read_bytes() == CONTENT and [p.name for p in path.parent.iterdir()] == ["a.bin"]
    fetch(server, path, f"md5:{md5}")
    assert len(server.requests) == 1  # the second call found the file


def test_broken_lines_are_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.breaks = 3
    fetch(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.requests[0] is None and all(r and r.startswith("bytes=") for r in server.requests[1:])
    assert len(server.requests) == 4


def test_servers_without_ranges_send_everything_again(server: Server, tmp_path: Path) -> None:
    server.breaks, server.ranges = 1, False
    fetch(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_changed_file_is_not_mixed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.partial").write_bytes(b"old" * 1000)
    (tmp_path / "a.bin.partial.etag").write_text('"v0"')
    fetch(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("have", [CONTENT, CONTENT + b"more"])
def test_everything_had_arrived_already(server: Server, tmp_path: Path, have: bytes) -> None:
    (tmp_path / "a.bin.partial").write_bytes(have)
    fetch(server, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_wrong_checksums_leave_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"md5 is [0-9a-f]{32}, should be 0123"):
        fetch(server, tmp_path / "a.bin", "md5:0123")
    assert list(tmp_path.iterdir()) == []


def test_giving_up_keeps_what_arrived(server: Server, tmp_path: Path) -> None:
    server.status = 503
    (tmp_path / "a.bin.partial").write_bytes(CONTENT[:10])
    with pytest.raises(DataError, match="server answers 503 .*; 10 bytes are kept, run the command again"):
        fetch(server, tmp_path / "a.bin")
    assert len(server.requests) == 3
    server.status = 404
    with pytest.raises(DataError, match="server answers 404"):
        fetch(server, tmp_path / "a.bin")
    assert len(server.requests) == 4
    with pytest.raises(DataError, match="refused"):
        download("http://127.0.0.1:9/a.bin", tmp_path / "b.bin", attempts=2, wait=0.01)


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as pack:
        for name, data in members.items():
            pack.writestr(name, data)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as pack:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            pack.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            pack.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [zip_of, tar_of])
def test_extract_and_extract_again(tmp_path: Path, pack) -> None:
    archive = tmp_path / "a.pack"
    archive.write_bytes(pack({"d/x.txt": b"x", "y.txt": b"yy"}))
    assert extract(archive, tmp_path / "out") == 2
    (tmp_path / "out/d/x.txt").unlink()
    (tmp_path / "out/y.txt").write_bytes(b"YY")  # of the right size: kept
    assert extract(archive, tmp_path / "out") == 2
    assert (tmp_path / "out/d/x.txt").read_bytes() == b"x" and (tmp_path / "out/y.txt").read_bytes() == b"YY"


@pytest.mark.parametrize("pack", [zip_of, tar_of])
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil-absolute", "a/../../evil", "a\\..\\evil"])
def test_members_that_lead_out_are_refused(tmp_path: Path, pack, name: str) -> None:
    archive = tmp_path / "a.pack"
    archive.write_bytes(pack({"good": b"1", name: b"2"}))
    with pytest.raises(DataError, match="leads out of"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil").exists()


def test_links_and_damage_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of({"good": b"1"}, link="/etc"))
    with pytest.raises(DataError, match="neither file nor folder"):
        extract(archive, tmp_path / "out")
    for damaged in (b"nothing like it", tar_of({"x": b"1" * 5000})[:2000], zip_of({"x": b"1" * 5000})[:2000]):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged archive"):
            extract(archive, tmp_path / "out")


def test_a_known_set_from_a_mirror(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = zip_of({"V/one.txt": b"1"}), tar_of({"V/two.txt": b"2"})
    server.files = {"/one.zip": first, "/two.tar": second}
    archives = (
        Archive("one.zip", "http://nowhere.invalid/one.zip", f"md5:{hashlib.md5(first).hexdigest()}", "sub"),
        Archive("two.tar", None, None, "sub", "http://nowhere.invalid/page"),
    )
    monkeypatch.setitem(door.KNOWN, "toy", archives)
    assert fetch_set("toy", tmp_path, server.url, attempts=2, wait=0.01) == []
    assert (tmp_path / "sub/V/one.txt").read_bytes() == b"1" and (tmp_path / "sub/V/two.txt").read_bytes() == b"2"
    digest = hashlib.sha256(second).hexdigest()
    assert (tmp_path / "archives/two.tar.sha256").read_text() == f"{digest}  two.tar\n"
    assert f"no checksum is published; its sha256 is {digest}" in capsys.readouterr().out
    count = len(server.requests)
    assert fetch_set("toy", tmp_path, server.url) == [] and len(server.requests) == count


def test_what_only_a_browser_can_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = zip_of({"images/x": b"1"})
    page = "http://nowhere.invalid/page"
    archive = Archive("big.zip", None, f"md5:{hashlib.md5(pack).hexdigest()}", "sub", page)
    monkeypatch.setitem(door.KNOWN, "toy", (archive,))
    with pytest.raises(DataError, match=rf"big\.zip: no automatic download.*get it from {page}, put it into"):
        door.main(["toy", "--to", str(tmp_path)])
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/big.zip").write_bytes(pack)
    assert door.main(["toy", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "sub/images/x").is_file()


def test_the_table_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["--list"]) == 0
    assert "voc2007" in capsys.readouterr().out
    with pytest.raises(DataError, match="'voc' is no known data set; known: voc2007"):
        door.main(["voc"])
    for archives in door.KNOWN.values():
        for archive in archives:
            assert archive.url or archive.page
            assert archive.url is None or archive.url.endswith(archive.filename)
            kind, _, digest = (archive.checksum or "").partition(":")
            assert not archive.checksum or len(digest) == {"md5": 32, "sha1": 40, "sha256": 64}[kind]
