from dataclasses import replace

import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.result import Result
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source_opening import open_source

CLASSES = ClassSet(("road", "car"), ((255, 0, 0), (0, 255, 0)), movable=("car",))


def result_of(labels: np.ndarray, classes: ClassSet | None = CLASSES) -> Result:
    return Result(
        frame_index=0, captured_at=1.0, published_at=1.25, step_ms=1.0, labels=labels,
        frame_rgb=np.full((4, 8, 3), 100, np.uint8), configuration="c", source_index=0, source_at=1.0, stands_for=1.0,
        classes=classes,
    )  # fmt: skip


def test_labels_that_were_left_as_they_were_are_as_old_as_the_frame_that_they_come_from():
    moved = replace(result_of(np.zeros((2, 4), np.uint8)), captured_at=1.2, frame_index=3)
    assert moved.age_s == pytest.approx(0.05)
    assert replace(moved, fallback="source frame not held").age_s == pytest.approx(0.25)


HALF = np.array([[0, 0, 1, 255], [0, 0, 1, 255]], np.uint8)


def test_the_overlay_is_of_the_cameras_size_and_shows_the_frame_where_no_class_is():
    shown = result_of(HALF).overlay(opacity=1.0)
    assert shown.shape == (4, 8, 3)
    assert [shown[0, column].tolist() for column in (0, 4, 6)] == [[255, 0, 0], [0, 255, 0], [100, 100, 100]]


def test_labels_at_the_cameras_size_repeat_the_nearest_pixel():
    expected = np.array([[0, 0, 0, 0, 1, 1, 255, 255]] * 4, np.uint8)
    np.testing.assert_array_equal(result_of(HALF).labels_at_frame_size(), expected)


def test_shares_are_of_all_pixels():
    assert result_of(HALF).class_shares() == {"road": 0.5, "car": 0.25}
    assert result_of(np.zeros((2, 4), np.uint8)).class_shares() == {"road": 1.0, "car": 0.0}


@pytest.mark.parametrize("ask", [Result.overlay, Result.class_shares, Result.detections])
def test_what_needs_the_classes_says_so_when_they_are_not_known(ask):
    with pytest.raises(InputError, match="does not tell its classes"):
        ask(result_of(HALF, classes=None))


@pytest.mark.parametrize("compensation", [None, "late-warp_dis-ultrafast_d1"])
def test_results_of_a_loop_know_the_bundles_classes(bundle, compensation):
    with load(bundle, configuration="plain_32x48", threads=1, compensation=compensation) as session:
        source = open_source("street:32x48@15")
        with Loop(session, source) as loop:
            result = next(iter(loop))
    assert result.classes == bundle.classes
    assert result.overlay().shape == (32, 48, 3)
