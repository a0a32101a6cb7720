"""One recorded run of the loop: overlay video, a line of JSON per result, the score against labels."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from edgeseg.classes import ClassSet
from edgeseg.config import Compensation
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.loop_session import LoopSession
from edgeseg.runtime.result import LoopSummary, Result
from edgeseg.runtime.run_log import logged_every
from edgeseg.runtime.side_thread import beside
from edgeseg.runtime.sinks import JsonLines, Sink, SinkSummary, overlay_video, sinking
from edgeseg.runtime.sinks.base import time_of
from edgeseg.runtime.sinks.threads import BREAK_OFF_S, SinkThreads
from edgeseg.runtime.sinks.video import video_format
from edgeseg.runtime.source import Source
from edgeseg.runtime.streaming_score import StreamingScore, StreamingScores

if TYPE_CHECKING:
    from edgeseg.runtime.viewer import Viewer

SCORED_WITHIN_S = 1.0
"""After a Ctrl-C frames are scored up to then: the process ends within two seconds."""


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
    frames_with_labels: int
    """Camera frames that could have been scored: more after a Ctrl-C, which leaves no time for all of them."""
    video: Path | None
    interruption: KeyboardInterrupt | None = None
    """The Ctrl-C that ended the loop."""
    sinks: tuple[SinkSummary, ...] = ()
    """What became of the results in each sink."""
    error: str | None = None
    """The failure that ended the run; nothing is scored then."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **self.summary.as_dict(),
            "slamiou": self.slamiou,
            "slamiou_after_first": self.slamiou_after_first,
            "predicted_slamiou": self.predicted_slamiou,
            "scored_frames": self.scored_frames,
            "frames_with_labels": self.frames_with_labels,
            "video": None if self.video is None else str(self.video),
            "sinks": [vars(sink) for sink in self.sinks],
            "error": self.error,
        }


def run_loop(
    session: LoopSession,
    source: Source,
    *,
    classes: ClassSet,
    frames: int | None = None,
    seconds: float | None = None,
    save: Sink | Path | str | None = None,
    json_lines: TextIO | Path | str | None = None,
    sinks: Sequence[Sink] = (),
    summary_every_s: float | None = None,
    progress: Callable[[Result], None] | None = None,
    compensation: Compensation | None = None,
    rate: str | None = None,
    check_consistency: bool = False,
    viewer: Callable[[Loop], "AbstractContextManager[Viewer]"] | None = None,
    watchdog: Callable[[Loop], AbstractContextManager[object]] | None = None,
    on_failure: Callable[[RunReport], None] | None = None,
) -> RunReport:
    """Run `session` over `source` until it ends, `frames` results have come, `seconds` have passed, or Ctrl-C.

    Scoring happens after the loop, so that it takes no time from it: labels are read again, and sLAmIoU is counted over
    all camera frames from the first to the last published one. It needs a paced source with labels of the session's
    classes. After a Ctrl-C there is time for some of the frames only, spread evenly over the run.

    Args:
        classes: the bundle's classes.
        seconds: from the first frame's capture on, or from the start where no frame comes; results or not.
        save: overlay video (.mp4) at the source's frame rate: each result is shown until the next one. It is H.264 and
            plays whatever ends the process, where the extra `video` is installed; else MPEG-4, whole at the end only.
            A file that exists is refused. Or a sink, not yet open, that writes it otherwise.
        json_lines: one line per result: frame index, times, age, step time, pixels and share of each class; appended
            to those of earlier runs.
        sinks: further sinks, such as `LabelImages` and `SharedLabelsSink`, not yet open.
        summary_every_s: log the summary so often, at level INFO.
        progress: called with each result.
        viewer: makes the live view of the loop, which then shows each result and ends before the loop does.
        compensation, rate, check_consistency: as in `Loop`. Labels whose invalid pixels are marked are not scored.
        watchdog: what it gives for the loop is entered while that runs: `ServiceNotifier.watching`.
        on_failure: called with what the run did until a stage or sink failed, before that is raised.

    Raises:
        The first failure of a stage or sink; what the sinks had written is kept, but for a video in MPEG-4.
        KeyboardInterrupt: Ctrl-C before the first result, or a second one. After a result the first one ends the loop
            as the source's end does, or the scoring, and is in the report. Of a subclass, such as the command line
            raises at SIGTERM, it ends the run at once: nothing is scored then.
    """
    marked = (session.compensation if compensation is None else compensation).mark_invalid
    score = StreamingScore(source, classes, marked=marked)
    first: Result | None = None
    interruption: KeyboardInterrupt | None = None
    interrupted_at_s = math.inf
    chosen = list(sinks)
    if isinstance(save, Path | str):
        clock = time_of(paced=source.paced, fps=source.fps)
        save = overlay_video(save, source.fps, source.size_hw, classes, time_of=clock)
    if save is not None:
        chosen.insert(0, save)
    if json_lines is not None:
        chosen.append(JsonLines(json_lines))
    begun: Loop | None = None
    sunk = SinkThreads()
    try:
        with ExitStack() as stack:
            # A source that is not paced waits, so that every frame is computed, and written.
            sunk = stack.enter_context(sinking(chosen, wait=not source.paced))
            begun = loop = stack.enter_context(
                Loop(session, source, compensation=compensation, rate=rate, check_consistency=check_consistency)
            )
            view = None if viewer is None else stack.enter_context(viewer(loop))
            if summary_every_s is not None:
                stack.enter_context(logged_every(summary_every_s, lambda: loop.summary))
            if watchdog is not None:
                stack.enter_context(watchdog(loop))
            if seconds is not None:
                stack.enter_context(_ended_after(seconds, loop))
            try:
                for results, result in enumerate(loop, start=1):
                    first = first or result
                    if view is not None:
                        view.show(result)
                    sunk(result)
                    score.add(result)
                    if progress is not None:
                        progress(result)
                    if frames is not None and results >= frames:
                        break
            except KeyboardInterrupt as error:
                if first is None:
                    raise
                interruption, interrupted_at_s = error, time.monotonic()
            loop.stop(at_once=interruption is not None)
            sunk.finish(None if interruption is None else BREAK_OFF_S)
    except Exception as error:
        if begun is not None and on_failure is not None:
            on_failure(_report(begun, sunk, save, StreamingScores(), error=error))
        raise
    is_terminated = interruption is not None and type(interruption) is not KeyboardInterrupt
    scored = StreamingScores() if is_terminated else score.finish(interrupted_at_s + SCORED_WITHIN_S)
    if interruption is not None and scored.interruption is not None:
        raise scored.interruption
    return _report(loop, sunk, save, scored, interruption=interruption or scored.interruption)


