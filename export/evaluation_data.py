"""Labelled video that networks are scored on: checked, and kept in memory while it fits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.classes import ClassSet
from edgeseg.data.unseen import refuse_trained_on
from edgeseg.data.video import Dataset
from edgeseg.errors import InputError
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.video_motion import Flow

_CACHE_BYTES = 512 << 20
"""Frames, label maps and motion are kept in memory up to this."""


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

    def batches(self, sizes_hw: Iterable[tuple[int, int]], flows: Iterable[Flow] = ()) -> "Iterator[list[CachedVideo]]":
        """The videos, as many at a time as stay in memory at all of `sizes_hw`, with their motion by `flows`; at least
        one."""
        sizes, motions = set(sizes_hw), set(flows)
        batch: list[CachedVideo] = []
        room = 0
        for entry in self.videos:
            needed = entry.bytes_at(sizes, motions)
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
