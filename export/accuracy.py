"""The accuracy table: mIoU of a configuration at k = 0..K frames of delay, by its graphs, through the runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from edgeseg.bundle import Accuracy, BundleConfiguration
from edgeseg.classes import ClassSet
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.latency_aware import OffsetScores
from edgeseg.runtime.session import Session

MAX_OFFSET = 8
"""Last entry of the table unless told otherwise, in frames."""
_CACHE_BYTES = 512 << 20
"""Frames and label maps of a data set are kept in memory up to this."""


class Predictor(Protocol):
    """Something that labels frames in turn: a session of the runtime, or a torch network."""

    def reset(self) -> None:
        """Forget all state."""

    def __call__(self, frame_rgb: np.ndarray) -> np.ndarray:
        """uint8 `(H, W, 3)` at the input size -> labels uint8 `(h, w)`."""


@dataclass(frozen=True)
class EvaluationData:
    """A split that is ready to be scored: its videos' frames and label maps, kept in memory while they fit."""

    dataset: Dataset
    split: str
    videos: "tuple[CachedVideo, ...]"

    @classmethod
    def open(cls, dataset: Dataset, split: str) -> "EvaluationData":
        """Check and wrap a split.

        Raises:
            InputError: no such split, no labels in it, or videos of different frame rates or label sizes.
        """
        videos = dataset.videos(split)
        labelled = [video for video in videos if video.labelled_indices()]
        if not labelled:
            raise InputError(f"{dataset.name} {split} has no labelled frames | give a labelled split")
        for what, values in (
            ("frame rates", {video.fps for video in labelled}),
            ("sizes", {video.size_hw for video in labelled}),
        ):
            if len(values) > 1:
                raise InputError(
                    f"the videos of {dataset.name} {split} have different {what} | "
                    f"got {', '.join(map(str, sorted(values)))}, and an accuracy table is made at one"
                )
        share = _CACHE_BYTES // len(labelled)
        return cls(dataset, split, tuple(CachedVideo(video, share) for video in labelled))

    @property
    def fps(self) -> float:
        return self.videos[0].video.fps

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.videos[0].video.size_hw

    @property
    def labelled_frames(self) -> int:
        return sum(len(entry.video.labelled_indices()) for entry in self.videos)

    def check_network(self, classes: ClassSet, trained_on: Mapping[str, Any], origin: str) -> None:
        """Refuse a network that these data cannot score.

        Raises:
            InputError: other classes, or a split that the network was trained on.
        """
        own = self.dataset.classes
        if own.names != classes.names:
            missing = [name for name in own.names if name not in classes.names]
            raise InputError(
                f"{origin} has other classes than {self.dataset.name} | got {len(classes)} "
                f"({', '.join(classes.names[:4])}, ...), expected {len(own)} ({', '.join(own.names[:4])}, ...)"
                + (f"; it lacks {', '.join(missing[:4])}" if missing else "; the order differs")
                + " | give the data set that it was trained for"
            )
        splits = trained_on.get("splits", ())
        if trained_on.get("dataset") == self.dataset.name and self.split in splits:
            free = [name for name in self.dataset.splits if name not in splits]
            raise InputError(
                f"{origin} was trained on {self.dataset.name} {self.split}, so it is not scored there | "
                f"use --split {' or '.join(free) or 'of another data set'}"
            )


