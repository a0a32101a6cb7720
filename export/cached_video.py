"""A video to be scored: its frames, label maps and motion, each read or computed once while they fit in memory."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np

from edgeseg.data.video import Video
from edgeseg.export.video_motion import Flow, VideoMotion


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_Kept = TypeVar("_Kept", bound=_Sized)


class FrameCache:
    """Arrays and motions by key, kept while they fit in `limit_bytes` together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._kept: dict[tuple[object, ...], Any] = {}
        self._room = self.limit_bytes

    def get(self, key: tuple[object, ...], read: Callable[[], _Kept]) -> _Kept:
        """What `key` stands for, read when it is not kept."""
        if key in self._kept:
            kept: _Kept = self._kept[key]
            return kept
        made = read()
        if made.nbytes <= self._room:
            self._room -= made.nbytes
            self._kept[key] = made
        return made


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

    def motion(self, flow: Flow) -> VideoMotion:
        """The motion between the video's own frames by that flow, still to be computed or known already."""
        size_hw, count = self.video.size_hw, len(self.video)
        return self.cache.get(
            (id(self), "motion", flow),
            lambda: VideoMotion(
                flow,
                lambda index: self.frame_rgb(index, size_hw),
                frame_count=count,
                fps=self.video.fps,
                nbytes=count * flow.field_bytes(size_hw),
            ),
        )

    def bytes_at(self, sizes_hw: Iterable[tuple[int, int]], flows: Iterable[Flow] = ()) -> int:
        """Memory of all frames, as they are and at `sizes_hw`, of the label maps and of the motion by `flows`."""
        own_hw = self.video.size_hw
        per_frame = sum(3 * height * width for height, width in {*sizes_hw, own_hw})
        per_frame += sum(flow.field_bytes(own_hw) for flow in set(flows))
        return len(self.video) * per_frame + len(self.video.labelled_indices()) * own_hw[0] * own_hw[1]

    def _read_labels(self, index: int) -> np.ndarray:
        # Frame and labels of a simulated video are rendered together, and a labelled frame is always run.
        self.frame_rgb(index, self.video.size_hw)
        return self.video.labels(index)


def fit_frame(frame_rgb: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """`frame_rgb` at `size_hw`: averaged over areas when it shrinks, bilinear when it grows."""
    if frame_rgb.shape[:2] == size_hw:
        return frame_rgb
    shrinks = size_hw[0] <= frame_rgb.shape[0] and size_hw[1] <= frame_rgb.shape[1]
    return cv2.resize(frame_rgb, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
