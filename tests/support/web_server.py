"""A web server on loopback that gives files, or parts of them, and cuts a connection when told to."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class WebServer:
    """Gives the files of `folder`. `requests` counts those for each file so far.

    Args:
        folder: served at /.
        tells_length: gives their length, and the parts that are asked for; otherwise a file is sent as a live stream
            is, without a length, until the connection ends.
    """

    def __init__(self, folder: Path, *, tells_length: bool = True) -> None:
        self.folder, self.tells_length = folder, tells_length
        self.requests: list[str] = []
        self.cut_at: int | None = None
        """Byte of the file at which the next connection that comes to it is cut, once."""
        self.changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    @contextmanager
    def running(self) -> Iterator["WebServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def wait_for_requests(self, count: int) -> None:
        """Wait until so many have come; fails after ten seconds."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, timeout=10), self.requests

    def content(self, path: str, begin: int) -> tuple[bytes, bool]:
        """A file from byte `begin` on, and whether the connection is cut after it."""
        content = (self.folder / path.lstrip("/")).read_bytes()
        with self.changed:
            self.requests.append(path)
            self.changed.notify_all()
            if self.cut_at is None or begin >= self.cut_at:
                return content[begin:], False
            end, self.cut_at = self.cut_at, None
            return content[begin:end], True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                wanted = self.headers.get("Range") if server.tells_length else None
                begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
                length = (server.folder / self.path.lstrip("/")).stat().st_size
                self.send_response(206 if wanted else 200)
                if server.tells_length:
                    self.send_header("Accept-Ranges", "bytes")
                    self.send_header("Content-Length", str(length - begin))
                if wanted:
                    self.send_header("Content-Range", f"bytes {begin}-{length - 1}/{length}")
                self.end_headers()
                content, is_cut = server.content(self.path, begin)
                with contextlib.suppress(OSError):
                    self.wfile.write(content)
                    if is_cut:
                        self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        return Handler
