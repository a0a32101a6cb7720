"""A source whose pictures are turned, or have red and blue swapped, as its camera is mounted and wired."""

import threading

import cv2
import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.source import Frame, Source, SourceCounts

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
ROTATIONS_DEG = (0, *_TURNS)
COLOUR_ORDERS = ("RGB", "BGR")


class AdjustedSource(Source):
    """Frames and label maps of another source, adjusted.

    Args:
        source: closed with this one.
        rotate_deg: degrees by which its pictures are turned clockwise: 0, 90, 180 or 270.
        colour_order: `BGR` when the first channel of its frames is blue.

    Raises:
        InputError: another angle or order.
    """

    def __init__(self, source: Source, *, rotate_deg: int = 0, colour_order: str = "RGB") -> None:
        if rotate_deg not in ROTATIONS_DEG:
            raise InputError(f"pictures are turned by {', '.join(map(str, ROTATIONS_DEG))} degrees | got {rotate_deg}")
        if colour_order not in COLOUR_ORDERS:
            raise InputError(f"the colour order is {' or '.join(COLOUR_ORDERS)} | got {colour_order!r}")
        self._source, self._turn, self._swaps = source, _TURNS.get(rotate_deg), colour_order == "BGR"
        self.name, self.fps, self.paced, self.classes = source.name, source.fps, source.paced, source.classes
        self.fps_origin = source.fps_origin
        height, width = source.size_hw
        self.size_hw = (width, height) if rotate_deg in (90, 270) else (height, width)

    @property
    def counts(self) -> SourceCounts:
        return self._source.counts

    @property
    def is_lost(self) -> bool:
        return self._source.is_lost

    def read(self, stop: threading.Event) -> Frame | None:
        frame = self._source.read(stop)
        if frame is None:
            return None
        rgb = cv2.cvtColor(frame.rgb, cv2.COLOR_BGR2RGB) if self._swaps else frame.rgb
        return Frame(frame.index, frame.captured_at_s, self._turned(rgb))

    def labels(self, index: int) -> np.ndarray | None:
        labels = self._source.labels(index)
        return None if labels is None else self._turned(labels)

    def has_labels(self, index: int) -> bool:
        return self._source.has_labels(index)

    def captured_at_s(self, index: int) -> float | None:
        return self._source.captured_at_s(index)

    def close(self) -> None:
        self._source.close()

    def _turned(self, picture: np.ndarray) -> np.ndarray:
        return picture if self._turn is None else cv2.rotate(picture, self._turn)
