"""Predictions of one video in the order that accuracy tables ask for, as they come and moved to the present."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from edgeseg.config import Compensation
from edgeseg.export.cached_video import CachedVideo
from edgeseg.export.video_motion import Flow
from edgeseg.metrics.latency_aware import OffsetScores
from edgeseg.runtime.session import Session


class Predictor(Protocol):
    """Something that labels frames in turn: a session of the runtime, or a torch network."""

    def reset(self) -> None:
        """Forget all state."""

    def __call__(self, frame_rgb: np.ndarray) -> np.ndarray:
        """uint8 `(H, W, 3)` at the input size -> labels uint8 `(h, w)`."""


class SessionPredictor:
    """A session of the runtime as a predictor."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def reset(self) -> None:
        self._session.reset()

    def __call__(self, frame_rgb: np.ndarray) -> np.ndarray:
        return self._session.step(frame_rgb)


def fit_labels(labels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A label map at `size_hw`, nearest neighbour with half-pixel centres."""
    if labels.shape == size_hw:
        return labels
    return cv2.resize(labels, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


class VideoPass:
    """Predictions of one video in the order in which `OffsetScores` asks for them.

    Offsets 0 and 1 feed every frame alike, so the passes at stride 1 are made once and kept.

    Args:
        size_hw: input size of the predictor.
        on_frame: called after each frame that the predictor was run on.
        compensations: how `moved` moves labels; each moves them.
        target_offset: frames ahead that the predictor was trained for.
    """

    def __init__(
        self,
        predictor: Predictor,
        entry: CachedVideo,
        size_hw: tuple[int, int],
        on_frame: Callable[[], None] | None = None,
        *,
        compensations: Sequence[Compensation] = (),
        target_offset: int = 0,
    ) -> None:
        self._predictor = predictor
        self._entry = entry
        self._size_hw = size_hw
        self._on_frame = on_frame
        motions = {flow: entry.motion(flow) for flow in map(Flow.of, compensations)}
        self._motions = [(compensation, motions[Flow.of(compensation)]) for compensation in compensations]
        self._target_offset = target_offset
        self._kept: dict[tuple[int, int], np.ndarray] = {}
        self.reset()

    def score(self, offsets: OffsetScores) -> None:
        """Add the whole video to `offsets`, whose moved tables are those of the compensations."""
        offsets.add_video(self.predict, self.reset, self._entry.labels, len(self._entry.video), self.moved)

    def reset(self) -> None:
        """Forget the state, as before a video."""
        self._asked: list[int] = []
        self._fed = 0

    def predict(self, index: int) -> np.ndarray:
        """Labels of frame `index`, uint8 at the label maps' size; ascending indices after each reset."""
        self._asked.append(index)
        start = self._asked[0]
        every_frame = index - start == len(self._asked) - 1
        if every_frame and (start, index) in self._kept:
            self._labels = self._kept[start, index]
        else:
            self._labels = self._run().copy()
            if every_frame:
                self._kept[start, index] = self._labels
        return fit_labels(self._labels, self._entry.video.size_hw)

    def moved(self, offsets: Sequence[int]) -> Iterator[tuple[int, int, np.ndarray]]:
        """The labels that `predict` gave last, moved to later frames at their own size, as the loop does.

        Args:
            offsets: frames of delay, ascending from 1 or later.

        Yields:
            Number of the compensation, offset, and labels uint8 at the label maps' size.
        """
        for number, (compensation, motion) in enumerate(self._motions):
            for k in offsets:
                labels = motion.moved(self._labels, self._asked[-1], k, compensation, target_offset=self._target_offset)
                yield number, k, fit_labels(labels, self._entry.video.size_hw)

    def _run(self) -> np.ndarray:
        """Feed what was asked for since the last reset and not fed yet; the last frame's labels."""
        if self._fed == 0:
            self._predictor.reset()
        for index in self._asked[self._fed :]:
            labels = self._predictor(self._entry.frame_rgb(index, self._size_hw))
            if self._on_frame:
                self._on_frame()
        self._fed = len(self._asked)
        return labels
