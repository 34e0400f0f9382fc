"""The live page over HTTP: three files, what is known of the model, a WebSocket a viewer.

The engine's thread leaves its newest shot in one place and rings a bell; each viewer takes it from there when it has shown
the ones before. Who is slow sees fewer pictures, who is gone is forgotten, and the engine hears of neither.

To a viewer: text `{"state": ...}` whenever that changed; binary: length of a JSON head (4 bytes, little endian), head, JPEG.
From a viewer: `{"seen": 1}` after each picture, `{"set": {...}}` (fields of engine.Settings), `{"record": true | false}`.
"""

import asyncio
import hmac
import json
import struct
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from detection.live.engine import Engine, Settings, Shot
from detection.live.record import Recorder, save_snapshot, snapshot

AHEAD = 2  # pictures that a viewer may be sent before it has shown them
HEARTBEAT = 15.0  # seconds; a viewer that does not answer by then is gone
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_TEXT = 4096  # bytes of a viewer's message
PAGE = {"/": ("index.html", "text/html"), "/live.js": ("live.js", "text/javascript"), "/live.css": ("live.css", "text/css")}
POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"
COOKIE = "tessera"

_STUDIO = web.AppKey("studio", "Studio")


class Viewer:
    """One open page."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.news = asyncio.Event()
        self.sent = self.state = self.ahead = 0


class Studio:
    """Newest shot, settings and recording, shared by all viewers. Lives in the loop; the engine's thread calls two of it."""

    def __init__(self, about: Mapping[str, Any], out: Path) -> None:
        self.about, self.out = about, out
        self.engine: Engine | None = None
        self.viewers: set[Viewer] = set()
        self.newest: Shot | None = None
        self._loop = asyncio.get_running_loop()
        self._recorder: Recorder | None = None
        self._problem: str | None = None
        self._version = 1  # of the state
        self._sections = _sections(about)

    @property
    def settings(self) -> Settings:
        assert self.engine is not None
        return self.engine.settings

    # ---- from the engine's thread ----

    def publish(self, shot: Shot) -> None:
        """The shot is the newest one from now on."""
        if self.viewers:
            _ = shot.jpeg  # made here, where nobody else waits for it
        if recorder := self._recorder:
            self._record(recorder, shot)
        self.newest = shot
        self._ring()

    def complain(self, problem: str | None) -> None:
        """Tell the viewers what is wrong, or that it no longer is."""
        self._problem = problem
        self._changed()

    def _record(self, recorder: Recorder, shot: Shot) -> None:
        try:
            recorder.take(shot, self.settings)
        except ValueError:  # it was closed this moment
            return
        except OSError as error:
            self._recorder = None
            recorder.close()
            self.complain(f"recording stopped: {recorder.folder}: {error.strerror}")

    # ---- from viewers ----

    def obey(self, viewer: Viewer, text: str) -> None:
        """Do what a viewer's message says. Raises ValueError for one that says nothing sensible."""
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("a message is an object")
        if "seen" in message:
            viewer.ahead = max(0, viewer.ahead - 1)
            viewer.news.set()
        if "set" in message:
            engine = self.engine
            assert engine is not None
            engine.settings = Settings.model_validate({**engine.settings.model_dump(), **dict(message["set"])})
            self._changed()
        if "record" in message:
            self._record_or_not(bool(message["record"]))
            self._changed()

    def _record_or_not(self, wanted: bool) -> None:
        if wanted and self._recorder is None:
            self._problem = None
            try:
                self._recorder = Recorder(self.out, self.about)
            except OSError as error:
                self._problem = f"cannot record: {error.filename}: {error.strerror}"
        elif not wanted and self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            recorder.close()

    async def serve(self, socket: web.WebSocketResponse) -> None:
        """Talk to one viewer until it is gone."""
        viewer = Viewer(socket)
        self.viewers.add(viewer)
        viewer.news.set()
        sending = asyncio.create_task(self._send(viewer))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    try:
                        self.obey(viewer, message.data)
                    except (ValidationError, ValueError, TypeError) as error:
                        await socket.close(code=1008, message=str(error).splitlines()[0].encode()[:120])
        finally:
            sending.cancel()
            self.viewers.discard(viewer)

    async def _send(self, viewer: Viewer) -> None:
        try:
            while True:
                await viewer.news.wait()
                viewer.news.clear()
                if viewer.state != self._version:
                    viewer.state = self._version
                    await viewer.socket.send_str(json.dumps({"state": self.state()}))
                shot = self.newest
                if shot and shot.number != viewer.sent and viewer.ahead < AHEAD:
                    viewer.sent = shot.number
                    viewer.ahead += 1
                    await viewer.socket.send_bytes(self._packed(shot))
        except (ConnectionError, RuntimeError):
            return  # gone; the reading side says so too

    def state(self) -> dict[str, Any]:
        """What is the same for all viewers and changes rarely."""
        recorder = self._recorder
        return {
            **self.settings.model_dump(mode="json"),
            "recording": recorder and recorder.folder.name,
            "problem": self._problem,
        }

    def _packed(self, shot: Shot) -> bytes:
        height, width = shot.frame.image.shape[:2]
        found = shot.found
        columns = (found.boxes, found.scores[:, None], found.labels[:, None], shot.ids[:, None])
        head = {
            "frame": shot.number,
            "name": shot.frame.name,
            "size": [width, height],
            "boxes": np.round(np.concatenate(columns, axis=1, dtype=np.float64), 4).tolist(),  # x1 y1 x2 y2 score label id
            "rate": round(shot.rate, 2),
            "ms": round(1000 * shot.seconds, 2),
            "cost": shot.record.instructions,
            "costs": self._costs(shot),
            "stack": shot.record.stack,
            "touched": shot.record.touched,
            "objects": shot.objects,
            "crossed": shot.crossed,
            "recorded": self._recorder.count if self._recorder else 0,
        }
        content = json.dumps(head, separators=(",", ":")).encode()
        return struct.pack("<I", len(content)) + content + shot.jpeg

    def _costs(self, shot: Shot) -> list[int] | None:
        """Of each segment, in the device's unit."""
        profile = shot.record.profile
        return None if profile is None else [int(profile[first:stop].sum()) for first, stop in self._sections]

    def _changed(self) -> None:
        self._version += 1
        self._ring()

    def _ring(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop has ended, and so has everybody who listened
            pass

    def _wake(self) -> None:
        for viewer in self.viewers:
            viewer.news.set()


def _sections(about: Mapping[str, Any]) -> list[tuple[int, int]]:
    return [tuple(segment["nodes"]) for segment in about["segments"]]


# ---- HTTP ----


def make_app(studio: Studio, token: str | None) -> web.Application:
    """With a token who brings it is let in (`/?token=...` once, then a cookie); without, this machine's browsers are."""
    app = web.Application(middlewares=[_guard(token)])
    app[_STUDIO] = studio
    for path, (name, kind) in PAGE.items():
        app.router.add_get(path, _file(name, kind))
    app.router.add_get("/about.json", _about)
    app.router.add_get("/snapshot.jpg", _snapshot)
    app.router.add_get("/live", _live)
    app.on_shutdown.append(_say_goodbye)
    return app


def _guard(token: str | None) -> Callable:
    @web.middleware
    async def guard(request: web.Request, handler: Callable) -> web.StreamResponse:
        if token is None:
            if (request.url.host or "") not in LOOPBACK:  # another name for this machine: somebody else's page is asking
                raise web.HTTPForbidden(text="this demo answers to 127.0.0.1 and localhost only\n")
        elif not _same(request.cookies.get(COOKIE), token):
            if not _same(request.query.get("token"), token):
                raise web.HTTPForbidden(text="open the address that demo.py printed, with its token\n")
            answer = web.HTTPFound("/")
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            raise answer
        if (origin := request.headers.get("Origin")) and origin != f"{request.scheme}://{request.host}":
            raise web.HTTPForbidden(text="asked for by a page from elsewhere\n")
        response = await handler(request)
        if not response.prepared:
            response.headers.update({"Cache-Control": "no-store", "Content-Security-Policy": POLICY})
        return response

    return guard


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), token.encode())


def _file(name: str, kind: str) -> Callable:
    content = resources.files("detection.live").joinpath("page", name).read_text(encoding="utf-8")

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=content, content_type=kind)

    return answer


async def _about(request: web.Request) -> web.Response:
    return web.json_response(request.app[_STUDIO].about)


async def _snapshot(request: web.Request) -> web.Response:
    studio = request.app[_STUDIO]
    if studio.newest is None:
        raise web.HTTPServiceUnavailable(text="no picture yet\n")
    classes = tuple(entry["name"] for entry in studio.about["classes"])
    content = snapshot(studio.newest, studio.settings, classes)
    try:
        path = save_snapshot(studio.out, content)
    except OSError as error:
        raise web.HTTPInsufficientStorage(text=f"{error.filename}: {error.strerror}\n") from error
    headers = {"Content-Disposition": f'attachment; filename="{path.name}"'}
    return web.Response(body=content, content_type="image/jpeg", headers=headers)


async def _live(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MOST_TEXT, compress=False)
    await socket.prepare(request)
    await request.app[_STUDIO].serve(socket)
    return socket


async def _say_goodbye(app: web.Application) -> None:
    for viewer in list(app[_STUDIO].viewers):
        await viewer.socket.close(code=1001, message=b"the demo has ended")
