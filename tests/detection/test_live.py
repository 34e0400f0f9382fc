"""The live demo without a browser: sources of pictures, engine, wire, recording, who is let in, and the whole process."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession, CookieJar, WSMsgType, WSServerHandshakeError
from pydantic import ValidationError

from detection.live.app import LiveError, LiveOptions, open_live, run_live
from detection.live.engine import Engine, Settings
from detection.live.frames import FrameError, Scenes, open_frames
from detection.live.server import AHEAD
from detection.pictures import save_picture
from detection.sources import find_source
from detection.videos import VideoError, VideoReader, VideoWriter
from firmware.device import open_host
from firmware.link.device import open_board
from firmware.link.following import LinkTracker
from firmware.link.session import LinkError
from tests.detection.live_server import Live, Still, ToldDevice, session, unpack
from tests.detection.small_export import build, write_run

ROOT = Path(__file__).resolve().parents[2]
# the network sees 48 x 32; a picture of 480 x 320 is ten times that, so Q4 160 is 100 of its pixels
BOXES = [[160, 80, 480, 400, 29491, 1], [16, 16, 96, 96, 13107, 0], [400, 300, 700, 500, 3277, 2]]
PIXELS = [[100, 50, 300, 250], [10, 10, 60, 60], [250, 187.5, 437.5, 312.5]]


@pytest.fixture(scope="module")
def tess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("live") / "run", build()) / "export" / "model.tess"


@pytest.fixture
def told(tess: Path) -> ToldDevice:
    return ToldDevice(tess.read_bytes(), BOXES)


@pytest.fixture
def serve(tess: Path, told: ToldDevice, tmp_path: Path) -> Iterator[Callable[..., Live]]:
    running: list[Live] = []

    def serve(frames: Still | None = None, **options) -> Live:
        picture = np.full((320, 480, 3), (40, 90, 160), np.uint8)
        running.append(Live(tess, told, frames or Still(picture), tmp_path / "out", **options))
        return running[-1]

    yield serve
    for live in running:
        live.stop()


# ---- pictures ----


class Clock:
    """A clock that moves when somebody sleeps, or is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("detection.live.frames.time", made)
    return made


def test_a_video_plays_at_its_own_speed_and_over_again(tmp_path: Path, clock: Clock) -> None:
    with VideoWriter(tmp_path / "clip.mp4", 50) as writer:
        for number in range(12):
            writer.write(np.full((34, 62, 3), number * 20, np.uint8))
    frames = open_frames(str(tmp_path / "clip.mp4"))
    seen = []
    for took in (0.001, 0.001, 0.105, 0.001, 0.03, 0.001, 0.001, 0.001, 0.001):  # what the detector needs, seconds
        seen.append(frames.newest())
        clock.sleep(took)
    numbers = [int(frame.name.split(", ")[1]) for frame in seen]
    assert numbers == [0, 1, 2, 7, 8, 9, 10, 11, 0]
    assert all(abs(int(frame.image.mean()) - 20 * number) < 6 for frame, number in zip(seen, numbers, strict=True))
    assert round(clock.now - 1000, 3) == 0.241
    frames.close()


def test_after_a_pause_a_source_goes_on_where_it_was(clock: Clock) -> None:
    scenes = Scenes()
    first = [scenes.newest().name for _ in range(3)]
    clock.sleep(60)
    assert [*first, scenes.newest().name] == [f"scenes, {number}" for number in range(4)]


def test_every_picture_of_a_folder_has_its_turn(tmp_path: Path, clock: Clock) -> None:
    for number in range(3):
        save_picture(tmp_path / f"{number}.png", np.full((8, 8, 3), 50 * number, np.uint8))
    frames = open_frames(str(tmp_path))
    names = []
    for took in (0.1, 7.0, 2.5, 0.1, 0.1):
        names.append(frames.newest().name)
        clock.sleep(took)
    assert names == ["0.png", "1.png", "2.png", "0.png", "1.png"]


def test_sources_that_are_none(tmp_path: Path, tess: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and then nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FrameError, match="webcam 97 cannot be opened"):
        open_frames("97")
    with pytest.raises(VideoError, match="cut.mp4: not a video that can be read"):
        open_frames(str(tmp_path / "cut.mp4"))
    with pytest.raises(LiveError, match="no such picture.*--live takes a webcam's number"):
        open_live(tess, LiveOptions("nowhere"))
    with pytest.raises(LiveError, match="no pictures in this folder"):
        open_live(tess, LiveOptions(str(tmp_path / "empty")))
    with pytest.raises(LiveError, match="leave out other"):
        open_live(tess, LiveOptions("scenes", pictures="other"))
    with pytest.raises(LinkError, match="/dev/ttyNOWHERE: there is no such port"):
        open_live(tess, LiveOptions("/dev/ttyNOWHERE"))
    with pytest.raises(LiveError, match="not on 'int8'"):
        open_live(tess, LiveOptions("scenes", on="int8"))


