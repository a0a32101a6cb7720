"""A video whose frames and label maps are one file each, read when they are asked for."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.data.image_files import read_frame_rgb, read_label_map, read_size_hw
from edgeseg.data.video import Video, check_labels
from edgeseg.errors import InputError


class ImageVideo(Video):
    """Frames from image files and labels from PNG files of the same size; nothing is read or kept until asked for.

    Args:
        name: Unique within the data set.
        fps: Frames per second.
        classes: Label values that may occur.
        frame_paths: One image file per frame, in order; at least one.
        label_paths: As many label files; None where a frame has no labels.
    """

    def __init__(
        self,
        name: str,
        fps: float,
        classes: ClassSet,
        frame_paths: Sequence[Path],
        label_paths: Sequence[Path | None],
    ) -> None:
        if not frame_paths or len(frame_paths) != len(label_paths):
            raise InputError(
                f"video {name} needs frames, and a label file or None for each | "
                f"got {len(frame_paths)} frames, {len(label_paths)} label entries"
            )
        self.name = name
        self.fps = fps
        self.classes = classes
        self.frame_paths = tuple(frame_paths)
        self.label_paths = tuple(label_paths)

    @cached_property
    def size_hw(self) -> tuple[int, int]:  # type: ignore[override]
        """Height and width of the first frame, in pixels; every other frame is held to it."""
        return read_size_hw(self.frame_paths[0])

    def __len__(self) -> int:
        return len(self.frame_paths)

    def frame_rgb(self, index: int) -> np.ndarray:
        return read_frame_rgb(self.frame_paths[self._checked(index)], self.size_hw)

    def labels(self, index: int) -> np.ndarray:
        path = self.label_paths[self._checked(index)]
        if path is None:
            raise InputError(f"{self.frame_paths[index]}: frame {index} of {self.name} has no labels")
        return check_labels(self._read_labels(path), self.classes, self.size_hw, str(path))

    def has_labels(self, index: int) -> bool:
        return 0 <= index < len(self) and self.label_paths[index] is not None

    def _read_labels(self, path: Path) -> np.ndarray:
        """Label values of one file; data sets that store other numbers than theirs map them here."""
        return read_label_map(path)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise InputError(f"{self.name} has no frame {index} | it has frames 0 to {len(self) - 1}")
        return index
