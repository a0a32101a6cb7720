"""One recorded run of the loop: overlay video, a line of JSON per result, the score against labels."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.config import Compensation
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.streaming import Publication, streaming_offsets, streaming_scores
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.loop_session import LoopSession
from edgeseg.runtime.overlay import resize_labels
from edgeseg.runtime.result import LoopSummary, Result
from edgeseg.runtime.run_log import logged_every
from edgeseg.runtime.sinks import JsonLines, Sink, SinkSummary, overlay_video, sinking
from edgeseg.runtime.sinks.threads import BREAK_OFF_S
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
    sinks: tuple[SinkSummary, ...] = ()
    """What became of the results in each sink."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **self.summary.as_dict(),
            "slamiou": self.slamiou,
            "slamiou_after_first": self.slamiou_after_first,
            "predicted_slamiou": self.predicted_slamiou,
            "scored_frames": self.scored_frames,
            "video": None if self.video is None else str(self.video),
            "sinks": [vars(sink) for sink in self.sinks],
        }


def run_loop(
    session: LoopSession,
    source: Source,
    *,
    classes: ClassSet,
    frames: int | None = None,
    seconds: float | None = None,
    save: Path | str | None = None,
    json_lines: TextIO | Path | str | None = None,
    sinks: Sequence[Sink] = (),
    summary_every_s: float | None = None,
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
        save: overlay video (.mp4) at the source's frame rate: each result is shown until the next one. It is H.264 and
            plays whatever ends the process, where the extra `video` is installed; else MPEG-4, whole at the end only.
        json_lines: one line per result: frame index, times, age, step time, pixels and share of each class.
        sinks: further sinks, such as `LabelImages` and `SharedLabelsSink`, not yet open.
        summary_every_s: log the summary so often, at level INFO.
        progress: called with each result.
        viewer: makes the live view of the loop, which then shows each result and ends before the loop does.
        compensation, rate, check_consistency: as in `Loop`. Labels whose invalid pixels are marked are not scored.

    Raises:
        The first failure of a stage or sink; what the sinks had written is kept, but for a video in MPEG-4.
        KeyboardInterrupt: Ctrl-C before the first result, or a second one. After a result the first one ends the loop
            as the source's end does, and is in the report. Of a subclass, such as the command line raises at SIGTERM,
            it ends the run at once: nothing is scored then.
    """
    marked = (session.compensation if compensation is None else compensation).mark_invalid
    score = _StreamingScore(source, classes, marked=marked)
    first: Result | None = None
    interruption: KeyboardInterrupt | None = None
    path = None if save is None else Path(save)
    chosen = list(sinks)
    if path is not None:
        chosen.insert(0, overlay_video(path, source.fps, source.size_hw, classes))
    if json_lines is not None:
        chosen.append(JsonLines(json_lines))
    with ExitStack() as stack:
        # A source that is not paced waits, so that every frame is computed, and written.
        sunk = stack.enter_context(sinking(chosen, wait=not source.paced))
        loop = stack.enter_context(
            Loop(session, source, compensation=compensation, rate=rate, check_consistency=check_consistency)
        )
        view = None if viewer is None else stack.enter_context(viewer(loop))
        if summary_every_s is not None:
            stack.enter_context(logged_every(summary_every_s, lambda: loop.summary))
        try:
            for results, result in enumerate(loop, start=1):
                first = first or result
                if view is not None:
                    view.show(result)
                sunk(result)
                score.add(result)
                if progress is not None:
                    progress(result)
                ran_s = result.published_at - first.captured_at
                if (frames is not None and results >= frames) or (seconds is not None and ran_s >= seconds):
                    break
        except KeyboardInterrupt as error:
            if first is None:
                raise
            interruption = error
        loop.stop()
        sunk.finish(None if interruption is None else BREAK_OFF_S)
    is_terminated = interruption is not None and type(interruption) is not KeyboardInterrupt
    slamiou, after_first, scored_frames = (None, None, 0) if is_terminated else score.finish()
    return RunReport(
        loop.summary, slamiou, after_first, _predicted(loop), scored_frames, path, interruption, sunk.summaries
    )


def _predicted(loop: Loop) -> float | None:
    picked = loop.session.pick
    if picked is None or (picked.candidate.compensation, picked.schedule) != (loop.compensation, loop.schedule):
        return None
    if "switched" in loop.session.events.counts:
        return None
    if "switched" in loop.session.events.counts:
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
    with overlay_video(path, fps, size_hw, classes) as video:
        for result in results:
            video.write(result)
