"""What watching costs the camera loop: latency with 100 viewers, half of which do not read, and with none.

    python -m benchmarks.viewers --bundle shipped:street --out benchmarks/results

The loop runs all the time, over frames in memory at `--fps`, and its live view serves. Spans of `--seconds` without and
with viewers take turns. Viewers live in a process of their own, at the lowest priority, as the server does: elsewhere
they are on other machines. A quarter of them are pages, which ask for the next picture when they have the last; a
quarter read the stream; a quarter open the stream and a quarter the page's socket, ask for pictures, and read nothing.

Beside the latency it tells the processor's time that the loop's own process takes per result, which hardly depends on
what else the machine does, and what the server and the viewers took.
"""

import argparse
import asyncio
import contextlib
import itertools
import multiprocessing
import os
import socket
import statistics
import threading
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loop import MemoryVideo
from benchmarks.measure import machine_facts, write_report
from edgeseg.bundle import Bundle
from edgeseg.data.open import open_dataset
from edgeseg.optional import require
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.result import Result
from edgeseg.runtime.session import Session
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from edgeseg.runtime.viewer import Viewer
from edgeseg.runtime.viewer.server_process import step_back
from edgeseg.shipped import bundle_path

LIMIT_SHARE = 0.05
SETTLE_S = 1.0
"""Of each span, not counted: viewers come and go."""
FIRST_PICTURE_S = 30.0
_UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n"
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_ASK = b"\x81\x84\0\0\0\0next"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="shipped:street")
    parser.add_argument("--configuration", help="default: the smallest")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a step")
    parser.add_argument("--fps", type=float, default=15.0, help="frame rate of the camera")
    parser.add_argument("--viewers", type=int, default=100, help="a multiple of four")
    parser.add_argument("--view-fps", type=float, default=15.0, help="pictures per second that a viewer gets at most")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each span")
    parser.add_argument("--out", default="benchmarks/results")
    options = parser.parse_args()
    bundle = Bundle.open(bundle_path(options.bundle))
    name = options.configuration or min(bundle.configurations, key=lambda entry: entry.graphs[entry.first].macs).name
    with load(bundle, configuration=name, threads=options.threads) as session:
        ages_s, steps_s, facts_of_spans = measure(session, options)
    facts = machine_facts()
    facts["viewers"] = f"{options.viewers}, half of them not reading, in another process at the lowest priority"
    facts["spans"] = f"{options.rounds} x {options.seconds:g} s each, in turn, {SETTLE_S:g} s of each not counted"
    facts["camera"] = f"{options.fps:g} frames/s, view at most {options.view_fps:g} pictures/s"
    facts.update(facts_of_spans)
    rows = [row(name, "age ms", ages_s), row(name, "step ms", steps_s)]
    samples = {
        f"{what} {side}": list(itertools.chain(*spans))
        for what, sides in (("age", ages_s), ("step", steps_s))
        for side, spans in sides.items()
    }
    for path in write_report(Path(options.out), "viewers", rows, facts, samples):
        print(path)
    print((Path(options.out) / "viewers.md").read_text())


def measure(session: Session, options: argparse.Namespace) -> tuple[dict, dict, dict[str, object]]:
    """Seconds of age and of step, per side and span; what the readers got, and what processor time it took."""
    video = open_dataset("street").videos("val")[0]
    frames_rgb = [np.ascontiguousarray(video.frame_rgb(index)) for index in range(8)]
    memory = MemoryVideo(frames_rgb, 1 << 30)
    spans = {"age": {"without": [], "with": []}, "step": {"without": [], "with": []}}  # type: dict[str, dict[str, list]]
    loop_ms: dict[str, list[float]] = {"without": [], "with": []}
    got: list[dict[str, float]] = []
    held: list[Result] = []
    lock = threading.Lock()

    def on_result(result: Result) -> None:
        viewer.show(result)
        with lock:
            held.append(result)

    loop = Loop(session, VideoSource(memory, fps=options.fps), on_result=on_result)
    viewer = Viewer(loop, "0", fps_max=options.view_fps)
    port = int(viewer.url.rsplit(":", 1)[1].strip("/"))
    near, far = multiprocessing.get_context("spawn").Pipe()
    crowd = multiprocessing.get_context("spawn").Process(target=watch, args=(port, options.viewers, far), daemon=True)
    crowd.start()
    near.recv()
    with loop, viewer:
        # The server has started when it answers.
        urllib.request.urlopen(f"{viewer.url}icon.svg", timeout=60).close()
        for index in range(2 * options.rounds):
            # without, with, with, without, ...: what drifts meets both alike.
            side = ("without", "with", "with", "without")[index % 4]
            if side == "with":
                near.send("watch")
                near.recv()
            time.sleep(SETTLE_S)
            shares = {"server": _Share(viewer.pid), "viewers": _Share(crowd.pid)}
            with lock:
                held.clear()
                began_s = time.process_time()
            time.sleep(options.seconds - SETTLE_S)
            with lock:
                results = list(held)
                loop_ms[side].append(1e3 * (time.process_time() - began_s) / max(len(results), 1))
            spans["age"][side].append([result.age_s for result in results])
            spans["step"][side].append([result.step_ms / 1e3 for result in results])
            if side == "with":
                took = {f"share of a core, {name}": share.so_far() for name, share in shares.items()}
                near.send("leave")
                got.append(took | near.recv())
        near.send("end")
    crowd.join(10)
    facts: dict[str, object] = {key: round(statistics.fmean(span[key] for span in got), 3) for key in got[0]}
    without, watched = (statistics.median(loop_ms[side]) for side in ("without", "with"))
    facts["processor ms per result, loop's process"] = (
        f"{without:.2f} without, {watched:.2f} with viewers, ratio {watched / without:.3f}"
    )
    return spans["age"], spans["step"], facts


