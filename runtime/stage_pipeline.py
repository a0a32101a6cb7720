"""The stages between a source and the results of a camera loop, how they are joined, and how they end.

source -> capture -> newest frame -> worker ----------------------> results
                \\-> newest frame -> warp, where labels are moved -/
"""

import logging
import threading
from collections.abc import Callable

import numpy as np

from edgeseg.config import Compensation
from edgeseg.errors import DeviceError, EdgesegError, InputError
from edgeseg.metrics.streaming import Publication
from edgeseg.runtime.continuity import Stretches
from edgeseg.runtime.loop_session import LoopSession, lead_s
from edgeseg.runtime.publisher import Publisher
from edgeseg.runtime.result import LoopSummary, Result
from edgeseg.runtime.schedule import Schedule
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame, Source
from edgeseg.runtime.stage_threads import StageThreads
from edgeseg.runtime.stages import CaptureStage, StepStage
from edgeseg.runtime.warp_stage import Finished, WarpStage

RESULTS_HELD = 4
"""Results that wait for a slow reader; beyond, the oldest is dropped."""
STOP_S = 1.5
"""How long `stop` waits for a source that hangs in a driver: a process ends within two seconds."""
_log = logging.getLogger(__name__)


class StagePipeline:
    """Each stage on a thread of its own, once: `capture`, `worker`, and `warp` where labels are moved.

    What it is given is used on these threads alone from `start` on, and neither opened nor closed here. The arguments
    are those of `edgeseg.runtime.loop.Loop`, with nothing left to choose.

    Raises:
        InputError: `gap_s` is out of range.
    """

    def __init__(
        self,
        session: LoopSession,
        source: Source,
        *,
        schedule: Schedule,
        compensation: Compensation,
        rate: str,
        check_consistency: bool,
        on_result: Callable[[Result], None] | None,
        keep_log: bool,
        gap_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._session, self._source, self._schedule, self._clock = session, source, schedule, clock
        self._stop = threading.Event()
        self._threads = StageThreads(self._stop, self._wake)
        self._frames: LatestSlot[Frame] = LatestSlot(self._stop)
        self._results: LatestSlot[Result] = LatestSlot(self._stop, capacity=RESULTS_HELD)
        self._ended_at_s: float | None = None
        self._told: set[str] = set()
        ahead_s = lead_s(session.configuration, source.fps)
        self._publisher = Publisher(
            session,
            self._results,
            on_result=on_result,
            wait=not source.paced,
            keep_log=keep_log,
            lead_s=ahead_s,
            clock=clock,
        )
        self._warp: WarpStage | None = None
        if compensation.moves:
            self._warp = WarpStage(
                compensation,
                rate=rate,
                period_s=1.0 / source.fps,
                lead_s=ahead_s,
                check_consistency=check_consistency,
                paced=source.paced,
                ignore_value=255 if session.classes is None else session.classes.ignore_value,
                stop=self._stop,
            )
        if schedule.is_faster_than(source.fps):
            _log.warning(
                "the schedule %s asks for more than the %.5g frames/s of %s | every frame is computed, as far as "
                "there is time: latest-frame does the same", schedule.name, source.fps, source.name,
            )  # fmt: skip
        stretches = Stretches(source.fps, paced=source.paced, gap_s=gap_s)
        self._capture = CaptureStage(source, stretches, self._take_frame, self._stop)
        self._steps = StepStage(
            session,
            self._frames,
            schedule=schedule,
            source=source,
            stretches=stretches,
            note=None if self._warp is None else self._warp.note_source,
            hand_over=self._take_labels,
            clock=clock,
        )

    @property
    def have_started(self) -> bool:
        """Whether `start` was called."""
        return self._threads.have_started

    @property
    def has_failed(self) -> bool:
        """Whether a stage has failed."""
        return self._threads.failure is not None

    @property
    def is_busy(self) -> bool:
        """Whether a step is under way, or labels are being moved or handed over."""
        return self._steps.is_busy or (self._warp is not None and self._warp.is_busy)

    @property
    def log(self) -> list[Publication]:
        """A `Publication` per result so far, where a log is kept."""
        return self._publisher.log

    def start(self) -> None:
        """Start the threads."""
        stages = {"capture": self._run_capture, "worker": self._run_steps}
        if self._warp is not None:
            stages["warp"] = self._run_warp
        self._threads.start(stages)

    def take(self) -> Result | None:
        """The oldest result that waits, waiting for one; None at the end."""
        return self._results.take()

    def tell_to_stop(self) -> None:
        """End all stages, without waiting for them."""
        self._threads.tell_to_stop()

    def stop(self, *, at_once: bool) -> bool:
        """End all stages and wait for them; what hangs is left behind, as `edgeseg.runtime.loop.Loop.stop` says.

        Returns:
            Whether the source is free; False: a call hangs in it.
        """
        step_s = STOP_S if at_once else max(STOP_S, self._steps.patience_s)
        hanging = self._threads.stop({"capture": STOP_S, "worker": step_s, "warp": step_s})
        untold, self._told = hanging - self._told, self._told | hanging
        if "capture" in untold:
            # Freeing a device under the call that hangs in it would crash.
            _log.warning("%s does not answer | its thread was left behind", self._source.name)
        if untold - {"capture"}:
            error = self._hang(untold)
            if at_once:
                _log.warning("%s", str(error).rpartition(":")[0])
            else:
                self._threads.fail(error)
        return "capture" not in hanging

    def join(self) -> None:
        """Wait until all stages have ended, or are told to."""
        self._threads.join()

    def raise_failure(self) -> None:
        """Raise the first failure of a stage, if there was one."""
        self._threads.raise_failure()

    @property
    def counts(self) -> dict[str, int]:
        """Those of the summary that only grow."""
        wrong = self._source.counts
        return {
            "results": self._publisher.published,
            "frames_captured": self._capture.captured,
            "frames_dropped": self._frames.dropped,
            "frames_missed": self._capture.missed,
            "results_dropped": self._results.dropped,
            "frames_left": self._frames.left,
            "results_left": self._results.left,
            "reconnects": wrong.reconnects,
            "stalls": wrong.stalls,
            "corrupt_frames": wrong.corrupt,
        }

    @property
    def summary(self) -> LoopSummary:
        """What was done so far."""
        began_s, end_s = self._capture.first_captured_at_s, self._ended_at_s
        return LoopSummary(
            configuration=self._session.configuration.name,
            source=self._source.name,
            source_fps=self._source.fps,
            source_fps_origin=self._source.fps_origin,
            seconds=0.0 if began_s is None else (self._clock() if end_s is None else end_s) - began_s,
            step_ms=self._steps.step_ms.percentiles(),
            age_ms=self._publisher.age_ms.percentiles(),
            compensation=None if self._warp is None else self._warp.summary(),
            schedule=self._schedule.name,
            session_events=self._session.events.counts,
            last_events=self._session.events.last,
            camera_is_lost=self._source.is_lost,
            **self.counts,
        )

    def _hang(self, stages: set[str]) -> EdgesegError:
        """What is told of stages behind the capture that do not end."""
        left = "does not return | its thread was left behind"
        if self._publisher.is_calling:
            return InputError(f"on_result {left}: let it be quick, and leave what takes long to another thread")
        part = f"a step of {self._session.configuration.name}" if "worker" in stages else "moving labels"
        return DeviceError(f"{part} {left}: restart the program, and look at the device's driver")

    def _take_frame(self, frame: Frame) -> bool:
        is_wanted = self._frames.put(frame, wait=not self._source.paced)
        return is_wanted and (self._warp is None or self._warp.put_frame(frame))

    def _take_labels(self, frame: Frame, labels: np.ndarray, step_ms: float) -> bool:
        if self._warp is not None:
            return self._warp.put_labels(Finished(frame, labels, step_ms, self._session.configuration.name))
        self._publisher.as_it_is(frame, labels, step_ms)
        return True

    def _run_capture(self) -> None:
        try:
            self._capture.run()
        except BaseException as error:  # raised where the loop is used, after what was captured before
            self._threads.note(error)
        self._frames.close()

    def _run_steps(self) -> None:
        self._steps.run()
        if self._warp is None:
            self._end()
        else:
            self._warp.close()

    def _run_warp(self) -> None:
        if self._warp is not None:
            self._warp.run(self._publisher.moved)
        self._end()

    def _end(self) -> None:
        self._note_end()
        self._results.close()

    def _note_end(self) -> None:
        self._ended_at_s = self._ended_at_s or self._clock()

    def _wake(self) -> None:
        self._note_end()
        self._frames.close()
        self._results.close()
        if self._warp is not None:
            self._warp.close()
