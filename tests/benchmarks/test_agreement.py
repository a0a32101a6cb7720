"""The benchmark of agreement between prediction and loop, on a short video and a session that tests can afford."""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import agreement as benchmark
from benchmarks.compensation import Recording
from edgeseg.bundle import Bundle
from edgeseg.classes import ClassSet
from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.data.street import StreetDataset
from edgeseg.errors import InputError
from edgeseg.manifest import save_manifest
from edgeseg.runtime.schedule import LATEST_FRAME, Schedule
from edgeseg.shipped import bundle_path

FAST = "swiftnet_r18_268x360_w0.25_s4"


@pytest.fixture(scope="module")
def street() -> Recording:
    """Sixteen frames of a street at 15 Hz."""
    data = StreetDataset((96, 128), videos=(1, 1, 1), frames=(16, 16, 16))
    return Recording.read(data.videos("val")[0])


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(bundle_path("shipped:street"))


def test_a_perfect_network_scores_1_without_delay_and_more_when_its_late_labels_are_moved(street):
    late = benchmark.accuracy_table(street, street.labels, UNCOMPENSATED)
    moved = benchmark.accuracy_table(street, street.labels, Compensation(divisor=1))
    assert len(late.miou) == len(moved.miou) == benchmark.MAX_OFFSET + 1
    assert late.miou[0] == moved.miou[0] == 1
    assert moved.miou[3] > late.miou[3]


def test_played_frames_are_copies_so_that_the_loop_owns_what_it_takes(street):
    played = benchmark.Played(street)
    played.frame_rgb(0)[:] = 0
    assert street.frames_rgb[0].any()
    assert (len(played), played.size_hw, played.fps) == (16, (96, 128), street.fps)
    np.testing.assert_array_equal(played.labels(3), street.labels[3])


def row(
    bundle, street, monkeypatch, *, predicted_s: float, scores: list[float], steps_s: float, schedule=LATEST_FRAME
) -> dict:
    """The row of a case whose profile and runs are given."""
    runs = iter(scores)
    monkeypatch.setattr(benchmark, "profiled_s", lambda *arguments: np.full(4, predicted_s))
    monkeypatch.setattr(benchmark, "loop_score", lambda *arguments: (next(runs), [steps_s] * 4))
    case = benchmark.Case(bundle.configuration(FAST), UNCOMPENSATED, 10.0, schedule)
    table = benchmark.AccuracyTable((0.9, 0.8, 0.7, 0.6))
    return benchmark.case_row(bundle, case, table, street, runs=len(scores), threads=1)


def test_a_case_holds_when_the_median_run_is_within_the_limit_of_the_prediction(bundle, street, monkeypatch):
    # Steps of a period exactly: labels are one frame old at every frame.
    found = row(bundle, street, monkeypatch, predicted_s=0.1, scores=[0.2, 0.795, 0.805], steps_s=0.1)
    assert (found["predicted"], found["loop"], found["difference"], found["holds"]) == (0.8, 0.795, -0.005, "yes")
    assert found["runs"] == [0.2, 0.795, 0.805]
    assert found["by the run's own latencies"] == -0.6


def test_a_case_does_not_hold_when_the_run_had_other_latencies_which_its_own_figure_leaves_out(
    bundle, street, monkeypatch
):
    found = row(bundle, street, monkeypatch, predicted_s=0.1, scores=[0.9], steps_s=0.0)
    assert (found["difference"], found["holds"]) == (0.1, "no")
    assert found["by the run's own latencies"] == 0
    assert (found["profiled p50 ms"], found["run p50 ms"]) == (100.0, 0.0)


def test_a_case_is_predicted_by_its_schedule(bundle, street, monkeypatch):
    # Half of the frames read labels two frames old, the others three.
    found = row(
        bundle,
        street,
        monkeypatch,
        predicted_s=0.152,
        scores=[0.65],
        steps_s=0.152,
        schedule=Schedule("shrinking-tail"),
    )
    assert (found["schedule"], found["predicted"], found["holds"]) == ("shrinking-tail", 0.65, "yes")


def options(**changes) -> argparse.Namespace:
    values = {
        "camvid": Path("there"), "bundle": "shipped:street", "configuration": [FAST], "fps": [10.0], "runs": 1,
        "compensation": "late-warp", "threads": 1, "frames": 8, "schedule": "shrinking-tail",
    }  # fmt: skip
    return argparse.Namespace(**(values | changes))


def test_the_case_is_profiled_and_run_in_the_loop(street, monkeypatch):
    data = SimpleNamespace(videos=lambda split: [benchmark.Played(street)])
    monkeypatch.setattr(benchmark, "open_dataset", lambda name: data)
    monkeypatch.setattr(benchmark, "profile_bundle", partial(benchmark.profile_bundle, samples=3))
    monkeypatch.setattr(benchmark, "MAX_OFFSET", 4)
    (found,) = benchmark.measure(options())
    assert (found["configuration"], found["compensation"]) == (FAST, Compensation("late-warp").name)
    assert found["schedule"] == "shrinking-tail"
    assert 0 < found["predicted"] < 1
    assert 0 < found["loop"] < 1
    assert found["profiled p50 ms"] > 0
    assert found["run p50 ms"] > 0


@pytest.fixture
def few_classes(bundle, tmp_path) -> Path:
    """The shipped bundle's manifest with three of its classes."""
    few = ClassSet(bundle.classes.names[:3], bundle.classes.palette[:3])
    entries = tuple(replace(entry, accuracy=None) for entry in bundle.configurations)
    save_manifest(replace(bundle, root=tmp_path, classes=few, configurations=entries))
    return tmp_path


def test_a_bundle_of_other_classes_is_refused(few_classes):
    with pytest.raises(InputError, match="is of other classes than CamVid's"):
        benchmark.measure(options(bundle=str(few_classes), configuration=None))