def test_a_video_that_ends_too_early_leaves_nothing(tmp_path: Path) -> None:
    whole = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(40):
        writer.write(np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    content = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    reader = VideoReader(tmp_path / "cut.avi")
    with pytest.raises(VideoError, match=r"cut.avi: damaged, \d+ of 40 frames"), VideoWriter(tmp_path / "o.mp4", 10) as out:
        for frame in reader.frames():
            out.write(frame)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".mp4"] == []


def test_an_emulator_is_sent_scenes_or_what_is_named(tess: Path, tmp_path: Path) -> None:
    if not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")):
        pytest.skip("no emulator or no cross compiler")
    save_picture(tmp_path / "x.png", np.full((60, 80, 3), 90, np.uint8))
    frames, device = open_live(tess, LiveOptions("emulator", pictures=str(tmp_path)))
    frame = frames.newest()
    (record,) = device.detect_many([frame.image])
    (here,) = open_host(tess).detect_many([frame.image])
    assert frame.name == "x.png" and np.array_equal(record.boxes, here.boxes)
    assert record.profile.sum() <= record.instructions and device.info.profile_unit == "instructions"
    assert open_live(tess, LiveOptions("emulator:netduinoplus2"))[0].name == "scenes"


# ---- engine and wire ----


def test_a_viewer_gets_pictures_with_boxes_in_their_pixels(serve, told: ToldDevice) -> None:
    async def talk(socket) -> None:
        state = (await socket.receive_json())["state"]
        assert state["score"] == 0.3 and not state["paused"] and state["problem"] is None
        head, jpeg = unpack(await socket.receive_bytes())
        assert head["size"] == [480, 320]
        assert np.allclose([box[:4] for box in head["boxes"]], PIXELS, atol=0.01)
        assert [box[5] for box in head["boxes"]] == [1, 0, 2]
        assert [round(box[4], 2) for box in head["boxes"]] == [0.9, 0.4, 0.1]
        assert head["cost"] == 12_300_000
        assert sum(head["costs"]) == 1_000_000 * sum(range(told.header.n_nodes))
        assert len(head["costs"]) == told.header.n_segments
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (320, 480, 3) and np.abs(image.mean(axis=(0, 1)) - (160, 90, 40)).max() < 4

    live = serve()
    live.run(session(live.url, talk))


def test_slow_and_silent_viewers_hold_nobody_up_and_get_the_newest(serve) -> None:
    live = serve()
    frames = live.studio.engine.frames

    async def silent(socket) -> list[int]:
        """Says nothing while forty pictures are made: what it was sent meanwhile, and what comes after its first word."""
        await socket.receive_json()
        until = frames.count + 40
        while frames.count < until:
            await asyncio.sleep(0.02)
        numbers = [unpack(await socket.receive_bytes())[0]["frame"] for _ in range(AHEAD)]
        with pytest.raises(TimeoutError):
            await socket.receive(0.1)
        await socket.send_str('{"seen": 1}')
        return [*numbers, unpack(await socket.receive_bytes())[0]["frame"]]

    async def many() -> list[list[int]]:
        return await asyncio.gather(*(session(live.url, silent) for _ in range(3)))

    for numbers in live.run(many()):
        assert numbers[-1] > numbers[-2] + 30, "the newest picture, not the next one"
    assert not live.run(_viewers_left(live)), "closed tabs are forgotten"


async def _viewers_left(live: Live) -> int:
    for _ in range(40):
        if not live.studio.viewers:
            break
        await asyncio.sleep(0.05)
    return len(live.studio.viewers)


def test_settings_reach_everybody_and_nonsense_closes_the_line(serve) -> None:
    live = serve()

    async def talk(first) -> None:
        async def second(socket) -> None:
            await socket.receive_json()
            await first.send_str(json.dumps({"set": {"score": 0.55, "hidden": [2], "tracking": True, "line": [0, 0.5, 1, 0.5]}}))
            while (message := await socket.receive()).type is not WSMsgType.TEXT:
                pass
            state = json.loads(message.data)["state"]
            assert state["score"] == 0.55 and state["hidden"] == [2] and state["line"] == [0, 0.5, 1, 0.5]

        await session(live.url, second)
        for wrong in ('{"set": {"score": 2}}', '{"set": {"colour": 1}}', "[]", "no json", '{"set": 7}'):

            async def third(socket, wrong=wrong) -> int:
                await socket.send_str(wrong)
                while (message := await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED):
                    pass
                return message.data

            assert await session(live.url, third) == 1008

    live.run(session(live.url, talk))
    assert live.studio.settings.score == 0.55


