"""Tells systemd how the camera loop is (`Type=notify`, `WatchdogSec=`): ready, alive, stopping.

Alive is said when the network gives labels of another frame, and by nothing else: a service whose engine or camera
hangs is restarted, also where labels that were computed long ago are still moved along with the camera's frames.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

PINGS_PER_TIMEOUT = 4
"""So often within the time of the watchdog it is told at most that the loop is alive."""
_log = logging.getLogger(__name__)


class ServiceNotifier:
    """Datagrams to the service manager's socket.

    Args:
        address: path of the socket; one that begins with @ is in the abstract name space.
        watchdog_s: seconds without a sign of life after which the service is restarted; None: nobody watches.
        clock: seconds.
    """

    def __init__(
        self, address: str, *, watchdog_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_s, self._clock = watchdog_s, clock
        self._last_source: int | None = None
        self._told_at_s: float | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ServiceNotifier | None":
        """The service manager that started this process; None when none did that wants to know."""
        address = environment.get("NOTIFY_SOCKET")
        if not address:
            return None
        own = environment.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
        period = environment.get("WATCHDOG_USEC", "") if own else ""
        return cls(address, watchdog_s=int(period) / 1e6 if period.isdigit() and int(period) else None)

    def on_result(self, result: "Result") -> None:
        """Ready at the first result; alive, not too often, at later ones whose labels are of another frame."""
        if result.source_index == self._last_source:
            return
        self._last_source = result.source_index
        now_s = self._clock()
        if self._told_at_s is None:
            self._send(f"READY=1\nSTATUS=running {result.configuration}")
        elif self._watchdog_s is not None and now_s - self._told_at_s >= self._watchdog_s / PINGS_PER_TIMEOUT:
            self._send("WATCHDOG=1")
        else:
            return
        self._told_at_s = now_s

    def stopping(self) -> None:
        """The loop has ended; what is left is closing files."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                # A manager that does not read must not hold the loop up: its watchdog would restart us anyway.
                channel.settimeout(1.0)
                channel.connect(self._address)
                channel.sendall(message.encode())
        except OSError as error:
            _log.warning("the service manager cannot be told %s (%s)", message.partition("\n")[0], error)


@contextmanager
def notifying(
    progress: "Callable[[Result], None] | None", environment: Mapping[str, str] = os.environ
) -> "Iterator[Callable[[Result], None] | None]":
    """`progress`, and the service manager where there is one: what to call with each result of a loop."""
    notifier = ServiceNotifier.from_environment(environment)
    if notifier is None:
        yield progress
        return

    def both(result: "Result") -> None:
        notifier.on_result(result)
        if progress is not None:
            progress(result)

    try:
        yield both
    finally:
        notifier.stopping()
