"""What compensation changes, to look at: labels as they come beside labels moved to the present, and their errors.

The delay is simulated, k frames whatever the machine, so that a video comes out the same everywhere.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix
from edgeseg.runtime.compensation import Compensator
from edgeseg.runtime.overlay import overlay, resize_labels, video_writer
from edgeseg.runtime.session import Session
from edgeseg.runtime.source import Source

PANEL_WIDTH = 480
"""Panels of larger frames are shrunk to this."""
CAPTION_HEIGHT = 44
_FONT = cv2.FONT_HERSHEY_SIMPLEX
ONLY_LATE, ONLY_MOVED, BOTH = (230, 97, 0), (64, 156, 255), (225, 225, 225)
"""RGB of pixels that are wrong without compensation only, with it only, and both ways."""


@dataclass(frozen=True)
class ShowReport:
    """What `compensation_video` wrote and counted."""

    video: Path
    compensation: str
    """`Compensation.name`."""
    frames: int
    scored_frames: int
    """Frames with labels of their own, from the first one on that had a prediction."""
    miou_late: float | None
    """mIoU of the labels as they come; None where no frame could be scored."""
    miou_moved: float | None
    """mIoU of the labels moved to the present."""
    fallbacks: dict[str, int]
    """Reason -> frames whose labels could not be moved."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "video": str(self.video)}


@dataclass(frozen=True)
class _Moment:
    """One camera frame and what a reader has for it."""

    index: int
    rgb: np.ndarray
    late: np.ndarray | None
    """Labels of the frame `delay` frames before; None for the first frames."""
    moved: np.ndarray | None


