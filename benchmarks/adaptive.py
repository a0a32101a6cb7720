"""Whether the fallback ladder keeps a loop's sLAmIoU above that of every fixed configuration when the load changes.

    python -m benchmarks.adaptive [--bundle shipped:street] [--fps 45] [--phase-s 5 --phase-s 12] [--out DIR]

A simulated drive is played from memory at the camera's rate, back and forth, on one CPU core. Phases without and with
load alternate: a busy process on the same core, at the same priority, takes half of it. Contenders are each
configuration of the bundle by itself, and the loop that began with the pick and changes (`edgeseg run --adaptive`);
they take turns over the same phases. Latencies are profiled before, without the busy process. Accuracy tables are made
here of the same drive: what is measured is the ladder, and not how far the bundle's own videos are like this one.

Without --fps it takes the rate at which, by the profile, changing is worth most: where one configuration is the best
all the time there is nothing to show.

Other programs on the core change the figures. Root keeps them away by running this in a shell of its own session, with
-15 written to its /proc/self/autogroup.
"""

import argparse
import os
import statistics
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.agreement import accuracy_table
from benchmarks.compensation import Recording
from benchmarks.loaded_drive import BackAndForth, BusyProcess
from benchmarks.measure import machine_facts, markdown_table, write_report
from edgeseg.bundle import Bundle, Candidate
from edgeseg.classes import CAMVID
from edgeseg.config import UNCOMPENSATED
from edgeseg.data.street import StreetDataset
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import EdgesegError, InputError
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.streaming import Publication, streaming_scores
from edgeseg.runtime.kept_session import keep
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.loop_session import SessionEvent
from edgeseg.runtime.overlay import resize_labels
from edgeseg.runtime.pick import rated_table
from edgeseg.runtime.profiler import profile_bundle
from edgeseg.runtime.result import Result
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from edgeseg.shipped import bundle_path

SIZE_HW = (540, 720)
PHASES = ("quiet", "loaded", "quiet", "loaded")
PHASES_S = (5.0, 12.0)
ADAPTIVE = "adaptive"
RATES = (20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0)
"""Frames per second that it chooses from."""
SLACK = 1.1
"""Steps may turn out so many times slower than in the profile: the rate is to tell something even then."""
NO_FRAME_RGB = np.empty((0, 0, 3), np.uint8)


@dataclass
class Score:
    """What one contender did, over all runs."""

    contender: str
    by_length: dict[float, np.ndarray] = field(default_factory=dict)
    """Phase length in s -> counts of the confusion matrix."""
    by_phase: dict[str, np.ndarray] = field(default_factory=dict)
    results: int = 0
    seconds: float = 0.0
    step_p50_ms: list[float] = field(default_factory=list)
    changes: int = 0
    reaction_s: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})

    def add(self, length_s: float, phase: str, counts: np.ndarray) -> None:
        """Count the frames of one kind of phase of a run."""
        self.by_length[length_s] = self.by_length.get(length_s, 0) + counts
        self.by_phase[phase] = self.by_phase.get(phase, 0) + counts

    def row(self) -> dict[str, object]:
        """As it is shown."""
        return {
            "contender": self.contender,
            **{f"sLAmIoU, {length_s:g} s": _miou(counts) for length_s, counts in self.by_length.items()},
            **{phase: _miou(counts) for phase, counts in self.by_phase.items()},
            "results/s": round(self.results / self.seconds, 1),
            "step p50 ms": round(statistics.fmean(self.step_p50_ms), 1),
            "changes": self.changes,
            "reaction to load s": _mean(self.reaction_s["loaded"]),
            "to its end s": _mean(self.reaction_s["quiet"]),
        }


def _miou(counts: np.ndarray) -> float:
    return round(Scores(counts).miou, 4)


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 2) if values else None


