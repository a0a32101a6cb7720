"""Frames in one .npy file as a video without labels: what other tools calibrate on."""

from pathlib import Path

import numpy as np

from edgeseg.data.video import Video
from edgeseg.errors import InputError


class FrameFile(Video):
    """Consecutive frames in a .npy file, uint8 `(N, H, W, 3)` RGB, 0-255. They are read when asked for.

    Args:
        fps: frames per second; the file does not say.

    Raises:
        InputError: the file is missing, unreadable, or holds something else.
    """

    def __init__(self, path: Path, fps: float) -> None:
        try:
            # Unlike numpy.load it takes no archive and no pickle.
            frames = np.lib.format.open_memmap(path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise InputError(
                f"{path} is not readable ({reason}) | expected frames as numpy.save writes them: write the file again"
            ) from error
        _check(frames, path)
        self.name, self.fps = path.stem, fps
        self.size_hw = (frames.shape[1], frames.shape[2])
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def frame_rgb(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 `(H, W, 3)` RGB."""
        return np.array(self._frames[index])

    def labels(self, index: int) -> np.ndarray:
        """There are none."""
        raise InputError(f"{self.name}: frame {index} has no labels | a .npy file holds frames alone")

    def has_labels(self, index: int) -> bool:
        """Never."""
        return False


def _check(frames: np.ndarray, path: Path) -> None:
    if frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and 0 not in frames.shape:
        return
    nan = " with NaN or infinite values" if frames.dtype.kind == "f" and not np.isfinite(frames).all() else ""
    raise InputError(
        f"{path} does not hold frames of a camera | got {frames.dtype} {frames.shape}{nan}, expected uint8 "
        "(N, H, W, 3) RGB, 0 to 255: the graphs normalise by themselves"
    )