def test_settings_know_their_limits() -> None:
    with pytest.raises(ValidationError, match="two ends"):
        Settings(line=(0.5, 0.5, 0.5, 0.5))
    with pytest.raises(ValidationError):
        Settings(line=(0, 0, 0, 1.5))


def test_pause_holds_the_engine(serve) -> None:
    frames = Still(np.zeros((32, 48, 3), np.uint8))
    live = serve(frames)
    live.studio.engine.settings = Settings(paused=True)
    time.sleep(0.2)
    held = frames.count
    time.sleep(0.2)
    assert frames.count == held
    live.studio.engine.settings = Settings()
    time.sleep(0.2)
    assert frames.count > held


def test_trouble_is_shown_and_passes(serve, told: ToldDevice, monkeypatch) -> None:
    monkeypatch.setattr("detection.live.engine.AGAIN", (0.05,))
    live = serve()

    async def talk(socket) -> list[str | None]:
        problems = []
        told.fails = True
        while len(problems) < 3 or problems[-1] is not None:
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                problems.append(json.loads(message.data)["state"]["problem"])
                told.fails = len(problems) < 3
            else:
                await socket.send_str('{"seen": 1}')
        return problems

    problems = live.run(session(live.url, talk))
    assert problems[0] is None and problems[1] == "the board is unplugged" and problems[-1] is None


def test_objects_are_followed_and_counted(serve, told: ToldDevice) -> None:
    """A box that walks down over a line across the picture; weak sights keep its id, hidden classes are not followed."""
    frames = Still(np.zeros((320, 480, 3), np.uint8), stepped=True)
    live = serve(frames)
    live.studio.engine.settings = Settings(score=0.5, tracking=True, hidden=frozenset({2}), line=(0, 0.5, 1, 0.5))
    rows = []
    for step in range(14):
        score = 10000 if step == 9 else 29000
        told.boxes = [[160, 20 * step, 320, 20 * step + 120, score, 1], [400, 300, 700, 500, 30000, 2]]
        frames.step()
        while live.studio.newest is None or live.studio.newest.number <= step:
            time.sleep(0.002)
        shot = live.studio.newest
        rows.append((int(shot.ids[0]), *shot.crossed, shot.objects, int(shot.shown(live.studio.settings).sum())))
        assert shot.ids[1] == 0
    crossing = next(step for step in range(14) if (20 * step + 60) >= 256)
    assert rows[0] == (0, 0, 0, 0, 1)
    assert rows[1:crossing] == [(1, 0, 0, 1, 1)] * (crossing - 1)
    assert rows[crossing:] == [(1, 1, 0, 1, 1)] * (14 - crossing)


