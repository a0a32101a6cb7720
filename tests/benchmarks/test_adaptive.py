"""The benchmark of the fallback ladder: what it plays, what it scores, and a run that tests can afford."""

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import adaptive as benchmark
from benchmarks.compensation import Recording
from benchmarks.loaded_drive import BackAndForth, BusyProcess
from edgeseg.bundle import Bundle
from edgeseg.data.street import StreetDataset
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.manifest import save_manifest
from edgeseg.metrics.confusion import Scores
from edgeseg.runtime.loop_session import SessionEvent
from edgeseg.runtime.result import Result
from edgeseg.shipped import bundle_path
from support.waiting import until

FAST = "swiftnet_r18_268x360_w0.25_s4"


@pytest.fixture(scope="module")
def drive() -> Recording:
    """Five frames of a street at 10 frames/s."""
    data = StreetDataset((48, 64), fps=10.0, videos=(1, 1, 1), frames=(5, 5, 5))
    return Recording.read(data.videos("val")[0])


def test_a_recording_is_played_back_and_forth_without_a_cut(drive):
    video = BackAndForth(drive, 11)
    places = [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2]
    for index, place in enumerate(places):
        np.testing.assert_array_equal(video.frame_rgb(index), drive.frames_rgb[place])
        np.testing.assert_array_equal(video.labels(index), drive.labels[place])
    video.frame_rgb(0)[:] = 0
    assert drive.frames_rgb[0].any()


def cpu_s(process: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_busy_process_works_when_it_is_told_to_and_ends():
    with BusyProcess() as busy:
        process = busy._process.pid
        with busy.working():
            until(lambda: cpu_s(process) > 0.05)
        until(lambda: " (stopped)" in Path(f"/proc/{process}/status").read_text())
    assert not Path(f"/proc/{process}").exists()


def published(video, at_s: float, index: int) -> Result:
    return Result(index, 0.0, at_s, 1.0, video.labels(index), video.frame_rgb(index), FAST, index, 0.0, 0.0)


def miou(results, video, frames) -> float:
    return Scores(benchmark._counts(results, video, 50.0, 10.0, set(frames))).miou


def test_the_score_is_that_of_the_labels_read_at_the_frames_of_a_phase(drive):
    video = BackAndForth(drive, 5)
    # Ready at once, and a little before frames 3 and 4: frames 1 and 2 read labels of frame 0.
    results = [published(video, 50.0, 0), published(video, 50.29, 3), published(video, 50.39, 4)]
    assert miou(results, video, range(3, 5)) == 1
    assert miou(results, video, range(1, 3)) < 1


def test_frames_before_the_first_labels_are_left_out(drive):
    video = BackAndForth(drive, 5)
    assert miou([published(video, 50.4, 4)], video, range(5)) == 1


def test_phases_share_the_frames():
    quiet, loaded = benchmark._frames_of("quiet", 2.5), benchmark._frames_of("loaded", 2.5)
    assert quiet == {0, 1, 5, 6, 7}
    assert loaded == {2, 3, 4, 8, 9}


def test_a_reaction_is_the_first_change_of_a_phase():
    switches = [SessionEvent(at_s, "switched", FAST, "") for at_s in (101.0, 105.5, 106.0, 117.0)]
    assert list(benchmark.reactions(switches, 100.0, 5.0)) == [("loaded", 0.5), ("loaded", 2.0)]


def scored(name: str, right: int) -> benchmark.Score:
    score = benchmark.Score(name, seconds=1.0, step_p50_ms=[1.0])
    score.add(5.0, "quiet", np.array([[right, 10 - right], [0, 10]]))
    return score


def test_the_verdict_names_the_best_fixed_configuration():
    scores = [scored("slow", 5), scored("fast", 7), scored("adaptive", 8)]
    assert benchmark.verdict(scores).startswith("holds: yes; phases of 5 s 0.81")
    assert "(fast)" in benchmark.verdict(scores)
    assert benchmark.verdict([scored("fast", 8), scored("adaptive", 8)]).startswith("holds: no")


def test_the_rate_is_one_at_which_two_configurations_are_worth_most():
    bundle = Bundle.open(bundle_path("shipped:street"))
    medians_ms = dict(zip((entry.name for entry in bundle.configurations), (26, 17.5, 15.6, 11.9, 8.1, 6), strict=True))
    entries = tuple(LatencyProfile(name, "d", (median,) * 4, 5) for name, median in medians_ms.items())
    profile = DeviceProfile("cpu", {}, "", "", 30.0, True, None, 1, entries, "2026-01-01", "")
    # The fastest but one keeps up even with twice its latency, the third one only without load.
    assert benchmark.telling_rate(bundle, profile) in (45.0, 50.0)


@pytest.fixture
def small_bundle(tmp_path) -> str:
    """Folder of the shipped bundle with its configurations of the smallest size alone: rungs enough for a ladder."""
    whole = Bundle.open(shutil.copytree(bundle_path("shipped:street"), tmp_path / "small.edgeseg"))
    save_manifest(replace(whole, configurations=tuple(each for each in whole.configurations if "268x360" in each.name)))
    return str(whole.root)


def test_each_contender_is_run_and_the_ladder_too(small_bundle, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZE_HW", (96, 128))
    before = os.sched_getaffinity(0)
    options = argparse.Namespace(bundle=small_bundle, configuration=[FAST], fps=10.0, phase_s=[0.3], rounds=1)
    rows = [score.row() for score in benchmark.measure(options)]
    assert [row["contender"] for row in rows] == [FAST, "adaptive"]
    assert all(0 < row[key] < 1 for row in rows for key in ("sLAmIoU, 0.3 s", "quiet", "loaded"))
    assert os.sched_getaffinity(0) == before
