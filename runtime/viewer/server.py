"""The live view's server: an event loop that answers viewers with what the loop's process tells."""

import asyncio
import logging
import mmap
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from edgeseg.optional import require
from edgeseg.runtime.viewer.address import tls_context
from edgeseg.runtime.viewer.board_reader import BoardReader
from edgeseg.runtime.viewer.connections import Connections
from edgeseg.runtime.viewer.link import Link
from edgeseg.runtime.viewer.setup import Setup
from edgeseg.runtime.viewer.site import Site

if TYPE_CHECKING:
    from aiohttp.web import AppRunner

_HEAD_LINE_BYTES = 4096
_log = logging.getLogger(__name__)


class Server:
    """Serves `/` (the page), `/stream.mjpg`, `/snapshot.png`, `/healthz` and `/metrics`.

    Pictures are encoded on a thread of its own, when somebody looks, once for all viewers.

    Args:
        listening: open port; not closed here.
        memory: where the loop's process writes.
        link: to that process; when it ends, all connections are cut.
        begin_thread: called on each thread that it starts.
    """

    def __init__(
        self,
        setup: Setup,
        listening: socket.socket,
        memory: mmap.mmap,
        link: Link,
        begin_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self._setup, self._listening, self._link = setup, listening, link
        self._tls = tls_context(setup.tls_cert, setup.tls_key)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="edgeseg-encoder", initializer=begin_thread)
        self._site = Site(setup, BoardReader(memory), link, self._executor)

    async def serve(self) -> None:
        """Answer until the line to the loop's process ends."""
        asyncio.get_running_loop().set_exception_handler(_note)
        runner: AppRunner | None = None

        def protocol() -> asyncio.Protocol:
            assert runner is not None
            assert runner.server is not None
            return runner.server()

        connections = Connections(protocol, self._listening, self._tls, self._setup.limits)
        runner = self._runner(connections)
        await runner.setup()
        tasks = [asyncio.create_task(connections.accept()), asyncio.create_task(self._link.listen())]
        self._link.tell("serving")
        try:
            finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        finally:
            await _cancelled(*tasks)
            await runner.cleanup()
            # Handlers and encoders that nobody waits for any more.
            await _cancelled(*(asyncio.all_tasks() - {asyncio.current_task()}))
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _runner(self, connections: Connections) -> "AppRunner":
        web = require("aiohttp.web", extra="live")
        return web.AppRunner(
            self._site.application(connections),
            access_log=None,
            logger=_http_log(),
            handler_cancellation=True,
            shutdown_timeout=0.1,
            keepalive_timeout=self._setup.limits.head_s,
            lingering_time=0,
            max_line_size=_HEAD_LINE_BYTES,
            max_field_size=_HEAD_LINE_BYTES,
        )


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
