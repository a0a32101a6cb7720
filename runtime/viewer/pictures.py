"""Encodes results for viewers: each form of a picture at most once per result, however many look, and not too often.

Nothing is encoded while nobody looks.
"""

import asyncio
import json
import math
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.runtime.overlay import overlay, resize_labels
from edgeseg.runtime.viewer.board_reader import Shown
from edgeseg.runtime.viewer.link import Frames

SIDE_MAX = 1280
"""Longest side of what moves, in pixels: more is nothing to look at and all the more to send."""
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """An encoded result."""

    number: int
    """Of the result, as in `Shown`; 0: none."""
    data: bytes


def jpeg(frame_rgb: np.ndarray) -> bytes:
    """JPEG of uint8 `(H, W, 3)` RGB."""
    return _encoded(".jpg", cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def layers(shown: Shown, state: Mapping[str, Any]) -> bytes:
    """What the page composes by itself: three little-endian uint32 with the lengths of what follows: `state` as JSON,
    the camera's frame as JPEG, and the labels as a grey PNG, whose values are the label values."""
    frame_rgb = _fitted(shown.frame_rgb)
    labels = shown.labels
    if labels.shape[0] > frame_rgb.shape[0]:
        labels = resize_labels(labels, (frame_rgb.shape[0], frame_rgb.shape[1]))
    parts = (
        json.dumps(state, separators=(",", ":"), allow_nan=False).encode(),
        jpeg(frame_rgb),
        _encoded(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 1]),
    )
    return struct.pack("<3I", *map(len, parts)) + b"".join(parts)


def overlay_jpeg(shown: Shown, classes: ClassSet) -> bytes:
    """The labels' colours over the frame as JPEG, not larger than `SIDE_MAX`."""
    return jpeg(overlay(_fitted(shown.frame_rgb), shown.labels, classes))


def overlay_png(shown: Shown, classes: ClassSet) -> bytes:
    """`edgeseg.runtime.overlay.overlay` of the whole frame as PNG, pixel for pixel."""
    picture = overlay(shown.frame_rgb, shown.labels, classes)
    return _encoded(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])


class Pictures:
    """The newest picture of one form, for all its viewers; used on the server's event loop alone.

    Args:
        encode: makes the picture's bytes; called on a thread of `executor`.
        fps_max: pictures per second, where they are to be fewer than `frames` gives.
    """

    def __init__(
        self, frames: Frames, executor: Executor, encode: Callable[[Shown], bytes], *, fps_max: float = math.inf
    ) -> None:
        self._frames, self._executor, self._encode = frames, executor, encode
        self._period_s = 1.0 / fps_max
        self._began_s = -self._period_s
        self._newest = Picture(0, b"")
        self._task: asyncio.Task[None] | None = None

    async def after(self, number: int) -> Picture:
        """The newest picture that is newer than result `number`, waiting for one."""
        while self._newest.number <= number:
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._refresh(number))
            # A viewer that leaves must not take the picture away from the others.
            await asyncio.shield(self._task)
        return self._newest

    async def _refresh(self, number: int) -> None:
        """Make one that is newer than result `number`."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._began_s + self._period_s - loop.time())
        self._began_s = loop.time()
        shown = await self._frames.after(number)
        self._newest = Picture(shown.number, await loop.run_in_executor(self._executor, self._encode, shown))


def _fitted(frame_rgb: np.ndarray) -> np.ndarray:
    height, width = frame_rgb.shape[:2]
    scale = SIDE_MAX / max(height, width)
    if scale >= 1:
        return frame_rgb
    return cv2.resize(frame_rgb, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def _encoded(ending: str, image: np.ndarray, options: list[int]) -> bytes:
    written, data = cv2.imencode(ending, image, options)
    if not written:
        raise ValueError(f"OpenCV made no {ending} of {image.dtype} {image.shape}")
    return data.tobytes()
