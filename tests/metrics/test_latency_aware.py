import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import (
    AccuracyTable,
    AsymptoticScores,
    OffsetScores,
    expected_lamiou,
    frame_offset,
    lamiou,
    latency_tax,
    offset_probabilities,
    start_phases,
)

TABLE = AccuracyTable((0.8, 0.6, 0.5))


@pytest.mark.parametrize(
    ("latency_s", "period_s", "offset"),
    [
        (0, 0.1, 0),
        (0.05, 0.1, 1),
        (0.1, 0.1, 1),
        (0.1 + 1e-8, 0.1, 2),
        (0.3, 0.1, 3),
        (3 * 0.1, 0.1, 3),
        (0.25, 0.1, 3),
    ],
)
def test_frame_offset_is_the_ceiling_guarded_against_rounding(latency_s, period_s, offset):
    assert frame_offset(latency_s, period_s) == offset


@pytest.mark.parametrize(("latency_s", "period_s"), [(-0.1, 0.1), (float("nan"), 0.1), (float("inf"), 0.1), (0.1, 0)])
def test_frame_offset_is_refused_when_the_times_make_no_sense(latency_s, period_s):
    with pytest.raises(InputError):
        frame_offset(latency_s, period_s)


def test_offset_probabilities_count_every_sample():
    assert offset_probabilities([0.05, 0.05, 0.15, 0.25], 0.1) == {1: 0.5, 2: 0.25, 3: 0.25}


def test_expected_lamiou_weighs_the_table_by_the_samples_while_the_median_form_does_not_see_jitter():
    latencies = [0.09, 0.09, 0.11]
    assert expected_lamiou(TABLE, latencies, fps=10) == pytest.approx((2 * 0.6 + 0.5) / 3)
    assert lamiou(TABLE, float(np.median(latencies)), fps=10) == 0.6


def test_latency_tax_is_what_the_delay_costs():
    assert latency_tax(TABLE, 0.6) == pytest.approx(0.2)


def test_table_keeps_its_last_entry_beyond_its_end():
    assert TABLE.at(7) == 0.5
    assert TABLE.is_bound(3)
    assert not TABLE.is_bound(2)


def test_best_from_is_the_highest_later_entry_when_the_network_anticipates():
    assert AccuracyTable((0.5, 0.6, 0.4)).best_from(0) == 0.6
    assert AccuracyTable((0.5, 0.6, 0.4)).best_from(2) == 0.4


@pytest.mark.parametrize("miou", [(), (1.2,), (float("nan"),)])
def test_table_is_refused_when_its_values_are_no_miou(miou):
    with pytest.raises(InputError):
        AccuracyTable(miou)


def test_stateful_network_starts_from_every_phase_of_its_stride():
    assert [len(start_phases(k, stateful=True)) for k in range(5)] == [2, 2, 2, 3, 4]
    assert len(start_phases(4, stateful=False)) == 1


class Recorder:
    """Predicts the frame's own parity and keeps the order of calls."""

    def __init__(self):
        self.passes = []

    def reset(self):
        self.passes.append([])

    def predict(self, index):
        self.passes[-1].append(index)
        return np.array([[index % 2]])


def parity_labels(index):
    return np.array([[index % 2]])


def test_stateless_scores_come_from_one_pass():
    recorder, scores = Recorder(), OffsetScores(2, max_offset=2, stateful=False)
    scores.add_video(recorder.predict, recorder.reset, parity_labels, 6)
    assert recorder.passes == [[0, 1, 2, 3, 4, 5]]
    assert scores.table().miou == (1, 0, 1)
    assert [scores.scores(k).counts.sum() for k in range(3)] == [6, 5, 4]


def test_stateful_passes_run_at_the_stride_of_their_offset_from_every_phase():
    recorder, scores = Recorder(), OffsetScores(2, max_offset=3, stateful=True)
    scores.add_video(recorder.predict, recorder.reset, parity_labels, 7)
    passes = [entry for entry in recorder.passes if entry]
    assert passes[:2] == [[0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]
    assert passes[-3:] == [[0, 3], [1], [2]]


def test_table_is_the_mean_over_the_start_phases():
    scores = OffsetScores(2, max_offset=0, stateful=True)
    # Right on the pass from frame 0, wrong on the pass from frame 1.
    state = {"start": -1}

    def reset():
        state["start"] += 1

    scores.add_video(lambda index: np.array([[int(state["start"] > 1)]]), reset, lambda index: np.array([[0]]), 3)
    assert scores.table().miou == (0.5,)


def test_table_is_refused_when_the_video_is_shorter_than_its_offsets():
    scores = OffsetScores(2, max_offset=3, stateful=False)
    scores.add_video(lambda index: parity_labels(0), lambda: None, parity_labels, 2)
    with pytest.raises(InputError, match="no frame has labels 2 frames later"):
        scores.table()


def test_asymptotic_score_averages_two_passes_after_the_warm_up():
    recorder = Recorder()
    scores = AsymptoticScores(2, warm_up_frames=4)
    scores.add_video(
        recorder.predict,
        recorder.reset,
        lambda index: np.array([[index % 2 if index >= 4 else 1 - index % 2]]),
        7,
    )
    assert recorder.passes == [[0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]]
    assert scores.miou == 1


def test_asymptotic_score_sums_over_videos_before_dividing():
    scores = AsymptoticScores(2, warm_up_frames=0)
    for prediction in (0, 1):
        scores.add_video(lambda i, p=prediction: np.array([[p, 0]]), lambda: None, lambda i: np.array([[0, 0]]), 2)
    # Three of four pixels are class 0 and right; class 1 is only predicted. The mean of the videos' mIoU is .625.
    assert scores.miou == pytest.approx((3 / 4 + 0) / 2)


def test_video_that_ends_in_the_warm_up_adds_nothing():
    scores = AsymptoticScores(2)
    scores.add_video(lambda i: None, lambda: None, lambda i: None, 19)
    assert np.isnan(scores.miou)
