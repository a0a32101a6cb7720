"""Motion compensation: the newest labels moved to the present by optical flow, at the camera's rate.

Modes and formulas: 1-definitions, Motion compensation. Only consecutive frames are ever matched, once per camera frame;
the way back to the labels' frame is composed of these flows. On CamVid that is better than matching the two frames
directly (mIoU .701 to .648 six frames late), and its cost per camera frame does not grow with the labels' age.
"""

import math
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.config import Compensation
from edgeseg.errors import InputError
from edgeseg.runtime.optical_flow import (
    consistent,
    flow_size_hw,
    frames_match,
    grey,
    grid_xy,
    motion_field,
    open_flow,
    sample,
    scaled,
)

FRAMES_HELD = 64
"""Camera frames whose motion is remembered; labels of an older frame are left as they are."""
PERIODS_AHEAD_MAX = 16.0
"""Extrapolation over more frame periods than this is no prediction but a clock that jumped."""


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
    """Mean length of the motion, in pixels of the label map."""
    invalid_share: float
    """Share of the pixels that fail the forward-backward check; nan when that is not computed."""
    fallback: str | None
    """Why the labels were left as they are; None when they are what the mode asks for."""


@dataclass(frozen=True)
class _Step:
    """A camera frame, and its motion from the frame before."""

    number: int
    """Counts the frames that were added, whatever their index."""
    captured_at_s: float
    frame_hw: tuple[int, int]
    field: np.ndarray | None
    """Motion field to the frame before; None when `fault` says why there is none."""
    valid: np.ndarray | None
    """uint8 of the field's size, 1 where the field passes the forward-backward check."""
    fault: str | None


@dataclass(frozen=True)
class _Path:
    """The composed motion from a frame back to the labels' frame."""

    source: int
    newest: int
    field: np.ndarray
    valid: np.ndarray | None


