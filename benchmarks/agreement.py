"""Whether the camera loop reaches the sLAmIoU that is predicted for it.

    python -m benchmarks.agreement --camvid FOLDER --bundle BUNDLE [--configuration NAME ...] [--schedule NAMES]
        [--out DIR]

CamVid val is played from memory at several camera rates, by the loop as `edgeseg run` runs it, several times each. The
prediction comes from latencies that were profiled right before on frames of the same video, with the flow beside the
network, and from an accuracy table made here of the same video. The loop's score is that from the first labels on.

Played faster than it was recorded the video moves faster too: entry k of the table stands for k frames at every rate.
A machine whose load changes between the profile and the run has other latencies in the run: a third figure is predicted
from the run's own steps and warps, and leaves that out.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.compensation import Recording, late_scores
from benchmarks.measure import machine_facts, markdown_table, report_parser, users_errors, write_report
from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.classes import CAMVID
from edgeseg.config import Compensation, parse_compensations
from edgeseg.data.open import open_dataset
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix
from edgeseg.metrics.latency_aware import AccuracyTable
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime.profiler import profile_bundle
from edgeseg.runtime.result import Result
from edgeseg.runtime.run import run_loop
from edgeseg.runtime.schedule import LATEST_FRAME, Schedule
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from edgeseg.shipped import bundle_path

MAX_OFFSET = 12
LIMIT = 0.01
"""Difference of the loop's median score from the prediction that is allowed."""


class Played(Video):
    """A recording, its frames copied at each read as a camera's driver would make them."""

    def __init__(self, recording: Recording) -> None:
        self.name, self.fps = "CamVid val", recording.fps
        self.size_hw = recording.frames_rgb[0].shape[:2]
        self._recording = recording

    def __len__(self) -> int:
        return len(self._recording.frames_rgb)

    def frame_rgb(self, index: int) -> np.ndarray:
        return self._recording.frames_rgb[index].copy()

    def labels(self, index: int) -> np.ndarray:
        return self._recording.labels[index]


@dataclass(frozen=True)
class Case:
    """What is run: a configuration, how its labels are moved, the camera's rate, and when a step starts."""

    configuration: BundleConfiguration
    compensation: Compensation
    fps: float
    schedule: Schedule = LATEST_FRAME


