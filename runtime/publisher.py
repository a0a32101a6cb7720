"""The way of labels out of the loop: results made of them, counted, and given to the callback or the reader."""

import logging
import math
from collections.abc import Callable

import numpy as np

from edgeseg.metrics.streaming import Publication
from edgeseg.runtime.loop_session import LoopSession
from edgeseg.runtime.result import Result
from edgeseg.runtime.run_log import event
from edgeseg.runtime.sample_window import SampleWindow
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame
from edgeseg.runtime.warp_stage import Moved

_log = logging.getLogger(__name__)


class Publisher:
    """Publishes on one thread: the worker's, or that of the stage that moves labels.

    Args:
        session: tells configuration and classes.
        results: where results wait for the reader.
        on_result: called with each result instead.
        wait: for room among the results, rather than drop the oldest.
        keep_log: keep a `Publication` per result.
        lead_s: how far ahead of their frame the network's labels are.
        clock: seconds.
    """

    def __init__(
        self,
        session: LoopSession,
        results: LatestSlot[Result],
        *,
        on_result: Callable[[Result], None] | None,
        wait: bool,
        keep_log: bool,
        lead_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._session, self._results, self._on_result = session, results, on_result
        self._wait, self._keep_log, self._lead_s, self._clock = wait, keep_log, lead_s, clock
        self.log: list[Publication] = []
        self.published = 0
        """Results so far."""
        self.age_ms = SampleWindow()
        """Their ages when they were published."""
        self.is_calling = False
        """Whether the callback has a result and has not come back."""

    def as_it_is(self, frame: Frame, labels: np.ndarray, step_ms: float) -> None:
        """Publish the labels of `frame`, uint8 `(h, w)`, as the network gave them in a step of `step_ms`."""
        self._publish(
            Result(
                frame_index=frame.index,
                captured_at=frame.captured_at_s,
                published_at=self._clock(),
                step_ms=step_ms,
                labels=labels,
                frame_rgb=frame.rgb,
                configuration=self._session.configuration.name,
                source_index=frame.index,
                source_at=frame.captured_at_s,
                stands_for=frame.captured_at_s + self._lead_s,
                classes=self._session.classes,
            )
        )

    def moved(self, moved: Moved) -> float:
        """Publish labels that were moved; when they could be read, in seconds on the clock."""
        frame_rgb = moved.frame.rgb.view()
        frame_rgb.flags.writeable = False
        result = Result(
            frame_index=moved.frame.index,
            captured_at=moved.frame.captured_at_s,
            published_at=self._clock(),
            step_ms=moved.source.step_ms,
            labels=moved.moved.labels,
            frame_rgb=frame_rgb,
            configuration=moved.source.configuration,
            source_index=moved.source.frame.index,
            source_at=moved.source.frame.captured_at_s,
            stands_for=moved.stands_for_s,
            moved_px=moved.moved.moved_px,
            invalid_share=None if math.isnan(moved.moved.invalid_share) else moved.moved.invalid_share,
            fallback=moved.moved.fallback,
            warp_ms=moved.warp_ms,
            classes=self._session.classes,
        )
        self._publish(result)
        return result.published_at

    def _publish(self, result: Result) -> None:
        self.published += 1
        if self.published == 1:
            _note_first(result)
        self.age_ms.add(1e3 * result.age_s)
        if self._keep_log:
            self.log.append(Publication(result.published_at, result.source_index))
        if self._on_result is not None:
            self.is_calling = True
            try:
                self._on_result(result)
            finally:
                self.is_calling = False
        else:
            self._results.put(result, wait=self._wait)


def _note_first(result: Result) -> None:
    _log.info(
        "%s: first labels, of frame %d, %.0f ms old", result.configuration, result.source_index, 1e3 * result.age_s,
        extra=event(
            "first_labels", configuration=result.configuration, frame_index=result.source_index,
            age_s=round(result.age_s, 6), step_ms=round(result.step_ms, 3),
        ),
    )  # fmt: skip
