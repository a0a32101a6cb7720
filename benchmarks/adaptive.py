"""Whether the fallback ladder keeps a loop's sLAmIoU above that of every fixed configuration when the load changes.

    python -m benchmarks.adaptive [--bundle shipped:street] [--fps 30] [--phase-s 12] [--out DIR]

A simulated drive is played from memory at the camera's rate, back and forth, on one CPU core. In the second of three
phases of equal length a busy process runs on the same core, at the same priority: it takes half of it. Contenders are
each configuration of the bundle by itself, and the loop that began with the pick and changes (`edgeseg run
--adaptive`); they take turns, `--rounds` times. Latencies are profiled before, without the busy process. Accuracy
tables are made here of the same drive: what is measured is the ladder, and not how far the bundle's own videos are like
this one.

Other programs on the core change the figures. Root keeps them away by running this in a shell of its own session, with
-15 written to its /proc/self/autogroup.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.agreement import accuracy_table
from benchmarks.compensation import Recording
from benchmarks.measure import machine_facts, markdown_table, write_report
from edgeseg.bundle import Bundle
from edgeseg.classes import CAMVID
from edgeseg.config import UNCOMPENSATED
from edgeseg.data.street import StreetDataset
from edgeseg.data.video import Video
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import EdgesegError, InputError
from edgeseg.metrics.streaming import Publication, streaming_scores
from edgeseg.runtime.kept_session import keep
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.overlay import resize_labels
from edgeseg.runtime.profiler import profile_bundle
from edgeseg.runtime.result import Result
from edgeseg.runtime.session import load
from edgeseg.runtime.source import VideoSource
from edgeseg.shipped import bundle_path

SIZE_HW = (540, 720)
PHASES = ("quiet", "loaded", "quiet again")
ADAPTIVE = "adaptive"
NO_FRAME_RGB = np.empty((0, 0, 3), np.uint8)


class BackAndForth(Video):
    """A recording played forward and backward without end; each read is a copy, as a camera's driver would make it."""

    def __init__(self, recording: Recording, length: int) -> None:
        self.name, self.fps = "street", recording.fps
        self.size_hw = recording.frames_rgb[0].shape[:2]
        self._recording, self._length = recording, length

    def __len__(self) -> int:
        return self._length

    def frame_rgb(self, index: int) -> np.ndarray:
        return self._recording.frames_rgb[self._place(index)].copy()

    def labels(self, index: int) -> np.ndarray:
        return self._recording.labels[self._place(index)]

    def _place(self, index: int) -> int:
        last = len(self._recording.frames_rgb) - 1
        return last - abs(last - index % (2 * last))


