"""A video held in memory, so that playing it costs no reading, decoding or rendering."""

import numpy as np

from edgeseg.data.video import Video
from edgeseg.errors import InputError


class RecordedVideo(Video):
    """The first `frames` frames of `video` with their label maps, read once; the arrays it gives are read-only."""

    def __init__(self, video: Video, frames: int) -> None:
        self.name, self.fps, self.size_hw = video.name, video.fps, video.size_hw
        self._frames: list[np.ndarray] = []
        self._labels: list[np.ndarray | None] = []
        for index in range(min(frames, len(video))):
            self._frames.append(_kept(video.frame_rgb(index)))
            self._labels.append(_kept(video.labels(index)) if video.has_labels(index) else None)

    def __len__(self) -> int:
        return len(self._frames)

    def frame_rgb(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 `(H, W, 3)` RGB."""
        return self._frames[index]

    def labels(self, index: int) -> np.ndarray:
        """Label map of frame `index`, uint8 `(H, W)`."""
        labels = self._labels[index]
        if labels is None:
            raise InputError(f"{self.name}: frame {index} has no labels | ask has_labels first")
        return labels

    def has_labels(self, index: int) -> bool:
        """Whether frame `index` is labelled."""
        return 0 <= index < len(self) and self._labels[index] is not None


def _kept(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
