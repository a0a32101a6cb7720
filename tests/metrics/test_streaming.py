import collections

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import AccuracyTable, OffsetScores
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.metrics.streaming import Publication, streaming_ages, streaming_log, streaming_offsets, streaming_scores


def ages(latencies_s: list[float], least_frames: int = 120) -> list[int]:
    """Of a camera of 10 frames/s."""
    return streaming_ages(streaming_log(latencies_s, 0.1, least_frames=least_frames), 0.1).tolist()


def test_newest_publication_no_later_than_the_frame_is_read():
    log = [Publication(0.15, 0), Publication(0.3, 2)]
    assert streaming_offsets(log, [0.0, 0.1, 0.2, 0.3, 0.4]) == [None, None, 0, 2, 2]


def test_streaming_score_counts_frames_before_the_first_output_as_all_wrong():
    scores = streaming_scores(
        [Publication(0.1, 0)],
        [0.0, 0.1],
        prediction=lambda index: np.array([[0, 1]]),
        labels=lambda index: np.array([[0, 1]]),
        class_count=2,
    )
    assert scores.iou.tolist() == [1 / 3, 1 / 3]


def test_streaming_score_equals_the_table_entry_when_the_delay_is_constant():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (12, 4, 4))
    predictions = rng.integers(0, 3, (12, 4, 4))
    offsets = OffsetScores(3, max_offset=2, stateful=False)
    offsets.add_video(lambda i: predictions[i], lambda: None, lambda i: labels[i], 12)
    times = [index * 0.1 for index in range(12)]
    scores = streaming_scores(
        [Publication(time + 0.2, index) for index, time in enumerate(times)],
        times,
        prediction=lambda i: predictions[i],
        labels=lambda i: labels[i] if i >= 2 else None,
        class_count=3,
    )
    assert scores.miou == pytest.approx(offsets.table().miou[2])


@pytest.mark.parametrize("latency_s", [0.02, 0.1])
def test_labels_are_one_frame_old_when_a_step_takes_at_most_a_period(latency_s):
    assert set(ages([latency_s])) == {1}


def test_labels_are_held_when_a_step_takes_longer_than_a_period():
    # Begun at 0, .15, .30, ... on frames 0, 1, 3, 4, 6, ...; ready at .15, .30, .45, ...
    assert ages([0.15], least_frames=6)[:5] == [2, 2, 3, 2, 2]


def test_latencies_are_used_in_their_order():
    # Ready at .05, .35 (begun on frame 1), .40 (begun on frame 3, the newest): frames 1 to 4 read 0, 0, 0, 3.
    assert ages([0.05, 0.25, 0.05], least_frames=1)[:4] == [1, 2, 3, 1]


def test_every_latency_is_used_however_few_frames_are_asked_for():
    assert collections.Counter(ages([0.05] * 50 + [0.45], least_frames=1))[1] == 50


def test_ages_are_refused_without_samples():
    with pytest.raises(InputError, match="no latency samples"):
        streaming_log([], 0.1)


def test_streaming_prediction_is_below_the_expected_score_when_labels_are_held():
    rated = RatedTable(AccuracyTable((0.8, 0.6, 0.5, 0.45)), 10.0, 10.0)
    assert rated.expected([0.15]) == 0.5
    # Two of three frames read labels that are two frames old, the third reads older ones.
    assert rated.streaming([0.15]) == pytest.approx((2 * 0.5 + 0.45) / 3, abs=0.002)


def test_streaming_prediction_is_the_expected_score_when_every_step_ends_within_a_period():
    rated = RatedTable(AccuracyTable((0.8, 0.6, 0.5)), 10.0, 10.0)
    assert rated.streaming([0.03, 0.09]) == rated.expected([0.03, 0.09]) == 0.6
