"""A live demo inside of the test process: a loop in a thread, a device that finds what it is told to."""

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import ClientSession, web

from detection.live.about import about
from detection.live.engine import Engine, Settings
from detection.live.frames import Frame, Frames
from detection.live.server import Studio, make_app
from firmware.device import DetectRecord, Device, DeviceError, DeviceInfo, RunRecord
from firmware.header import read_header


class ToldDevice(Device):
    """Answers with the boxes of `boxes`, int (n, 6) in Q4 network pixels, and costs of its own making."""

    def __init__(self, tess: bytes, boxes: list[list[int]]) -> None:
        self.header = read_header(tess)
        self.boxes = boxes
        self.fails = False

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo("told", "instructions", "instructions", None, self.header.arena, None, None, None, None, None, 1)

    def run_frames(self, frames: Any) -> list[RunRecord]:
        raise DeviceError("it knows boxes only")

    def detect_many(self, images: Any, raw: bool = False) -> list[DetectRecord]:
        if self.fails:
            raise DeviceError("the board is\nunplugged")
        profile = np.arange(self.header.n_nodes, dtype=np.uint64) * 1_000_000
        return [DetectRecord(np.array(self.boxes, np.int32).reshape(-1, 6), None, 12_300_000, profile=profile) for _ in images]

    def selftest(self) -> None:
        raise DeviceError("it has no outputs to compare")


class Still(Frames):
    """One picture again and again, every `seconds`, or once for each `step`."""

    name = "still"

    def __init__(self, image: np.ndarray, seconds: float = 0.01, stepped: bool = False) -> None:
        self.image, self.seconds, self.count = image, seconds, 0
        self._steps = threading.Semaphore(0) if stepped else None

    def step(self) -> None:
        assert self._steps
        self._steps.release()

    def newest(self) -> Frame:
        if self._steps:
            self._steps.acquire()
        else:
            time.sleep(self.seconds)
        self.count += 1
        return Frame(self.image, f"still, {self.count}")


class Live:
    """The server on a free or a given port, until `stop`."""

    def __init__(self, tess: Path, device: Device, frames: Frames, out: Path, port: int = 0, token: str | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.port = self.run(self._begin(tess, device, frames, out, port, token))
        self.url = f"http://127.0.0.1:{self.port}"

    async def _begin(self, tess: Path, device: Device, frames: Frames, out: Path, port: int, token: str | None) -> int:
        self.studio = Studio(about(tess, device, frames.name), out)
        self.studio.engine = Engine(device, frames, self.studio.publish, self.studio.complain, Settings(score=0.3))
        self._runner = web.AppRunner(make_app(self.studio, token), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.studio.engine.start()
        return self._runner.addresses[0][1]

    def run(self, work: Coroutine) -> Any:
        """Wait for a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def stop(self) -> None:
        self.run(self._runner.cleanup())
        assert self.studio.engine
        self.studio.engine.stop(patience=0.5)  # a stepped source may never give another picture
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)


def unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and JPEG of a binary message."""
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length]), data[4 + length :]


async def session(url: str, talk: Callable[[Any], Coroutine], **options: Any) -> Any:
    """Open a viewer's WebSocket and let `talk` speak with it."""
    async with ClientSession() as client, client.ws_connect(f"{url}/live", **options) as socket:
        return await talk(socket)
