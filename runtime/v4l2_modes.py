"""What a V4L2 camera offers, asked of its driver: formats, sizes, frame rates. Structures as in linux/videodev2.h."""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgeseg.errors import SourceError

_ENUM_FMT, _ENUM_SIZES, _ENUM_INTERVALS = 0xC0405602, 0xC02C564A, 0xC034564B
_VIDEO_CAPTURE = 1
_DISCRETE = 1
MOST = 256
"""Entries of one list that are asked for: a driver that never ends is not believed."""


@dataclass(frozen=True)
class CameraMode:
    """One format and size of a camera."""

    format: str
    """Its four characters, such as MJPG or YUYV."""
    size_hw: tuple[int, int]
    """Height and width; the largest ones where any size up to them can be had."""
    fps: tuple[float, ...]
    """Frames per second, fastest first; empty when the driver does not tell."""

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.fps) or "not told"
        return f"{self.format} {self.size_hw[0]}x{self.size_hw[1]} at {rates} frames/s"


def v4l2_modes(device: str, ioctl: Callable[[int, int, bytearray], object] | None = None) -> list[CameraMode]:
    """Modes of `device`, such as `/dev/video0`, as the driver lists them; the camera may be in use meanwhile.

    Args:
        ioctl: of a file descriptor, a request and a buffer that it changes; None: the system's.

    Raises:
        SourceError: the device cannot be opened.
    """
    if ioctl is None:
        import fcntl

        ioctl = fcntl.ioctl
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{device} cannot be opened ({error.strerror}) | is a camera connected?") from error
    try:
        return list(_modes(descriptor, ioctl))
    finally:
        os.close(descriptor)


def _modes(descriptor: int, ioctl: Callable[[int, int, bytearray], object]) -> Iterator[CameraMode]:
    def listed(request: int, head: Callable[[int], bytes], size: int) -> Iterator[bytearray]:
        for index in range(MOST):
            buffer = bytearray(head(index).ljust(size, b"\0"))
            try:
                ioctl(descriptor, request, buffer)
            except OSError:
                return
            yield buffer

    for entry in listed(_ENUM_FMT, lambda index: struct.pack("=II", index, _VIDEO_CAPTURE), 64):
        code = struct.unpack_from("=I", entry, 44)[0]
        name = struct.pack("=I", code).decode("ascii", "replace").strip()
        for size in listed(_ENUM_SIZES, lambda index, code=code: struct.pack("=II", index, code), 44):  # type: ignore[misc]
            width, height = _size(size)
            head = struct.pack("=III", code, width, height)
            intervals = listed(_ENUM_INTERVALS, lambda index, head=head: struct.pack("=I", index) + head, 52)  # type: ignore[misc]
            # The seconds of a frame as a fraction; of a range the first one is the shortest.
            periods = [struct.unpack_from("=II", interval, 20) for interval in intervals]
            rates = sorted({round(below / above, 3) for above, below in periods if above}, reverse=True)
            yield CameraMode(name, (height, width), tuple(rates))


def _size(entry: bytearray) -> tuple[int, int]:
    if struct.unpack_from("=I", entry, 8)[0] == _DISCRETE:
        return struct.unpack_from("=II", entry, 12)
    _, most_width, _, _, most_height, _ = struct.unpack_from("=6I", entry, 12)
    return most_width, most_height