def compensation_video(
    session: Session,
    source: Source,
    path: Path | str,
    *,
    classes: ClassSet,
    delay: int,
    frames: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShowReport:
    """Write a video of three panels at the source's frame rate.

    Left the labels of `delay` frames ago over each frame, in the middle the same labels moved to the frame with what
    was known one frame before it (the rule of latency-aware mIoU), right the pixels where one of them or both are
    wrong; without true labels, the pixels where they differ.

    Args:
        session: its compensation is shown.
        source: one that is not paced.
        path: .mp4 file.
        classes: the bundle's classes.
        delay: frames from a frame to its labels, at least 1.
        frames: stop after so many; None: all.
        progress: called with the number of each frame written.

    Raises:
        InputError: a delay below 1, marked labels, a paced source (a camera), or the file cannot be written.
        SourceError: the source broke.
    """
    if delay < 1:
        raise InputError(f"without a delay there is nothing to compensate | got --delay {delay}, expected 1 or more")
    if source.paced:
        raise InputError(f"{source.name} is paced | a simulated delay takes a recording that waits for the network")
    compensation = session.compensation
    if compensation.mark_invalid:
        raise InputError("marked pixels have no class to show | leave mark_invalid out")
    session.take_frames_of(source.size_hw)
    session.reset()
    compensator = Compensator(compensation, ignore_value=classes.ignore_value)
    board = _Board(source, classes, delay)
    written = 0
    with video_writer(path, source.fps, board.size_hw) as writer:
        for moment in _moments(session, source, compensator, delay, frames):
            writer.write(board.drawn(moment))
            written += 1
            if progress is not None:
                progress(written)
    late, moved = board.mious()
    return ShowReport(
        Path(path), compensation.name, written, board.scored_frames, late, moved, dict(compensator.fallbacks)
    )


def _moments(
    session: Session, source: Source, compensator: Compensator, delay: int, frames: int | None
) -> Iterator[_Moment]:
    """Every frame with the labels that a network `delay` frames late has for it."""
    waiting: deque[tuple[int, np.ndarray]] = deque()
    stop, shown = Event(), 0
    while (frames is None or shown < frames) and (frame := source.read(stop)) is not None:
        late = moved = None
        # The recording's capture times, not this program's.
        now_s = frame.index / source.fps
        if len(waiting) == delay:
            source_index, late = waiting.popleft()
            compensator.add_labels(late, source_index)
            found = compensator.labels_at(now_s)
            moved = None if found is None else found.labels
        yield _Moment(frame.index, frame.rgb, late, moved)
        shown += 1
        waiting.append((frame.index, session.step(frame.rgb)))
        compensator.add_frame(frame.index, frame.rgb, now_s)


class _Board:
    """Draws the three panels and keeps the scores that their captions tell."""

    def __init__(self, source: Source, classes: ClassSet, delay: int) -> None:
        height, width = source.size_hw
        own = source.classes
        self._source, self._classes, self._delay = source, classes, delay
        self._has_truth = own is not None and own.names == classes.names
        shown = min(1.0, PANEL_WIDTH / width)
        self._panel_hw = (max(1, round(height * shown)), max(1, round(width * shown)))
        # MPEG-4 stores pairs of pixels.
        even = [value + value % 2 for value in (self._panel_hw[0] + CAPTION_HEIGHT, 3 * self._panel_hw[1])]
        self.size_hw = (even[0], even[1])
        self._late, self._moved = ConfusionMatrix(len(classes)), ConfusionMatrix(len(classes))
        self.scored_frames = 0

    def mious(self) -> tuple[float | None, float | None]:
        """mIoU so far of late and of moved labels."""
        if not self.scored_frames:
            return None, None
        return self._late.scores().miou, self._moved.scores().miou

    def drawn(self, moment: _Moment) -> np.ndarray:
        """uint8 `(H, W, 3)` RGB of `size_hw`."""
        frame = self._shrunk(moment.rgb)
        if moment.late is None or moment.moved is None:
            return self._laid_out([frame] * 3, [f"frame {moment.index}", "no labels yet", ""], [""] * 3)
        truth = self._source.labels(moment.index) if self._has_truth else None
        size_hw = (moment.rgb.shape[0], moment.rgb.shape[1])
        late, moved = resize_labels(moment.late, size_hw), resize_labels(moment.moved, size_hw)
        if truth is not None:
            self._late.add(truth, late)
            self._moved.add(truth, moved)
            self.scored_frames += 1
        scores = ["" if score is None else f"mIoU so far {score:.3f}" for score in self.mious()]
        errors, words, key = self._errors(moment.rgb, late, moved, truth)
        panels = [self._shrunk(overlay(moment.rgb, labels, self._classes, opacity=0.6)) for labels in (late, moved)]
        plural = "s" if self._delay > 1 else ""
        titles = [f"as they come, {self._delay} frame{plural} late", "moved to the present", words]
        return self._laid_out([*panels, self._shrunk(errors)], titles, [*scores, key])

    def _errors(
        self, frame_rgb: np.ndarray, late: np.ndarray, moved: np.ndarray, truth: np.ndarray | None
    ) -> tuple[np.ndarray, str, str]:
        """The frame in grey with coloured pixels, and two lines about them."""
        dark = cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)[..., None] // 3
        image = np.repeat(dark, 3, axis=2)
        if truth is None:
            image[late != moved] = ONLY_LATE
            return image, "where the two differ", ""
        counted = truth < len(self._classes)
        wrong_late, wrong_moved = counted & (late != truth), counted & (moved != truth)
        image[wrong_late & wrong_moved] = BOTH
        image[wrong_late & ~wrong_moved] = ONLY_LATE
        image[wrong_moved & ~wrong_late] = ONLY_MOVED
        late_share, moved_share = (wrong.sum() / max(1, counted.sum()) for wrong in (wrong_late, wrong_moved))
        return image, f"wrong: {late_share:.1%} -> {moved_share:.1%}", "late only | moved only | both"

    def _laid_out(self, panels: list[np.ndarray], titles: list[str], lines: list[str]) -> np.ndarray:
        height, width = self._panel_hw
        image = np.zeros((*self.size_hw, 3), np.uint8)
        scale = min(0.5, width / 640)
        for position, (panel, title, line) in enumerate(zip(panels, titles, lines, strict=True)):
            left = position * width
            image[CAPTION_HEIGHT : CAPTION_HEIGHT + height, left : left + width] = panel
            cv2.putText(image, title, (left + 6, 18), _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
            at = left + 6
            inks = (ONLY_LATE, ONLY_MOVED, BOTH) if "|" in line else ((200, 200, 200),)
            for part, ink in zip(line.split(" | "), inks, strict=True):
                cv2.putText(image, part, (at, 37), _FONT, scale, ink, 1, cv2.LINE_AA)
                at += cv2.getTextSize(part + "   ", _FONT, scale, 1)[0][0]
        return image

    def _shrunk(self, image_rgb: np.ndarray) -> np.ndarray:
        height, width = self._panel_hw
        if image_rgb.shape[:2] == self._panel_hw:
            return image_rgb
        return cv2.resize(image_rgb, (width, height), interpolation=cv2.INTER_AREA)