def accuracy_table(recording: Recording, maps: Sequence[np.ndarray], compensation: Compensation) -> AccuracyTable:
    """mIoU of predictions 0 to MAX_OFFSET frames late, moved with the frames up to the one before."""
    present = ConfusionMatrix(len(CAMVID))
    for target, labels in zip(recording.labels, maps, strict=True):
        present.add(target, cv2.resize(labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
    late = late_scores(recording, maps, compensation, range(1, MAX_OFFSET + 1), CAMVID)
    return AccuracyTable(tuple(matrix.scores().miou for matrix in (present, *late.values())))


def profiled_s(bundle: Bundle, case: Case, recording: Recording, threads: int) -> np.ndarray:
    """Latencies in seconds of the case alone, from frame bytes in to the labels that are read, moved or not."""
    alone = replace(bundle, configurations=(case.configuration,))
    profile = profile_bundle(
        alone,
        fps=case.fps,
        threads=threads,
        frame_size_hw=recording.frames_rgb[0].shape[:2],
        frames_rgb=recording.frames_rgb,
        compensations=[case.compensation],
    )
    return profile.entries[0].latencies_s


def loop_score(bundle: Bundle, case: Case, recording: Recording, threads: int) -> tuple[float, list[float]]:
    """sLAmIoU of one run from the first labels on, and what each step took until its labels could be read, in s."""
    results: list[Result] = []
    video = Played(recording)
    with load(
        bundle,
        configuration=case.configuration.name,
        compensation=case.compensation,
        schedule=case.schedule,
        threads=threads,
        frame_size_hw=video.size_hw,
    ) as session:
        session.step(recording.frames_rgb[0])
        source = VideoSource(video, CAMVID, fps=case.fps)
        report = run_loop(session, source, classes=CAMVID, progress=results.append)
    if report.slamiou_after_first is None:
        raise InputError(f"{case.configuration.name} gave no labels while the video was played | give a longer one")
    first = {result.source_index: result for result in reversed(results)}
    return report.slamiou_after_first, [(result.step_ms + result.warp_ms) / 1e3 for result in first.values()]


def case_row(
    bundle: Bundle, case: Case, table: AccuracyTable, recording: Recording, *, runs: int, threads: int
) -> dict[str, object]:
    """Prediction and runs of one case."""
    rated = RatedTable(table, table_fps=case.fps, camera_fps=case.fps)
    latencies_s = profiled_s(bundle, case, recording, threads)

    def prediction(steps_s: Sequence[float] | np.ndarray) -> float:
        return rated.streaming(steps_s, case.schedule.start_rule(case.fps))

    scored = [loop_score(bundle, case, recording, threads) for _ in range(runs)]
    scores = [score for score, _ in scored]
    predicted, measured = prediction(latencies_s), statistics.median(scores)
    own = [score - prediction(steps_s) for score, steps_s in scored]
    return {
        "configuration": case.configuration.name,
        "compensation": case.compensation.name,
        "fps": case.fps,
        "schedule": case.schedule.name,
        "profiled p50 ms": round(1e3 * float(np.median(latencies_s)), 1),
        "run p50 ms": round(1e3 * statistics.median(each for _, steps_s in scored for each in steps_s), 1),
        "predicted": round(predicted, 3),
        "loop": round(measured, 3),
        "runs": [round(score, 3) for score in scores],
        "difference": round(measured - predicted, 4),
        "by the run's own latencies": round(max(own, key=abs), 4),
        "holds": "yes" if abs(measured - predicted) <= LIMIT else "no",
    }


def main() -> None:
    """Measure, print the table and write it."""
    parser = report_parser("agreement", __doc__)
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--bundle", required=True, help="bundle of CamVid's classes")
    parser.add_argument("--configuration", action="append", help="stateless; may be repeated [default: all stateless]")
    parser.add_argument("--compensation", default="none,late-warp,late-warp+extrapolate")
    parser.add_argument("--fps", type=float, action="append", help="may be repeated [default: 15, 30, 60]")
    parser.add_argument("--schedule", default="latest-frame,shrinking-tail", help="names, commas between")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a step")
    parser.add_argument("--frames", type=int, help="frames of the video; default: all")
    options = parser.parse_args()
    with users_errors("agreement"):
        rows = measure(options)
    write_report(options.out, "agreement", rows, machine_facts())
    print(markdown_table(rows))


def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row per case.

    Raises:
        InputError: a stateful configuration, whose table depends on the rate, or a bundle of other classes.
    """
    bundle = Bundle.open(bundle_path(options.bundle))
    if bundle.classes.names != CAMVID.names:
        raise InputError(f"{bundle.name} is of other classes than CamVid's | give a bundle that was trained on it")
    stateless = [entry.name for entry in bundle.configurations if not entry.knobs.stateful]
    entries = [bundle.configuration(name) for name in options.configuration or stateless]
    if stateful := [entry.name for entry in entries if entry.knobs.stateful]:
        raise InputError(f"the table of a stateful configuration holds its own stride | leave out {stateful[0]}")
    recording = Recording.read(open_dataset(options.camvid).videos("val")[0], options.frames)
    rows = []
    for entry in entries:
        with load(
            bundle,
            configuration=entry.name,
            threads=options.threads,
            frame_size_hw=recording.frames_rgb[0].shape[:2],
        ) as session:
            maps = [session.step(frame) for frame in recording.frames_rgb]
        for compensation in parse_compensations(options.compensation):
            table = accuracy_table(recording, maps, compensation)
            for fps in options.fps or (15.0, 30.0, 60.0):
                for name in options.schedule.split(","):
                    case = Case(entry, compensation, fps, Schedule.parse(name))
                    rows.append(case_row(bundle, case, table, recording, runs=options.runs, threads=options.threads))
                    print(rows[-1], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
