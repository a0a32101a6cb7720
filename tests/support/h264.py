"""H.264 as cameras and recorders write it."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def write_h264(path: Path, frames_rgb: list[np.ndarray], *, fps: int = 10, **options: str) -> None:
    """A file of H.264; `options` are those of its container."""
    import av

    height, width = frames_rgb[0].shape[:2]
    with av.open(str(path), "w", options=options) as file:
        stream: Any = file.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame_rgb in frames_rgb:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_rgb, format="rgb24")))
        file.mux(stream.encode())


class Encoder:
    """A camera's encoder: a picture in, its access unit out, with the parameter sets before each key frame."""

    def __init__(self, size_hw: tuple[int, int], fps: int = 25) -> None:
        import av

        codec: Any = av.CodecContext.create("libx264", "w")
        codec.height, codec.width = size_hw
        codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, fps), Fraction(fps)
        codec.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5",
                         "x264-params": "repeat-headers=1:annexb=1"}  # fmt: skip
        self._codec, self._frame, self._next = codec, av.VideoFrame, 0

    def encode(self, frame_rgb: np.ndarray) -> bytes:
        """The next picture, uint8 `(H, W, 3)` RGB, in Annex B form."""
        frame = self._frame.from_ndarray(frame_rgb, format="rgb24")
        frame.pts, self._next = self._next, self._next + 1
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))