class CachedVideo:
    """Frames at one input size and label maps of a video, read once while they fit in `budget_bytes`."""

    def __init__(self, video: Video, budget_bytes: int) -> None:
        self.video = video
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._kept: dict[tuple[str, int, tuple[int, int]], np.ndarray] = {}

    def frame_rgb(self, index: int, size_hw: tuple[int, int]) -> np.ndarray:
        """Frame `index`, uint8 `(*size_hw, 3)` RGB."""
        return self._get(("frame", index, size_hw), lambda: fit_frame(self.video.frame_rgb(index), size_hw))

    def labels(self, index: int) -> np.ndarray | None:
        """Label map uint8 `(H, W)`, or None where there is none."""
        if not self.video.has_labels(index):
            return None
        return self._get(("labels", index, self.video.size_hw), lambda: self.video.labels(index))

    def _get(self, key: tuple[str, int, tuple[int, int]], read: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._kept:
            array = read()
            if self._used_bytes + array.nbytes > self._budget_bytes:
                return array
            self._used_bytes += array.nbytes
            self._kept[key] = array
        return self._kept[key]


@dataclass(frozen=True)
class OffsetTables:
    """What `score_offsets` gathered."""

    offsets: OffsetScores
    movable: Sequence[int]

    @property
    def at_zero(self) -> Scores:
        return self.offsets.scores(0)

    @property
    def miou(self) -> tuple[float, ...]:
        return self.offsets.table().miou

    @property
    def movable_miou(self) -> tuple[float | None, ...]:
        """Moving-object mIoU at each offset; None where no movable class occurs."""
        return tuple(none_if_nan(self.offsets.mean_miou(k, self.movable)) for k in range(len(self.miou)))


def score_offsets(
    predictor: Predictor,
    data: EvaluationData,
    *,
    size_hw: tuple[int, int],
    stateful: bool,
    max_offset: int = MAX_OFFSET,
    on_frame: Callable[[], None] | None = None,
) -> OffsetTables:
    """Run `predictor` over the data as often as the table needs, and gather its scores at every offset.

    Args:
        size_hw: input size of the predictor; predictions are resized (nearest) to the label maps' size.
        stateful: whether predictions depend on the frames before.
        on_frame: called after each frame that the predictor was run on, about `expected_runs` times.
    """
    classes = data.dataset.classes
    offsets = OffsetScores(len(classes), max_offset=max_offset, stateful=stateful)
    for entry in data.videos:
        video_pass = VideoPass(predictor, entry, size_hw, on_frame)
        offsets.add_video(video_pass.predict, video_pass.reset, entry.labels, len(entry.video))
    return OffsetTables(offsets, classes.movable_indices)


def expected_runs(data: EvaluationData, *, stateful: bool, max_offset: int = MAX_OFFSET) -> int:
    """About how many frames `score_offsets` runs its predictor on, for a progress bar."""
    frames = sum(len(entry.video) for entry in data.videos)
    return frames * (max_offset + 1 if stateful and max_offset else 2 if stateful else 1)


def configuration_accuracy(
    folder: Path,
    entry: BundleConfiguration,
    data: EvaluationData,
    *,
    max_offset: int = MAX_OFFSET,
    threads: int | None = None,
    on_frame: Callable[[], None] | None = None,
) -> Accuracy:
    """The accuracy record of a configuration whose files lie in `folder`.

    Args:
        threads: CPU threads; None for all.

    Raises:
        InputError: the videos are too short for the table, or a prediction names a class that there is none of.
    """
    with Session(folder, entry, device="cpu", threads=threads) as session:
        tables = score_offsets(
            SessionPredictor(session),
            data,
            size_hw=entry.knobs.size_hw,
            stateful=entry.knobs.stateful,
            max_offset=max_offset,
            on_frame=on_frame,
        )
    return Accuracy(
        data_set=data.dataset.name,
        split=data.split,
        fps=data.fps,
        frames=data.labelled_frames,
        size_hw=data.size_hw,
        miou=tables.miou,
        movable_miou=tables.movable_miou,
        iou=tuple(none_if_nan(float(value)) for value in tables.at_zero.iou),
    )


class SessionPredictor:
    """A session of the runtime as a predictor."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def reset(self) -> None:
        self._session.reset()

    def __call__(self, frame_rgb: np.ndarray) -> np.ndarray:
        return self._session.step(frame_rgb)


def fit_frame(frame_rgb: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """`frame_rgb` at `size_hw`: averaged over areas when it shrinks, bilinear when it grows."""
    if frame_rgb.shape[:2] == size_hw:
        return frame_rgb
    shrinks = size_hw[0] <= frame_rgb.shape[0] and size_hw[1] <= frame_rgb.shape[1]
    return cv2.resize(frame_rgb, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fit_labels(labels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """A label map at `size_hw`, nearest neighbour with half-pixel centres."""
    if labels.shape == size_hw:
        return labels
    return cv2.resize(labels, size_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def none_if_nan(value: float) -> float | None:
    """None for a score of nothing: JSON has no nan."""
    return None if np.isnan(value) else value


class VideoPass:
    """Predictions of one video in the order in which `OffsetScores` asks for them.

    Offsets 0 and 1 feed every frame alike, so the passes at stride 1 are made once and kept.

    Args:
        size_hw: input size of the predictor.
        on_frame: called after each frame that the predictor was run on.
    """

    def __init__(
        self,
        predictor: Predictor,
        entry: CachedVideo,
        size_hw: tuple[int, int],
        on_frame: Callable[[], None] | None = None,
    ) -> None:
        self._predictor = predictor
        self._entry = entry
        self._size_hw = size_hw
        self._on_frame = on_frame
        self._kept: dict[tuple[int, int], np.ndarray] = {}
        self.reset()

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
            return self._kept[start, index]
        labels = fit_labels(self._run(), self._entry.video.size_hw).copy()
        if every_frame:
            self._kept[start, index] = labels
        return labels

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
