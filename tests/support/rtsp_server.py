"""A camera that gives H.264 by RTSP on loopback: RTP interleaved with the control connection, as behind a firewall."""

import contextlib
import socket
import struct
from collections.abc import Iterable

from support.loopback_server import LoopbackServer

MTU = 1400
_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 127.0.0.1\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=framerate:{fps}\r\na=control:track1\r\n"
)


class RtspServer(LoopbackServer):
    """One client at a time, which gets what is sent once it plays. The stream needs its parameter sets in the band."""

    def __init__(self, fps: int = 25) -> None:
        super().__init__("rtsp-server")
        self._fps = fps
        self._client: socket.socket | None = None
        self._sequence = 0
        self.plays = 0
        """How many clients have begun to play so far."""

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def send(self, access_unit: bytes, time_90khz: int) -> None:
        """One picture as H.264 in Annex B form, shown at `time_90khz`."""
        units = list(_nal_units(access_unit))
        with self._changed:
            for index, unit in enumerate(units):
                for packet, is_last in _packets(unit):
                    self._send_rtp(packet, time_90khz, marks=is_last and index == len(units) - 1)

    def cut(self) -> None:
        """End the connection."""
        with self._changed:
            if self._client is not None:
                with contextlib.suppress(OSError):
                    self._client.shutdown(socket.SHUT_RDWR)
                self._client = None

    def wait_for_plays(self, count: int) -> None:
        """Wait until so many clients have begun to play; fails after ten seconds."""
        self._wait_for(lambda: self.plays >= count, lambda: self.plays)

    def _talk(self, client: socket.socket) -> None:
        received = b""
        try:
            with client:
                while chunk := client.recv(4096):
                    received += chunk
                    while b"\r\n\r\n" in received:
                        request, received = received.split(b"\r\n\r\n", 1)
                        self._answer(client, request.decode("latin-1"))
        finally:
            with self._changed:
                self._client = None

    def _answer(self, client: socket.socket, request: str) -> None:
        # RTCP reports of the client, which come between its requests, are read over.
        method = next((name for name in ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN") if name in request), "")
        sequence = next((line for line in request.split("\r\n") if line.lower().startswith("cseq")), "CSeq: 0")
        body = _SDP.format(fps=self._fps) if method == "DESCRIBE" else ""
        head = {
            "OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
        }.get(method, "")
        session = "" if method in ("OPTIONS", "DESCRIBE") else "Session: 1\r\n"
        with self._changed:
            client.sendall(f"RTSP/1.0 200 OK\r\n{sequence}\r\n{session}{head}\r\n{body}".encode())
            if method == "PLAY":
                self._client = client
                self.plays += 1
                self._changed.notify_all()

    def _send_rtp(self, payload: bytes, time_90khz: int, *, marks: bool) -> None:
        if self._client is None:
            return
        header = struct.pack(">BBHII", 0x80, 96 | marks << 7, self._sequence & 0xFFFF, time_90khz & 0xFFFFFFFF, 7)
        self._sequence += 1
        packet = header + payload
        try:
            self._client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
        except OSError:
            self._client = None


def _nal_units(access_unit: bytes) -> Iterable[bytes]:
    for unit in access_unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1"):
        if unit:
            yield unit


def _packets(unit: bytes) -> Iterable[tuple[bytes, bool]]:
    """Payloads of a NAL unit (RFC 6184): as it is, or in fragments (FU-A); and whether it is the last one."""
    if len(unit) <= MTU:
        yield unit, True
        return
    indicator, kind = unit[0] & 0xE0 | 28, unit[0] & 0x1F
    for start in range(1, len(unit), MTU):
        is_last = start + MTU >= len(unit)
        header = kind | (start == 1) << 7 | is_last << 6
        yield bytes((indicator, header)) + unit[start : start + MTU], is_last