def run(
    bundle: Bundle, profile: DeviceProfile, recording: Recording, busy: BusyProcess, score: Score, phase_s: float
) -> None:
    """One run of a contender over all phases, added to its score."""
    adaptive, fps = score.contender == ADAPTIVE, recording.fps
    video = BackAndForth(recording, round(len(PHASES) * phase_s * fps))
    results: list[Result] = []
    with ExitStack() as stack:
        first = load(
            bundle,
            fps=fps,
            configuration=None if adaptive else score.contender,
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
        for phase in PHASES:
            with ExitStack() as loaded:
                if phase == "loaded":
                    loaded.enter_context(busy.working())
                ended.wait(phase_s)
        loop.wait()
        summary = loop.summary
    begins_s = source.captured_at_s(0) or 0.0
    for phase in dict.fromkeys(PHASES):
        score.add(phase_s, phase, _counts(results, video, begins_s, fps, _frames_of(phase, phase_s * fps)))
    score.results += summary.results
    score.seconds += summary.seconds
    score.step_p50_ms.append(summary.step_ms.get("p50", 0.0))
    switches = [event for event in summary.last_events if event.kind == "switched"]
    score.changes += len(switches)
    for phase, seconds in reactions(switches, begins_s, phase_s):
        score.reaction_s[phase].append(seconds)


def reactions(switches: Sequence[SessionEvent], begins_s: float, phase_s: float) -> Iterator[tuple[str, float]]:
    """For each phase but the first: how long after its begin the first change came; none for one without."""
    for index, phase in enumerate(PHASES):
        begin_s = begins_s + index * phase_s
        at_s = [event.at_s for event in switches if begin_s <= event.at_s < begin_s + phase_s]
        if index and at_s:
            yield phase, at_s[0] - begin_s


def _frames_of(phase: str, length: float) -> set[int]:
    return {
        frame
        for index, name in enumerate(PHASES)
        if name == phase
        for frame in range(round(index * length), round((index + 1) * length))
    }


def _counts(
    results: Sequence[Result], video: BackAndForth, begins_s: float, fps: float, frames: set[int]
) -> np.ndarray:
    """Confusion matrix over the camera frames `frames`, those before the first result left out."""
    log = [Publication(result.published_at, index) for index, result in enumerate(results)]
    captured_s = [begins_s + index / fps for index in range(max(frames) + 1)]
    return streaming_scores(
        log,
        captured_s,
        lambda entry: resize_labels(results[entry].labels, video.size_hw),
        lambda index: video.labels(index) if index in frames and captured_s[index] >= log[0].published_at_s else None,
        class_count=len(CAMVID),
    ).counts


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


def telling_rate(bundle: Bundle, profile: DeviceProfile) -> float:
    """The rate at which two configurations, one for each kind of phase, are to gain most over a single one."""

    def gain(fps: float, slack: float) -> float:
        quiet, loaded = (
            {
                entry.name: rated_table(Candidate(entry), fps).streaming(measured.latencies_s * factor * slack)
                for entry in bundle.configurations
                if entry.accuracy is not None and (measured := profile.entry(entry.name)) is not None
            }
            for factor in (1.0, 2.0)
        )
        alone = max(quiet[name] + loaded[name] for name in quiet)
        return max(quiet.values()) + max(loaded.values()) - alone

    return max(RATES, key=lambda fps: min(gain(fps, 1.0), gain(fps, SLACK)))


def _profiled(bundle: Bundle, fps: float, recording: Recording | None = None) -> DeviceProfile:
    return profile_bundle(
        bundle,
        fps=fps,
        threads=1,
        frame_size_hw=SIZE_HW,
        frames_rgb=None if recording is None else recording.frames_rgb,
        compensations=[UNCOMPENSATED],
        exhaustive=True,
        samples=40,
    )


def measure(options: argparse.Namespace) -> list[Score]:
    """What each contender did, the adaptive one last.

    Raises:
        InputError: a bundle of other classes than the simulator's.
    """
    bundle = Bundle.open(bundle_path(options.bundle))
    if bundle.classes.names != CAMVID.names:
        raise InputError(f"{bundle.name} is of other classes than the simulator's | give a bundle that knows them")
    with BusyProcess() as busy:
        fps = options.fps or telling_rate(bundle, _profiled(bundle, RATES[0]))
        frames = round(5 * fps)
        drive = StreetDataset(SIZE_HW, fps=fps, videos=(1, 1, 1), frames=(frames, frames, frames))
        recording = Recording.read(drive.videos("val")[0])
        bundle = with_tables_of(recording, bundle)
        profile = _profiled(bundle, fps, recording)
        print(f"{fps:g} frames/s", file=sys.stderr, flush=True)
        scores = [Score(name) for name in options.configuration or [entry.name for entry in bundle.configurations]]
        scores.append(Score(ADAPTIVE))
        for index in range(options.rounds):
            for phase_s in options.phase_s or PHASES_S:
                first = index % len(scores)
                for score in scores[first:] + scores[:first]:
                    run(bundle, profile, recording, busy, score, phase_s)
                    print(score.row(), file=sys.stderr, flush=True)
    return scores


def verdict(scores: Sequence[Score]) -> str:
    """Whether the adaptive loop is above every fixed configuration at each phase length, in words."""
    *fixed, adaptive = scores
    words, holds = [], True
    for length_s, counts in adaptive.by_length.items():
        best = max(fixed, key=lambda score: Scores(score.by_length[length_s]).miou)
        figure, other = Scores(counts).miou, Scores(best.by_length[length_s]).miou
        holds = holds and figure > other
        words.append(f"phases of {length_s:g} s {figure:.4f}, the best fixed one {other:.4f} ({best.contender})")
    return f"holds: {'yes' if holds else 'no'}; {'; '.join(words)}"


def main() -> None:
    """Measure, print the table and the verdict, and write them."""
    parser = argparse.ArgumentParser(prog="benchmarks.adaptive", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="shipped:street", help="bundle of the simulator's classes")
    parser.add_argument("--configuration", action="append", help="fixed contender; may be repeated [default: all]")
    parser.add_argument("--fps", type=float, help="[default: where changing is worth most, by the profile]")
    parser.add_argument(
        "--phase-s", type=float, action="append", help="length of each of the four phases; may be repeated [5 and 12]"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--core", type=int, help="the core that everything runs on [default: the last one]")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the reports")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if options.core is None else options.core})
    try:
        scores = measure(options)
    except EdgesegError as error:
        sys.exit(f"benchmarks.adaptive: {error}")
    first = next(iter(scores[-1].by_length))
    rows = [score.row() for score in sorted(scores, key=lambda score: -Scores(score.by_length[first]).miou)]
    write_report(options.out, "adaptive", rows, {**machine_facts(), "verdict": verdict(scores)})
    print(markdown_table(rows))
    print(verdict(scores))


if __name__ == "__main__":
    main()
