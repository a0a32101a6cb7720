"""Keeps the live view's server running beside the loop: starts it, starts it again, and ends it.

On Linux it is a process of its own at the lowest priority, with an interpreter of its own: what it does for viewers
takes neither Python's lock from the loop nor, as long as the loop wants it, the processor. It imports nothing of the
user's program. Elsewhere, and in a program that was frozen into one file, it is a thread.
"""

import asyncio
import contextlib
import json
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from edgeseg.runtime.viewer.address import Listener
from edgeseg.runtime.viewer.board import MEMORY_BYTES
from edgeseg.runtime.viewer.setup import Setup

FIRST_WAIT_S, MOST_WAIT_S = 0.5, 30.0
"""Before the server is started again: doubled each time."""
STEADY_S = 60.0
"""A server that ran for so long begins with the first wait again."""
THREAD_CLOSE_S, PROCESS_CLOSE_S = 1.0, 0.3
"""How long `close` waits for the server. A process that is killed ends by itself, but a busy machine may take its time,
since even that happens at the lowest priority."""
THREAD_NICE = 5
"""Of a server's threads in this process, and not more: one that hardly ever ran would keep Python's lock from the loop
meanwhile."""
_BEGIN = (
    "import sys; sys.path[:] = sys.argv[5:]; from edgeseg.runtime.viewer.server_process import main; "
    "main(*map(int, sys.argv[1:5]))"
)
_LINE_BYTES, _OTHER_LINES, _BREAK = 1 << 16, 20, "\n"
_NO_WAIT = getattr(socket, "MSG_DONTWAIT", 0)
_log = logging.getLogger(__name__)


class Running(Protocol):
    """A server that was started."""

    @property
    def pid(self) -> int | None:
        """Of its process; None: it is a thread."""

    def wait(self) -> str:
        """Wait for its end; why it has ended."""

    def end(self) -> None:
        """Make it end; `wait` returns then."""


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, listener: Listener, memory_fd: int, line: socket.socket) -> None:
        descriptors = (line.fileno(), memory_fd, listener.sock.fileno())
        paths = [path for path in sys.path if isinstance(path, str)]
        with _without_interrupts():
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BEGIN, *map(str, descriptors), str(os.getpid()), *paths],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=line.fileno(),
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        line.close()
        self.pid = self._process.pid

    def wait(self) -> str:
        """As `Running.wait`."""
        status = self._process.wait()
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def end(self) -> None:
        """As `Running.end`: the system closes its connections with it."""
        self._process.kill()


class ServerThread:
    """A server on a thread of this process."""

    pid = None

    def __init__(self, setup: Setup, listener: Listener, memory: mmap.mmap, line: socket.socket) -> None:
        self._fault = "its line has ended"
        self._line = line
        self._thread = threading.Thread(
            target=self._run, args=(setup, listener, memory), name="edgeseg-viewer-server", daemon=True
        )
        self._thread.start()

    def wait(self) -> str:
        """As `Running.wait`."""
        self._thread.join()
        return self._fault

    def end(self) -> None:
        """As `Running.end`."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def _run(self, setup: Setup, listener: Listener, memory: mmap.mmap) -> None:
        from edgeseg.runtime.viewer.link import Link
        from edgeseg.runtime.viewer.server import Server

        _step_back()
        try:
            with self._line:
                server = Server(setup, listener.sock, memory, Link(self._line), begin_thread=_step_back)
                asyncio.run(server.serve())
        except Exception as error:
            self._fault = repr(error)


class Keeper:
    """The thread that has a server running.

    Args:
        greeting: what a server that was just started reads first.
        launch: starts a server with its end of a line, which is closed when it has ended.
        begin_anew: called before each start.
        take: called with what the server says.
    """

    def __init__(
        self,
        greeting: bytes,
        launch: Callable[[socket.socket], Running],
        begin_anew: Callable[[], None],
        take: Callable[[list[object]], None],
    ) -> None:
        self._greeting, self._launch, self._begin_anew, self._take = greeting, launch, begin_anew, take
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._line: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="edgeseg-viewer", daemon=True)

    @property
    def has_begun(self) -> bool:
        """Whether it was started, ever."""
        return self._thread.ident is not None

    @property
    def pid(self) -> int | None:
        """Process id of the server; None when there is none at the moment, or it is a thread."""
        running = self._running
        return None if running is None else running.pid

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def tell_server(self) -> None:
        """Wake the server; never waits. A server that does not read looks again by itself."""
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):
                line.send(b"\n", _NO_WAIT)

    def close(self) -> None:
        """End the server; may be called more than once."""
        self._closing.set()
        with self._lock:
            running = self._running
            if running is not None:
                running.end()
        if self.has_begun:
            self._thread.join(THREAD_CLOSE_S if running is None or running.pid is None else PROCESS_CLOSE_S)

    def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._closing.is_set():
            began_s = time.monotonic()
            try:
                reason = self._run_once()
            except Exception as error:
                reason = f"it could not be started: {error!r}"
            if self._closing.is_set():
                return
            wait_s = FIRST_WAIT_S if time.monotonic() - began_s > STEADY_S else wait_s
            _log.warning("the live view's server has ended (%s); it is started again in %g s", reason, wait_s)
            self._closing.wait(wait_s)
            wait_s = min(2 * wait_s, MOST_WAIT_S)

    def _run_once(self) -> str:
        """Start a server and do what it says; why it has ended."""
        self._begin_anew()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(self._greeting)
            with self._lock:
                if self._closing.is_set():
                    return "closed"
                self._running = running = self._launch(theirs)
            try:
                return self._listen(ours, running)
            finally:
                self._line = None
                with self._lock:
                    self._running = None

    def _listen(self, ours: socket.socket, running: Running) -> str:
        other: deque[str] = deque(maxlen=_OTHER_LINES)
        with ours.makefile("rb") as lines, contextlib.suppress(OSError):
            self._line = ours
            while line := lines.readline(_LINE_BYTES):
                try:
                    message = json.loads(line)
                except ValueError:
                    # Its standard error: what an interpreter says that cannot go on.
                    other.append(line.decode(errors="replace").rstrip())
                else:
                    self._take_message(message)
        reason = running.wait()
        return f"{reason}, {_BREAK.join(other)}" if other else reason

    def _take_message(self, message: list[object]) -> None:
        try:
            self._take(message)
        except Exception:
            # The loop goes on: a live view that broke is no reason to stop a vehicle's eyes.
            _log.exception("the live view's server could not be answered")


def is_process_possible() -> bool:
    """Whether the server can have a process of its own here."""
    return sys.platform == "linux" and bool(sys.executable) and not getattr(sys, "frozen", False)


def shared_memory(*, for_process: bool) -> tuple[mmap.mmap, int | None]:
    """`MEMORY_BYTES` of zeros, and the descriptor that passes them to another process.

    They have no name: nothing is left of them when the last process that has them ends, in whatever way.
    """
    if sys.platform != "linux" or not for_process:
        return mmap.mmap(-1, MEMORY_BYTES), None
    import fcntl

    descriptor = os.memfd_create("edgeseg-viewer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, MEMORY_BYTES)
        # Nobody can take away what the other side has mapped.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return mmap.mmap(descriptor, MEMORY_BYTES), descriptor
    except BaseException:
        os.close(descriptor)
        raise


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started here never gets a Ctrl-C, not even before it can say what to do with one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _step_back() -> None:
    """Give this thread a lower priority than the loop's, where the system knows priorities of threads (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), THREAD_NICE)