def _spin(parent: int) -> None:
    """Until the parent is gone, even one that was killed."""
    while os.getppid() == parent:
        for _ in range(100_000):
            pass


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that takes what it can of the cores that this one may run on."""
    process = multiprocessing.get_context("fork").Process(target=_spin, args=(os.getpid(),), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def run(
    bundle: Bundle, profile: DeviceProfile, video: BackAndForth, name: str, *, fps: float, phase_s: float
) -> dict[str, object]:
    """sLAmIoU of one contender over all phases and in each, and what it did."""
    results: list[Result] = []
    adaptive = name == ADAPTIVE
    with ExitStack() as stack:
        first = load(
            bundle,
            fps=fps,
            configuration=None if adaptive else name,
            profile=profile if adaptive else None,
            threads=1,
            frame_size_hw=video.size_hw,
            compensation=UNCOMPENSATED,
            schedule="latest-frame",
        )
        session = stack.enter_context(keep(first, bundle, adaptive=adaptive))
        session.step(video.frame_rgb(0))
        source = VideoSource(video, CAMVID, fps=fps)

        def keep_labels(result: Result) -> None:
            # Frames of a whole run do not fit into memory.
            results.append(replace(result, frame_rgb=NO_FRAME_RGB))

        loop = stack.enter_context(Loop(session, source, on_result=keep_labels))
        ended = threading.Event()
        ended.wait(phase_s)
        with busy_process():
            ended.wait(phase_s)
        loop.wait()
        summary = loop.summary
    begins_s = source.captured_at_s(0) or 0.0
    marks = [round(index * phase_s * fps) for index in range(len(PHASES) + 1)]
    by_phase = {
        phase: _slamiou(results, video, begins_s, fps, range(begin, end))
        for phase, (begin, end) in zip(PHASES, pairwise(marks), strict=True)
    }
    return {
        "contender": name,
        "sLAmIoU": _slamiou(results, video, begins_s, fps, range(marks[-1])),
        **by_phase,
        "results/s": round(summary.fps, 1),
        "step p50 ms": summary.step_ms.get("p50", 0.0),
        "changes": [f"{event.at_s - begins_s:.1f} s {event.configuration}" for event in summary.last_events],
    }


def _slamiou(results: Sequence[Result], video: BackAndForth, begins_s: float, fps: float, frames: range) -> float:
    """Over the camera frames `frames`, those before the first result left out."""
    log = [Publication(result.published_at, index) for index, result in enumerate(results)]
    captured_s = [begins_s + index / fps for index in range(frames.stop)]
    scores = streaming_scores(
        log,
        captured_s,
        lambda entry: resize_labels(results[entry].labels, video.size_hw),
        lambda index: video.labels(index) if index in frames and captured_s[index] >= log[0].published_at_s else None,
        class_count=len(CAMVID),
    )
    return scores.miou


def with_tables_of(recording: Recording, bundle: Bundle) -> Bundle:
    """`bundle` with accuracy tables of `recording`, as it is played, of the configurations that have tables."""
    entries = []
    for entry in bundle.configurations:
        with load(bundle, configuration=entry.name, threads=1, frame_size_hw=recording.frames_rgb[0].shape[:2]) as net:
            maps = [net.step(frame) for frame in recording.frames_rgb]
        table = accuracy_table(recording, maps, UNCOMPENSATED)
        accuracy = entry.accuracy
        if accuracy is not None:
            accuracy = replace(accuracy, fps=recording.fps, miou=table.miou[: len(accuracy.miou)], compensated=())
        entries.append(replace(entry, accuracy=accuracy))
    return replace(bundle, configurations=tuple(entries))


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row per contender, of its median round; the best first.

    Raises:
        InputError: a bundle of other classes than the simulator's.
    """
    bundle = Bundle.open(bundle_path(options.bundle))
    if bundle.classes.names != CAMVID.names:
        raise InputError(f"{bundle.name} is of other classes than the simulator's | give a bundle that knows them")
    frames = round(5 * options.fps)
    drive = StreetDataset(SIZE_HW, fps=options.fps, videos=(1, 1, 1), frames=(frames, frames, frames))
    recording = Recording.read(drive.videos("val")[0])
    video = BackAndForth(recording, round(len(PHASES) * options.phase_s * options.fps))
    bundle = with_tables_of(recording, bundle)
    profile = profile_bundle(
        bundle,
        fps=options.fps,
        threads=1,
        frame_size_hw=SIZE_HW,
        frames_rgb=recording.frames_rgb,
        compensations=[UNCOMPENSATED],
        exhaustive=True,
        samples=40,
    )
    names = [*(options.configuration or (entry.name for entry in bundle.configurations)), ADAPTIVE]
    taken: dict[str, list[dict[str, object]]] = {name: [] for name in names}
    for index in range(options.rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            taken[name].append(run(bundle, profile, video, name, fps=options.fps, phase_s=options.phase_s))
            print(taken[name][-1], file=sys.stderr, flush=True)
    rows = [_median_round(rounds) for rounds in taken.values()]
    return sorted(rows, key=lambda row: float(str(row["sLAmIoU"])), reverse=True)


def _median_round(rounds: Sequence[dict[str, object]]) -> dict[str, object]:
    figures = [float(str(row["sLAmIoU"])) for row in rounds]
    middle = rounds[figures.index(statistics.median_low(figures))]
    shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in middle.items()}
    return {**shown, "rounds": [round(figure, 4) for figure in figures]}


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(prog="benchmarks.adaptive", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="shipped:street", help="bundle of the simulator's classes")
    parser.add_argument("--configuration", action="append", help="fixed contender; may be repeated [default: all]")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--phase-s", type=float, default=12.0, help="length of each of the three phases")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--core", type=int, help="the core that everything runs on [default: the last one]")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the reports")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if options.core is None else options.core})
    try:
        rows = measure(options)
    except EdgesegError as error:
        sys.exit(f"benchmarks.adaptive: {error}")
    write_report(options.out, "adaptive", rows, machine_facts())
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
