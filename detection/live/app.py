"""`demo.py SOURCE --live`: device, pictures, engine and page put together, until Ctrl-C."""

import asyncio
import errno
import re
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from detection.live.about import about
from detection.live.engine import Engine, Settings
from detection.live.frames import SCENES, Frames, open_frames
from detection.live.server import LOOPBACK, Studio, make_app
from detection.pictures import PictureError
from detection.predictors import PredictorError
from detection.sources import Source
from firmware.device import Device, open_emulator, open_host
from firmware.header import load_tess, read_header
from firmware.link.device import open_board

PORT = re.compile(r"(host|emulator(:[\w-]+)?|/dev/(tty|cu\.|pts/)\S*|COM\d+|\w+://\S+)")


class LiveError(ValueError):
    """A demo that cannot begin."""


@dataclass(frozen=True)
class LiveOptions:
    """Where pictures come from, where the model runs, and who may look."""

    live: str  # where pictures come from: webcam number, video, folder, scenes; or a board's port, as `on` without `board:`
    on: str = "host"  # host, emulator[:TARGET] or board:PORT
    pictures: str | None = None  # for a board that `live` names: what it is sent; default: scenes
    score: float = 0.3
    bind: str = "127.0.0.1"
    port: int = 8765  # 0: any that is free
    token: str | None = None  # None: made up where one is needed
    out: Path = Path("runs/live")
    track_here: bool = False  # follow objects on this machine, also where a board could


def run_live(source: Source, options: LiveOptions) -> int:
    """Serve the page until the process is told to end. Raises ValueError and OSError for what cannot be opened."""
    if source.tess is None:
        raise PredictorError(f"--live needs model.tess and {source.path} has none: python export.py {source.path} --out DIR")
    frames, device = open_live(source.tess, options)
    return asyncio.run(_serve(source.tess, device, frames, options))


def open_live(tess: Path, options: LiveOptions) -> tuple[Frames, Device]:
    """The two ends: pictures, and what looks at them."""
    seen, on = options.live, options.on
    if is_port(seen):
        seen, on = options.pictures or SCENES, seen if seen.startswith("emulator") else f"board:{seen}"
    elif options.pictures:
        raise LiveError(f"--live {seen} is where pictures come from: leave out {options.pictures}")
    try:
        frames = open_frames(seen)
    except PictureError as error:
        raise LiveError(f"{error}; --live takes a webcam's number, a video, a folder, 'scenes' or a board's port") from error
    try:
        return frames, _open_device(tess, on)
    except BaseException:
        frames.close()
        raise


def is_port(text: str) -> bool:
    """Whether this names a device behind the link rather than pictures; a file or folder of that name is pictures."""
    return not Path(text).is_file() and not Path(text).is_dir() and PORT.fullmatch(text) is not None


def _open_device(tess: Path, on: str) -> Device:
    if not read_header(load_tess(tess)).max_detections:
        raise LiveError(f"{tess} has no decoder, so no boxes come of it")
    kind, _, place = on.partition(":")
    if on == "host":
        return open_host(tess, profile=True)
    if kind == "emulator":
        return open_emulator(tess, place or "mps2-an500", profile=True)  # anew for each picture: far quicker than its UART
    if kind == "board" and place:
        return open_board(tess, place, profile=True)
    raise LiveError(f"--live runs on host, emulator:TARGET or board:PORT, not on '{on}'")


async def _serve(tess: Path, device: Device, frames: Frames, options: LiveOptions) -> int:
    token = options.token
    if options.bind not in LOOPBACK:
        token = token or secrets.token_urlsafe(16)
    studio = Studio(about(tess, device, frames.name), options.out)
    studio.engine = Engine(device, frames, studio.publish, studio.complain, Settings(score=options.score), options.track_here)
    runner = web.AppRunner(make_app(studio, token), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        address = await _listen(runner, options)
        told_to_end = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, told_to_end.set)
        studio.engine.start()
        print(f"{studio.about['model']} on {studio.about['target']}, seeing {frames.name}", flush=True)
        print(f"open http://{address}/{f'?token={token}' if token else ''}   (Ctrl-C ends it)", flush=True)
        await told_to_end.wait()
    finally:
        await runner.cleanup()
        studio.engine.stop()
        device.close()
    return 0


async def _listen(runner: web.AppRunner, options: LiveOptions) -> str:
    """host:port that is listened on."""
    try:
        await web.TCPSite(runner, options.bind, options.port).start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise LiveError(f"port {options.port} of {options.bind} is taken: choose another with --port (0: any)") from error
        raise LiveError(f"cannot listen on {options.bind}: {error.strerror or error}") from error
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
