"""From sending a picture by RTSP to having it decoded: our reader, by PyAV, against OpenCV's, on loopback.

    python -m benchmarks.rtsp --rounds 3 --pictures 75 --out benchmarks/results

The camera is the one of the tests: H.264, whose pictures show their number. It notes when it sends each. The readers
have their turn, a connection each, in every round; who is first rotates. Latencies are those of the pictures after the
first `SETTLE_S` of a connection: what had waited while it was opened is older.

Latency holds the wait for the picture after it: FFmpeg knows the end of a picture by the beginning of the next one. So
it is a period at least, 40 ms at 25 pictures a second.
"""

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import machine_facts, report_parser, summary_ms, users_errors, write_report
from edgeseg.optional import require
from edgeseg.runtime.stream_capture import StreamCapture

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.h264 import Encoder
from support.rtsp_server import RtspServer

SIZE_HW = (480, 640)
FPS, KEY_EVERY = 25, 25
BITS = 12
SETTLE_S = 1.0
OPEN_S = 20.0
_OPENCV_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


@dataclass
class Reading:
    """What was measured of one reader."""

    open_s: list[float] = field(default_factory=list)
    """From the call to the first picture, of each connection."""
    latency_s: list[float] = field(default_factory=list)
    """From sending to the decoded picture."""


class Camera:
    """Films numbers, and remembers when it sent each."""

    def __init__(self, server: RtspServer) -> None:
        self._server, self._done = server, threading.Event()
        self.sent_s: list[float] = []
        self._thread = threading.Thread(target=self._film, daemon=True)

    @contextmanager
    def filming(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._done.set()
            self._thread.join()

    def _film(self) -> None:
        encoder, due_s = Encoder(SIZE_HW, FPS, key_every=KEY_EVERY), time.monotonic()
        for number in range(1 << BITS):
            unit = encoder.encode(numbered(number))
            if self._done.wait(max(0.0, due_s - time.monotonic())):
                return
            # From when it was sent, not from when it should have been: late pictures do not come in a burst.
            self.sent_s.append(time.monotonic())
            due_s = self.sent_s[-1] + 1 / FPS
            self._server.send(unit, 90_000 // FPS * number)


def numbered(number: int) -> np.ndarray:
    """A picture, uint8 `(H, W, 3)`, whose stripes are the bits of `number`."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8)
    stripes = np.repeat(32 + 192 * bits, -(-SIZE_HW[1] // BITS))[: SIZE_HW[1]]
    return np.ascontiguousarray(np.broadcast_to(stripes[None, :, None], (*SIZE_HW, 3)))


def number_in(picture: np.ndarray) -> int:
    """What `numbered` wrote."""
    width = -(-SIZE_HW[1] // BITS)
    row = picture[SIZE_HW[0] // 2, :, 1]
    return sum(int(row[min(bit * width + width // 2, SIZE_HW[1] - 1)] > 128) << bit for bit in range(BITS))


@contextmanager
def by_pyav(url: str) -> Iterator[Callable[[], np.ndarray]]:
    """Our reader."""
    capture = StreamCapture(url, name="camera", open_s=OPEN_S, read_s=OPEN_S)
    try:
        yield lambda: capture.read()[1]
    finally:
        capture.close()


@contextmanager
def by_opencv(url: str, options: str = "rtsp_transport;tcp") -> Iterator[Callable[[], np.ndarray]]:
    """OpenCV's; `options` are for its FFmpeg."""
    before = os.environ.get(_OPENCV_OPTIONS)
    os.environ[_OPENCV_OPTIONS] = options
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    try:
        yield lambda: capture.read()[1]
    finally:
        capture.release()
        if before is None:
            del os.environ[_OPENCV_OPTIONS]
        else:
            os.environ[_OPENCV_OPTIONS] = before


READERS: dict[str, Callable[[str], Any]] = {
    "PyAV": by_pyav,
    "OpenCV": by_opencv,
    "OpenCV, told not to buffer": lambda url: by_opencv(url, "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"),
}


def measure(rounds: int, pictures: int) -> dict[str, Reading]:
    """Each reader's figures over `rounds` connections of `pictures` measured pictures each."""
    readings = {name: Reading() for name in READERS}
    names = list(READERS)
    for index in range(rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            _read(READERS[name], readings[name], pictures)
    return readings


def _read(reader: Callable[[str], Any], reading: Reading, pictures: int) -> None:
    with RtspServer(FPS) as server:
        camera = Camera(server)
        with camera.filming():
            begin_s = time.monotonic()
            with reader(server.url) as read:
                read()
                opened_s = time.monotonic()
                reading.open_s.append(opened_s - begin_s)
                wanted = len(reading.latency_s) + pictures
                while len(reading.latency_s) < wanted:
                    number, now_s = number_in(read()), time.monotonic()
                    if now_s - opened_s > SETTLE_S:
                        reading.latency_s.append(now_s - camera.sent_s[number])


def rows_of(readings: dict[str, Reading]) -> list[dict[str, Any]]:
    """A row per reader: seconds to the first picture, latency, and that over ours."""
    ours = statistics.median(readings["PyAV"].latency_s)
    return [
        {
            "reader": name,
            "open_s": round(statistics.median(reading.open_s), 3),
            **summary_ms(reading.latency_s),
            "over PyAV": round(statistics.median(reading.latency_s) / ours, 2),
            "pictures": len(reading.latency_s),
        }
        for name, reading in readings.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = report_parser("rtsp", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="connections of each reader [default: %(default)s]")
    parser.add_argument("--pictures", type=int, default=75, help="of each connection [default: %(default)s]")
    given = parser.parse_args(arguments)
    with users_errors("rtsp"):
        require("av", extra="video")
        readings = measure(max(1, given.rounds), max(1, given.pictures))
    rows = rows_of(readings)
    samples = {name: reading.latency_s for name, reading in readings.items()}
    print(write_report(given.out, "rtsp", rows, machine_facts(), samples)[1].read_text())


if __name__ == "__main__":
    main()
