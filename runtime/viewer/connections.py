"""Takes connections in, not too many, and ends those that cost time or memory without giving anything for it.

The HTTP server above has no deadline for a request's head, for reading the answer, or for a TLS handshake before the
connection counts. Here every connection has them, and each may send so many bytes per request.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

_log = logging.getLogger(__name__)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"
_SEND_BUFFER_BYTES = 128 << 10
"""The system's buffer of a connection: more would be old pictures on their way to a slow viewer."""


@dataclass(frozen=True)
class Limits:
    """What one viewer, or all of them, may cost."""

    connections: int = 256
    head_s: float = 10.0
    """For a request to be complete, and between two of them."""
    read_s: float = 10.0
    """For a viewer to take what was sent before the next picture goes out."""
    handshake_s: float = 5.0
    request_bytes: int = 32 << 10
    """Between one answer and the next, the head included: there is nothing to send here."""
    rate_per_s: float = 200.0
    """Requests, and connections; more of them have to wait."""


class Pace:
    """Lets so many through per second, evenly after a burst of a second's worth."""

    def __init__(self, rate_per_s: float) -> None:
        self._period_s = 1.0 / rate_per_s
        self._free_at_s = 0.0

    async def wait(self) -> None:
        """Wait for the next place."""
        now_s = time.monotonic()
        self._free_at_s = max(self._free_at_s, now_s - 1.0) + self._period_s
        if self._free_at_s > now_s:
            await asyncio.sleep(self._free_at_s - now_s)


class Connections:
    """All connections of a port.

    Args:
        serve: makes the protocol that speaks HTTP on one connection.
    """

    def __init__(
        self, serve: Callable[[], asyncio.Protocol], sock: socket.socket, tls: ssl.SSLContext | None, limits: Limits
    ) -> None:
        self.limits = limits
        self._serve, self._sock, self._tls = serve, sock, tls
        self._guards: dict[asyncio.BaseTransport, _Guard] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = Pace(limits.rate_per_s)
        self.refused = 0
        """Connections that found no place."""

    def __len__(self) -> int:
        return len(self._tasks)

    async def accept(self) -> None:
        """Take connections in until it is cancelled; then all are cut."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._pace.wait()
                try:
                    sock, _ = await loop.sock_accept(self._sock)
                except OSError as error:
                    # The caller gave up, or there are no file descriptors left; the pace keeps this from spinning.
                    _log.debug("no connection: %s", error)
                    continue
                if len(self._tasks) >= self.limits.connections:
                    self.refused += 1
                    with contextlib.suppress(OSError):
                        sock.send(_FULL if self._tls is None else b"")
                    sock.close()
                    continue
                task = loop.create_task(self._run(sock))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for guard in list(self._guards.values()):
                guard.cut()
            for task in list(self._tasks):
                task.cancel()

    @contextmanager
    def answering(self, transport: asyncio.BaseTransport | None) -> Iterator[Callable[[], None]]:
        """While a request is answered its connection may be quiet. The block gets what to call when the viewer has sent
        something useful: it may send as much again."""
        guard = None if transport is None else self._guards.get(transport)
        if guard is None:
            yield lambda: None
            return
        guard.begin_answer()
        try:
            yield guard.count_anew
        finally:
            guard.end_answer()

    async def _run(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        guard = _Guard(self._serve(), self.limits, self._guards)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            await loop.connect_accepted_socket(
                lambda: guard,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else self.limits.handshake_s,
            )
        except (OSError, asyncio.TimeoutError) as error:
            _log.debug("a connection was not made: %s", error)
            sock.close()
            return
        await guard.lost.wait()


class _Guard(asyncio.Protocol):
    """Stands between a connection and the protocol that speaks HTTP on it."""

    def __init__(self, inner: asyncio.Protocol, limits: Limits, guards: "dict[asyncio.BaseTransport, _Guard]") -> None:
        self._inner, self._limits, self._guards = inner, limits, guards
        self._transport: asyncio.Transport | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._received = 0
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Whatever the system does not take at once counts as unread: the next picture waits for it.
        self._transport.set_write_buffer_limits(high=0)
        self._guards[transport] = self
        self._inner.connection_made(transport)
        self.end_answer()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._limits.request_bytes:
            self.cut()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._unread = asyncio.get_running_loop().call_later(self._limits.read_s, self.cut)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        _cancel(self._unread)
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        _cancel(self._quiet)
        _cancel(self._unread)
        if self._transport is not None:
            self._guards.pop(self._transport, None)
        self._inner.connection_lost(error)
        self.lost.set()

    def begin_answer(self) -> None:
        """A request is complete."""
        _cancel(self._quiet)
        self.count_anew()

    def end_answer(self) -> None:
        """The next request is due."""
        _cancel(self._quiet)
        self._quiet = asyncio.get_running_loop().call_later(self._limits.head_s, self.cut)
        self.count_anew()

    def count_anew(self) -> None:
        self._received = 0

    def cut(self) -> None:
        """End the connection without waiting for what is still to be sent."""
        if self._transport is not None:
            self._transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
