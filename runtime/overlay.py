"""Labels to look at: colours over a frame, and videos of them."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from edgeseg.atomic import atomic_file
from edgeseg.classes import ClassSet
from edgeseg.errors import InputError

_LEGEND_ROW = 18
_LEGEND_FONT = cv2.FONT_HERSHEY_SIMPLEX


def overlay(
    frame_rgb: np.ndarray, labels: np.ndarray, classes: ClassSet, *, opacity: float = 0.5, legend: bool = False
) -> np.ndarray:
    """Colours of the labels over a frame.

    Args:
        frame_rgb: uint8 `(H, W, 3)` RGB, 0-255.
        labels: uint8 `(h, w)`; enlarged to the frame without smoothing. Values without a class show the frame.
        opacity: 0 shows the frame, 1 the colours.
        legend: write the names of the classes that occur into the upper left corner.

    Returns:
        uint8 `(H, W, 3)` RGB, a new array.
    """
    _, largest, _, _ = cv2.minMaxLoc(labels)
    labels = resize_labels(labels, (frame_rgb.shape[0], frame_rgb.shape[1]))
    # OpenCV and not NumPy: it lets other threads run meanwhile, the loop's among them.
    shown = cv2.applyColorMap(np.ascontiguousarray(labels), classes.palette_rgb[:, None])
    cv2.addWeighted(frame_rgb, 1 - opacity, shown, opacity, 0, dst=shown)
    if largest >= len(classes):
        has_no_class = cv2.compare(labels, len(classes), cv2.CMP_GE)  # type: ignore[call-overload]
        cv2.copyTo(frame_rgb, has_no_class, shown)
    if legend:
        _draw_legend(shown, labels, classes)
    return shown


def resize_labels(labels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """`labels` uint8 `(h, w)` at `size_hw` by the nearest pixel, as the accuracy tables are made."""
    if labels.shape == tuple(size_hw):
        return labels
    return cv2.resize(labels, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST_EXACT)


class VideoWriter:
    """Writes RGB frames of one size to an open file; `video_writer` makes one."""

    def __init__(self, writer: cv2.VideoWriter, size_hw: tuple[int, int], path: Path) -> None:
        self.size_hw = size_hw
        self._writer, self._path = writer, path
        self.frames = 0
        """Frames written."""

    def write(self, frame_rgb: np.ndarray, *, times: int = 1) -> None:
        """Append uint8 `(H, W, 3)` RGB, `times` times.

        Raises:
            InputError: a frame of another size.
        """
        if frame_rgb.shape != (*self.size_hw, 3) or frame_rgb.dtype != np.uint8:
            raise InputError(
                f"{self._path}: a video's frames are of one size | got {frame_rgb.dtype} {frame_rgb.shape}, "
                f"expected uint8 {(*self.size_hw, 3)}"
            )
        frame_bgr = cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR)
        # OpenCV does not say when a write fails: a loop of hours must not go on for nothing.
        _check_room(self._path, frame_rgb.nbytes)
        for _ in range(times):
            self._writer.write(frame_bgr)
            self.frames += 1


@contextmanager
def video_writer(path: Path | str, fps: float, size_hw: tuple[int, int]) -> Iterator[VideoWriter]:
    """A video file (MPEG-4 in .mp4) that appears under its name when the block ends well, and not at all otherwise.

    Raises:
        InputError: the folder is not writable, OpenCV cannot write this format, no frame came, or the disk is full.
    """
    target = Path(path)
    if target.suffix.lower() != ".mp4":
        raise InputError(f"videos are written as .mp4 | got {target.name}")
    with atomic_file(target) as temporary:
        # On a full disk OpenCV opens no video either, and does not say why.
        _check_room(target, 3 * size_hw[0] * size_hw[1])
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, (size_hw[1], size_hw[0]))
        try:
            if not writer.isOpened():
                raise InputError(f"{target} cannot be written | this OpenCV has no MPEG-4 encoder")
            video = VideoWriter(writer, size_hw, target)
            yield video
        finally:
            writer.release()
        _check_whole(temporary, video.frames, target)


def _check_room(path: Path, nbytes: int) -> None:
    if shutil.disk_usage(path.parent).free < nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _check_whole(path: Path, frames: int, target: Path) -> None:
    """Read back what OpenCV wrote at `path`: it reports no failure of its own, not even of a full disk."""
    capture = cv2.VideoCapture(str(path))
    try:
        written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
    if not frames:
        raise InputError(f"{target} would be a video without a frame | nothing was left behind: does the source work?")
    if written < frames:
        raise InputError(
            f"{target} could not be written whole | got {written} of {frames} frames, nothing was left behind: "
            "is the disk full?"
        )


def _draw_legend(image: np.ndarray, labels: np.ndarray, classes: ClassSet) -> None:
    counts = np.bincount(labels.ravel(), minlength=256)[: len(classes)]
    present = [int(value) for value in np.argsort(-counts) if counts[value]]
    rows = present[: max(1, (image.shape[0] - 8) // _LEGEND_ROW)]
    for row, value in enumerate(rows):
        top = 4 + row * _LEGEND_ROW
        colour = tuple(int(channel) for channel in classes.palette[value])
        cv2.rectangle(image, (4, top), (18, top + 12), colour, cv2.FILLED)
        cv2.rectangle(image, (4, top), (18, top + 12), (255, 255, 255), 1)
        for thickness, ink in ((3, (0, 0, 0)), (1, (255, 255, 255))):
            cv2.putText(image, classes.names[value], (24, top + 11), _LEGEND_FONT, 0.42, ink, thickness, cv2.LINE_AA)
