"""A camera over HTTP that is cut, stalls and sends garbage for a long time: is anything lost uncounted, or leaked?

    python -m benchmarks.soak --steps 200000 --reconnects 20 --corrupt 1000 --out benchmarks/results

The camera is on loopback, and sends as fast as its pictures are used, `AHEAD` of them ahead at most. Each picture shows
its number. Damaged ones are spread evenly among them; at even distances the connection is cut, and every fourth time it
stalls instead. Then

    number of a picture - index of its frame is the same for all results: no picture was lost uncounted
    frames up to the last = steps + dropped while a step ran + missed by the source
    damaged pictures sent = corrupt pictures counted, and losses = reconnections

Steps are those of a stand-in that gives the same labels each time, unless `--real` is given: what is looked at is the
source and the loop. Memory, threads and open files are compared with those after a tenth of the steps.
"""

import argparse
import contextlib
import gc
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.measure import machine_facts, write_report
from edgeseg.bundle import Bundle
from edgeseg.runtime.camera import Reconnection, open_camera
from edgeseg.runtime.device import resident_mb
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session import Session
from edgeseg.runtime.session_loading import load
from edgeseg.shipped import bundle_path

SIZE_HW = (96, 192)
AHEAD = 4
"""Pictures on their way at most, once some of the connection have arrived."""
OPENING_PERIOD_S = 0.002
"""Between pictures until then: FFmpeg wants some before it says what a stream is."""
BITS = 24
STALL_S = 1.5
WARM_UP_SHARE = 0.1
_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"


class Steps:
    """A session whose steps after the first one cost nothing: they give the same labels again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._labels: np.ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def step(self, frame: np.ndarray) -> np.ndarray:
        if self._labels is None:
            self._labels = self._session.step(frame)
        return self._labels.copy()


@dataclass(frozen=True)
class Plan:
    """What the camera does at least, spread evenly over its pictures."""

    steps: int
    losses: int
    corrupt: int


class Camera:
    """MJPEG over HTTP on loopback, to one client at a time; `note_used` tells it which picture was used last."""

    def __init__(self, plan: Plan) -> None:
        self._damaged = _part(b"garbage" * 100)
        self._plan = plan
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = False
        self._used = -1
        self._changed = threading.Condition()
        self.whole = self.damaged = self.cuts = self.stalls = 0
        self._thread = threading.Thread(target=self._serve, name="camera", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    @property
    def losses(self) -> int:
        return self.cuts + self.stalls

    def note_used(self, number: int) -> None:
        """The picture of that number has arrived."""
        with self._changed:
            self._used = number
            self._changed.notify_all()

    def end(self) -> int:
        """Send no more, but keep the connection; the number of the last picture."""
        with self._changed:
            self._ended = True
            return self.whole - 1

    def close(self) -> None:
        self.end()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.recv(4096)
                client.sendall(_HEAD)
                self._film(client)

    def _film(self, client: socket.socket) -> None:
        first = self.whole
        while True:
            with self._changed:
                if self._used < first:
                    self._changed.wait(OPENING_PERIOD_S)
                elif not self._changed.wait_for(lambda: self.whole - self._used <= AHEAD, timeout=0.2):
                    continue
                if self._ended:
                    break
                number, self.whole = self.whole, self.whole + 1
                is_opening = self._used < first
            client.sendall(_part(_picture(number)))
            if is_opening:
                continue
            if self.damaged < self._plan.corrupt * self.whole // self._plan.steps:
                client.sendall(self._damaged)
                self.damaged += 1
            if self.losses < self._plan.losses * self.whole // self._plan.steps:
                return self._lose(client)
        _wait_for_end(client)

    def _lose(self, client: socket.socket) -> None:
        if self.losses % 4 == 3:
            self.stalls += 1
            _wait_for_end(client)
        else:
            self.cuts += 1


def _wait_for_end(client: socket.socket) -> None:
    """Open and silent until the other side has had enough."""
    client.settimeout(60)
    with contextlib.suppress(OSError):
        while client.recv(4096):
            pass


def _part(content: bytes) -> bytes:
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(content), content)


def _picture(number: int) -> bytes:
    """A grey picture with its number in black and white, as JPEG."""
    picture = np.full((*SIZE_HW, 3), 128, np.uint8)
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    picture[:16, : 8 * BITS] = np.repeat(bits, 8)[:, None]
    return cv2.imencode(".jpg", picture)[1].tobytes()


def _number(frame_rgb: np.ndarray) -> int:
    return sum(int(frame_rgb[8, 8 * bit + 4, 0] > 128) << bit for bit in range(BITS))


def soak(session: Any, plan: Plan) -> dict[str, Any]:
    """Run the loop in front of such a camera; figures of the run."""
    camera = Camera(plan)
    limits = Reconnection(stall_s=STALL_S, first_wait_s=0.05, most_wait_s=0.2)
    source = open_camera(camera.url, fps=1000, reconnection=limits)
    offsets: set[int] = set()
    last_number, result = -1, None
    before: dict[str, float] = {}
    began_s = time.monotonic()
    with Loop(session, source) as loop:
        for results, result in enumerate(loop, start=1):
            number = _number(result.frame_rgb)
            offsets.add(number - result.frame_index)
            camera.note_used(number)
            if not before and results >= WARM_UP_SHARE * plan.steps and camera.losses:
                before = _resources()
            if last_number < 0 and results >= plan.steps and camera.losses >= plan.losses:
                last_number = camera.end()
            if number == last_number:
                break
        seconds, after, summary = time.monotonic() - began_s, _resources(), loop.summary
    source.close()
    camera.close()
    frames = 0 if result is None else result.frame_index + 1
    counted = summary.results + summary.results_dropped + summary.frames_dropped + summary.frames_missed
    return {
        "steps": summary.results,
        "minutes": round(seconds / 60, 2),
        "pictures sent": camera.whole,
        "frames": frames,
        "dropped": summary.frames_dropped,
        "missed": summary.frames_missed,
        "lost uncounted": frames - counted + len(offsets) - 1,
        "cuts": camera.cuts,
        "stalls": f"{summary.stalls} of {camera.stalls}",
        "reconnections": f"{summary.reconnects} of {camera.losses}",
        "corrupt": f"{summary.corrupt_frames} of {camera.damaged}",
        **{f"{name} grown by": round(after[name] - before[name], 2) for name in after},
        "memory MB": round(after["memory MB"], 1),
    }


def _resources() -> dict[str, float]:
    gc.collect()
    return {
        "memory MB": resident_mb() or 0.0,
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="shipped:street")
    parser.add_argument("--configuration", help="default: the one with the fewest operations")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--reconnects", type=int, default=20)
    parser.add_argument("--corrupt", type=int, default=1_000)
    parser.add_argument("--real", action="store_true", help="compute every step")
    parser.add_argument("--out", type=Path, help="folder for soak.json and soak.md")
    arguments = parser.parse_args()
    logging.getLogger("edgeseg").setLevel(logging.ERROR)
    opened = Bundle.open(bundle_path(arguments.bundle))
    smallest = min(opened.configurations, key=lambda entry: entry.graphs[entry.then[0]].macs)
    plan = Plan(arguments.steps, arguments.reconnects, arguments.corrupt)
    with load(opened, configuration=arguments.configuration or smallest.name, threads=1) as session:
        row = soak(session if arguments.real else Steps(session), plan)
    print("\n".join(f"{name:24} {value}" for name, value in row.items()))
    if arguments.out is not None:
        write_report(
            arguments.out, "soak", [row], {**machine_facts(), "steps": "real" if arguments.real else "stand-in"}
        )


if __name__ == "__main__":
    main()
