"""What a camera gives: its modes, and the rate, size and age of its frames, measured."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.source import Frame, SourceCounts
from edgeseg.runtime.source_address import spelled_out
from edgeseg.runtime.source_opening import is_camera, open_source
from edgeseg.runtime.v4l2_modes import CameraMode, v4l2_modes

MEASURED_S = 3.0
"""For how long frames are read."""


@dataclass(frozen=True)
class CameraReport:
    """A camera, watched for some seconds."""

    source: str
    modes: tuple[CameraMode, ...]
    """What a V4L2 camera offers; other sources cannot be asked."""
    size_hw: tuple[int, int]
    told_fps: float
    """Frame rate that the source has for the loop."""
    fps_origin: str
    """Where that is known from: `Source.fps_origin`."""
    fps: float
    """Frames per second that came, those included that were not read in time."""
    frames: int
    period_ms: dict[str, float]
    """p50, p99 and max of the time from one frame read to the next one, in ms."""
    age_ms: dict[str, float]
    """p50, p99 and max of the frames' age when they could be used: since the driver of a V4L2 camera had them, since
    the last byte of others came. Exposure, the camera's own encoder and the network before it are not in it."""
    first_frame_s: float
    """Seconds from opening it to its first frame."""
    counts: SourceCounts

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "modes": [vars(mode) for mode in self.modes], "counts": vars(self.counts)}


def examine_camera(source: str, *, seconds: float = MEASURED_S, **options: Any) -> CameraReport:
    """Open a camera or stream, read it for some seconds, and close it.

    Args:
        source: what `edgeseg.runtime.source_opening.open_source` takes as a camera; `options` are its too.
        seconds: how long to read.

    Raises:
        InputError: it is no camera.
        SourceError: it cannot be opened, gives nothing, or fewer than two frames.
    """
    address = spelled_out(source)
    if not is_camera(address):
        raise InputError(f"{source} is no camera or stream | give an index, a device, a URL, csi:0, usb:0 or gst:...")
    device = f"/dev/video{address}" if address.isdecimal() else address
    modes = tuple(v4l2_modes(device)) if device.startswith("/dev/") and Path(device).exists() else ()
    begin_s = time.monotonic()
    opened = open_source(address, **options)
    first_frame_s = time.monotonic() - begin_s
    try:
        frames, read_at_s = _read(opened.read, seconds)
        told_fps, size_hw, counts = opened.fps, opened.size_hw, opened.counts
    finally:
        opened.close()
    if len(frames) < 2:
        raise SourceError(f"{opened.name} gave {len(frames)} frames in {seconds:g} s | is it lit and awake?")
    captured_s = [at for _, at in frames]
    return CameraReport(
        source=opened.name,
        modes=modes,
        size_hw=size_hw,
        told_fps=told_fps,
        fps_origin=opened.fps_origin,
        fps=(frames[-1][0] - frames[0][0]) / (captured_s[-1] - captured_s[0]),
        frames=len(frames),
        period_ms=_percentiles(np.diff(captured_s)),
        age_ms=_percentiles(np.subtract(read_at_s, captured_s)),
        first_frame_s=first_frame_s,
        counts=counts,
    )


def _read(read: Any, seconds: float) -> tuple[list[tuple[int, float]], list[float]]:
    """Numbers and capture times of the frames that came, and when they were read."""
    stop, frames, read_at_s = threading.Event(), [], []
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    # The first one has waited since the source was opened.
    read(stop)
    timer.start()
    try:
        while (frame := read(stop)) is not None:
            assert isinstance(frame, Frame)
            read_at_s.append(time.monotonic())
            frames.append((frame.index, frame.captured_at_s))
    finally:
        timer.cancel()
    return frames, read_at_s


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    """p50, p99 and max in ms."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50": round(1e3 * p50, 3), "p99": round(1e3 * p99, 3), "max": round(1e3 * float(np.max(seconds)), 3)}
