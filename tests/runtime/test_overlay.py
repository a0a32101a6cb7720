import cv2
import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.runtime.overlay import overlay, resize_labels, video_writer

CLASSES = ClassSet(("a", "b"), ((200, 0, 0), (0, 100, 0)))


def test_overlay_blends_frame_and_class_colour():
    frame = np.full((1, 2, 3), 100, np.uint8)
    shown = overlay(frame, np.array([[0, 1]], np.uint8), CLASSES, opacity=0.5)
    assert shown.tolist() == [[[150, 50, 50], [50, 100, 50]]]


def test_overlay_leaves_the_frame_where_no_class_is_known():
    frame = np.full((1, 2, 3), 100, np.uint8)
    shown = overlay(frame, np.array([[255, 0]], np.uint8), CLASSES, opacity=1.0)
    assert shown.tolist() == [[[100, 100, 100], [200, 0, 0]]]


def test_overlay_enlarges_labels_without_mixing_them():
    shown = overlay(np.zeros((4, 8, 3), np.uint8), np.array([[0, 1]], np.uint8), CLASSES, opacity=1.0)
    assert shown[0].tolist() == [[200, 0, 0]] * 4 + [[0, 100, 0]] * 4


def test_overlay_does_not_touch_its_inputs():
    frame, labels = np.full((40, 60, 3), 9, np.uint8), np.zeros((40, 60), np.uint8)
    shown = overlay(frame, labels, CLASSES, legend=True)
    assert (frame == 9).all()
    assert (shown != overlay(frame, labels, CLASSES)).any()


def test_labels_of_the_right_size_are_returned_as_they_are():
    labels = np.zeros((3, 5), np.uint8)
    assert resize_labels(labels, (3, 5)) is labels


def test_a_video_has_the_frames_that_were_written(tmp_path):
    path = tmp_path / "v.mp4"
    with video_writer(path, 15.0, (48, 64)) as writer:
        writer.write(np.full((48, 64, 3), (250, 0, 0), np.uint8), times=3)
        writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert capture.get(cv2.CAP_PROP_FPS) == 15.0
    frame_bgr = capture.read()[1]
    assert frame_bgr[20, 30, 2] > 200
    assert frame_bgr[20, 30, 0] < 40
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_when_the_block_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), video_writer(tmp_path / "v.mp4", 15.0, (48, 64)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_frame_of_another_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="of one size"), video_writer(tmp_path / "v.mp4", 15.0, (48, 64)) as writer:
        writer.write(np.zeros((48, 65, 3), np.uint8))


def test_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.mp4"), video_writer(tmp_path / "v.gif", 15.0, (48, 64)):
        pass


def test_a_video_without_a_frame_is_refused(tmp_path):
    with pytest.raises(InputError, match="without a frame"), video_writer(tmp_path / "v.mp4", 15.0, (48, 64)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_video_is_refused_when_frames_are_missing_from_the_file(tmp_path):
    """OpenCV says nothing when it cannot write: what it wrote is read back."""
    with (
        pytest.raises(InputError, match="got 2 of 3 frames"),
        video_writer(tmp_path / "v.mp4", 15.0, (48, 64)) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.uint8), times=2)
        writer.frames = 3
    assert list(tmp_path.iterdir()) == []
