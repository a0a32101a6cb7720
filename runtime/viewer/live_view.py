"""The live view of a loop: what the loop's process does for it, which is little."""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.optional import require
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.result import Result
from edgeseg.runtime.viewer.address import Listener, Serving, listen
from edgeseg.runtime.viewer.board import Board, Offered
from edgeseg.runtime.viewer.connections import Limits
from edgeseg.runtime.viewer.facts import class_set, loop_facts, picture_facts
from edgeseg.runtime.viewer.keeper import (
    Keeper,
    Running,
    ServerProcess,
    ServerThread,
    is_process_possible,
    shared_memory,
)
from edgeseg.runtime.viewer.setup import FPS_MAX, STALE_S, Setup

_PACKAGE = "edgeseg.runtime.viewer"


class Viewer:
    """Shows a loop to browsers: `/` (the page), `/stream.mjpg`, `/snapshot.png`, `/healthz` and `/metrics`.

    It has to be given the results; whoever watches, and however slowly, that takes the loop some microseconds, and the
    time of a copy of frame and labels for each picture that somebody looks at:

        with Loop(session, source=0) as loop, Viewer(loop, "8080") as viewer:
            for result in loop:
                viewer.show(result)

    With a callback: `Loop(session, 0, on_result=lambda result: viewer.show(result))`, and the viewer made after it.

    On Linux a process of its own serves and encodes, at the lowest priority: it gets what time the loop and all other
    programs leave. It ends with this one in whatever way that ends; when it ends by itself, that is logged, and it is
    started again. Elsewhere it is a thread.

    Args:
        loop: told about on the page; not started, stopped or held up. None: one that `follow` tells later; until then
            `/healthz` says `starting`, and there is nothing to see.
        where: `[HOST:]PORT`, a `Serving` with token and certificate, or a port that is open already; the viewer closes
            it.
        fps_max: pictures per second that a viewer gets at most.
        stale_s: without new labels for so long, `/healthz` answers 503 instead of 200.
        limits: what viewers may cost.
        classes: the bundle's, for a loop that comes later.

    Raises:
        InputError: neither a loop nor classes; as `edgeseg.runtime.viewer.address.listen`; a rate or a time that is not
            positive.
        MissingPackageError: the extra `live` is not installed.
    """

    def __init__(
        self,
        loop: Loop | None,
        where: str | Serving | Listener,
        *,
        fps_max: float = FPS_MAX,
        stale_s: float = STALE_S,
        limits: Limits | None = None,
        classes: ClassSet | None = None,
    ) -> None:
        shown = classes if loop is None else class_set(loop)
        if shown is None:
            raise InputError("a live view shows a loop, or classes until there is one | got neither")
        if not fps_max > 0 or not stale_s > 0:
            raise InputError(f"a live view's rate and time are positive | got fps_max {fps_max}, stale_s {stale_s}")
        require("aiohttp.web", extra="live")
        require("prometheus_client", extra="live")
        serving = Serving.parse(where) if isinstance(where, str) else where
        self._listener = listener = listen(serving) if isinstance(serving, Serving) else serving
        setup = Setup(
            shown,
            listener.port,
            listener.token,
            listener.tls_cert,
            listener.tls_key,
            fps_max,
            stale_s,
            limits or Limits(),
            logging.getLogger(_PACKAGE).getEffectiveLevel(),
        )
        memory, self._memory_fd = shared_memory(for_process=is_process_possible())
        self._loop, self._is_serving = loop, threading.Event()
        self.board = Board(memory, self._facts, self._picture_facts, self._tell_server)
        """What the server is told."""
        launch: Callable[[socket.socket], Running]
        if self._memory_fd is None:
            greeting, launch = b"", partial(ServerThread, setup, listener, memory)
        else:
            greeting = json.dumps(setup.as_dict()).encode() + b"\n"
            launch = partial(ServerProcess, listener, self._memory_fd)
        self._keeper = Keeper(greeting, launch, self.board.begin_anew, self._take)

    @property
    def url(self) -> str:
        """Address of the page, without the token."""
        return self._listener.url

    @property
    def pid(self) -> int | None:
        """Process id of the server; None while there is none, and where it is a thread."""
        return self._keeper.pid

    def show(self, result: Result) -> None:
        """Hand over the newest result; never waits for a viewer."""
        self.board.offer(result)

    def follow(self, loop: Loop) -> None:
        """Show that loop from now on, where none was given; before its first result.

        Raises:
            InputError: it shows one.
        """
        if self._loop is not None:
            raise InputError("a live view shows one loop | make another view for another loop")
        self.board.begin()
        self._loop = loop
        self.board.write_facts()

    def wait_until_serving(self, timeout_s: float) -> bool:
        """Wait until the server answers, which takes a second of a processor's time to start; whether it does."""
        return self._is_serving.wait(timeout_s)

    def start(self) -> None:
        """Begin to serve, once; the `with` statement does it. The port is open already: viewers wait until then."""
        if self._keeper.has_begun:
            raise InputError("a live view is served once | make a new one")
        self._keeper.start()

    def close(self) -> None:
        """Cut all connections, close the port, and wait for the server; may be called more than once."""
        self._keeper.close()
        self._listener.close()
        if self._memory_fd is not None:
            os.close(self._memory_fd)
            self._memory_fd = None

    def __enter__(self) -> "Viewer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _facts(self) -> dict[str, Any] | None:
        return None if self._loop is None else loop_facts(self._loop)

    def _picture_facts(self, offered: Offered) -> dict[str, Any]:
        assert self._loop is not None
        return picture_facts(self._loop, offered)

    def _tell_server(self) -> None:
        self._keeper.tell_server()

    def _take(self, message: list[object]) -> None:
        """What the server says."""
        match message:
            case ["picture"]:
                self.board.hand_over()
            case ["serving"]:
                self._is_serving.set()
            case ["facts"]:
                self.board.write_facts()
            case ["log", int(level), str(name), str(text)]:
                logging.getLogger(name).log(level, "%s", text)
