"""The server's end of the line to the loop's process.

The loop's process sends a byte when what was asked for is there, and nothing else; the server sends lines of JSON:
`["serving"]` once, `["picture"]`, `["facts"]`, or `["log", level, logger, text]`. When the line ends the other side has
ended.
"""

import asyncio
import json
import logging
import socket
from contextlib import suppress
from typing import Any

from edgeseg.runtime.viewer.board_reader import BoardReader, Shown

NUDGE_S = 0.1
"""The loop gives a picture with its next result. When none comes for so long it is asked for the last one."""
FACTS_S = 0.2
"""What runs is asked for no more often."""
ANSWER_S = 1.0
"""How long a loop may take to tell what runs; then what it told last is told again."""
_TEXT_CHARACTERS = 8000


class Link:
    """A connected stream socket, used on one event loop; `tell` on any thread."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._waiting: list[asyncio.Future[None]] = []

    def tell(self, *message: object) -> None:
        """Send a line; lost when the other side does not read, and is asked for again then."""
        with suppress(OSError):
            self._sock.send(json.dumps(message).encode() + b"\n")

    async def listen(self) -> None:
        """Wake who waits, until the other side ends."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while await loop.sock_recv(self._sock, 4096):
                waiting, self._waiting = self._waiting, []
                for told in waiting:
                    if not told.done():
                        told.set_result(None)

    async def told(self, timeout_s: float) -> bool:
        """Wait for the next byte; whether it came in time."""
        told = asyncio.get_running_loop().create_future()
        self._waiting.append(told)
        await asyncio.wait([told], timeout=timeout_s)
        if told.done():
            return True
        self._waiting.remove(told)
        return False


class LogToLink(logging.Handler):
    """Sends the server's log to the loop's process, where the user has said what becomes of it."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        self._link.tell("log", record.levelno, record.name, self.format(record)[:_TEXT_CHARACTERS])


class Turns:
    """When the next of at most `fps_max` pictures per second may be asked for.

    A turn's time is a period after that of the turn before, not after its picture, which comes with the camera's next
    frame: else a camera of 20 frames/s would give 13 pictures/s where 15 are allowed. What is waited for too long
    is not made up for, and no picture comes within half a period of the one before.
    """

    def __init__(self, fps_max: float) -> None:
        self._period_s = 1.0 / fps_max
        self._due_s = 0.0
        self.free_at_s = 0.0

    def take(self, now_s: float) -> None:
        """A picture came."""
        # Due at once, a camera of just this rate keeps a period in hand, and its frames may come early.
        self._due_s = max(self._due_s + self._period_s, now_s)
        self.free_at_s = max(self._due_s, now_s + 0.5 * self._period_s)


class Frames:
    """Gets results from the loop, the newest when somebody asks, and not too often.

    Args:
        fps_max: results that come faster are left out, and not copied.
    """

    def __init__(self, board: BoardReader, link: Link, fps_max: float) -> None:
        self._board, self._link = board, link
        self._turns = Turns(fps_max)
        self._newest: Shown | None = None
        self._task: asyncio.Task[None] | None = None

    async def after(self, number: int) -> Shown:
        """The newest result that may be had now, if it is newer than `number`; else the next one."""
        newest = self._newest
        is_free = asyncio.get_running_loop().time() >= self._turns.free_at_s
        if newest is None or newest.number <= number or (is_free and newest.number < self._board.figures().number):
            newest = await self._fetched()
        while newest.number <= number:
            newest = await self._fetched()
        return newest

    async def _fetched(self) -> Shown:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._fetch())
        # A viewer that leaves must not take it away from the others.
        await asyncio.shield(self._task)
        assert self._newest is not None
        return self._newest

    async def _fetch(self) -> None:
        """Wait for a result that is newer than the last that was got."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._turns.free_at_s - loop.time())
        known = 0 if self._newest is None else self._newest.number
        self._board.want_picture()
        while not self._board.is_picture_there:
            if not await self._link.told(NUDGE_S) and self._board.figures().number > known:
                self._link.tell("picture")
        self._newest = self._board.picture()
        self._turns.take(loop.time())


class Facts:
    """Gets what runs from the loop's process, not too often."""

    def __init__(self, board: BoardReader, link: Link) -> None:
        self._board, self._link = board, link
        self._asked_at_s = -FACTS_S
        self._lock = asyncio.Lock()

    async def newest(self) -> dict[str, Any]:
        """As `edgeseg.runtime.viewer.facts.loop_facts`; older where the loop's process does not answer.

        Raises:
            TornRecord: it never did.
        """
        loop = asyncio.get_running_loop()
        async with self._lock:
            if loop.time() - self._asked_at_s >= FACTS_S:
                self._asked_at_s, known = loop.time(), self._board.facts_number
                self._link.tell("facts")
                while self._board.facts_number == known and loop.time() - self._asked_at_s < ANSWER_S:
                    await self._link.told(NUDGE_S)
        return self._board.facts()
