"""The live view of a loop: a thread with an event loop of its own that serves a page, pictures and figures."""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeseg.errors import InputError
from edgeseg.optional import require
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.result import Result
from edgeseg.runtime.viewer.access import Access
from edgeseg.runtime.viewer.address import Listener, Serving, listen
from edgeseg.runtime.viewer.connections import Connections, Limits
from edgeseg.runtime.viewer.hub import Hub
from edgeseg.runtime.viewer.pictures import FPS_MAX
from edgeseg.runtime.viewer.site import Site

if TYPE_CHECKING:
    from aiohttp.web import AppRunner

STALE_S = 5.0
CLOSE_S = 1.5
"""How long `close` waits for the server's thread."""
NICE = 5
"""Of the viewer's threads, and not more: one that hardly ever ran would keep Python's lock from the loop meanwhile."""
_HEAD_LINE_BYTES = 4096
_log = logging.getLogger(__name__)


class Viewer:
    """Shows a loop to browsers: `/` (the page), `/stream.mjpg`, `/snapshot.png`, `/healthz` and `/metrics`.

    It has to be given the results; whoever watches, and however slowly, that takes the loop some microseconds:

        with Loop(session, source=0) as loop, Viewer(loop, "8080") as viewer:
            for result in loop:
                viewer.show(result)

    With a callback: `Loop(session, 0, on_result=lambda result: viewer.show(result))`, and the viewer made after it.
    Pictures are encoded on the viewer's threads, when somebody looks, once for all viewers.

    Args:
        loop: told about on the page; not started, stopped or held up.
        where: `[HOST:]PORT`, a `Serving` with token and certificate, or a port that is open already; the viewer closes
            it.
        fps_max: pictures per second that a viewer gets at most.
        stale_s: without a result for so long, `/healthz` answers 503 instead of 200.
        limits: what viewers may cost.
        clock: seconds; for the rate of results, and for how long none has come.

    Raises:
        InputError: as `edgeseg.runtime.viewer.address.listen`; a rate or a time that is not positive.
        MissingPackageError: the extra `live` is not installed.
    """

    def __init__(
        self,
        loop: Loop,
        where: str | Serving | Listener,
        *,
        fps_max: float = FPS_MAX,
        stale_s: float = STALE_S,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not fps_max > 0 or not stale_s > 0:
            raise InputError(f"a live view's rate and time are positive | got fps_max {fps_max}, stale_s {stale_s}")
        require("aiohttp.web", extra="live")
        require("prometheus_client", extra="live")
        serving = Serving.parse(where) if isinstance(where, str) else where
        self._listener = listen(serving) if isinstance(serving, Serving) else serving
        self.hub = Hub(clock)
        self._limits = limits or Limits()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="edgeseg-encoder", initializer=_step_back)
        self._site = Site(
            loop,
            self.hub,
            Access(self._listener.token, self._listener.port),
            self._executor,
            stale_s=stale_s,
            fps_max=fps_max,
            is_tls=self._listener.tls is not None,
        )
        self._events = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="edgeseg-viewer", daemon=True)

    @property
    def url(self) -> str:
        """Address of the page, without the token."""
        return self._listener.url

    def show(self, result: Result) -> None:
        """Hand over the newest result; never waits."""
        self.hub.offer(result)

    def start(self) -> None:
        """Begin to serve, once; the `with` statement does it."""
        if self._thread.ident is not None:
            raise InputError("a live view is served once | make a new one")
        self._thread.start()

    def close(self) -> None:
        """Cut all connections, close the port, and wait for the server's thread; may be called more than once."""
        if self._thread.ident is None:
            self._listener.close()
            self._events.close()
        else:
            with contextlib.suppress(RuntimeError):  # the event loop has ended already
                self._events.call_soon_threadsafe(self._stopping.set)
            self._thread.join(CLOSE_S)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> "Viewer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        _step_back()
        asyncio.set_event_loop(self._events)
        self._events.set_exception_handler(_note)
        try:
            self._events.run_until_complete(self._serve())
        except Exception:
            # The loop goes on: a live view that broke is no reason to stop a vehicle's eyes.
            _log.exception("the live view has ended by a fault of its own")
        finally:
            self._listener.close()
            self._events.close()

    async def _serve(self) -> None:
        runner: AppRunner | None = None

        def protocol() -> asyncio.Protocol:
            assert runner is not None
            assert runner.server is not None
            return runner.server()

        connections = Connections(protocol, self._listener.sock, self._listener.tls, self._limits)
        runner = self._runner(connections)
        await runner.setup()
        tasks = [self._events.create_task(connections.accept()), self._events.create_task(self._stopping.wait())]
        try:
            finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        finally:
            await _cancelled(*tasks)
            await runner.cleanup()
            # Handlers and encoders that nobody waits for any more.
            await _cancelled(*(asyncio.all_tasks() - {asyncio.current_task()}))

    def _runner(self, connections: Connections) -> "AppRunner":
        web = require("aiohttp.web", extra="live")
        return web.AppRunner(
            self._site.application(connections),
            access_log=None,
            logger=_http_log(),
            handler_cancellation=True,
            shutdown_timeout=0.1,
            keepalive_timeout=self._limits.head_s,
            lingering_time=0,
            max_line_size=_HEAD_LINE_BYTES,
            max_field_size=_HEAD_LINE_BYTES,
        )


def _step_back() -> None:
    """Give this thread a lower priority than the loop's, where the system knows priorities of threads (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


async def _cancelled(*tasks: "asyncio.Task[Any] | None") -> None:
    for task in tasks:
        if task is not None:
            task.cancel()
    await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)


def _http_log() -> logging.Logger:
    """Faults of ours with their traceback; not what viewers send that is no HTTP, which could fill a disk."""
    exceptions = require("aiohttp.http_exceptions", extra="live")
    log = logging.getLogger(f"{__name__}.http")

    def is_ours(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, (exceptions.HttpProcessingError, ConnectionError))

    log.filters[:] = [is_ours]
    return log


def _note(events: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would complain of: connections that broke are none of the user's business."""
    _log.debug("%s", context.get("message"), exc_info=context.get("exception"))