class _Unmoved(Exception):
    """Labels cannot be moved; the argument is the reason that is counted."""


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
        self._frames_held = frames_held
        self._checks = compensation.mark_invalid or check_consistency
        self._flow = open_flow(compensation.flow)
        self._lock = threading.Lock()
        self._grids: dict[tuple[int, int], np.ndarray] = {}
        self.reset()

    def reset(self) -> None:
        """Forget frames and labels; the counts of fallbacks stay."""
        with self._lock:
            self._newest: tuple[np.ndarray, int] | None = None
        self._steps: OrderedDict[int, _Step] = OrderedDict()
        self._grey: np.ndarray | None = None
        self._path: _Path | None = None
        self._added = 0

    def add_frame(self, index: int, frame_rgb: np.ndarray, captured_at_s: float) -> None:
        """Take the next camera frame; computes the flow to the frame before.

        Args:
            index: of the frame; ascending, gaps allowed.
            frame_rgb: uint8 `(H, W, 3)`, read only during the call. The size may change from frame to frame.
            captured_at_s: capture time. A clock that stands or goes back is no error: labels are not moved across it.

        Raises:
            InputError: the frame is no uint8 RGB image, or the index does not ascend.
        """
        if frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or frame_rgb.dtype != np.uint8 or frame_rgb.size == 0:
            raise InputError(f"a frame is uint8 (H, W, 3) | got {frame_rgb.dtype} {frame_rgb.shape}")
        before = next(reversed(self._steps)) if self._steps else None
        if before is not None and index <= before:
            raise InputError(f"frames come in order | got {index} after {before} | call reset() for another video")
        step = self._step(frame_rgb, float(captured_at_s), None if before is None else self._steps[before])
        self._steps[index] = step
        self._added += 1
        while len(self._steps) > self._frames_held:
            self._steps.popitem(last=False)

    def add_labels(self, labels: np.ndarray, source_index: int) -> None:
        """Take the newest labels and the index of the frame that they were computed from.

        Args:
            labels: uint8 `(h, w)`, of any size; kept as they are, not copied, so they must not be changed afterwards.

        Raises:
            InputError: the labels are no uint8 map.
        """
        if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
            raise InputError(f"labels are uint8 (h, w) | got {labels.dtype} {labels.shape}")
        with self._lock:
            self._newest = labels, source_index

    def labels_at(self, time_s: float) -> MovedLabels | None:
        """The newest labels moved to `time_s`, on the clock of the capture times; None before the first labels."""
        with self._lock:
            newest = self._newest
        if newest is None:
            return None
        labels, source = newest
        return self.move(labels, source, next(reversed(self._steps), source), time_s)

    def move(self, labels: np.ndarray, source_index: int, newest_index: int, time_s: float) -> MovedLabels:
        """Labels of one frame moved to `time_s`, from the frames up to `newest_index` alone.

        For accuracy tables, which ask for many delays of the same labels: the motion of an earlier call is continued
        when the source is the same and the newest frame a later one.

        Args:
            labels: uint8 `(h, w)`.
            source_index: frame that they were computed from.
            newest_index: newest frame to be used; one that was added.
        """
        source = source_index
        step = self._steps.get(source)
        source_at_s = math.nan if step is None else step.captured_at_s
        try:
            motion = self._motion(source, newest_index, float(time_s))
        except _Unmoved as reason:
            self.fallbacks[str(reason)] += 1
            return MovedLabels(labels.copy(), source, source_at_s, 0.0, math.nan, str(reason))
        if motion is None:
            return MovedLabels(labels.copy(), source, source_at_s, 0.0, math.nan, None)
        path, factor = motion
        moved, invalid_share = self._moved(labels, path, factor)
        moved_px = _mean_length(path.field, factor, labels.shape)
        return MovedLabels(moved, source, source_at_s, moved_px, invalid_share, None)

    def _step(self, frame_rgb: np.ndarray, captured_at_s: float, before: _Step | None) -> _Step:
        frame_hw = frame_rgb.shape[0], frame_rgb.shape[1]
        size_hw = flow_size_hw(frame_hw, self.compensation.divisor)
        field = valid = None
        fault: str | None
        older, self._grey = self._grey, None
        if self.compensation.mode == "none":
            fault = "no motion known"
        elif size_hw is None:
            fault = "frame too small"
        else:
            self._grey = grey(frame_rgb, size_hw)
            fault = self._fault(frame_hw, captured_at_s, before)
            if fault is None and older is not None:
                field = motion_field(self._flow(self._grey, older), self._grey, older)
                grid = self._grid(field)
                if not frames_match(field, self._grey, older, grid):
                    field, fault = None, "scene cut"
                elif self._checks:
                    valid = consistent(field, motion_field(self._flow(older, self._grey), older, self._grey), grid)
        return _Step(self._added, captured_at_s, frame_hw, field, valid, fault)

    @staticmethod
    def _fault(frame_hw: tuple[int, int], captured_at_s: float, before: _Step | None) -> str | None:
        """Why there can be no motion from the frame before."""
        if before is None:
            return "no motion known"
        if frame_hw != before.frame_hw:
            return "frame size"
        if not captured_at_s > before.captured_at_s or math.isinf(captured_at_s):
            return "clock"
        return None

    def _motion(self, source: int, newest: int, time_s: float) -> tuple[_Path, float] | None:
        """The motion field to move by and its factor; None when the labels are to stay where they are."""
        mode = self.compensation.mode
        if mode == "none":
            return None
        if source not in self._steps or newest not in self._steps:
            raise _Unmoved("source frame not held")
        if mode == "late-warp":
            return None if source == newest else (self._composed(source, newest), 1.0)
        indices = list(self._steps)
        position = indices.index(source)
        if mode == "extrapolate" or source == newest:
            if position == 0:
                raise _Unmoved("no motion known")
            begin, end = indices[position - 1], source
        else:
            begin, end = source, newest
        path = self._composed(begin, end)
        span_s = self._steps[end].captured_at_s - self._steps[begin].captured_at_s
        ahead_s = time_s - self._steps[source].captured_at_s
        beyond_s = time_s - self._steps[end].captured_at_s
        period_s = span_s / (self._steps[end].number - self._steps[begin].number)
        if not (ahead_s >= 0 and beyond_s <= PERIODS_AHEAD_MAX * period_s):
            raise _Unmoved("clock")
        return path, ahead_s / span_s

    def _composed(self, source: int, newest: int) -> _Path:
        """Motion from `newest` back to `source`, continuing the last one where that is possible."""
        path = self._path
        steps = list(self._steps.items())
        begin = next(position for position, (index, _) in enumerate(steps) if index == source) + 1
        if path is not None and path.source == source and path.newest in self._steps and path.newest <= newest:
            begin = next(position for position, (index, _) in enumerate(steps) if index == path.newest) + 1
        else:
            path = None
        for index, step in steps[begin:]:
            if index > newest:
                break
            if step.field is None:
                raise _Unmoved(step.fault or "no motion known")
            path = self._extended(path, source, index, step)
        assert path is not None
        self._path = path
        return path

    def _extended(self, path: _Path | None, source: int, index: int, step: _Step) -> _Path:
        """`path` and the step after it: F_{b->a}(x) = F_{b->b-1}(x) + F_{b-1->a}(x + F_{b->b-1}(x))."""
        field = step.field
        assert field is not None
        if path is None:
            return _Path(source, index, field, step.valid)
        places = self._grid(field) + scaled(field, (field.shape[0], field.shape[1]))
        valid = None
        if step.valid is not None and path.valid is not None:
            valid = step.valid & sample(path.valid, places, nearest=True)
        return _Path(source, index, cv2.add(field, sample(path.field, places)), valid)

    def _moved(self, labels: np.ndarray, path: _Path, factor: float) -> tuple[np.ndarray, float]:
        size_hw = labels.shape[0], labels.shape[1]
        places = scaled(path.field, size_hw, factor)
        places += self._grid(labels)
        moved = sample(labels, places, nearest=True)
        if path.valid is None:
            return moved, math.nan
        valid = cv2.resize(path.valid, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_NEAREST) > 0
        kept = np.uint8(self._ignore_value) if self.compensation.mark_invalid else labels
        return np.where(valid, moved, kept), 1.0 - float(valid.mean())

    def _grid(self, image: np.ndarray) -> np.ndarray:
        """`grid_xy` of the image's size; the grids of the two last sizes asked for are kept."""
        size_hw = image.shape[0], image.shape[1]
        if size_hw not in self._grids:
            while len(self._grids) > 1:
                del self._grids[next(iter(self._grids))]
            self._grids[size_hw] = grid_xy(size_hw)
        return self._grids[size_hw]


def _mean_length(field: np.ndarray, factor: float, size_hw: tuple[int, ...]) -> float:
    x, y = cv2.split(field)
    return abs(factor) * float(cv2.mean(cv2.magnitude(x * size_hw[1], y * size_hw[0]))[0])