@contextmanager
def _ended_after(seconds: float, loop: Loop) -> Iterator[None]:
    """Tell `loop` to stop when so much time has passed, unless the block is left before."""

    def watch(over: threading.Event) -> None:
        left_s = seconds
        while left_s > 0:
            if over.wait(left_s):
                return
            now = loop.summary
            left_s = seconds - now.seconds if now.frames_captured else 0.0
        loop.tell_to_stop()

    with beside("edgeseg-deadline", watch):
        yield


def _report(
    loop: Loop,
    sunk: SinkThreads,
    save: Sink | None,
    scored: StreamingScores,
    *,
    interruption: KeyboardInterrupt | None = None,
    error: Exception | None = None,
) -> RunReport:
    video = None if save is None else save.path
    if error is not None and video is not None and not video.exists():
        # One in MPEG-4 is whole at the end, or is not there.
        video = None
    return RunReport(
        summary=loop.summary,
        slamiou=scored.slamiou,
        slamiou_after_first=scored.slamiou_after_first,
        predicted_slamiou=_predicted(loop),
        scored_frames=scored.scored_frames,
        frames_with_labels=scored.frames_with_labels,
        video=video,
        interruption=interruption,
        sinks=sunk.summaries,
        error=None if error is None else str(error) or type(error).__name__,
    )


def _predicted(loop: Loop) -> float | None:
    picked = loop.session.pick
    if picked is None or (picked.candidate.compensation, picked.schedule) != (loop.compensation, loop.schedule):
        return None
    if "switched" in loop.session.events.counts:
        return None
    # Moved labels are predicted as they are at the camera's rate, others as the network gives them.
    return None if loop.compensation.moves and loop.rate != "camera" else picked.row.streaming_lamiou


def write_overlays(
    results: Sequence[Result], path: Path | str, *, fps: float, size_hw: tuple[int, int], classes: ClassSet
) -> None:
    """The overlay video of `run_loop`, from results kept until the loop is over: encoding takes no time from it.

    A file that exists is replaced.
    """
    with video_format()(path, fps, size_hw, classes, overwrite=True) as video:
        for result in results:
            video.write(result)
