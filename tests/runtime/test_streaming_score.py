import math

import numpy as np
import pytest

from edgeseg.runtime.result import Result
from edgeseg.runtime.source import RecordedSource
from edgeseg.runtime.streaming_score import StreamingScore, StreamingScores

FPS, FRAMES = 10.0, 64


class Labelled(RecordedSource):
    """Frame i begins at i / 10 s; its labels are class 0 everywhere, and reading them takes a second of `now_s`."""

    def __init__(self, classes, *, every: int = 1, interrupted_after: int | None = None) -> None:
        super().__init__("labelled", FPS, (32, 48))
        self.classes, self._every, self._left = classes, every, interrupted_after
        self.now_s, self.asked = 0.0, []

    def has_labels(self, index: int) -> bool:
        return index % self._every == 0

    def labels(self, index: int) -> np.ndarray:
        if self._left is not None and len(self.asked) == self._left:
            raise KeyboardInterrupt
        self.asked.append(index)
        self.now_s += 1.0
        return np.zeros((32, 48), np.uint8)

    def captured_at_s(self, index: int) -> float:
        return index / FPS

    def _decode(self, index: int) -> np.ndarray:
        raise AssertionError(index)


def score_of(source: Labelled) -> StreamingScore:
    """One result per frame, published as the next frame comes: all right, but that of the last frame but one."""
    score = StreamingScore(source, source.classes, clock=lambda: source.now_s)
    for index in range(FRAMES):
        labels = np.full((32, 48), int(index == FRAMES - 2), np.uint8)
        at_s, published_s = index / FPS, (index + 1) / FPS
        score.add(
            Result(
                frame_index=index, captured_at=at_s, published_at=published_s, step_ms=1.0, labels=labels,
                frame_rgb=np.zeros((32, 48, 3), np.uint8), configuration="", source_index=index, source_at=at_s,
                stands_for=at_s,
            )
        )  # fmt: skip
    return score


@pytest.fixture
def source(graphs):
    return Labelled(graphs.classes)


def test_every_camera_frame_is_scored_when_there_is_time(source):
    scores = score_of(source).finish()
    assert (scores.scored_frames, scores.frames_with_labels) == (FRAMES + 1, FRAMES + 1)
    assert sorted(source.asked) == list(range(FRAMES + 1))
    # Class 0 on 63 of 65 frames, class 1 on one; the first frame counts as all wrong.
    assert scores.slamiou == pytest.approx((63 / 65 + 0) / 2)
    assert scores.slamiou_after_first == pytest.approx((63 / 64 + 0) / 2)


def test_frames_spread_evenly_are_scored_when_there_is_time_for_some(source):
    scores = score_of(source).finish(until_s=8.0)
    assert (scores.scored_frames, scores.frames_with_labels) == (8, FRAMES + 1)
    assert sorted(source.asked) == [0, 8, 16, 24, 32, 40, 48, 64]
    assert scores.slamiou is not None


def test_nothing_is_scored_when_there_is_no_time(source):
    assert score_of(source).finish(until_s=0.0) == StreamingScores(frames_with_labels=FRAMES + 1)


def test_the_frames_so_far_are_scored_when_scoring_is_interrupted(graphs):
    scores = score_of(Labelled(graphs.classes, interrupted_after=5)).finish()
    assert (scores.scored_frames, scores.frames_with_labels) == (5, FRAMES + 1)
    assert type(scores.interruption) is KeyboardInterrupt


def test_frames_without_labels_are_not_read(graphs):
    source = Labelled(graphs.classes, every=16)
    assert score_of(source).finish(math.inf).scored_frames == 5
    assert sorted(source.asked) == [0, 16, 32, 48, 64]
