"""A camera that gives MJPEG over HTTP on loopback, and does what a test tells it, when it tells it."""

import contextlib
import socket

import cv2
import numpy as np

from support.loopback_server import LoopbackServer

_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class MjpegServer(LoopbackServer):
    """Everybody who is connected gets what is sent; between two calls of `send` the camera stalls.

    `refuses` makes it answer new connections with 503; `connections` counts those it has accepted so far.
    """

    def __init__(self) -> None:
        super().__init__("mjpeg-server")
        self.refuses = False
        self.connections = self.refusals = 0
        self._clients: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/camera.mjpg"

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
        self._wait_for(lambda: self.connections >= count, lambda: self.connections)

    def wait_for_refusals(self, count: int) -> None:
        """The same of those that were refused."""
        self._wait_for(lambda: self.refusals >= count, lambda: self.refusals)

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(5)
        request = b""
        while b"\r\n\r\n" not in request:
            received = client.recv(4096)
            if not received:
                client.close()
                return
            request += received
        with self._changed:
            # Counted first: who has read the answer may ask for the count at once.
            if self.refuses:
                self.refusals += 1
                client.sendall(_BUSY)
                client.close()
            else:
                self.connections += 1
                client.sendall(_HEAD)
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