def test_a_board_follows_as_this_machine_does(tess: Path) -> None:
    """One engine on the link, where the device follows, one on the host; a hidden class, a line, other settings on the way."""
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for _ in range(3)]
    shots: dict[str, list] = {}
    with closing(open_board(tess, "host")) as board:
        assert isinstance(board.tracker(), LinkTracker)
        for name, device in (("board", board), ("host", open_host(tess)), ("board, tracked here", board)):
            engine = Engine(device, Still(pictures[0], 0), lambda shot: None, lambda problem: None, Settings(), "here" in name)
            told = shots.setdefault(name, [])
            for step in range(12):
                engine.frames.image = pictures[step // 5]
                hidden = frozenset({1}) if 3 < step < 9 else frozenset()
                engine.settings = Settings(score=0.1, tracking=True, hidden=hidden, line=(0.5, step // 8 * 0.1, 0.5, 1))
                shot = engine._step()
                told.append((shot.ids.tolist(), shot.objects, shot.crossed))
            assert isinstance(engine._tracker, LinkTracker) == (name == "board")
    assert shots["board"] == shots["host"] == shots["board, tracked here"]
    assert shots["host"][-1][1] > 1


# ---- the disk ----


def test_recording_and_snapshot(serve, tmp_path: Path) -> None:
    live = serve()

    async def talk(socket) -> bytes:
        await socket.send_str('{"record": true}')
        head: dict = {}
        while head.get("recorded", 0) < 3:
            message = await socket.receive()
            if message.type is WSMsgType.BINARY:
                head = unpack(message.data)[0]
                await socket.send_str('{"seen": 1}')
        await socket.send_str('{"record": false}')
        async with ClientSession() as client, client.get(f"{live.url}/snapshot.jpg") as answer:
            assert "attachment" in answer.headers["Content-Disposition"]
            return await answer.read()

    content = live.run(session(live.url, talk))
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.abs(image[150, 200].astype(int) - (40, 90, 160)).max() < 12
    assert np.abs(image[150, 98:103].astype(int) - (40, 90, 160)).max() > 35, "the left side of the first box"
    assert next((tmp_path / "out").glob("snapshot-*.jpg")).read_bytes() == content

    folder = next((tmp_path / "out").glob("recording-*"))
    first, *lines = (json.loads(line) for line in (folder / "recording.jsonl").read_text().splitlines())
    assert first["model"] and len(first["sha256"]) == 64 and [c["name"] for c in first["classes"]][0] == "circle"
    assert len(lines) >= 3
    for line in lines:
        assert [box["xyxy"] for box in line["boxes"]] == PIXELS[:2], "the third is below the score"
        assert cv2.imread(str(folder / line["picture"])).shape == (320, 480, 3)


def test_a_disk_that_is_full_ends_the_recording_only(serve, monkeypatch) -> None:
    live = serve()

    def full(self, shot, settings) -> None:
        raise OSError(28, "No space left on device", "x.jpg")

    monkeypatch.setattr("detection.live.record.Recorder.take", full)

    async def talk(socket) -> dict:
        await socket.send_str('{"record": true}')
        state: dict = {}
        while not state.get("problem"):
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                state = json.loads(message.data)["state"]
            else:
                await socket.send_str('{"seen": 1}')
        return state

    state = live.run(session(live.url, talk))
    assert state["recording"] is None and "recording stopped" in state["problem"] and "No space left" in state["problem"]
    number = live.studio.newest.number
    time.sleep(0.2)
    assert live.studio.newest.number > number


# ---- who is let in ----


def test_other_pages_and_other_names_are_turned_away(serve) -> None:
    live = serve()

    async def ask() -> list[int]:
        async with ClientSession() as client:
            codes = []
            for path, headers in (
                ("/", {}), ("/", {"Host": f"evil.example:{live.port}"}), ("/about.json", {"Origin": "http://evil.example"}),
                ("/../demo.py", {}), ("/page/live.js", {}),
            ):  # fmt: skip
                async with client.get(live.url + path, headers=headers) as answer:
                    codes.append(answer.status)
            try:
                async with client.ws_connect(f"{live.url}/live", headers={"Origin": "http://evil.example"}):
                    codes.append(101)
            except WSServerHandshakeError as error:
                codes.append(error.status)
            return codes

    assert live.run(ask()) == [200, 403, 403, 404, 404, 403]


def _stranger() -> ClientSession:
    return ClientSession(cookie_jar=CookieJar(unsafe=True))  # keeps cookies of addresses without a name


def test_with_a_token_only_who_has_it(serve) -> None:
    live = serve(token="open sesame")

    async def ask() -> list[int]:
        codes = []
        for path in ("/", "/live", "/snapshot.jpg", "/?token=wrong", "/?token=open%20sesame"):
            async with _stranger() as client, client.get(live.url + path, allow_redirects=False) as answer:
                codes.append(answer.status)
                if answer.status == 302:
                    async with client.get(live.url + "/about.json") as inside:
                        codes.append(inside.status)
        return codes

    assert live.run(ask()) == [403, 403, 403, 403, 302, 200]


# ---- the whole ----


def test_the_process_serves_and_ends(tess: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "x.png", np.full((60, 80, 3), 90, np.uint8))
    arguments = ["--live", str(tmp_path / "in"), "--port", "0", "--bind", "0.0.0.0", "--out", str(tmp_path / "out")]
    command = [sys.executable, "demo.py", str(tess), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        first, second = process.stdout.readline(), process.stdout.readline()
        assert "seeing" in first
        port, token = re.search(r"http://0.0.0.0:(\d+)/\?token=(\S+)", second).groups()

        async def look() -> dict:
            async with _stranger() as client:
                async with client.get(f"http://127.0.0.1:{port}/?token={token}") as answer:
                    assert "<canvas" in await answer.text()
                async with client.ws_connect(f"http://127.0.0.1:{port}/live") as socket:
                    await socket.receive_json()
                    return unpack(await socket.receive_bytes())[0]

        head = asyncio.run(look())
        assert head["size"] == [80, 60] and head["name"] == "x.png" and min(head["costs"]) > 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()


def test_a_port_that_is_taken(serve, tess: Path) -> None:
    taken = serve()
    with pytest.raises(LiveError, match=f"port {taken.port} of 127.0.0.1 is taken: choose another with --port"):
        run_live(find_source(tess), LiveOptions("scenes", port=taken.port))


def test_times_of_nodes_on_this_machine(tess: Path) -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    plain, timed = open_host(tess), open_host(tess, profile=True)
    assert plain.info.profile_unit is None and timed.info.profile_unit == "ns"
    (without,) = plain.detect_many([image])
    assert without.profile is None
    for _ in range(5):  # each counts from zero: no run's nodes took longer than the run
        start = time.perf_counter_ns()
        (record,) = timed.detect_many([image])
        assert (record.profile > 0).all() and record.profile.sum() <= time.perf_counter_ns() - start
        assert np.array_equal(without.boxes, record.boxes)
