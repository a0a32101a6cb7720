"""The camera loop: a capture thread, a slot with the newest frame, a worker, and results by iteration or callback.

With motion compensation a third thread moves the newest labels to the newest frame.
"""

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType

import numpy as np

from edgeseg.config import Compensation
from edgeseg.data.video import Video
from edgeseg.errors import DeviceError, InputError
from edgeseg.metrics.streaming import Publication
from edgeseg.runtime.async_results import away, taken
from edgeseg.runtime.continuity import GAP_S, Stretches
from edgeseg.runtime.loop_session import LoopSession, SessionEvent, lead_s
from edgeseg.runtime.publisher import Publisher
from edgeseg.runtime.result import LoopSummary, Result
from edgeseg.runtime.sample_window import SampleWindow
from edgeseg.runtime.schedule import LATEST_FRAME, SHRINKING_TAIL, Schedule
from edgeseg.runtime.slot import POLL_S, LatestSlot
from edgeseg.runtime.source import Frame, Source, open_source
from edgeseg.runtime.warp_stage import Finished, WarpStage, chosen_rate

RESULTS_HELD = 4
"""Results that wait for a slow reader; beyond, the oldest is dropped."""
STOP_S = 1.5
"""How long `stop` waits for a source that hangs in a driver: a process ends within two seconds."""
FIRST_STEP_S = 5.0
"""How long it waits for a step when none has told yet how long steps take: the first one of a session may compile."""
STEPS_OF_A_HANG = 2.0
"""And for a step of a slow network, in the longest steps so far."""
CAPTURE = "edgeseg-capture"
"""Name of the thread that reads the source."""
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

    A stage that fails (source, network, callback) stops the others, and the first failure is raised from the iteration,
    from `wait`, or at the end of the `with` block.

    Args:
        session: used by the loop alone until it has stopped; it is reset at the start and not closed at the end.
            Without a frame size of its own it takes the source's.
        source: what `edgeseg.runtime.source.open_source` takes. What the loop opened it also closes.
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
            frames before is void: the state of a network begins anew, and labels are not moved across. The same where
            capture times go back, and where frames have another size. inf: no time is too long.

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
        self.source = open_source(source, fps=fps)
        self._owns_source = self.source is not source
        self._clock = clock
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._failure_lock = threading.Lock()
        self._frames: LatestSlot[Frame] = LatestSlot(self._stop)
        self._results: LatestSlot[Result] = LatestSlot(self._stop, capacity=RESULTS_HELD)
        self._threads: list[threading.Thread] = []
        self._step_ms = SampleWindow()
        self._longest_step_s = 0.0
        self._captured = self._missed = 0
        self._first_captured_at: float | None = None
        self._ended_at: float | None = None
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
            self._stretches = Stretches(self.source.fps, paced=self.source.paced, gap_s=gap_s)
            if self.compensation.moves:
                self._warp = self._warp_stage(check_consistency)
            session.take_frames_of(self.source.size_hw)
        except BaseException:
            self._close_source()
            raise

    def start(self) -> None:
        """Start the threads, once; the `with` statement does it."""
        if self._threads:
            raise InputError("a loop runs once | make a new one")
        self.session.reset()
        stages: list[tuple[str, Callable[[], None]]] = [(CAPTURE, self._capture), ("edgeseg-worker", self._work)]
        if self._warp is not None:
            stages.append(("edgeseg-warp", self._move))
        for name, stage in stages:
            # A daemon: a process must be able to end while a driver hangs.
            thread = threading.Thread(target=self._guarded, args=(stage,), name=name, daemon=True)
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    @property
    def log(self) -> list[Publication]:
        """A `Publication` per result so far, where the loop keeps a log."""
        return self._publisher.log

    @property
    def has_failed(self) -> bool:
        """Whether a stage has failed; the failure is raised from the iteration, `wait`, or the end of the block."""
        return self._failure is not None

    def stop(self) -> None:
        """End all stages and wait for them. May be called from anywhere, the callback included, and more than once.

        A source that hangs in a driver is left behind with its thread after a moment, and is not closed.
        """
        self._stop.set()
        self._wake()
        begin_s = time.monotonic()
        others = [thread for thread in self._threads if thread is not threading.current_thread()]
        for thread in others:
            limit_s = STOP_S if thread.name == CAPTURE else self._step_limit_s
            thread.join(max(0.0, begin_s + limit_s - time.monotonic()))
        hanging = {thread.name for thread in others if thread.is_alive()}
        if hanging - {CAPTURE}:
            self._fail(
                DeviceError(
                    f"a step of {self.session.configuration.name}, or what takes its labels, does not return | its "
                    "thread was left behind: restart the program, and look at the device's driver"
                )
            )
        if CAPTURE in hanging:
            # Freeing a device under the call that hangs in it would crash.
            _log.warning("%s does not answer | its thread was left behind", self.source.name)
        else:
            self._close_source()

    def wait(self) -> None:
        """Wait until the source ends or a stage fails; results that were not iterated over are let go.

        Raises:
            The first failure of a stage.
        """
        for _ in self:
            pass

    def __iter__(self) -> Iterator[Result]:
        """Results as they are published, until the source ends; raises the first failure of a stage."""
        while (result := self._results.take()) is not None:
            yield result
        self._join()
        self._raise_failure()

    async def __aiter__(self) -> AsyncIterator[Result]:
        """The same for asyncio, without holding up the event loop; cancelling the task that waits stops the loop."""
        async with aclosing(taken(self._results.take, self.stop)) as results:
            async for result in results:
                yield result
        await away(self._join)
        self._raise_failure()

    def __enter__(self) -> "Loop":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self._raise_failure()

    async def __aenter__(self) -> "Loop":
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await away(self.stop)
        if error is None:
            self._raise_failure()

    @property
    def counts(self) -> dict[str, int]:
        """Those of the summary that only grow, without its percentiles: cheap enough to be asked for all the time."""
        wrong = self.source.counts
        return {
            "results": self._publisher.published,
            "frames_captured": self._captured,
            "frames_dropped": self._frames.dropped,
            "frames_missed": self._missed,
            "results_dropped": self._results.dropped,
            "reconnects": wrong.reconnects,
            "stalls": wrong.stalls,
            "corrupt_frames": wrong.corrupt,
        }

    @property
    def summary(self) -> LoopSummary:
        """What the loop has done so far."""
        end = self._clock() if self._ended_at is None else self._ended_at
        wrong = self.source.counts
        return LoopSummary(
            configuration=self.session.configuration.name,
            source=self.source.name,
            source_fps=self.source.fps,
            source_fps_origin=self.source.fps_origin,
            seconds=0.0 if self._first_captured_at is None else end - self._first_captured_at,
            results=self._publisher.published,
            frames_captured=self._captured,
            frames_dropped=self._frames.dropped,
            frames_missed=self._missed,
            results_dropped=self._results.dropped,
            step_ms=self._step_ms.percentiles(),
            age_ms=self._publisher.age_ms.percentiles(),
            compensation=None if self._warp is None else self._warp.summary(),
            schedule=self.schedule.name,
            reconnects=wrong.reconnects,
            stalls=wrong.stalls,
            corrupt_frames=wrong.corrupt,
            session_events=self.session.events.counts,
            last_events=self.session.events.last,
        )

    @property
    def _step_limit_s(self) -> float:
        """How long a step that is under way is waited for."""
        return max(STOP_S, STEPS_OF_A_HANG * self._longest_step_s) if self._longest_step_s else FIRST_STEP_S

    def _capture(self) -> None:
        expected = 0
        while (frame := self.source.read(self._stop)) is not None:
            if self._first_captured_at is None:
                self._first_captured_at = frame.captured_at_s
            self._captured += 1
            self._missed += frame.index - expected
            expected = frame.index + 1
            frame = self._stretches.numbered(frame)
            if not self._frames.put(frame, wait=not self.source.paced):
                break
            if self._warp is not None and not self._warp.put_frame(frame):
                break
        self._frames.close()

    def _work(self) -> None:
        note = None if self._warp is None else self._warp.note_source
        is_tail_known = self.source.paced or self.schedule != SHRINKING_TAIL
        rule = (self.schedule if is_tail_known else LATEST_FRAME).start_rule(self.source.fps)
        free_at_s = self._clock()

        def accepts(frame: Frame) -> bool:
            return rule.takes(frame.index, frame.captured_at_s, free_at_s)

        while (frame := self._frames.take(note, accepts=accepts)) is not None:
            begin = time.perf_counter()
            # Cameras and streams may change it in the middle.
            self.session.take_frames_of(frame.rgb.shape[:2], changed=True)
            self._forget_if_broken(frame)
            labels = self.session.step(frame.rgb)
            step_s = time.perf_counter() - begin
            step_ms = 1e3 * step_s
            self._step_ms.add(step_ms)
            self._longest_step_s = max(self._longest_step_s, step_s)
            rule.finished(step_s)
            if self._warp is None:
                self._publisher.as_it_is(frame, labels, step_ms)
            elif not self._warp.put_labels(Finished(frame, labels, step_ms, self.session.configuration.name)):
                break
            free_at_s = self._clock()
        if self._warp is None:
            self._end()
        else:
            self._warp.close()

    def _forget_if_broken(self, frame: Frame) -> None:
        """A network that remembers begins anew with a frame that does not go on from the last one stepped."""
        reason = self._stretches.broken_before(frame)
        if reason is not None and self.session.configuration.links:
            self.session.reset()
            name = self.session.configuration.name
            self.session.events.add(SessionEvent(time.monotonic(), "reset", name, f"{reason}, at frame {frame.index}"))

    def _move(self) -> None:
        if self._warp is not None:
            self._warp.run(self._publisher.moved)
        self._end()

    def _end(self) -> None:
        self._ended_at = self._clock()
        self._results.close()

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

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # whatever it is, it is raised again where the loop is used
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._failure_lock:
            self._failure = self._failure or error
        self._stop.set()
        self._wake()

    def _wake(self) -> None:
        self._frames.close()
        self._results.close()
        if self._warp is not None:
            self._warp.close()

    def _join(self) -> None:
        for thread in self._threads:
            while thread.is_alive() and not self._stop.is_set():
                thread.join(POLL_S)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _close_source(self) -> None:
        if self._owns_source:
            self.source.close()
