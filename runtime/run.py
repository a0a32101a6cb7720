"""One recorded run of the loop: overlay video, a line of JSON per result, the score against labels."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.latency_aware import Publication, streaming_scores
from edgeseg.runtime.loop import Loop, LoopSummary, Result
from edgeseg.runtime.overlay import VideoWriter, overlay, resize_labels, video_writer
from edgeseg.runtime.session import Session
from edgeseg.runtime.source import Source

SCORE_BYTES = 512 << 20
"""Label maps kept for the score; a longer run is scored up to there."""


@dataclass(frozen=True)
class RunReport:
    """What a run did, and how good it was where the source has labels."""

    summary: LoopSummary
    slamiou: float | None
    """Streaming LAmIoU: what a consumer of the loop really read, against each frame's labels; None without labels."""
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
            "scored_frames": self.scored_frames,
            "video": None if self.video is None else str(self.video),
        }


def run_loop(
    session: Session,
    source: Source,
    *,
    classes: ClassSet,
    frames: int | None = None,
    seconds: float | None = None,
    save: Path | str | None = None,
    json_lines: TextIO | None = None,
    progress: Callable[[Result], None] | None = None,
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

    Raises:
        The first failure of a stage; then no video is written.
        KeyboardInterrupt: Ctrl-C before the first result, or a second one. After a result the first one ends the loop
            as the source's end does, and is in the report.
    """
    score = _StreamingScore(source, classes)
    last: Result | None = None
    interruption: KeyboardInterrupt | None = None
    path = None if save is None else Path(save)
    with ExitStack() as stack:
        writer = stack.enter_context(video_writer(path, source.fps, source.size_hw)) if path is not None else None
        loop = stack.enter_context(Loop(session, source))
        try:
            for results, result in enumerate(loop, start=1):
                if writer is not None:
                    _write(writer, last, result, classes)
                if json_lines is not None:
                    json_lines.write(json.dumps(_line(result)) + "\n")
                    json_lines.flush()
                score.add(result)
                last = result
                if progress is not None:
                    progress(result)
                ran_s = result.published_at - (loop.started_at_s or 0.0)
                if (frames is not None and results >= frames) or (seconds is not None and ran_s >= seconds):
                    break
        except KeyboardInterrupt as error:
            if last is None:
                raise
            interruption = error
        loop.stop()
        if writer is not None and last is not None:
            writer.write(_overlaid(last, classes))
    scores, scored_frames = score.finish()
    return RunReport(loop.summary, None if scores is None else scores.miou, scored_frames, path, interruption)


class _StreamingScore:
    """Keeps label maps during the loop and scores them afterwards."""

    def __init__(self, source: Source, classes: ClassSet) -> None:
        own = source.classes
        self._source = source
        self._class_count = len(classes)
        self._scores = source.paced and own is not None and own.names == classes.names
        self._room = SCORE_BYTES
        self._log: list[Publication] = []
        self._labels: dict[int, np.ndarray] = {}

    def add(self, result: Result) -> None:
        if not self._scores or self._room < result.labels.nbytes:
            return
        self._room -= result.labels.nbytes
        # The log comes last: a Ctrl-C between the two lines leaves no entry without its labels.
        self._labels[result.frame_index] = result.labels
        self._log.append(Publication(result.published_at, result.frame_index))

    def finish(self) -> tuple[Scores | None, int]:
        """Scores, and the number of camera frames scored: all those that came before the last publication."""
        if not self._log:
            return None, 0
        captured: list[float] = []
        while (at := self._source.captured_at_s(len(captured))) is not None and at <= self._log[-1].published_at_s:
            captured.append(at)
        present = [index for index in range(len(captured)) if self._labels_of(index) is not None]
        if not present:
            return None, 0
        scores = streaming_scores(
            self._log,
            captured,
            lambda index: resize_labels(self._labels[index], self._source.size_hw),
            self._labels_of,
            class_count=self._class_count,
        )
        return scores, len(present)

    def _labels_of(self, index: int) -> np.ndarray | None:
        return self._source.labels(index)


def write_overlays(
    results: Sequence[Result], path: Path | str, *, fps: float, size_hw: tuple[int, int], classes: ClassSet
) -> None:
    """The overlay video of `run_loop`, from results kept until the loop is over: encoding takes no time from it."""
    with video_writer(path, fps, size_hw) as writer:
        for last, result in zip([None, *results], results, strict=False):
            _write(writer, last, result, classes)
        if results:
            writer.write(_overlaid(results[-1], classes))


def _write(writer: VideoWriter, last: Result | None, result: Result, classes: ClassSet) -> None:
    """Show the result before until this one's frame."""
    if last is not None:
        writer.write(_overlaid(last, classes), times=result.frame_index - last.frame_index)


def _overlaid(result: Result, classes: ClassSet) -> np.ndarray:
    return overlay(result.frame_rgb, result.labels, classes)


def _line(result: Result) -> dict[str, Any]:
    present, counts = np.unique(result.labels, return_counts=True)
    return {
        "frame_index": result.frame_index,
        "captured_at": round(result.captured_at, 6),
        "published_at": round(result.published_at, 6),
        "age_s": round(result.age_s, 6),
        "step_ms": round(result.step_ms, 3),
        "configuration": result.configuration,
        "pixels": {str(value): int(count) for value, count in zip(present, counts, strict=True)},
    }
