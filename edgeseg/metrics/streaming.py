"""Streaming LAmIoU: what a reader of a running loop sees at each camera frame, measured from its log or predicted.

Formulas: 1-definitions (Streaming LAmIoU, Streaming rules); source [C 1.3] and Li et al., Towards Streaming
Perception, ECCV 2020.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix, Scores
from edgeseg.metrics.latency_aware import ROUNDING, frame_offset


@dataclass(frozen=True)
class Publication:
    """One entry of a loop's log: when a label map became readable, and the frame that it was computed from."""

    published_at_s: float
    """On the clock of the frames' capture times."""
    frame_index: int
    """Or any other key of the labels: a frame's moved labels are published several times, and keyed by publication."""


def streaming_offsets(publications: Sequence[Publication], captured_at_s: Sequence[float]) -> list[int | None]:
    """For every frame t, the frame whose labels a consumer reads at t.

    That is the newest publication no later than t; None before the first.
    """
    log = sorted(publications, key=lambda entry: entry.published_at_s)
    times = [entry.published_at_s for entry in log]
    read: list[int | None] = []
    for captured in captured_at_s:
        position = bisect_right(times, captured + ROUNDING * max(1.0, abs(captured)))
        read.append(log[position - 1].frame_index if position else None)
    return read


def streaming_ages(
    latencies_s: Sequence[float] | np.ndarray, frame_period_s: float, *, least_frames: int = 120
) -> np.ndarray:
    """How many frames old the labels are that a reader finds at each frame, by the latest-frame policy.

    A network that is free takes the newest frame at once, or waits for the next one when it has had that. Labels are
    read until newer ones come: where a step takes longer than a frame period they are older than k = ceil(l / d) at
    most frames, which `offset_probabilities` leaves out. The steps take `latencies_s` in their order, over and over.

    Args:
        least_frames: frames that are simulated at least; every latency is used once in any case.

    Returns:
        int64 `(n,)`: age in frames at each frame from the first labels on.
    """
    if len(latencies_s) == 0:
        raise InputError("no latency samples | measure the configuration first")
    log: list[Publication] = []
    free_s, taken = 0.0, -1
    while len(log) < len(latencies_s) or taken < least_frames:
        latency_s = float(latencies_s[len(log) % len(latencies_s)])
        frame_offset(latency_s, frame_period_s)
        newest = math.floor(free_s / frame_period_s + ROUNDING)
        taken = max(newest, taken + 1)
        free_s = max(free_s, taken * frame_period_s) + latency_s
        log.append(Publication(free_s, taken))
    frames = np.arange(math.floor(free_s / frame_period_s + ROUNDING) + 1)
    read = streaming_offsets(log, (frames * frame_period_s).tolist())
    return np.array(
        [frame - source for frame, source in zip(frames, read, strict=True) if source is not None], np.int64
    )


def streaming_scores(
    publications: Sequence[Publication],
    captured_at_s: Sequence[float],
    prediction: Callable[[int], np.ndarray],
    labels: Callable[[int], np.ndarray | None],
    *,
    class_count: int,
) -> Scores:
    """sLAmIoU of a loop: each labelled frame t against the newest label map published no later than t.

    Args:
        publications: the loop's log.
        captured_at_s: capture time of every frame of the video, by frame index.
        prediction: source frame index -> the label map that the loop published for it, `(H, W)`.
        labels: frame index -> label map `(H, W)`, or None where a frame has none.
        class_count: number of classes C.

    Before the first publication a frame counts as all wrong.
    """
    matrix = ConfusionMatrix(class_count)
    for index, source in enumerate(streaming_offsets(publications, captured_at_s)):
        target = labels(index)
        if target is None:
            continue
        if source is None:
            matrix.add_all_wrong(target)
        else:
            matrix.add(target, prediction(source))
    return matrix.scores()
