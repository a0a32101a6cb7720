"""What every data set looks like: splits of videos, each with a frame rate, frames and (some) label maps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError


class Video(ABC):
    """One continuous recording: frames at a constant rate, all or some of them labelled.

    Stills are videos too: CamVid's training images are labelled frames one second apart.
    """

    name: str
    """Unique within its data set; usable as a file name."""
    fps: float
    """Frames per second of this video as it is read (not of the camera that recorded it)."""
    size_hw: tuple[int, int]
    """Height and width of every frame and label map, in pixels."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def frame_rgb(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 `(H, W, 3)` RGB, 0-255.

        Raises:
            InputError: the file is missing, unreadable or of another size.
        """

    @abstractmethod
    def labels(self, index: int) -> np.ndarray:
        """Label map of frame `index` as uint8 `(H, W)`: values in `[0, classes)` or the ignored value.

        Raises:
            InputError: the frame has no labels, or they are unreadable, of another size or out of range.
        """

    def has_labels(self, index: int) -> bool:
        """Whether frame `index` is labelled. True for every frame unless a reader says otherwise."""
        return 0 <= index < len(self)

    def labelled_indices(self) -> list[int]:
        """Indices of the labelled frames, ascending."""
        return [index for index in range(len(self)) if self.has_labels(index)]


class Dataset(ABC):
    """Videos in named splits (`train`, `val`, ...), with one class set.

    A split's frames never appear in another split: what was trained on is never scored.
    """

    name: str
    classes: ClassSet

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that are present."""

    @abstractmethod
    def videos(self, split: str) -> Sequence[Video]:
        """The videos of `split`, in a fixed order.

        Raises:
            InputError: the split does not exist or is empty.
        """

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise InputError(f"{self.name} has no split {split!r} | it has: {', '.join(self.splits) or 'none'}")


def check_labels(labels: np.ndarray, classes: ClassSet, size_hw: tuple[int, int], where: str) -> np.ndarray:
    """Return `labels` when they are uint8 `(H, W)` of `size_hw` with values that `classes` knows.

    Raises:
        InputError: another shape, or a value that is neither a class nor the ignored value.
    """
    if labels.shape != tuple(size_hw):
        raise InputError(
            f"{where}: label map of another size | got {labels.shape}, expected {tuple(size_hw)} like the frame"
        )
    if labels.dtype != np.uint8:
        raise InputError(f"{where}: label map is not 8 bit | got {labels.dtype}, expected uint8")
    wrong = (labels >= len(classes)) & (labels != classes.ignore_value)
    if wrong.any():
        raise InputError(
            f"{where}: label value {int(labels[wrong][0])} on {int(wrong.sum())} pixels | "
            f"expected 0 to {len(classes) - 1}, or {classes.ignore_value} for ignored"
        )
    return labels
