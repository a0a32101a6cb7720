"""The motion of a known video: any label map of it moved to any later frame, each pair of frames matched only once."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from edgeseg.config import Compensation
from edgeseg.errors import InputError
from edgeseg.runtime.compensation import Compensator
from edgeseg.runtime.optical_flow import FIELD_STRIDE, flow_size_hw, open_flow


class Flow(NamedTuple):
    """What the motion fields of a compensation depend on: its modes share them."""

    name: str
    divisor: int

    @classmethod
    def of(cls, compensation: Compensation) -> "Flow":
        return cls(compensation.flow, compensation.divisor)

    def field_bytes(self, frame_hw: tuple[int, int]) -> int:
        """Memory of one frame's motion field."""
        height, width = flow_size_hw(frame_hw, self.divisor) or (0, 0)
        return 8 * (height // FIELD_STRIDE) * (width // FIELD_STRIDE)


def moving(compensations: Iterable[Compensation]) -> tuple[Compensation, ...]:
    """Those of `compensations` that move labels, each once: the ones that accuracy tables are made for.

    Raises:
        InputError: one marks hidden pixels, which a table cannot score: they have no label.
        MissingPackageError, DeviceError: the library or hardware of a flow is not on this machine.
    """
    chosen = tuple(dict.fromkeys(each for each in compensations if each.moves))
    for each in chosen:
        if each.mark_invalid:
            raise InputError(
                f"{each.name} leaves hidden pixels without a label, and an accuracy table counts every pixel | "
                "score the same compensation without mark_invalid"
            )
    for name in {each.flow for each in chosen}:
        open_flow(name)
    return chosen


class VideoMotion:
    """Moves labels of one video as the loop does, with the frames up to the one before the moment that they are for.

    Frames are matched when they are first needed, in their order, and never again: however many networks, modes and
    delays ask. Fields are kept for the whole video.

    Args:
        frame_rgb: index -> camera frame, uint8 `(H, W, 3)` RGB.
        fps: frames per second; frame i is captured at i / fps seconds.
        nbytes: memory that the fields take in the end.
    """

    def __init__(
        self, flow: Flow, frame_rgb: Callable[[int], np.ndarray], *, frame_count: int, fps: float, nbytes: int
    ) -> None:
        self.nbytes = nbytes
        self._frame_rgb = frame_rgb
        self._fps = fps
        self._known = 0
        self._compensator = Compensator(
            Compensation(flow=flow.name, divisor=flow.divisor), frames_held=max(1, frame_count)
        )

    def moved(
        self, labels: np.ndarray, index: int, offset: int, compensation: Compensation, *, target_offset: int = 0
    ) -> np.ndarray:
        """Labels of frame `index` moved to frame `index + offset`; as they are where the loop would leave them.

        Fastest when `offset` ascends for one frame and one mode: the way back is then continued.

        Args:
            labels: uint8 `(h, w)`, of any size.
            offset: frames of delay, at least 1.
            compensation: one of this flow.
            target_offset: frames ahead that the labels were predicted for.
        """
        newest = index + offset - 1
        while self._known <= newest:
            self._compensator.add_frame(self._known, self._frame_rgb(self._known), self._known / self._fps)
            self._known += 1
        time_s = (index + offset) / self._fps
        stands_for_s = (index + target_offset) / self._fps if target_offset else None
        return self._compensator.move(labels, index, newest, time_s, stands_for_s, mode=compensation.mode).labels
