"""The camera loop: a capture thread, a slot with the newest frame, a worker, and results by iteration or callback.

With motion compensation a third thread moves the newest labels to the newest frame.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from edgeseg.config import Compensation
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.metrics.streaming import Publication
from edgeseg.runtime.async_results import away, taken
from edgeseg.runtime.continuity import GAP_S
from edgeseg.runtime.loop_session import LoopSession
from edgeseg.runtime.result import LoopSummary, Result
from edgeseg.runtime.schedule import Schedule
from edgeseg.runtime.source import Source
from edgeseg.runtime.source_opening import open_source
from edgeseg.runtime.stage_pipeline import StagePipeline
from edgeseg.runtime.warp_stage import chosen_rate


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
        try:
            self._pipeline = StagePipeline(
                session,
                self.source,
                schedule=self.schedule,
                compensation=self.compensation,
                rate=self.rate,
                check_consistency=check_consistency,
                on_result=on_result,
                keep_log=keep_log,
                gap_s=gap_s,
                clock=clock,
            )
            session.take_frames_of(self.source.size_hw)
        except BaseException:
            self._close_source()
            raise

    def start(self) -> None:
        """Start the threads, once; the `with` statement does it."""
        if self._pipeline.have_started:
            raise InputError("a loop runs once | make a new one")
        self.session.reset()
        self._pipeline.start()

    @property
    def log(self) -> list[Publication]:
        """A `Publication` per result so far, where the loop keeps a log."""
        return self._pipeline.log

    @property
    def has_failed(self) -> bool:
        """Whether a stage has failed; the failure is raised from the iteration, `wait`, or the end of the block."""
        return self._pipeline.has_failed

    @property
    def waits_for_camera(self) -> bool:
        """Whether no labels come because the camera is away, and for no other reason such as a step or a callback that
        hangs."""
        return self.source.is_lost and not self._pipeline.is_busy

    def tell_to_stop(self) -> None:
        """End all stages, and the iteration, without waiting for them: `stop` does. May be called from anywhere."""
        self._pipeline.tell_to_stop()

    def stop(self, *, at_once: bool = False) -> None:
        """End all stages and wait for them. May be called from anywhere, the callback included, and more than once.

        A source that hangs in a driver is left behind with its thread after a moment, and is not closed. So is a step
        that hangs, which is a failure.

        Args:
            at_once: leave a step behind after that moment too, be it slow or hanging, and take it for no failure: for
                an end within two seconds. The session must then not be used again.
        """
        if self._pipeline.stop(at_once=at_once):
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
        while (result := self._pipeline.take()) is not None:
            yield result
        self._pipeline.join()
        self._pipeline.raise_failure()

    async def __aiter__(self) -> AsyncIterator[Result]:
        """The same for asyncio, without holding up the event loop; cancelling the task that waits stops the loop."""
        self._refuse_unstarted()
        async with aclosing(taken(self._pipeline.take, self.stop)) as results:
            async for result in results:
                yield result
        await away(self._pipeline.join)
        self._pipeline.raise_failure()

    def __enter__(self) -> "Loop":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(at_once=error is not None)
        if error is None:
            self._pipeline.raise_failure()

    async def __aenter__(self) -> "Loop":
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await away(partial(self.stop, at_once=error is not None))
        if error is None:
            self._pipeline.raise_failure()

    @property
    def counts(self) -> dict[str, int]:
        """Those of the summary that only grow, without its percentiles: cheap enough to be asked for all the time."""
        return self._pipeline.counts

    @property
    def summary(self) -> LoopSummary:
        """What the loop has done so far."""
        return self._pipeline.summary

    def _refuse_unstarted(self) -> None:
        if not self._pipeline.have_started:
            raise InputError("a loop that was not started gives nothing | use it in a `with` block, or call start()")

    def _close_source(self) -> None:
        if self._owns_source:
            self.source.close()
