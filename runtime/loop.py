"""The camera loop: a capture thread, a slot with the newest frame, a worker, and results by iteration or callback.

With motion compensation a third thread moves the newest labels to the newest frame.
"""

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from edgeseg.config import Compensation
from edgeseg.data.video import Video
from edgeseg.errors import DeviceError, EdgesegError, InputError
from edgeseg.metrics.streaming import Publication
from edgeseg.runtime.async_results import away, taken
from edgeseg.runtime.continuity import GAP_S, Stretches
from edgeseg.runtime.loop_session import LoopSession, lead_s
from edgeseg.runtime.publisher import Publisher
from edgeseg.runtime.result import LoopSummary, Result
from edgeseg.runtime.schedule import Schedule
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame, Source
from edgeseg.runtime.source_opening import open_source
from edgeseg.runtime.stage_threads import StageThreads
from edgeseg.runtime.stages import CaptureStage, StepStage
from edgeseg.runtime.warp_stage import Finished, WarpStage, chosen_rate

RESULTS_HELD = 4
"""Results that wait for a slow reader; beyond, the oldest is dropped."""
STOP_S = 1.5
"""How long `stop` waits for a source that hangs in a driver: a process ends within two seconds."""
_log = logging.getLogger(__name__)


class Loop:
    """Runs a session over a source until the source ends or `stop` is called.

    The worker takes the newest frame when the schedule says so; frames that come while it is busy are dropped. A source
    that is not paced waits instead, so that every frame is computed. Use it as a context manager, and iterate or give
    `on_result`:

        with Loop(session, "video.mp4") as loop:
            for result in loop:
                ...

    or in a program that uses asyncio, `async with` and `async for`.

    A source that fails ends the loop as its end does: what was captured before is delivered first. Another stage that
    fails (network, callback) stops all. The first failure is raised from the iteration, from `wait`, or at the end of
    the `with` block.

    Args:
        session: used by the loop alone until it has stopped; it is reset at the start and not closed at the end.
            Without a frame size of its own it takes the source's.
        source: what `edgeseg.runtime.source_opening.open_source` takes. What the loop opened it also closes.
        on_result: called on the worker's thread with each result; then there is nothing to iterate over.
        fps: frame rate for the source, as in `open_source`.
        keep_log: keep a `Publication` per result, for `edgeseg.metrics.latency_aware.streaming_scores`.
        clock: seconds; the clock of the source's capture times.
        compensation: how labels are moved to the newest frame; None: the session's. `UNCOMPENSATED`: labels as the
            network gives them.
        rate: `network` gives a result per finished step. `camera`, which needs labels that are moved, gives one per
            captured frame, however slow the network is, and another one when newer labels are finished before the next
            frame. None: `camera` where labels are moved, else `network`.
        check_consistency: compute the flow backward too, for `Result.invalid_share`; pixels hidden in the labels' frame
            then keep the label at their place. It doubles the flow's time.
        schedule: when the worker starts a step, and with which frame; or its name. None: the session's. Frames that
            wait for the network have no tail: with a source that is not paced `shrinking-tail` is `latest-frame`.
        gap_s: seconds without a frame (or three periods of the source, if longer) after which what is remembered of the
            frames before is void: the state of a network begins anew, and labels are not moved across (until there are
            new ones they stay as they are, with the fallback `gap`). The same where capture times go back, and where
            frames have another size. inf: no time is too long.

    Raises:
        SourceError, InputError: the source cannot be opened, its frames do not fit the session, the rate is unknown, or
            it is the camera's, or the consistency is to be checked, without labels that are moved.
    """

    def __init__(
        self,
        session: LoopSession,
        source: int | str | Path | Video | Source | Iterable[tuple[float, np.ndarray]],
        *,
        on_result: Callable[[Result], None] | None = None,
        fps: float | None = None,
        keep_log: bool = False,
        clock: Callable[[], float] = time.monotonic,
        compensation: Compensation | None = None,
        rate: str | None = None,
        check_consistency: bool = False,
        schedule: Schedule | str | None = None,
        gap_s: float = GAP_S,
    ) -> None:
        self.compensation = session.compensation if compensation is None else compensation
        self.rate = chosen_rate(rate, self.compensation, check_consistency=check_consistency)
        self.session = session
        self.schedule = Schedule.parse(schedule) if isinstance(schedule, str) else schedule or session.schedule
        self.source = open_source(source, fps=fps, clock=clock)
        self._owns_source = self.source is not source
        self._clock = clock
        self._stop = threading.Event()
        self._threads = StageThreads(self._stop, self._wake)
        self._frames: LatestSlot[Frame] = LatestSlot(self._stop)
        self._results: LatestSlot[Result] = LatestSlot(self._stop, capacity=RESULTS_HELD)
        self._ended_at_s: float | None = None
        self._told: set[str] = set()
        self._warp: WarpStage | None = None
        try:
            self._lead_s = lead_s(session.configuration, self.source.fps)
            self._publisher = Publisher(
                session,
                self._results,
                on_result=on_result,
                wait=not self.source.paced,
                keep_log=keep_log,
                lead_s=self._lead_s,
                clock=clock,
            )
            if self.compensation.moves:
                self._warp = self._warp_stage(check_consistency)
            if self.schedule.is_faster_than(self.source.fps):
                _log.warning(
                    "the schedule %s asks for more than the %.5g frames/s of %s | every frame is computed, as far as "
                    "there is time: latest-frame does the same", self.schedule.name, self.source.fps, self.source.name,
                )  # fmt: skip
            stretches = Stretches(self.source.fps, paced=self.source.paced, gap_s=gap_s)
            self._capture = CaptureStage(self.source, stretches, self._take_frame, self._stop)
            self._steps = StepStage(
                session,
                self._frames,
                schedule=self.schedule,
                source=self.source,
                stretches=stretches,
                note=None if self._warp is None else self._warp.note_source,
                hand_over=self._take_labels,
                clock=clock,
            )
            session.take_frames_of(self.source.size_hw)
        except BaseException:
            self._close_source()
            raise

    def start(self) -> None:
        """Start the threads, once; the `with` statement does it."""
        if self._threads.have_started:
            raise InputError("a loop runs once | make a new one")
        self.session.reset()
        stages = {"capture": self._run_capture, "worker": self._run_steps}
        if self._warp is not None:
            stages["warp"] = self._run_warp
        self._threads.start(stages)

    @property
    def log(self) -> list[Publication]:
        """A `Publication` per result so far, where the loop keeps a log."""
        return self._publisher.log

    @property
    def has_failed(self) -> bool:
        """Whether a stage has failed; the failure is raised from the iteration, `wait`, or the end of the block."""
        return self._threads.failure is not None

    @property
    def waits_for_camera(self) -> bool:
        """Whether no labels come because the camera is away, and for no other reason such as a step or a callback that
        hangs."""
        is_busy = self._steps.is_busy or (self._warp is not None and self._warp.is_busy)
        return self.source.is_lost and not is_busy

    def tell_to_stop(self) -> None:
        """End all stages, and the iteration, without waiting for them: `stop` does. May be called from anywhere."""
        self._threads.tell_to_stop()

    def stop(self, *, at_once: bool = False) -> None:
        """End all stages and wait for them. May be called from anywhere, the callback included, and more than once.

        A source that hangs in a driver is left behind with its thread after a moment, and is not closed. So is a step
        that hangs, which is a failure.

        Args:
            at_once: leave a step behind after that moment too, be it slow or hanging, and take it for no failure: for
                an end within two seconds. The session must then not be used again.
        """
        step_s = STOP_S if at_once else max(STOP_S, self._steps.patience_s)
        hanging = self._threads.stop({"capture": STOP_S, "worker": step_s, "warp": step_s})
        untold, self._told = hanging - self._told, self._told | hanging
        if "capture" in untold:
            # Freeing a device under the call that hangs in it would crash.
            _log.warning("%s does not answer | its thread was left behind", self.source.name)
        if untold - {"capture"}:
            error = self._hang(untold)
            if at_once:
                _log.warning("%s", str(error).rpartition(":")[0])
            else:
                self._threads.fail(error)
        if "capture" not in hanging:
            self._close_source()

    def wait(self) -> None:
        """Wait until the source ends or a stage fails; results that were not iterated over are let go.

        Raises:
            The first failure of a stage.
            InputError: it was not started.
        """
        for _ in self:
            pass

    def __iter__(self) -> Iterator[Result]:
        """Results as they are published, until the source ends; raises the first failure of a stage, and InputError
        where it was not started."""
        self._refuse_unstarted()
        while (result := self._results.take()) is not None:
            yield result
        self._threads.join()
        self._threads.raise_failure()

    async def __aiter__(self) -> AsyncIterator[Result]:
        """The same for asyncio, without holding up the event loop; cancelling the task that waits stops the loop."""
        self._refuse_unstarted()
        async with aclosing(taken(self._results.take, self.stop)) as results:
            async for result in results:
                yield result
        await away(self._threads.join)
        self._threads.raise_failure()

    def __enter__(self) -> "Loop":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(at_once=error is not None)
        if error is None:
            self._threads.raise_failure()

    async def __aenter__(self) -> "Loop":
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await away(partial(self.stop, at_once=error is not None))
        if error is None:
            self._threads.raise_failure()

    @property
    def counts(self) -> dict[str, int]:
        """Those of the summary that only grow, without its percentiles: cheap enough to be asked for all the time."""
        wrong = self.source.counts
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
        """What the loop has done so far."""
        began_s, end_s = self._capture.first_captured_at_s, self._ended_at_s
        return LoopSummary(
            configuration=self.session.configuration.name,
            source=self.source.name,
            source_fps=self.source.fps,
            source_fps_origin=self.source.fps_origin,
            seconds=0.0 if began_s is None else (self._clock() if end_s is None else end_s) - began_s,
            step_ms=self._steps.step_ms.percentiles(),
            age_ms=self._publisher.age_ms.percentiles(),
            compensation=None if self._warp is None else self._warp.summary(),
            schedule=self.schedule.name,
            session_events=self.session.events.counts,
            last_events=self.session.events.last,
            camera_is_lost=self.source.is_lost,
            **self.counts,
        )

    def _hang(self, stages: set[str]) -> EdgesegError:
        """What is told of stages behind the capture that do not end."""
        left = "does not return | its thread was left behind"
        if self._publisher.is_calling:
            return InputError(f"on_result {left}: let it be quick, and leave what takes long to another thread")
        part = f"a step of {self.session.configuration.name}" if "worker" in stages else "moving labels"
        return DeviceError(f"{part} {left}: restart the program, and look at the device's driver")

    def _refuse_unstarted(self) -> None:
        if not self._threads.have_started:
            raise InputError("a loop that was not started gives nothing | use it in a `with` block, or call start()")

    def _take_frame(self, frame: Frame) -> bool:
        is_wanted = self._frames.put(frame, wait=not self.source.paced)
        return is_wanted and (self._warp is None or self._warp.put_frame(frame))

    def _take_labels(self, frame: Frame, labels: np.ndarray, step_ms: float) -> bool:
        if self._warp is not None:
            return self._warp.put_labels(Finished(frame, labels, step_ms, self.session.configuration.name))
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

    def _warp_stage(self, check_consistency: bool) -> WarpStage:
        return WarpStage(
            self.compensation,
            rate=self.rate,
            period_s=1.0 / self.source.fps,
            lead_s=self._lead_s,
            check_consistency=check_consistency,
            paced=self.source.paced,
            ignore_value=255 if self.session.classes is None else self.session.classes.ignore_value,
            stop=self._stop,
        )

    def _wake(self) -> None:
        self._note_end()
        self._frames.close()
        self._results.close()
        if self._warp is not None:
            self._warp.close()

    def _close_source(self) -> None:
        if self._owns_source:
            self.source.close()
