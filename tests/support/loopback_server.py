"""What servers on loopback share: a listener whose connections are taken by a thread, until the `with` block ends."""

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

Server = TypeVar("Server", bound="LoopbackServer")


class LoopbackServer(ABC):
    """One connection after another goes to `_talk`, on the server's thread; `_changed` guards what a server counts."""

    def __init__(self, name: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    @abstractmethod
    def cut(self) -> None:
        """End every connection."""

    @abstractmethod
    def _talk(self, client: socket.socket) -> None:
        """What a new connection is told. An OSError ends it."""

    def _wait_for(self, holds: Callable[[], bool], seen: Callable[[], Any]) -> None:
        """Wait until `holds`, which is looked at after each notice; fails after ten seconds with what was `seen`."""
        with self._changed:
            assert self._changed.wait_for(holds, timeout=10), seen()

    def __enter__(self: Server) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake an accept() on another thread.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join(5)
        # One may have been taken in between.
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._talk(client)
