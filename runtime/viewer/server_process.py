"""The main program of the live view's server: a process of its own, which gets what time the loop leaves.

It is started by `edgeseg.runtime.viewer.keeper` with the open port, the memory and its line to the loop's process, and
lives as long as that process: Ctrl-C, SIGTERM and SIGHUP, which a terminal or a service manager sends to all processes
of a group, are for that one.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

STARTING_NICE, NICE = 5, 19
"""Until it serves, and then. Starting takes a second of a processor's time, once: at the lowest priority a machine with
much to do would show nothing for minutes."""
_SELF = Path("/proc/self")
_TRIES = 20


def main(link_fd: int, memory_fd: int, listening_fd: int, loop_pid: int) -> None:
    """Serve until the loop's process ends.

    Args:
        link_fd: connected stream socket; the first line that comes is the `Setup` as JSON.
        memory_fd: what a `Board` writes into.
        listening_fd: open port.
        loop_pid: the process that started this one.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(STARTING_NICE)
    with contextlib.suppress(OSError):
        _SELF.joinpath("comm").write_text("edgeseg-viewer")
    # Only now, at less than the loop's priority: this takes most of the time until the first answer.
    import asyncio
    import json
    import logging
    import mmap
    import socket

    import cv2

    from edgeseg.runtime.viewer.link import Link, LogToLink
    from edgeseg.runtime.viewer.server import Server
    from edgeseg.runtime.viewer.setup import Setup

    cv2.setNumThreads(1)
    line = socket.socket(fileno=link_fd)
    with line.makefile("rb") as lines:
        told = lines.readline()
    if not told.endswith(b"\n"):
        return
    setup = Setup.from_dict(json.loads(told))
    link = Link(line)
    logging.basicConfig(level=setup.log_level, format="%(message)s", handlers=[LogToLink(link)])
    logging.captureWarnings(True)
    listening = socket.socket(fileno=listening_fd)
    listening.setblocking(False)
    server = Server(setup, listening, mmap.mmap(memory_fd, 0), link)

    async def serve() -> None:
        # The line ends with the loop's process, unless that has forked, and the copy holds its end open.
        with contextlib.suppress(OSError):
            asyncio.get_running_loop().add_reader(os.pidfd_open(loop_pid), os._exit, 0)
        step_back()
        if os.getppid() == loop_pid:
            await server.serve()

    asyncio.run(serve())


def step_back() -> None:
    """Put this process below everything else that runs: viewers are served when the loop has nothing to do."""
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    # A container or an old kernel may refuse what follows, or not know it.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        _leave_group()
    with contextlib.suppress(OSError):
        _SELF.joinpath("oom_score_adj").write_text("1000")


def _leave_group() -> None:
    """Where the system shares processors among sessions (autogroup), a low priority counts within the session alone,
    and what this process takes is taken from the loop's share: it gets a session of its own, of the lowest priority."""
    group = _SELF / "autogroup"
    if not os.access(group, os.W_OK):
        return
    os.setsid()
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):  # somebody has changed one within the last tenth of a second
            group.write_text(str(NICE))
            return
        time.sleep(0.1)
