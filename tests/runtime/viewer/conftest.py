"""A real loop on a tiny bundle whose frames come when the test says so, and its live view on a port of its own."""

import http.client
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the live view needs aiohttp: install edgeseg[live]")
pytest.importorskip("prometheus_client", reason="the live view needs prometheus-client: install edgeseg[live]")

from edgeseg.runtime.loop import Loop
from edgeseg.runtime.result import Result
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import SourceCounts
from edgeseg.runtime.viewer import Limits, Serving, Viewer, live_view
from support.sources import ScriptedSource
from support.waiting import until


def stripes(index: int) -> np.ndarray:
    """Red, green and blue thirds, brighter with each frame: the labels are 0, 1 and 2."""
    frame = np.zeros((32, 48, 3), np.uint8)
    for channel in range(3):
        frame[:, 16 * channel : 16 * channel + 16, channel] = 100 + index % 100
    return frame


class HeldSource(ScriptedSource):
    """Gives a frame when the test lets it, for ever."""

    name = "rtsp://user:secret@camera/1"
    counts = SourceCounts()

    def __init__(self) -> None:
        super().__init__(frames=sys.maxsize)

    def picture(self, index: int) -> np.ndarray:
        return stripes(index)


class View:
    """A loop and its live view."""

    def __init__(self, loop: Loop, source: HeldSource, viewer: Viewer) -> None:
        self.loop, self.source, self.viewer = loop, source, viewer
        self.port = int(viewer.url.rsplit(":", 1)[1].strip("/"))

    @property
    def shown(self) -> int:
        """Number of the newest result."""
        newest = self.viewer.board.newest
        return 0 if newest is None else newest.number

    @property
    def newest(self) -> Result:
        """The newest result."""
        newest = self.viewer.board.newest
        assert newest is not None
        return newest.result

    def give(self, frames: int = 1) -> None:
        """So many frames, one after another, until their results are shown."""
        for _ in range(frames):
            before = self.shown
            self.source.allowed.release()
            until(lambda before=before: self.shown > before)

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> "Answer":
        """One request on a connection of its own; underscores in header names stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.putrequest(method, path, skip_host="Host" in named, skip_accept_encoding=True)
            if body is not None:
                named["Content-Length"] = str(len(body))
            for name, value in named.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


class Answer:
    """Status, headers and body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


@pytest.fixture(scope="module")
def tiny_session(bundle: Any) -> Iterator[Any]:
    with load(bundle, configuration="plain_32x48", threads=1) as session:
        yield session


@pytest.fixture
def make_view(tiny_session: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(token, limits, fps_max, stale_s, cert and key, in_process, later) -> context manager of a `View`.

    `later`: of one that has not been told its loop.

    The server is a thread, as on systems where it cannot be a process: a process takes a second to start.
    """

    @contextmanager
    def make(
        *,
        token: str | None = None,
        limits: Limits | None = None,
        cert: Any = None,
        key: Any = None,
        in_process: bool = False,
        later: bool = False,
        **options: float,
    ) -> Iterator[View]:
        monkeypatch.setattr(live_view, "is_process_possible", lambda: in_process)
        source, viewers = HeldSource(), []
        loop = Loop(tiny_session, source, on_result=lambda result: viewers[0].show(result))
        serving = Serving(0, token=token, tls_cert=cert, tls_key=key)
        classes = tiny_session.classes if later else None
        viewer = Viewer(None if later else loop, serving, limits=limits, classes=classes, **options)
        viewers.append(viewer)
        with loop, viewer:
            yield View(loop, source, viewer)

    return make


@pytest.fixture
def view(make_view: Callable[..., Any]) -> Iterator[View]:
    """A view on loopback without a token."""
    with make_view() as made:
        yield made


@pytest.fixture
def make_certificate(tmp_path: Any) -> Callable[..., Any]:
    """(password) -> files of a certificate for localhost and of its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="certificates are made with cryptography")
    from datetime import datetime, timedelta, timezone

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(password: bytes | None = None) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        today = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(today - timedelta(1)).not_valid_after(today + timedelta(9))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        cert_path, key_path = tmp_path / "cert.pem", tmp_path / "key.pem"
        cert_path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
        key_path.write_bytes(key.private_bytes(pem, pkcs8, hidden))
        return cert_path, key_path

    return make
