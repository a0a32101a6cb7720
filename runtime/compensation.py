"""Motion compensation: the newest labels moved to the present by optical flow, at the camera's rate.

Modes and formulas: 1-definitions, Motion compensation. The motion is that of `edgeseg.runtime.motion_memory`.
"""

import math
import threading
from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.config import MODES, Compensation
from edgeseg.errors import InputError
from edgeseg.runtime.motion_memory import FRAMES_HELD, ComposedMotion, MotionMemory, Unmoved
from edgeseg.runtime.optical_flow import sample_along, scaled


@dataclass(frozen=True)
class MovedLabels:
    """A label map for one moment."""

    labels: np.ndarray
    """uint8 `(h, w)`, owned by the receiver."""
    source_index: int
    """Frame that the labels were computed from."""
    source_at_s: float
    """When that frame was captured; nan when it is not known (any more)."""
    moved_px: float
    """How far the pixels moved: root mean square over the picture of the lengths of their ways, in pixels of the label
    map."""
    invalid_share: float
    """Share of the pixels that fail the forward-backward check; nan when that is not computed."""
    fallback: str | None
    """Why the labels were left as they are; None when they are what the mode asks for."""


class Compensator:
    """Moves the newest labels to the present.

    `add_frame` and `labels_at` belong to one thread, `add_labels` may be called from another; a lock is held only
    while the newest labels are exchanged. `reset` belongs to the thread of `add_frame`.

        compensator.add_frame(index, frame_rgb, captured_at_s)      # every camera frame
        compensator.add_labels(labels, source_index)                # when the network is ready
        moved = compensator.labels_at(time_s)                       # whenever labels are wanted

    Args:
        compensation: mode and flow.
        ignore_value: what hidden pixels get when `compensation.mark_invalid`.
        check_consistency: compute the backward flow too, for `invalid_share` and so that hidden pixels keep the label
            at their place; it costs a second flow per frame. `mark_invalid` implies it.
        frames_held: camera frames whose motion is remembered.
    """

    def __init__(
        self,
        compensation: Compensation,
        *,
        ignore_value: int = 255,
        check_consistency: bool = False,
        frames_held: int = FRAMES_HELD,
    ) -> None:
        if not 0 <= ignore_value <= 255:
            raise InputError(f"the ignored value is a byte | got {ignore_value}")
        self.compensation = compensation
        self.fallbacks: Counter[str] = Counter()
        """How often labels were left as they are, by reason."""
        self._ignore_value = ignore_value
        checks = compensation.mark_invalid or check_consistency
        self._memory = MotionMemory(compensation, checks_consistency=checks, frames_held=frames_held)
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget frames and labels; the counts of fallbacks stay."""
        with self._lock:
            self._newest: tuple[np.ndarray, int, float | None] | None = None
        self._memory.reset()

    def add_frame(self, index: int, frame_rgb: np.ndarray, captured_at_s: float, *, goes_on: bool = True) -> None:
        """Take the next camera frame; computes the flow to the frame before.

        Args:
            index: of the frame; ascending, gaps allowed.
            frame_rgb: uint8 `(H, W, 3)`, read only during the call. The size may change from frame to frame.
            captured_at_s: capture time. A clock that stands or goes back is no error: labels are not moved across it.
            goes_on: whether it goes on from the frame before; where not, as after a gap, labels are not moved across.

        Raises:
            InputError: the frame is no uint8 RGB image, or the index does not ascend.
        """
        self._memory.add(index, frame_rgb, captured_at_s, goes_on=goes_on)

    def add_labels(self, labels: np.ndarray, source_index: int, stands_for_s: float | None = None) -> None:
        """Take the newest labels and the index of the frame that they were computed from.

        Args:
            labels: uint8 `(h, w)`, of any size; kept as they are, not copied, so they must not be changed afterwards.
            source_index: frame that they were computed from.
            stands_for_s: time that the labels show, on the clock of the capture times; by default the capture time of
                their frame. A network that was trained to anticipate gives labels of a later time.

        Raises:
            InputError: the labels are no uint8 map.
        """
        if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
            raise InputError(f"labels are uint8 (h, w) | got {labels.dtype} {labels.shape}")
        with self._lock:
            self._newest = labels, source_index, stands_for_s

    def labels_at(self, time_s: float) -> MovedLabels | None:
        """The newest labels moved to `time_s`, on the clock of the capture times; None before the first labels."""
        with self._lock:
            newest = self._newest
        if newest is None:
            return None
        labels, source, stands_for_s = newest
        return self.move(labels, source, self._memory.newest(source), time_s, stands_for_s)

    def move(
        self,
        labels: np.ndarray,
        source_index: int,
        newest_index: int,
        time_s: float,
        stands_for_s: float | None = None,
        *,
        mode: str | None = None,
    ) -> MovedLabels:
        """Labels of one frame moved to `time_s`, from the frames up to `newest_index` alone.

        For accuracy tables, which ask for many delays of the same labels: the motion of an earlier call is continued
        when the source is the same and the newest frame a later one.

        Args:
            labels: uint8 `(h, w)`.
            source_index: frame that they were computed from.
            newest_index: newest frame to be used; one that was added.
            stands_for_s: time that the labels show; by default the capture time of their frame.
            mode: how they are moved; by default the mode of the compensation. Motion does not depend on it, so that
                one compensator that moves labels serves all modes.

        Raises:
            InputError: an unknown mode.
        """
        if mode not in (None, *MODES):
            raise InputError(f"unknown compensation mode {mode!r} | known: {', '.join(MODES)}")
        source = source_index
        source_at_s = self._memory.captured_at_s(source)
        try:
            motion = self._memory.motion(
                source, newest_index, float(time_s), stands_for_s, mode or self.compensation.mode
            )
        except Unmoved as reason:
            self.fallbacks[str(reason)] += 1
            return MovedLabels(labels.copy(), source, source_at_s, 0.0, math.nan, str(reason))
        if motion is None:
            return MovedLabels(labels.copy(), source, source_at_s, 0.0, math.nan, None)
        path, factor = motion
        moved, invalid_share = self._moved(labels, path, factor)
        moved_px = _rms_length(path.field, factor, labels.shape)
        return MovedLabels(moved, source, source_at_s, moved_px, invalid_share, None)

    def _moved(self, labels: np.ndarray, path: ComposedMotion, factor: float) -> tuple[np.ndarray, float]:
        size_hw = labels.shape[0], labels.shape[1]
        moved = sample_along(labels, scaled(path.field, size_hw, factor), nearest=True)
        if path.valid is None:
            return moved, math.nan
        valid = cv2.resize(path.valid, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST) > 0
        kept = np.uint8(self._ignore_value) if self.compensation.mark_invalid else labels
        return np.where(valid, moved, kept), 1.0 - float(valid.mean())


def _rms_length(field: np.ndarray, factor: float, size_hw: tuple[int, ...]) -> float:
    """Root mean square of the field's ways, times `factor`, in pixels of a map of `size_hw`."""
    mean, deviation = cv2.meanStdDev(field)
    x, y = (math.hypot(*parts) for parts in zip(mean.ravel().tolist(), deviation.ravel().tolist(), strict=True))
    return abs(factor) * math.hypot(x * size_hw[1] / field.shape[1], y * size_hw[0] / field.shape[0])
