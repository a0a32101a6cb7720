"""What the live view answers: the page, the layers it composes, pictures, figures. GET only, fixed paths only."""

import asyncio
import importlib.resources
import json
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from edgeseg.optional import require
from edgeseg.runtime.shared_record import TornRecord
from edgeseg.runtime.viewer.access import SECURITY_HEADERS, Access
from edgeseg.runtime.viewer.answers import about, health, state
from edgeseg.runtime.viewer.board_reader import BoardReader, Shown
from edgeseg.runtime.viewer.connections import Connections, Pace
from edgeseg.runtime.viewer.link import Facts, Frames, Link
from edgeseg.runtime.viewer.metrics import LoopCollector
from edgeseg.runtime.viewer.pictures import Pictures, layers, overlay_jpeg, overlay_png
from edgeseg.runtime.viewer.setup import Setup

if TYPE_CHECKING:
    from aiohttp.web import Application, Request, StreamResponse, WebSocketResponse

    Handler = Callable[[Request], Awaitable[StreamResponse]]

PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/live.js": ("live.js", "text/javascript"),
    "/plots.js": ("plots.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
BOUNDARY = "edgeseg-frame"
AGAIN_S = 5.0
"""A stream without anything new sends its last picture again: a viewer that is gone is noticed then."""
PING_S = 15.0
SNAPSHOT_FPS_MAX = 2.0
_useful: ContextVar[Callable[[], None]] = ContextVar("useful")
"""Of the request that is answered: called when the viewer has sent something useful."""
_log = logging.getLogger(__name__)


class Site:
    """Handlers of a server.

    Args:
        board: what the loop tells.
        link: to the loop's process.
        executor: encodes pictures.
    """

    def __init__(self, setup: Setup, board: BoardReader, link: Link, executor: Executor) -> None:
        self._web = require("aiohttp.web", extra="live")
        require("prometheus_client", extra="live")
        self._setup, self._board = setup, board
        self._access = Access(setup.token, setup.port)
        self._facts = Facts(board, link)
        frames, classes = Frames(board, link, setup.fps_max), setup.classes

        def layers_of(shown: Shown) -> bytes:
            return layers(shown, state(shown, board))

        self._layers = Pictures(frames, executor, layers_of)
        self._overlay = Pictures(frames, executor, lambda shown: overlay_jpeg(shown, classes))
        self._snapshot = Pictures(frames, executor, lambda shown: overlay_png(shown, classes), fps_max=SNAPSHOT_FPS_MAX)
        folder = importlib.resources.files(__package__) / "page"
        # Read once: no request ever names a file.
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGE_FILES.items()}

    def application(self, connections: Connections) -> "Application":
        """All of it, for aiohttp, on those connections."""
        web = self._web
        self._connections = connections
        self._pace = Pace(connections.limits.rate_per_s)

        @web.middleware
        async def checked(request: "Request", handler: "Handler") -> "StreamResponse":
            return await self._checked(request, handler)

        application = web.Application(middlewares=[checked], client_max_size=1024, logger=_log)
        routes = {
            **dict.fromkeys(PAGE_FILES, self._page_file),
            "/layers": self._layers_socket,
            "/stream.mjpg": self._stream,
            "/snapshot.png": self._snapshot_png,
            "/healthz": self._health,
            "/metrics": self._metrics,
        }
        for path, handler in routes.items():
            application.router.add_get(path, handler, allow_head=path not in ("/layers", "/stream.mjpg"))
        application.on_response_prepare.append(self._add_headers)
        return application

    async def _checked(self, request: "Request", handler: "Handler") -> "StreamResponse":
        """Every request passes here: deadlines, pace, and who may read."""
        with self._connections.answering(request.transport) as useful:
            _useful.set(useful)
            await self._pace.wait()
            refusal = self._access.refusal(
                path=request.path,
                hosts=request.headers.getall("Host", []),
                headers=request.headers,
                cookies=request.cookies,
                query=request.query,
            )
            if refusal is not None:
                headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
                return self._refuse(refusal.status, refusal.text, headers)
            if request.can_read_body:
                return self._refuse(413, "there is nothing to send here")
            try:
                return await handler(request)
            except TornRecord:
                return self._refuse(503, "the loop has not begun, or its process does not answer")
            except self._web.HTTPException as error:
                return self._refuse(error.status, error.reason, dict(error.headers))

    def _refuse(self, status: int, text: str, headers: dict[str, str] | None = None) -> "StreamResponse":
        kept = {name: value for name, value in (headers or {}).items() if name in ("Allow", "WWW-Authenticate")}
        response = self._web.Response(status=status, text=text + "\n", headers=kept)
        response.force_close()
        return response

    @staticmethod
    async def _add_headers(request: "Request", response: "StreamResponse") -> None:
        response.headers.update(SECURITY_HEADERS)

    async def _page_file(self, request: "Request") -> "StreamResponse":
        if request.path == "/" and "token" in request.query and self._access.is_token(request.query["token"]):
            # The browser keeps a cookie instead, and the token leaves its address bar and its history of the page.
            response = self._web.Response(status=303, headers={"Location": "/"})
            response.set_cookie(
                self._access.cookie_name,
                self._access.cookie,
                path="/",
                httponly=True,
                samesite="Lax",
                secure=self._setup.tls_cert is not None,
            )
            return response
        body, kind = self._files[request.path]
        return self._web.Response(body=body, content_type=kind, charset="utf-8")

    async def _layers_socket(self, request: "Request") -> "WebSocketResponse":
        """A picture for each message of the page, which sends one when it has drawn the last: it gets no more than it
        can show, and one that does not read costs nothing."""
        told = about(await self._facts.newest(), self._setup.classes, self._board)
        socket = self._web.WebSocketResponse(max_msg_size=64, heartbeat=PING_S, compress=False, timeout=1.0)
        await socket.prepare(request)
        await socket.send_str(json.dumps(told, allow_nan=False))
        seen = 0
        async for message in socket:
            if message.type is not self._web.WSMsgType.TEXT:
                break
            _useful.get()()
            picture = await self._layers.after(seen)
            seen = picture.number
            await socket.send_bytes(picture.data)
        return socket

    async def _stream(self, request: "Request") -> "StreamResponse":
        response = self._web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"})
        await response.prepare(request)
        picture = await self._overlay.after(0)
        while True:
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.data)}\r\n\r\n"
            await response.write(head.encode() + picture.data + b"\r\n")
            # A slow viewer gets the newest picture when the last has left, and no queue of old ones.
            await request.writer.drain()
            try:
                picture = await asyncio.wait_for(self._overlay.after(picture.number), AGAIN_S)
            except asyncio.TimeoutError:
                continue

    async def _snapshot_png(self, request: "Request") -> "StreamResponse":
        number = self._board.figures().number
        if not number:
            return self._refuse(503, "no result has come yet")
        try:
            picture = await asyncio.wait_for(self._snapshot.after(number - 1), AGAIN_S)
        except asyncio.TimeoutError:
            return self._refuse(503, "the loop's process does not answer")
        return self._web.Response(body=picture.data, content_type="image/png")

    async def _health(self, request: "Request") -> "StreamResponse":
        found = health(self._board, self._setup.stale_s)
        return self._web.json_response(found, status=200 if found["status"] == "ok" else 503)

    async def _metrics(self, request: "Request") -> "StreamResponse":
        prometheus: Any = require("prometheus_client", extra="live")
        registry = prometheus.CollectorRegistry(auto_describe=False)
        registry.register(LoopCollector(await self._facts.newest(), self._board, self._connections))
        return self._web.Response(
            body=prometheus.generate_latest(registry), headers={"Content-Type": prometheus.CONTENT_TYPE_LATEST}
        )
