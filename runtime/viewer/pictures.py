"""Encodes results for viewers: each form of a picture at most once per result, however many look, and not too often.

Nothing is encoded while nobody looks.
"""

import asyncio
import json
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.runtime.overlay import overlay, resize_labels
from edgeseg.runtime.result import Result
from edgeseg.runtime.viewer.hub import Hub, Offered

SIDE_MAX = 1280
"""Longest side of what moves, in pixels: more is nothing to look at and all the more to send."""
JPEG_QUALITY = 80
FPS_MAX = 15.0
"""Pictures per second of a form, at most."""
SNAPSHOT_FPS_MAX = 2.0


@dataclass(frozen=True)
class Picture:
    """An encoded result."""

    number: int
    """Of the result, as in `Offered`; 0: none."""
    data: bytes


def jpeg(frame_rgb: np.ndarray) -> bytes:
    """JPEG of uint8 `(H, W, 3)` RGB."""
    return _encoded(".jpg", cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def layers(result: Result, state: Mapping[str, Any]) -> bytes:
    """What the page composes by itself: three little-endian uint32 with the lengths of what follows: `state` as JSON,
    the camera's frame as JPEG, and the labels as a grey PNG, whose values are the label values."""
    frame_rgb = _fitted(result.frame_rgb)
    labels = result.labels
    if labels.shape[0] > frame_rgb.shape[0]:
        labels = resize_labels(labels, (frame_rgb.shape[0], frame_rgb.shape[1]))
    parts = (
        json.dumps(state, separators=(",", ":"), allow_nan=False).encode(),
        jpeg(frame_rgb),
        _encoded(".png", labels, [cv2.IMWRITE_PNG_COMPRESSION, 1]),
    )
    return struct.pack("<3I", *map(len, parts)) + b"".join(parts)


def overlay_jpeg(result: Result, classes: ClassSet) -> bytes:
    """The labels' colours over the frame as JPEG, not larger than `SIDE_MAX`."""
    return jpeg(overlay(_fitted(result.frame_rgb), result.labels, classes))


def overlay_png(result: Result, classes: ClassSet) -> bytes:
    """`edgeseg.runtime.overlay.overlay` of the whole frame as PNG, pixel for pixel."""
    picture = overlay(result.frame_rgb, result.labels, classes)
    return _encoded(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])


class Pictures:
    """The newest picture of one form, for all its viewers; used on the server's event loop alone.

    Args:
        encode: makes the picture's bytes; called on a thread of `executor`.
        fps_max: results that come faster are left out.
    """

    def __init__(
        self, hub: Hub, executor: Executor, encode: Callable[[Offered], bytes], *, fps_max: float = FPS_MAX
    ) -> None:
        self._hub, self._executor, self._encode = hub, executor, encode
        self._period_s = 1.0 / fps_max
        self._began_s = -self._period_s
        self._newest = Picture(0, b"")
        self._task: asyncio.Task[None] | None = None

    async def after(self, number: int) -> Picture:
        """The newest picture that is newer than result `number`, waiting for one."""
        while self._newest.number <= number:
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._refresh())
            # A viewer that leaves must not take the picture away from the others.
            await asyncio.shield(self._task)
        return self._newest

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        await self._newer_result()
        wait_s = self._began_s + self._period_s - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._began_s = loop.time()
        offered = self._hub.newest
        assert offered is not None
        self._newest = Picture(offered.number, await loop.run_in_executor(self._executor, self._encode, offered))

    async def _newer_result(self) -> None:
        loop = asyncio.get_running_loop()
        while (offered := self._hub.newest) is None or offered.number <= self._newest.number:
            came = self._hub.next_result(loop)
            if self._hub.newest is offered:
                await came


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