class _Share:
    """What share of a core a process takes from now on; 0 where it cannot be known."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._began_s, self._took_s = time.monotonic(), self._processor_s()

    def so_far(self) -> float:
        return (self._processor_s() - self._took_s) / (time.monotonic() - self._began_s)

    def _processor_s(self) -> float:
        path = Path("/proc", str(self._pid), "stat")
        if not path.exists():
            return 0.0
        user, system = path.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / float(os.sysconf("SC_CLK_TCK"))


def row(configuration: str, what: str, sides: dict[str, list[list[float]]]) -> dict[str, object]:
    """Percentiles of both sides over all spans; ratio of the 99th, and the median of that ratio over pairs of spans."""
    pooled = {side: 1e3 * np.concatenate(spans) for side, spans in sides.items()}
    p99 = {side: float(np.percentile(values, 99)) for side, values in pooled.items()}
    pairs = [
        np.percentile(watched, 99) / np.percentile(alone, 99)
        for alone, watched in zip(sides["without"], sides["with"], strict=True)
    ]
    ratio = p99["with"] / p99["without"]
    return {
        "configuration": configuration,
        "what": what,
        "p50 without": round(float(np.percentile(pooled["without"], 50)), 2),
        "p50 with": round(float(np.percentile(pooled["with"], 50)), 2),
        "p99 without": round(p99["without"], 2),
        "p99 with": round(p99["with"], 2),
        "p99 ratio": round(ratio, 3),
        "median ratio of pairs": round(float(np.median(pairs)), 3),
        "holds": "yes" if ratio <= 1 + LIMIT_SHARE else "no",
    }


def watch(port: int, viewers: int, orders: Connection) -> None:
    """The viewers' process: comes and goes as it is told."""
    require("aiohttp", extra="live")
    step_back()
    orders.send("ready")
    asyncio.run(_watch(port, viewers // 4, orders))


async def _watch(port: int, quarter: int, orders: Connection) -> None:
    while await asyncio.to_thread(orders.recv) == "watch":
        counts = {"pictures": 0, "bytes": 0}
        seeing = asyncio.Semaphore(0)
        silent = [_silent(port, is_page=index % 2 == 0) for index in range(2 * quarter)]
        tasks = [asyncio.create_task(_page(port, counts, seeing)) for _ in range(quarter)]
        tasks += [asyncio.create_task(_stream(port, counts)) for _ in range(quarter)]
        began = time.monotonic()
        # On a busy machine the lowest priority has to wait: the span begins when the pages show something.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(seeing.acquire() for _ in range(quarter))), FIRST_PICTURE_S)
        orders.send("there")
        await asyncio.to_thread(orders.poll, None)
        seconds = time.monotonic() - began
        failed = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in silent:
            sock.close()
        orders.recv()
        orders.send({
            "pictures per second and page": counts["pictures"] / seconds / quarter,
            "Mbit per second to all readers": 8e-6 * counts["bytes"] / seconds,
            "readers that were cut": len(failed),
        })  # fmt: skip


def _request(path: str, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()


def _silent(port: int, *, is_page: bool) -> socket.socket:
    """A viewer that asks and does not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.sendall(_request("/layers", _UPGRADE.format(_KEY)) + 20 * _ASK if is_page else _request("/stream.mjpg"))
    return sock


async def _page(port: int, counts: dict[str, int], seeing: asyncio.Semaphore) -> None:
    aiohttp: Any = require("aiohttp", extra="live")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/layers", max_msg_size=0) as socket,
    ):
        await socket.receive()
        is_first = True
        while True:
            await socket.send_str("next")
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                return
            if is_first:
                seeing.release()
            is_first = False
            counts["pictures"] += 1
            counts["bytes"] += len(message.data)


async def _stream(port: int, counts: dict[str, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_request("/stream.mjpg"))
    try:
        while data := await reader.read(1 << 16):
            counts["bytes"] += len(data)
    finally:
        writer.close()


if __name__ == "__main__":
    main()
