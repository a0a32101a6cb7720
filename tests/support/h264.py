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
    """A camera's encoder: a picture in, its access unit out, with the parameter sets before each key frame.

    Args:
        size_hw: of the pictures.
        fps: as the stream tells it.
        key_every: pictures from one key frame to the next.
        slices: of a picture.
        refreshes: no key frames after the first one: a column of each picture is predicted from no other.
    """

    def __init__(
        self, size_hw: tuple[int, int], fps: int = 25, *, key_every: int = 5, slices: int = 1, refreshes: bool = False
    ) -> None:
        import av

        codec: Any = av.CodecContext.create("libx264", "w")
        codec.height, codec.width = size_hw
        codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, fps), Fraction(fps)
        parameters = {"repeat-headers": 1, "annexb": 1, "threads": 1, "sliced-threads": 0, "slices": slices,
                      "intra-refresh": int(refreshes)}  # fmt: skip
        codec.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(key_every),
                         "x264-params": ":".join(f"{key}={value}" for key, value in parameters.items())}  # fmt: skip
        self._codec, self._frame, self._next = codec, av.VideoFrame, 0

    def encode(self, frame_rgb: np.ndarray) -> bytes:
        """The next picture, uint8 `(H, W, 3)` RGB, in Annex B form."""
        frame = self._frame.from_ndarray(frame_rgb, format="rgb24")
        frame.pts, self._next = self._next, self._next + 1
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


def damaged(access_unit: bytes) -> bytes:
    """The access unit of a picture, with other bits in its last slice."""
    unit = bytearray(access_unit)
    begin = access_unit.rindex(b"\0\0\1") + 20
    unit[begin : begin + 40] = bytes(value ^ 0x5A for value in unit[begin : begin + 40])
    return bytes(unit)


def without_last_slice(access_unit: bytes) -> bytes:
    """The access unit of a picture of several slices, as when the last packet was lost."""
    return access_unit[: access_unit.rindex(b"\0\0\1")].rstrip(b"\0")
