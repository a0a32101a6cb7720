"""Seeded garbage on the HTTP port: whatever comes, the server lives, keeps its limits, and leaks nothing."""

import logging
import random
import socket

import pytest

from edgeseg.runtime.viewer import Limits
from support.waiting import until

REQUESTS = 400
PATHS = ["/", "/layers", "/stream.mjpg", "/snapshot.png", "/healthz", "/metrics", "/live.js", "/../x", "*", ""]
HEADERS = [
    "Host: localhost", "Host: evil.example", "Origin: null", "Origin: http://localhost", "Upgrade: websocket",
    "Connection: Upgrade", "Connection: keep-alive", "Connection: close", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: x", "Content-Length: 10", "Content-Length: -1",
    "Sec-WebSocket-Extensions: permessage-deflate", "Content-Length: 99999999999999999999", "X: " + "y" * 3000,
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Content-Encoding: gzip", "Range: bytes=0-",
    "Expect: 100-continue", "Authorization: Bearer x", "Authorization: \xff", "Cookie: a=b; edgeseg-1=\x00",
    "Cookie: =;=;;", "Accept: text/html", "Sec-Fetch-Site: cross-site", "If-None-Match: *", " folded: x", "No-Colon",
    ": no name",
]  # fmt: skip
TAILS = [b"", b"5\r\nhello\r\n0\r\n\r\n", b"\x81\x84abcdabcd", b"\x88\x80abcd", b"\x82\xff" + b"\xff" * 12]


def message(chance: random.Random) -> bytes:
    """A request of likely parts in unlikely order, often damaged."""
    method = chance.choice(["GET", "HEAD", "POST", "PRI", "get", "G\x00T", "CONNECT", "A" * 100])
    version = chance.choice(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "HTP", ""])
    query = chance.choice(["", "?token=x", "?" + "%" * 9, "?token=%ff%00", "#x", "?" + "&" * 500])
    lines = [f"{method} {chance.choice(PATHS)}{query} {version}"]
    lines += chance.choices(HEADERS, k=chance.randrange(10))
    if chance.random() < 0.6:
        lines.insert(1, "Host: localhost")
    data = bytearray("\r\n".join([*lines, "", ""]).encode("latin-1"))
    data += chance.choice(
        [b"", b"5\r\nhello\r\n0\r\n\r\n", b"\x81\x84abcdabcd", b"\x88\x80abcd", b"\x82\xff" + b"\xff" * 12]
    )
    for _ in range(chance.choice([0, 0, 1, 5, 50])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    return bytes(data) * chance.choice([1, 1, 1, 3])


@pytest.mark.parametrize("seed", [1, 2])
def test_garbage_ends_no_server_and_leaves_no_connection(make_view, caplog, seed):
    chance = random.Random(seed)
    with make_view(limits=Limits(rate_per_s=5000.0, head_s=2.0)) as view, caplog.at_level(logging.WARNING):
        view.give()
        for number in range(REQUESTS):
            with socket.create_connection(("127.0.0.1", view.port), timeout=20) as sock:
                try:
                    sock.sendall(message(chance))
                    if chance.random() < 0.5:
                        sock.settimeout(0.005)
                        sock.recv(chance.choice([1, 4096]))
                except OSError:
                    pass
            if number % 100 == 0:
                view.give()
        assert view.get("/snapshot.png").status == 200
        view.give()
        until(lambda: b"edgeseg_viewer_connections 1.0" in view.get("/metrics").body)
    # Neither a traceback nor a line that viewers could fill a disk with.
    assert caplog.records == []


def test_garbage_over_the_socket_of_the_page_ends_that_connection_alone(make_view):
    chance = random.Random(3)
    upgrade = (
        b"GET /layers HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with make_view(limits=Limits(rate_per_s=5000.0)) as view:
        view.give()
        for _ in range(60):
            with socket.create_connection(("127.0.0.1", view.port), timeout=20) as sock:
                sock.sendall(upgrade)
                assert sock.recv(12) == b"HTTP/1.1 101"
                try:
                    sock.sendall(chance.randbytes(chance.choice([1, 7, 200, 40_000])))
                    sock.settimeout(0.01)
                    sock.recv(4096)
                except OSError:
                    pass
        assert view.get("/healthz").status == 200
        until(lambda: b"edgeseg_viewer_connections 1.0" in view.get("/metrics").body)
