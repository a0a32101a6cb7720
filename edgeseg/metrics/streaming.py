"""Streaming LAmIoU: what a reader of a running loop sees at each camera frame, measured from its log or predicted.

Formulas: 1-definitions (Streaming LAmIoU, Streaming rules); source [C 1.3] and Li et al., Towards Streaming
Perception, ECCV 2020.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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


class StartRule(Protocol):
    """When a network that is free starts, and with which frame: what a schedule is to the loop and to the prediction.

    One rule serves one loop: it may remember the frame taken last, and how long steps take.
    """

    def takes(self, index: int, captured_at_s: float, free_at_s: float) -> bool:
        """Whether the network, free since `free_at_s`, starts with frame `index`, the newest there is.

        If so the frame is taken; if not it is left for good, and the next frame is asked about when it comes.
        """

    def finished(self, latency_s: float) -> None:
        """The step that was started took so long."""


def streaming_log(
    latencies_s: Sequence[float] | np.ndarray,
    frame_period_s: float,
    *,
    rule: StartRule | None = None,
    least_frames: int = 120,
) -> list[Publication]:
    """What a loop over frames 0, 1, 2, ... at `frame_period_s` publishes, and when; it has the first frame at 0 s.

    A network that is free asks the rule about the newest frame at once, or about the next one when it has had that. The
    steps take `latencies_s` in their order, over and over.

    Args:
        rule: when a step starts; None: the latest-frame policy, at once.
        least_frames: frames that are simulated at least; every latency is used once in any case.
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
        while rule is not None and not rule.takes(taken, taken * frame_period_s, free_s):
            taken += 1
        free_s = max(free_s, taken * frame_period_s) + latency_s
        if rule is not None:
            rule.finished(latency_s)
        log.append(Publication(free_s, taken))
    return log


def streaming_ages(log: Sequence[Publication], frame_period_s: float) -> np.ndarray:
    """How many frames old the labels are that a reader finds at each frame of the loop that `streaming_log` simulates.

    Labels are read until newer ones come: where a step takes longer than a frame period they are older than
    k = ceil(l / d) at most frames, which `offset_probabilities` leaves out.

    Returns:
        int64 `(n,)`: age in frames at each frame from the first labels on.
    """
    frames = np.arange(math.floor(log[-1].published_at_s / frame_period_s + ROUNDING) + 1)
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
