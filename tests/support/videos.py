"""Videos whose frames tell which they are."""

import numpy as np

from edgeseg.data.video import Video


class NumberedVideo(Video):
    """Frame i is i everywhere, at 100 frames/s."""

    name, fps, size_hw = "numbered", 100.0, (32, 48)

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((32, 48, 3), index, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return np.zeros((32, 48), np.uint8)
