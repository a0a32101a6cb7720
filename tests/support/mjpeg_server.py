"""A camera that gives MJPEG over HTTP on loopback, and does what a test tells it, when it tells it."""

import contextlib
import socket
import threading
from types import TracebackType

import cv2
import numpy as np

_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class MjpegServer:
    """Everybody who is connected gets what is sent; between two calls of `send` the camera stalls.

    `refuses` makes it answer new connections with 503; `connections` counts those it has accepted so far.
    """

    def __init__(self) -> None:
        self.refuses = False
        self.connections = self.refusals = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._accept, name="mjpeg-server", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/camera.mjpg"

    def send(self, picture: np.ndarray | bytes) -> None:
        """One part of the stream: a picture, uint8 `(H, W, 3)` RGB, or any bytes in its place."""
        if isinstance(picture, np.ndarray):
            picture = jpeg(picture)
        part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture)
        self.send_raw(part)

    def send_raw(self, content: bytes) -> None:
        """Bytes as they are, part of no frame."""
        with self._changed:
            for client in list(self._clients):
                try:
                    client.sendall(content)
                except OSError:
                    self._drop(client)

    def cut(self) -> None:
        """End every connection."""
        with self._changed:
            for client in list(self._clients):
                self._drop(client)

    def wait_for_connections(self, count: int) -> None:
        """Wait until so many have been accepted since the start; fails after ten seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections >= count, timeout=10), self.connections

    def wait_for_refusals(self, count: int) -> None:
        """The same of those that were refused."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.refusals >= count, timeout=10), self.refusals

    def __enter__(self) -> "MjpegServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake an accept() on another thread.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._greet(client)

    def _greet(self, client: socket.socket) -> None:
        client.settimeout(5)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b""
        while b"\r\n\r\n" not in request:
            received = client.recv(4096)
            if not received:
                client.close()
                return
            request += received
        with self._changed:
            client.sendall(_BUSY if self.refuses else _HEAD)
            if self.refuses:
                self.refusals += 1
                client.close()
            else:
                self.connections += 1
                self._clients.append(client)
            self._changed.notify_all()

    def _drop(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()
        self._clients.remove(client)


def jpeg(picture_rgb: np.ndarray) -> bytes:
    """A picture, uint8 `(H, W, 3)` RGB, as JPEG."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture_rgb, cv2.COLOR_RGB2BGR))
    assert done
    return encoded.tobytes()
