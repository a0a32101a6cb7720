import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix

LABELS = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
PREDICTION = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)


def test_counts_are_label_by_prediction_when_a_frame_is_added():
    matrix = ConfusionMatrix(3)
    matrix.add(LABELS, PREDICTION)
    assert matrix.counts.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_counts_sum_over_frames_before_dividing():
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([[0, 0]]), np.array([[0, 0]]))
    matrix.add(np.array([[0, 1]]), np.array([[1, 1]]))
    assert matrix.scores().iou.tolist() == [2 / 3, 1 / 2]


def test_iou_is_tp_over_union_when_computed_by_hand():
    matrix = ConfusionMatrix(3)
    matrix.add(LABELS, PREDICTION)
    assert matrix.scores().iou.tolist() == [1 / 3, 2 / 3, 0]
    assert matrix.scores().miou == pytest.approx(1 / 3)


def test_miou_leaves_out_a_class_when_its_union_is_empty():
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([0, 1]), np.array([0, 1]))
    assert np.isnan(matrix.scores().iou[2:]).all()
    assert matrix.scores().miou == 1


def test_class_counts_when_only_predicted():
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 0]), np.array([0, 2]))
    assert matrix.scores().miou == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize("ignored", [3, 11, 255])
def test_label_is_ignored_when_outside_of_the_classes(ignored):
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, ignored], np.uint8), np.array([0, 200], np.uint8))
    assert matrix.counts.sum() == 1


def test_prediction_is_refused_when_outside_of_the_classes_on_a_counted_pixel():
    with pytest.raises(InputError, match="prediction holds class 3 on 1 pixels"):
        ConfusionMatrix(3).add(np.array([0, 1]), np.array([0, 3]))


def test_shapes_are_refused_when_they_differ():
    with pytest.raises(InputError, match="differ in shape"):
        ConfusionMatrix(3).add(np.zeros((2, 2)), np.zeros((2, 3)))


def test_other_scores_match_hand_computation():
    matrix = ConfusionMatrix(3)
    matrix.add(LABELS, PREDICTION)
    scores = matrix.scores()
    assert scores.pixel_accuracy == pytest.approx(3 / 5)
    assert scores.mean_class_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert scores.frequency_weighted_iou == pytest.approx((2 * 1 / 3 + 2 * 2 / 3 + 0) / 5)
    assert scores.miou_of((1, 2)) == pytest.approx(1 / 3)


def test_frame_without_prediction_scores_zero():
    matrix = ConfusionMatrix(3)
    matrix.add_all_wrong(LABELS)
    assert matrix.counts.sum() == 5
    assert matrix.scores().miou == 0


def test_scores_are_nan_when_nothing_was_counted():
    scores = ConfusionMatrix(2).scores()
    assert np.isnan([scores.miou, scores.pixel_accuracy, scores.mean_class_accuracy]).all()
