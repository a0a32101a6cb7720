"""The benchmark of the fallback ladder: what it plays, what it scores, and a run that tests can afford."""

import argparse
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import adaptive as benchmark
from benchmarks.compensation import Recording
from edgeseg.bundle import Bundle
from edgeseg.data.street import StreetDataset
from edgeseg.manifest import save_manifest
from edgeseg.runtime.result import Result
from edgeseg.shipped import bundle_path

FAST = "swiftnet_r18_268x360_w0.25_s4"


@pytest.fixture(scope="module")
def drive() -> Recording:
    """Five frames of a street at 10 frames/s."""
    data = StreetDataset((48, 64), fps=10.0, videos=(1, 1, 1), frames=(5, 5, 5))
    return Recording.read(data.videos("val")[0])


def test_a_recording_is_played_back_and_forth_without_a_cut(drive):
    video = benchmark.BackAndForth(drive, 11)
    places = [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2]
    for index, place in enumerate(places):
        np.testing.assert_array_equal(video.frame_rgb(index), drive.frames_rgb[place])
        np.testing.assert_array_equal(video.labels(index), drive.labels[place])
    video.frame_rgb(0)[:] = 0
    assert drive.frames_rgb[0].any()


def published(video, at_s: float, index: int) -> Result:
    return Result(index, 0.0, at_s, 1.0, video.labels(index), video.frame_rgb(index), FAST, index, 0.0, 0.0)


def test_the_score_is_that_of_the_labels_read_at_the_frames_of_a_phase(drive):
    video = benchmark.BackAndForth(drive, 5)
    # Ready at once, and a little before frames 3 and 4: frames 1 and 2 read labels of frame 0.
    results = [published(video, 50.0, 0), published(video, 50.29, 3), published(video, 50.39, 4)]
    assert benchmark._slamiou(results, video, 50.0, 10.0, range(3, 5)) == 1
    assert benchmark._slamiou(results, video, 50.0, 10.0, range(1, 3)) < 1


def test_frames_before_the_first_labels_are_left_out(drive):
    video = benchmark.BackAndForth(drive, 5)
    assert benchmark._slamiou([published(video, 50.4, 4)], video, 50.0, 10.0, range(5)) == 1


def test_the_row_is_that_of_the_median_round():
    rounds = [{"contender": "a", "sLAmIoU": figure, "quiet": figure / 2} for figure in (0.5, 0.3, 0.4)]
    found = benchmark._median_round(rounds)
    assert (found["sLAmIoU"], found["quiet"], found["rounds"]) == (0.4, 0.2, [0.5, 0.3, 0.4])


@pytest.fixture
def small_bundle(tmp_path) -> str:
    """Folder of the shipped bundle with its configurations of the smallest size alone: rungs enough for a ladder."""
    whole = Bundle.open(shutil.copytree(bundle_path("shipped:street"), tmp_path / "small.edgeseg"))
    save_manifest(replace(whole, configurations=tuple(each for each in whole.configurations if "268x360" in each.name)))
    return str(whole.root)


def test_each_contender_is_run_and_the_ladder_too(small_bundle, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZE_HW", (96, 128))
    before = os.sched_getaffinity(0)
    options = argparse.Namespace(bundle=small_bundle, configuration=[FAST], fps=10.0, phase_s=0.3, rounds=1, core=None)
    rows = benchmark.measure(options)
    assert {row["contender"] for row in rows} == {FAST, "adaptive"}
    assert all(0 < row["sLAmIoU"] < 1 for row in rows)
    assert os.sched_getaffinity(0) == before
