"""The accuracy table: mIoU of a configuration at k = 0..K frames of delay, by its graphs, through the runtime."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from edgeseg.accuracy import Accuracy
from edgeseg.bundle import BundleConfiguration
from edgeseg.classes import ClassSet
from edgeseg.data.unseen import refuse_trained_on
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.latency_aware import OffsetScores
from edgeseg.runtime.session import Session

MAX_OFFSET = 8
"""Last entry of the table unless told otherwise, in frames."""
_CACHE_BYTES = 512 << 20
"""Frames and label maps are kept in memory up to this."""


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
        cache = FrameCache(_CACHE_BYTES)
        return cls(dataset, split, tuple(CachedVideo(video, cache) for video in labelled))

    @property
    def fps(self) -> float:
        return self.videos[0].video.fps

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.videos[0].video.size_hw

    @property
    def labelled_frames(self) -> int:
        return sum(len(entry.video.labelled_indices()) for entry in self.videos)

    def batches(self, sizes_hw: Iterable[tuple[int, int]]) -> "Iterator[list[CachedVideo]]":
        """The videos, as many at a time as stay in memory at all of `sizes_hw` together; at least one."""
        sizes = set(sizes_hw)
        batch: list[CachedVideo] = []
        room = 0
        for entry in self.videos:
            needed = entry.bytes_at(sizes)
            if batch and needed > room:
                yield batch
                batch = []
            if not batch:
                entry.cache.clear()
                room = entry.cache.limit_bytes
            batch.append(entry)
            room -= needed
        yield batch

    def check_network(self, classes: ClassSet, trained_on: Mapping[str, Any], origin: str) -> None:
        """Refuse a network that these data cannot score.

        Raises:
            InputError: other classes, or a split that the network was trained on.
        """
        own = self.dataset.classes
        if own.names != classes.names:
            raise InputError(
                f"{origin} has other classes than {self.dataset.name} | got {len(classes)} "
                f"({', '.join(classes.names[:4])}, ...), expected {len(own)} ({', '.join(own.names[:4])}, ...)"
                + _class_difference(classes.names, own.names)
                + " | give the data set that it was trained for"
            )
        refuse_trained_on(trained_on, self.dataset, self.split, origin)


def _class_difference(got: Sequence[str], expected: Sequence[str]) -> str:
    lacking = [name for name in expected if name not in got]
    beyond = [name for name in got if name not in expected]
    if lacking:
        return f"; it lacks {', '.join(lacking[:4])}"
    return f"; it has also {', '.join(beyond[:4])}" if beyond else "; the order differs"


class FrameCache:
    """Arrays by key, kept while they fit in `limit_bytes` together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._kept: dict[tuple[object, ...], np.ndarray] = {}
        self._room = self.limit_bytes

    def get(self, key: tuple[object, ...], read: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of `key`, read when it is not kept."""
        if key in self._kept:
            return self._kept[key]
        array = read()
        if array.nbytes <= self._room:
            self._room -= array.nbytes
            self._kept[key] = array
        return array


class CachedVideo:
    """Frames at input sizes and label maps of a video, each read (or rendered) once while they fit in `cache`."""

    def __init__(self, video: Video, cache: FrameCache) -> None:
        self.video = video
        self.cache = cache

    def frame_rgb(self, index: int, size_hw: tuple[int, int]) -> np.ndarray:
        """Frame `index`, uint8 `(*size_hw, 3)` RGB."""
        if size_hw == self.video.size_hw:
            return self.cache.get((id(self), "frame", index), lambda: self.video.frame_rgb(index))
        return self.cache.get(
            (id(self), index, size_hw), lambda: fit_frame(self.frame_rgb(index, self.video.size_hw), size_hw)
        )

    def labels(self, index: int) -> np.ndarray | None:
        """Label map uint8 `(H, W)`, or None where there is none."""
        if not self.video.has_labels(index):
            return None
        return self.cache.get((id(self), "labels", index), lambda: self._read_labels(index))

    def bytes_at(self, sizes_hw: set[tuple[int, int]]) -> int:
        """Memory of all frames, as they are and at `sizes_hw`, and of the label maps."""
        per_frame = sum(3 * height * width for height, width in {*sizes_hw, self.video.size_hw})
        height, width = self.video.size_hw
        return len(self.video) * per_frame + len(self.video.labelled_indices()) * height * width

    def _read_labels(self, index: int) -> np.ndarray:
        # Frame and labels of a simulated video are rendered together, and a labelled frame is always run.
        self.frame_rgb(index, self.video.size_hw)
        return self.video.labels(index)


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


def configuration_accuracies(
    folder: Path,
    entries: Sequence[BundleConfiguration],
    data: EvaluationData,
    *,
    max_offset: int = MAX_OFFSET,
    threads: int | None = None,
    on_frame: Callable[[], None] | None = None,
) -> list[Accuracy]:
    """The accuracy records of configurations whose files lie in `folder`, in their order.

    All of them are scored on some videos, then all on the next: each frame is read once, however many they are.

    Args:
        threads: CPU threads; None for all.

    Raises:
        InputError: the videos are too short for the table, or a prediction names a class that there is none of.
    """
    classes = data.dataset.classes
    scores = [OffsetScores(len(classes), max_offset=max_offset, stateful=entry.knobs.stateful) for entry in entries]
    for videos in data.batches(entry.knobs.size_hw for entry in entries):
        for entry, offsets in zip(entries, scores, strict=True):
            with Session(folder, entry, device="cpu", threads=threads) as session:
                for video in videos:
                    video_pass = VideoPass(SessionPredictor(session), video, entry.knobs.size_hw, on_frame)
                    offsets.add_video(video_pass.predict, video_pass.reset, video.labels, len(video.video))
    return [_accuracy(OffsetTables(offsets, classes.movable_indices), data) for offsets in scores]


def _accuracy(tables: OffsetTables, data: EvaluationData) -> Accuracy:
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
