"""The overlay video as H.264, by PyAV."""

import errno
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.sinks.file_names import numbered
from edgeseg.runtime.sinks.overlay_frames import OverlayVideo

ENCODERS = ("libx264", "libopenh264")
"""H.264 encoders that take frames as they come and give them back at once, best first."""
FRAGMENT_S = 0.5
"""Length of a fragment: what a killed process loses at most, beside the frame that it was writing."""
HELD_S = 2.0
"""So long a result that is not followed by another is written again and again; after that the video has a gap there."""
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_BT_601, _LIMITED = 6, 1
"""What the I420 of OpenCV is, by the numbers of FFmpeg."""
_log = logging.getLogger(__name__)


class H264Video(OverlayVideo):
    """H.264 in fragments of half a second, each of them on the disk as soon as it is over.

    The file has its name from the first fragment on; until then one that is to be replaced stays. Whatever ends the
    process, what was written plays. On a full disk the fragment that had no room is cut off.

    Sizes are even numbers in this format: a last odd row or column is left out.

    Raises:
        InputError: the folder is not writable, or the disk is full.
    """

    def open(self) -> None:
        import av

        self.check()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary: Path | None = self.path.with_name(f".{self.path.name}.{os.getpid()}.mp4")
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
                f"{self.path} would be a video without a frame | nothing was left behind: does the source work?"
            )

    def _end(self) -> None:
        container, self._container = self._container, None
        try:
            if container is not None:
                container.close()
                if self._frames and not ends_whole(self._place):
                    # What closing writes may find no room, and FFmpeg says nothing.
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
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
        # A quarter of the time that PyAV and FFmpeg's scaler take.
        picture: np.ndarray = cv2.cvtColor(np.ascontiguousarray(picture_rgb[:height, :width]), cv2.COLOR_RGB2YUV_I420)
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        try:
            for repeat in range(min(times, max(1, round(HELD_S * self._fps)))):
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
        # No frame is held back, and none refers to a later one: what was given is in the file. The preset leaves the
        # processor to the loop: a third of the time of veryfast at crf 23, and 1.4 times its size at the same PSNR.
        options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "25"} if encoder == "libx264" else {}
        stream = container.add_stream(encoder, rate=self._rate, options={**options, "threads": "1"})
        stream.height, stream.width = (side // 2 * 2 for side in self._size_hw)
        stream.pix_fmt = "yuv420p"
        # Untold, players take large pictures for BT.709, and show other colours than those of the classes.
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT_601, _LIMITED
        stream.codec_context.gop_size = max(1, round(FRAGMENT_S * self._fps))
        return stream

    @property
    def _place(self) -> Path:
        return self.path if self._temporary is None else self._temporary

    def _name_it(self) -> None:
        """Give the file its name once it holds a picture."""
        if self._temporary is not None and self._frames and whole_fragments_bytes(self._temporary):
            self._step_aside()
            os.replace(self._temporary, self.path)
            self._temporary = None

    def _step_aside(self) -> None:
        """Take another name where another process was faster."""
        wanted, number = self.path, 1
        while self.is_taken:
            number += 1
            self.path = numbered(wanted, number)
        if self.path != wanted:
            _log.warning("%s was made by another process meanwhile | this video is %s", wanted, self.path)

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
            f"{self.path} cannot be written ({error.strerror}) | {left}: "
            f"{'make room there' if error.errno == errno.ENOSPC else 'choose another place'}"
        )


def usable_encoder() -> str | None:
    """The H.264 encoder that PyAV brings; None when it brings none, or is not installed."""
    try:
        import av
    except ImportError:
        return None
    return next((name for name in ENCODERS if name in av.codecs_available), None)


def whole_fragments_bytes(path: Path) -> int:
    """Length of an MP4 file up to the end of its last whole fragment; 0 when it has none."""
    return max((end for kind, end in _whole_boxes(path) if kind == b"mdat"), default=0)


def ends_whole(path: Path) -> bool:
    """Whether an MP4 file ends where its last box does."""
    return max((end for _, end in _whole_boxes(path)), default=0) == path.stat().st_size


def _whole_boxes(path: Path) -> Iterator[tuple[bytes, int]]:
    """The kind of each box that is there whole, and where it ends."""
    position = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while position + 8 <= size:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1 and position + 16 <= size:
                (length,) = struct.unpack(">Q", file.read(8))
            if length < 8 or position + length > size:
                return
            position += length
            yield kind, position


def cut_to_whole_fragments(path: Path) -> None:
    """Take back the fragment at the end that was not written whole."""
    with suppress(OSError):
        os.truncate(path, whole_fragments_bytes(path))
