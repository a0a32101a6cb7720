"""One recorded run of the loop: overlay video, a line of JSON per result, the score against labels."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.config import Compensation
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.streaming import Publication, streaming_offsets, streaming_scores
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.loop_session import LoopSession
from edgeseg.runtime.overlay import VideoWriter, overlay, resize_labels, video_writer
from edgeseg.runtime.result import LoopSummary, Result
from edgeseg.runtime.source import Source

if TYPE_CHECKING:
    from edgeseg.runtime.viewer import Viewer

SCORE_BYTES = 512 << 20
"""Label maps kept for the score; a longer run is scored up to there."""


@dataclass(frozen=True)
class RunReport:
    """What a run did, and how good it was where the source has labels."""

    summary: LoopSummary
    slamiou: float | None
    """Streaming LAmIoU: what a consumer of the loop really read, against each frame's labels; None without labels."""
    slamiou_after_first: float | None
    """The same without the frames before the first labels, which count as all wrong above: a long run's figure."""
    predicted_slamiou: float | None
    """What the pick predicted for `slamiou_after_first`, on the bundle's own evaluation data; None where the loop ran
    otherwise than the pick assumed, or nothing was picked."""
    scored_frames: int
    """Camera frames that were scored."""
    video: Path | None
    interruption: KeyboardInterrupt | None = None
    """The Ctrl-C that ended the loop."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **self.summary.as_dict(),
            "slamiou": self.slamiou,
            "slamiou_after_first": self.slamiou_after_first,
            "predicted_slamiou": self.predicted_slamiou,
            "scored_frames": self.scored_frames,
            "video": None if self.video is None else str(self.video),
        }


def run_loop(
    session: LoopSession,
    source: Source,
    *,
    classes: ClassSet,
    frames: int | None = None,
    seconds: float | None = None,
    save: Path | str | None = None,
    json_lines: TextIO | None = None,
    progress: Callable[[Result], None] | None = None,
    compensation: Compensation | None = None,
    rate: str | None = None,
    check_consistency: bool = False,
    viewer: Callable[[Loop], "Viewer"] | None = None,
) -> RunReport:
    """Run `session` over `source` until it ends, `frames` results or `seconds` have come, or Ctrl-C.

    Scoring happens after the loop, so that it takes no time from it: labels are read again, and sLAmIoU is counted over
    all camera frames from the first to the last published one. It needs a paced source with labels of the session's
    classes.

    Args:
        classes: the bundle's classes.
        save: overlay video (.mp4) at the source's frame rate: each result is shown until the next one.
        json_lines: one line per result: frame index, times, age, step time.
        progress: called with each result.
        viewer: makes the live view of the loop, which then shows each result and ends before the loop does.
        compensation, rate, check_consistency: as in `Loop`. Labels whose invalid pixels are marked are not scored.

    Raises:
        The first failure of a stage; then no video is written.
        KeyboardInterrupt: Ctrl-C before the first result, or a second one. After a result the first one ends the loop
            as the source's end does, and is in the report.
    """
    marked = (session.compensation if compensation is None else compensation).mark_invalid
    score = _StreamingScore(source, classes, marked=marked)
    first: Result | None = None
    last: Result | None = None
    interruption: KeyboardInterrupt | None = None
    path = None if save is None else Path(save)
    with ExitStack() as stack:
        writer = stack.enter_context(video_writer(path, source.fps, source.size_hw)) if path is not None else None
        loop = stack.enter_context(
            Loop(session, source, compensation=compensation, rate=rate, check_consistency=check_consistency)
        )
        view = None if viewer is None else stack.enter_context(viewer(loop))
        try:
            for results, result in enumerate(loop, start=1):
                # First of all: a Ctrl-C after anything was written finds a result to end the video with.
                first, before, last = first or result, last, result
                if view is not None:
                    view.show(result)
                if writer is not None:
                    _write(writer, before, result, classes)
                if json_lines is not None:
                    json_lines.write(json.dumps(_line(result)) + "\n")
                    json_lines.flush()
                score.add(result)
                if progress is not None:
                    progress(result)
                ran_s = result.published_at - first.captured_at
                if (frames is not None and results >= frames) or (seconds is not None and ran_s >= seconds):
                    break
        except KeyboardInterrupt as error:
            if last is None:
                raise
            interruption = error
        loop.stop()
        if writer is not None and last is not None:
            writer.write(_overlaid(last.frame_rgb, last.labels, classes, writer.size_hw))
    slamiou, after_first, scored_frames = score.finish()
    return RunReport(loop.summary, slamiou, after_first, _predicted(loop), scored_frames, path, interruption)


def _predicted(loop: Loop) -> float | None:
    picked = loop.session.pick
    if picked is None or (picked.candidate.compensation, picked.schedule) != (loop.compensation, loop.schedule):
        return None
    # Moved labels are predicted as they are at the camera's rate, others as the network gives them.
    return None if loop.compensation.moves and loop.rate != "camera" else picked.row.streaming_lamiou


class _StreamingScore:
    """Keeps label maps during the loop and scores them afterwards."""

    def __init__(self, source: Source, classes: ClassSet, *, marked: bool = False) -> None:
        own = source.classes
        self._source = source
        self._class_count = len(classes)
        self._scores = source.paced and own is not None and own.names == classes.names and not marked
        self._room = SCORE_BYTES
        self._log: list[Publication] = []
        # Labels from one frame are published several times when they are moved: they are found by publication.
        self._labels: list[np.ndarray] = []

    def add(self, result: Result) -> None:
        if not self._scores or self._room < result.labels.nbytes:
            return
        self._room -= result.labels.nbytes
        # The log comes last: a Ctrl-C between the two lines leaves no entry without its labels.
        self._labels.append(result.labels)
        self._log.append(Publication(result.published_at, len(self._labels) - 1))

    def finish(self) -> tuple[float | None, float | None, int]:
        """sLAmIoU of all camera frames that came before the last publication, of those after the first, their number.

        None where no such frame has labels.
        """
        if not self._log:
            return None, None, 0
        captured: list[float] = []
        while (at := self._source.captured_at_s(len(captured))) is not None and at <= self._log[-1].published_at_s:
            captured.append(at)
        waiting = streaming_offsets(self._log, captured).count(None)
        before, missed = self._scores_of(captured, range(waiting))
        after, read = self._scores_of(captured, range(waiting, len(captured)))
        return _miou(Scores(before.counts + after.counts)), _miou(after), missed + read

    def _scores_of(self, captured_at_s: list[float], frames: range) -> tuple[Scores, int]:
        """Scores of those of `frames` that have labels, and their number."""
        scored = 0

        def labels(index: int) -> np.ndarray | None:
            nonlocal scored
            found = self._source.labels(index) if index in frames else None
            scored += found is not None
            return found

        scores = streaming_scores(
            self._log,
            captured_at_s,
            lambda entry: resize_labels(self._labels[entry], self._source.size_hw),
            labels,
            class_count=self._class_count,
        )
        return scores, scored


def _miou(scores: Scores) -> float | None:
    return None if math.isnan(scores.miou) else scores.miou


def write_overlays(
    results: Sequence[Result], path: Path | str, *, fps: float, size_hw: tuple[int, int], classes: ClassSet
) -> None:
    """The overlay video of `run_loop`, from results kept until the loop is over: encoding takes no time from it."""
    with video_writer(path, fps, size_hw) as writer:
        for last, result in zip([None, *results], results, strict=False):
            _write(writer, last, result, classes)
        if results:
            writer.write(_overlaid(results[-1].frame_rgb, results[-1].labels, classes, writer.size_hw))


def _write(writer: VideoWriter, last: Result | None, result: Result, classes: ClassSet) -> None:
    """Show the result before until this one's frame.

    Labels that were moved to the next frame are shown over it.
    """
    if last is None or result.frame_index <= last.frame_index:
        return
    times = result.frame_index - last.frame_index
    is_ahead = times == 1 and last.stands_for > last.captured_at
    frame_rgb = result.frame_rgb if is_ahead else last.frame_rgb
    writer.write(_overlaid(frame_rgb, last.labels, classes, writer.size_hw), times=times)


def _overlaid(frame_rgb: np.ndarray, labels: np.ndarray, classes: ClassSet, size_hw: tuple[int, int]) -> np.ndarray:
    """Labels over a frame, at a video's size: a source may change its frames' size in the middle."""
    picture = overlay(frame_rgb, labels, classes)
    return picture if picture.shape[:2] == size_hw else cv2.resize(picture, (size_hw[1], size_hw[0]))


def _line(result: Result) -> dict[str, Any]:
    present, counts = np.unique(result.labels, return_counts=True)
    return {
        "frame_index": result.frame_index,
        "captured_at": round(result.captured_at, 6),
        "published_at": round(result.published_at, 6),
        "age_s": round(result.age_s, 6),
        "step_ms": round(result.step_ms, 3),
        "stands_for": round(result.stands_for, 6),
        "source_index": result.source_index,
        "source_age_s": round(result.published_at - result.source_at, 6),
        "moved_px": round(result.moved_px, 3),
        "invalid_share": None if result.invalid_share is None else round(result.invalid_share, 6),
        "fallback": result.fallback,
        "warp_ms": round(result.warp_ms, 3),
        "configuration": result.configuration,
        "pixels": {str(value): int(count) for value, count in zip(present, counts, strict=True)},
    }
