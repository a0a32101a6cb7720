"""The overlay video: labels over their frames, at the source's frame rate."""

import errno
import logging
import os
import struct
from abc import abstractmethod
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgeseg.atomic import check_writable
from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.runtime.overlay import VideoWriter, overlay, video_writer
from edgeseg.runtime.sinks.base import Sink

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

ENCODERS = ("libx264", "libopenh264")
"""H.264 encoders that take frames as they come and give them back at once, best first."""
FRAGMENT_S = 0.5
"""Length of a fragment: what a killed process loses at most, beside the frame that it was writing."""
HELD_S = 2.0
"""So long a result that is not followed by another is written again and again; after that the video has a gap there."""
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_log = logging.getLogger(__name__)


class OverlayVideo(Sink):
    """What both ways of writing share: which picture is shown, and how often.

    Each result is shown until the next one's frame.
    """

    def __init__(self, path: Path | str, fps: float, size_hw: tuple[int, int], classes: ClassSet) -> None:
        self._path, self._fps, self._size_hw, self._classes = Path(path).expanduser(), fps, size_hw, classes
        self._last: Result | None = None
        self.name = str(path)
        if self._path.suffix.lower() != ".mp4":
            raise InputError(f"videos are written as .mp4 | got {self._path.name}")

    def write(self, result: "Result") -> None:
        last, self._last = self._last, result
        if last is None or result.frame_index <= last.frame_index:
            return
        times = result.frame_index - last.frame_index
        # Labels that were moved to the next frame are shown over it.
        is_ahead = times == 1 and last.stands_for > last.captured_at
        self._show(self._overlaid(result.frame_rgb if is_ahead else last.frame_rgb, last.labels), times)

    def _show_last(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            self._show(self._overlaid(last.frame_rgb, last.labels), 1)

    def _overlaid(self, frame_rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Labels over a frame, at the video's size: a source may change its frames' size in the middle."""
        height, width = self._size_hw
        picture = overlay(frame_rgb, labels, self._classes)
        return picture if picture.shape[:2] == self._size_hw else cv2.resize(picture, (width, height))

    @abstractmethod
    def _show(self, picture_rgb: np.ndarray, times: int) -> None:
        """Write a picture, uint8 `(H, W, 3)` RGB of the video's size, for so many frames."""


class H264Video(OverlayVideo):
    """H.264 in fragments of half a second, each of them on the disk as soon as it is over.

    The file has its name from the first fragment on; until then one that was there before stays. Whatever ends the
    process, what was written plays. On a full disk the fragment that had no room is cut off.

    Sizes are even numbers in this format: a last odd row or column is left out.

    Raises:
        InputError: the folder is not writable, or the disk is full.
    """

    def open(self) -> None:
        import av

        check_writable(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary: Path | None = self._path.with_name(f".{self._path.name}.{os.getpid()}.mp4")
        self._rate = Fraction(self._fps).limit_denominator(1001)
        self._frames = 0
        try:
            self._container: Any = av.open(str(self._temporary), "w", format="mp4", options=_FRAGMENTED)
            self._stream = self._video_stream(self._container)
        except BaseException as error:
            self._temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self._refusal(error) from error
            raise

    def close(self, error: BaseException | None = None) -> None:
        try:
            self._show_last()
            if self._container is not None and self._frames:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
        except OSError as full:
            self._break_off()
            raise self._refusal(full) from full
        finally:
            self._end()
        if error is None and not self._frames:
            raise InputError(
                f"{self._path} would be a video without a frame | nothing was left behind: does the source work?"
            )

    def _end(self) -> None:
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
                self._name_it()
        except OSError as error:
            cut_to_whole_fragments(self._place)
            raise self._refusal(error) from error
        finally:
            if self._temporary is not None:
                self._temporary.unlink(missing_ok=True)

    def _show(self, picture_rgb: np.ndarray, times: int) -> None:
        import av

        if self._container is None:
            return
        height, width = (side // 2 * 2 for side in self._size_hw)
        picture = np.ascontiguousarray(picture_rgb[:height, :width])
        try:
            for repeat in range(min(times, max(1, round(HELD_S * self._fps)))):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = self._frames + repeat, 1 / self._rate
                for packet in self._stream.encode(frame):
                    self._container.mux(packet)
        except OSError as error:
            self._break_off()
            raise self._refusal(error) from error
        self._frames += times
        self._name_it()

    def _video_stream(self, container: Any) -> Any:
        encoder = usable_encoder()
        # No frame is held back, and none refers to a later one: what was given is in the file.
        options = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"} if encoder == "libx264" else {}
        stream = container.add_stream(encoder, rate=self._rate, options={**options, "threads": "1"})
        stream.height, stream.width = (side // 2 * 2 for side in self._size_hw)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = max(1, round(FRAGMENT_S * self._fps))
        return stream

    @property
    def _place(self) -> Path:
        return self._path if self._temporary is None else self._temporary

    def _name_it(self) -> None:
        """Give the file its name once it holds a picture."""
        if self._temporary is not None and self._frames and whole_fragments_bytes(self._temporary):
            os.replace(self._temporary, self._path)
            self._temporary = None

    def _break_off(self) -> None:
        """The disk has no room: leave what plays."""
        container, self._container = self._container, None
        if container is not None:
            with suppress(OSError):
                container.close()
        cut_to_whole_fragments(self._place)

    def _refusal(self, error: OSError) -> InputError:
        left = "nothing was left behind" if self._temporary is not None else "the video up to there stays and plays"
        return InputError(
            f"{self._path} cannot be written ({error.strerror}) | {left}: "
            f"{'make room there' if error.errno == errno.ENOSPC else 'choose another place'}"
        )


class Mpeg4Video(OverlayVideo):
    """MPEG-4 by OpenCV: the file appears when it is closed well, and not at all otherwise."""

    def open(self) -> None:
        self._stack = ExitStack()
        self._writer: VideoWriter = self._stack.enter_context(video_writer(self._path, self._fps, self._size_hw))

    def close(self, error: BaseException | None = None) -> None:
        with self._stack:
            if error is not None:
                # The writer tells what a full disk is, and leaves nothing behind.
                raise error
            self._show_last()

    def _show(self, picture_rgb: np.ndarray, times: int) -> None:
        self._writer.write(picture_rgb, times=times)


def overlay_video(path: Path | str, fps: float, size_hw: tuple[int, int], classes: ClassSet) -> OverlayVideo:
    """The overlay video as H.264 that survives a `kill -9` where the extra `video` is installed, else as MPEG-4.

    Args:
        path: `.mp4`.
        fps: frames per second of the source, whose frame numbers time the video.
        size_hw: of the video; other frames are resized.

    Raises:
        InputError: the name does not end with `.mp4`.
    """
    if usable_encoder() is not None:
        return H264Video(path, fps, size_hw, classes)
    _log.info("%s is written as MPEG-4, whole at the end only | for H.264: pip install 'edgeseg[video]'", path)
    return Mpeg4Video(path, fps, size_hw, classes)


def usable_encoder() -> str | None:
    """The H.264 encoder that PyAV brings; None when it brings none, or is not installed."""
    try:
        import av
    except ImportError:
        return None
    return next((name for name in ENCODERS if name in av.codecs_available), None)


def whole_fragments_bytes(path: Path) -> int:
    """Length of an MP4 file up to the end of its last whole fragment; 0 when it has none."""
    position = whole = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while position + 8 <= size:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1 and position + 16 <= size:
                (length,) = struct.unpack(">Q", file.read(8))
            if length < 8 or position + length > size:
                break
            position += length
            if kind == b"mdat":
                whole = position
    return whole


def cut_to_whole_fragments(path: Path) -> None:
    """Take back the fragment at the end that was not written whole."""
    with suppress(OSError):
        os.truncate(path, whole_fragments_bytes(path))
