"""Latency-aware mIoU: the label map is scored against the frame that is current when it can be read.

Formulas: 1-definitions (Frame offset, LAmIoU, Expected LAmIoU, ABT); source [C 1.3], [C 2.4.4].
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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

    Args:
        moved_tables: further tables of the same predictions, each moved to the present in another way. Without a delay
            there is nothing to move: they share the entry k = 0.
    """

    def __init__(self, class_count: int, *, max_offset: int, stateful: bool, moved_tables: int = 0) -> None:
        self.stateful = stateful
        self._tables = [
            [[ConfusionMatrix(class_count) for _ in start_phases(k, stateful=stateful)] for k in range(max_offset + 1)]
            for _ in range(1 + moved_tables)
        ]

    @property
    def max_offset(self) -> int:
        return len(self._tables[0]) - 1

    def add_video(
        self,
        predict: Callable[[int], np.ndarray],
        reset: Callable[[], None],
        labels: Callable[[int], np.ndarray | None],
        frame_count: int,
        moved: Callable[[Sequence[int]], Iterable[tuple[int, int, np.ndarray]]] | None = None,
    ) -> None:
        """Score one video.

        Args:
            predict: frame index -> integer `(H, W)` prediction; called with ascending indices after each `reset`.
            reset: forgets the network's state.
            labels: frame index -> label map `(H, W)`, or None where a frame has none.
            frame_count: frames of the video.
            moved: ascending offsets k >= 1 -> for each moved table and each k, its number, k, and what `predict` gave
                last moved k frames on; needed when there are moved tables.
        """
        reset()
        if self.stateful:
            for k, phases in enumerate(self._tables[0]):
                for phase in range(len(phases)):
                    reset()
                    for index in range(phase, frame_count - k, max(1, k)):
                        self._add(predict(index), {k: labels(index + k)}, phase, moved)
            return
        for index in range(frame_count):
            last = min(self.max_offset, frame_count - 1 - index)
            targets = {k: labels(index + k) for k in range(last + 1)}
            if any(target is not None for target in targets.values()):
                self._add(predict(index), targets, 0, moved)

    def _add(
        self,
        prediction: np.ndarray,
        targets: Mapping[int, np.ndarray | None],
        phase: int,
        moved: Callable[[Sequence[int]], Iterable[tuple[int, int, np.ndarray]]] | None,
    ) -> None:
        """Count a frame's prediction against the label maps `targets`, by offset."""
        known = {k: target for k, target in targets.items() if target is not None}
        for k, target in known.items():
            self._tables[0][k][phase].add(target, prediction)
        late = [k for k in known if k > 0]
        if moved is not None and len(self._tables) > 1 and late:
            for table, k, shown in moved(late):
                self._tables[1 + table][k][phase].add(known[k], shown)

    def _phases(self, k: int, moved_table: int | None) -> list[ConfusionMatrix]:
        return self._tables[0 if moved_table is None or k == 0 else 1 + moved_table][k]

    def scores(self, k: int, *, moved_table: int | None = None) -> Scores:
        """Scores at offset k, the counts of all start phases together; of the labels as they come by default."""
        return Scores(np.sum([matrix.counts for matrix in self._phases(k, moved_table)], axis=0))

    def mean_miou(self, k: int, classes: Sequence[int] | None = None, *, moved_table: int | None = None) -> float:
        """Mean over the start phases of the mIoU of `classes` (all by default) at offset k; nan when none occurs."""
        phases = self._phases(k, moved_table)
        chosen = tuple(range(phases[0].class_count) if classes is None else classes)
        values = [value for matrix in phases if not np.isnan(value := matrix.scores().miou_of(chosen))]
        return float(np.mean(values)) if values else float("nan")

    def table(self, *, moved_table: int | None = None) -> AccuracyTable:
        """mIoU at k = 0..K.

        Raises:
            InputError: an offset has no labelled frame (the videos are shorter than the table).
        """
        rows = [self.mean_miou(k, moved_table=moved_table) for k in range(self.max_offset + 1)]
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
