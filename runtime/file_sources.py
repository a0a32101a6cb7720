"""Image folders and video files as sources."""

import threading
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.image_files import image_files, read_frame_rgb, read_size_hw
from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.source import RecordedSource


class FolderSource(RecordedSource):
    """A folder of images in the order of their names, all of one size."""

    def __init__(self, folder: Path, *, fps: float | None, **schedule: object) -> None:
        self._paths = image_files(folder)
        if not self._paths:
            raise SourceError(f"{folder} holds no images | expected .png or .jpg files, or a data set")
        if fps is None:
            raise InputError(f"{folder} is a folder of images, which has no frame rate | give one: --fps")
        super().__init__(str(folder), fps, read_size_hw(self._paths[0]), **schedule)  # type: ignore[arg-type]

    def _decode(self, index: int) -> np.ndarray | None:
        if index >= len(self._paths):
            return None
        try:
            return read_frame_rgb(self._paths[index], self.size_hw)
        except InputError as error:
            raise SourceError(f"{self.name} broke at frame {index} of {len(self._paths)} | {error}") from error


class VideoFileSource(RecordedSource):
    """A video file, decoded by OpenCV."""

    def __init__(self, path: Path, *, fps: float | None = None, **schedule: object) -> None:
        if not path.is_file():
            raise SourceError(f"no video file at {path} | give a file, a folder, a camera index, a URL or 'street'")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(f"{path} cannot be opened as a video | it is damaged, or of a format that OpenCV lacks")
        self._frame_count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._position = 0
        self._reading, self._closed = threading.Lock(), False
        own_fps = self._capture.get(cv2.CAP_PROP_FPS)
        if fps is None and not 0 < own_fps < 1000:
            raise InputError(f"{path} does not tell its frame rate | give one: --fps")
        height, width = (self._capture.get(each) for each in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        super().__init__(str(path), fps or own_fps, (int(height), int(width)), **schedule)  # type: ignore[arg-type]

    def close(self) -> None:
        """Free the file; a read that hangs on another thread, as on a network drive, frees it when it comes back."""
        self._closed = True
        if self._reading.acquire(blocking=False):
            self._capture.release()
            self._reading.release()

    def _decode(self, index: int) -> np.ndarray | None:
        with self._reading:
            try:
                return self._decoded(index)
            finally:
                if self._closed:
                    self._capture.release()

    def _decoded(self, index: int) -> np.ndarray | None:
        while self._position < index:
            # Seeking lands on key frames only; grabbing decodes what later frames need and keeps the count right.
            if not self._capture.grab():
                self._check_end()
                return None
            self._position += 1
        ok, frame_bgr = self._capture.read()
        if not ok:
            self._check_end()
            return None
        self._position += 1
        if frame_bgr.shape[:2] != self.size_hw:
            raise SourceError(
                f"{self.name} broke at frame {index} | the frame is {frame_bgr.shape[:2]}, expected {self.size_hw}"
            )
        return cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB, dst=frame_bgr)

    def _check_end(self) -> None:
        # Containers count by duration and may be one frame off.
        if self._position < self._frame_count - 1:
            raise SourceError(
                f"{self.name} broke at frame {self._position} of {self._frame_count} | the file is damaged or cut off"
            )
