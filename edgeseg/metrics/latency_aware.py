"""Latency-aware mIoU: the label map is scored against the frame that is current when it can be read.

Formulas: 1-definitions (Frame offset, LAmIoU, Expected LAmIoU, ABT); source [C 1.3], [C 2.4.4].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix, Scores

ROUNDING = 1e-9
"""Relative distance within which l / d counts as a whole number of frames."""


def frame_offset(latency_s: float, frame_period_s: float) -> int:
    """k = ceil(l / d): how many frames later the labels of a frame can be read. Exactly n periods give n."""
    if not frame_period_s > 0:
        raise InputError(f"the frame period must be positive | got {frame_period_s} s")
    if not 0 <= latency_s < math.inf:
        raise InputError(f"a latency must be finite and not negative | got {latency_s} s")
    periods = latency_s / frame_period_s
    nearest = round(periods)
    if abs(periods - nearest) <= ROUNDING * max(1.0, periods):
        return nearest
    return math.ceil(periods)


def offset_probabilities(latencies_s: Sequence[float] | np.ndarray, frame_period_s: float) -> dict[int, float]:
    """P(k) over the measured samples, by ascending k."""
    if len(latencies_s) == 0:
        raise InputError("no latency samples | measure the configuration first")
    offsets = [frame_offset(float(latency), frame_period_s) for latency in latencies_s]
    return {k: offsets.count(k) / len(offsets) for k in sorted(set(offsets))}


@dataclass(frozen=True)
class AccuracyTable:
    """mIoU of one configuration at k = 0..K frames of delay; independent of any device."""

    miou: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.miou:
            raise InputError("an accuracy table needs at least the entry k = 0")
        if not all(0 <= value <= 1 for value in self.miou):
            raise InputError(f"mIoU lies in [0, 1] | got {self.miou}")

    def at(self, k: int) -> float:
        """mIoU at offset k; beyond the table its last entry stands, or 0 when the table has only k = 0.

        Scores fall with the delay, so the last entry is an upper bound there: `is_bound` says when it was used.
        """
        return self.miou[min(k, len(self.miou) - 1)]

    def is_bound(self, k: int) -> bool:
        """Whether `at(k)` lies beyond the table."""
        return k >= len(self.miou)

    def best_from(self, k: int) -> float:
        """Highest entry at k or later: what a configuration of at least that delay can reach."""
        return max(self.miou[min(k, len(self.miou) - 1) :])


def lamiou(table: AccuracyTable, latency_s: float, fps: float) -> float:
    """LAmIoU at a single latency: `table[ceil(l * fps)]`."""
    return table.at(frame_offset(latency_s, 1.0 / fps))


def expected_lamiou(table: AccuracyTable, latencies_s: Sequence[float] | np.ndarray, fps: float) -> float:
    """Sum over k of P(k) * table[k], with P from the measured samples."""
    return sum(share * table.at(k) for k, share in offset_probabilities(latencies_s, 1.0 / fps).items())


def latency_tax(table: AccuracyTable, lamiou_value: float) -> float:
    """mIoU(k = 0) - LAmIoU: what the delay costs."""
    return table.miou[0] - lamiou_value


def start_phases(k: int, *, stateful: bool) -> range:
    """First frames of the passes that make the table's entry k.

    A stateless network needs one pass. A stateful one is fed every max(1, k)-th frame, from every start phase; at
    stride 1 it still starts at frames 0 and 1: a two-phase network treats odd and even frames differently [C 2.4.4].
    """
    return range(max(2, k)) if stateful else range(1)


class OffsetScores:
    """Gathers the scores for k = 0..K frames of delay over any number of videos, and gives the accuracy table.

    A stateful network is run anew for each k, at the stride that this delay imposes and from every start phase; the
    table's entry is then the mean of the phases' mIoU. A stateless one needs a single pass.
    """

    def __init__(self, class_count: int, *, max_offset: int, stateful: bool) -> None:
        self.stateful = stateful
        self._matrices = [
            [ConfusionMatrix(class_count) for _ in start_phases(k, stateful=stateful)] for k in range(max_offset + 1)
        ]

    def add_video(
        self,
        predict: Callable[[int], np.ndarray],
        reset: Callable[[], None],
        labels: Callable[[int], np.ndarray | None],
        frame_count: int,
    ) -> None:
        """Score one video.

        Args:
            predict: frame index -> integer `(H, W)` prediction; called with ascending indices after each `reset`.
            reset: forgets the network's state.
            labels: frame index -> label map `(H, W)`, or None where a frame has none.
            frame_count: frames of the video.
        """
        reset()
        if self.stateful:
            for k, phases in enumerate(self._matrices):
                for start, matrix in enumerate(phases):
                    reset()
                    for index in range(start, frame_count - k, max(1, k)):
                        prediction = predict(index)
                        target = labels(index + k)
                        if target is not None:
                            matrix.add(target, prediction)
            return
        for index in range(frame_count):
            targets = [
                (phases[0], labels(index + k)) for k, phases in enumerate(self._matrices) if index + k < frame_count
            ]
            if any(target is not None for _, target in targets):
                prediction = predict(index)
                for matrix, target in targets:
                    if target is not None:
                        matrix.add(target, prediction)

    def scores(self, k: int) -> Scores:
        """Scores at offset k, the counts of all start phases together."""
        return Scores(np.sum([matrix.counts for matrix in self._matrices[k]], axis=0))

    def mean_miou(self, k: int, classes: Sequence[int] | None = None) -> float:
        """Mean over the start phases of the mIoU of `classes` (all by default) at offset k; nan when none occurs."""
        phases = self._matrices[k]
        chosen = tuple(range(phases[0].class_count) if classes is None else classes)
        values = [value for matrix in phases if not np.isnan(value := matrix.scores().miou_of(chosen))]
        return float(np.mean(values)) if values else float("nan")

    def table(self) -> AccuracyTable:
        """mIoU at k = 0..K.

        Raises:
            InputError: an offset has no labelled frame (the videos are shorter than the table).
        """
        rows = [self.mean_miou(k) for k in range(len(self._matrices))]
        for k, value in enumerate(rows):
            if np.isnan(value):
                raise InputError(f"no frame has labels {k} frames later | give longer or more densely labelled videos")
        return AccuracyTable(tuple(rows))


class AsymptoticScores:
    """ABT [C 2.4.4] over any number of videos: each is run from frame 0 and again from frame 1.

    In each pass the first `warm_up_frames` frames after the start are run and not scored. The counts of a pass are
    summed over all videos; the score is the mean of the two passes' mIoU.
    """

    def __init__(self, class_count: int, *, warm_up_frames: int = 18) -> None:
        self.warm_up_frames = warm_up_frames
        self._matrices = [ConfusionMatrix(class_count) for _ in (0, 1)]

    def add_video(
        self,
        predict: Callable[[int], np.ndarray],
        reset: Callable[[], None],
        labels: Callable[[int], np.ndarray | None],
        frame_count: int,
    ) -> None:
        """Score one video; arguments as of `OffsetScores.add_video`. One that ends within the warm-up adds nothing."""
        if frame_count <= self.warm_up_frames + 1:
            return
        for start, matrix in enumerate(self._matrices):
            reset()
            for index in range(start, frame_count):
                prediction = predict(index)
                target = labels(index)
                if index >= self.warm_up_frames + start and target is not None:
                    matrix.add(target, prediction)

    @property
    def miou(self) -> float:
        """Mean over the two passes; nan when nothing was scored."""
        return float(np.mean([matrix.scores().miou for matrix in self._matrices]))
