"""sLAmIoU of a run: label maps are kept while the loop runs, and scored against the source's labels afterwards."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.metrics.confusion import ConfusionMatrix, Scores
from edgeseg.metrics.streaming import Publication, streaming_offsets
from edgeseg.runtime.overlay import resize_labels
from edgeseg.runtime.result import Result
from edgeseg.runtime.source import Source

SCORE_BYTES = 512 << 20
"""Label maps kept for the score; a longer run is scored up to there."""


@dataclass(frozen=True)
class StreamingScores:
    """How good the labels were that a reader of the loop found at each camera frame."""

    slamiou: float | None = None
    """Over the camera frames that came before the last publication; None where none has labels."""
    slamiou_after_first: float | None = None
    """The same without the frames before the first publication, which count as all wrong above."""
    scored_frames: int = 0
    """Camera frames that were scored."""
    frames_with_labels: int = 0
    """Camera frames that could have been: more when there was no time for all, and then they are spread evenly."""
    interruption: KeyboardInterrupt | None = None
    """The Ctrl-C that broke the scoring off."""


class StreamingScore:
    """Keeps label maps during the loop and scores them afterwards, so that scoring takes no time from the loop.

    Args:
        source: scored when it is paced and has labels of `classes`.
        classes: the bundle's.
        marked: invalid pixels are marked in the labels, which then are not scored.
        clock: seconds.
    """

    def __init__(
        self,
        source: Source,
        classes: ClassSet,
        *,
        marked: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        own = source.classes
        self._source, self._clock = source, clock
        self._class_count = len(classes)
        self._scores = source.paced and own is not None and own.names == classes.names and not marked
        self._room = SCORE_BYTES
        self._log: list[Publication] = []
        # Labels from one frame are published several times when they are moved: they are found by publication.
        self._labels: list[np.ndarray] = []

    def add(self, result: Result) -> None:
        """Keep the labels of a result, as long as there is room."""
        if not self._scores or self._room < result.labels.nbytes:
            return
        self._room -= result.labels.nbytes
        # The log comes last: a Ctrl-C between the two lines leaves no entry without its labels.
        self._labels.append(result.labels)
        self._log.append(Publication(result.published_at, len(self._labels) - 1))

    def finish(self, until_s: float = math.inf) -> StreamingScores:
        """Score the camera frames, as many of them as there is time for before `until_s` on the clock.

        A Ctrl-C ends it too: the scores of the frames so far are given, with the interruption.
        """
        if not self._log:
            return StreamingScores()
        captured: list[float] = []
        while (at := self._source.captured_at_s(len(captured))) is not None and at <= self._log[-1].published_at_s:
            captured.append(at)
        read = streaming_offsets(self._log, captured)
        labelled = [index for index in range(len(captured)) if self._source.has_labels(index)]
        before, after = ConfusionMatrix(self._class_count), ConfusionMatrix(self._class_count)
        scored, interruption = 0, None
        try:
            for position in _spread(len(labelled)):
                if self._clock() >= until_s:
                    break
                index = labelled[position]
                scored += self._count(index, read[index], before, after)
        except KeyboardInterrupt as error:
            interruption = error
        return StreamingScores(
            _miou(Scores(before.counts + after.counts)), _miou(after.scores()), scored, len(labelled), interruption
        )

    def _count(self, index: int, entry: int | None, before: ConfusionMatrix, after: ConfusionMatrix) -> bool:
        """Count frame `index`, at which the labels of publication `entry` were read; whether it has labels."""
        labels = self._source.labels(index)
        if labels is None:
            return False
        if entry is None:
            before.add_all_wrong(labels)
        else:
            after.add(labels, resize_labels(self._labels[entry], self._source.size_hw))
        return True


def _spread(count: int) -> Iterator[int]:
    """0 to `count` - 1 in an order whose every beginning is spread evenly: by strides that are halved."""
    if count:
        yield 0
    stride = 1 << max(0, count - 1).bit_length()
    while stride > 1:
        yield from range(stride // 2, count, stride)
        stride //= 2


def _miou(scores: Scores) -> float | None:
    return None if math.isnan(scores.miou) else scores.miou
