"""The command line as a process of its own, which nothing that hangs in a driver keeps from ending."""

import contextlib
import os
import signal
import sys
import threading
from typing import NoReturn

from edgeseg.cli import main

OURS = "edgeseg-"
"""How the names of the runtime's threads begin."""


def run() -> NoReturn:
    """Run the command line and end the process with its exit code.

    A thread that was left behind in a driver is not waited for, and no library is unloaded under it.
    """
    try:
        main()
    except SystemExit as end:
        # All is written and said: another Ctrl-C ends the rest at once, and without a traceback.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if any(thread.name.startswith(OURS) for thread in threading.enumerate()):
            _end_at_once(end.code)
        raise
    raise SystemExit(0)


def _end_at_once(code: "int | str | None") -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        # Who reads them may have gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
