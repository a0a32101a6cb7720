"""Timed steps whose labels are moved to the present, with the network and the flow side by side as in the loop."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from edgeseg.config import Compensation
from edgeseg.runtime.clip import Clip
from edgeseg.runtime.compensation import Compensator


@dataclass(frozen=True)
class MovedStep:
    """One step, from a camera's frame to its labels moved to the present."""

    latency_s: float
    flow_s: tuple[float, ...]
    """What the flow of each camera frame took, the step's own frame first."""
    moved_px: float
    """How far the pixels moved: root mean square over the picture, in pixels of the label map."""
    fallback: str | None
    """Why the labels were left as they are; None when they were moved."""


class MovedSteps:
    """Runs steps on the caller's thread, and beside each the flow of the camera's frames on one thread of its own.

    What happens is what happens in the loop (`edgeseg.runtime.warp_stage`): a camera frame arrives, and the network
    takes it while its flow is computed. Further frames arrive once per period, and get their flow while the network
    still computes; of several that wait, the newest alone. When the labels are there they are moved to the frame after
    the newest one. Then the next step begins with the next frame, without waiting for it.

    Args:
        compensation: one that moves labels.
        period_s: time between two frames of the camera.
        clock: seconds.
    """

    def __init__(self, compensation: Compensation, period_s: float, clock: Callable[[], float]) -> None:
        self.compensator = Compensator(compensation)
        self._ahead_s = period_s if "extrapolate" in compensation.mode else 0.0
        self._period_s = period_s
        self._clock = clock
        self._next_index = 0

    def run(self, step: Callable[[np.ndarray], np.ndarray], clip: Clip, thread: ThreadPoolExecutor) -> MovedStep:
        """One step.

        Args:
            step: uint8 `(H, W, 3)` frame -> uint8 `(h, w)` labels that nobody changes afterwards.
            clip: what the camera sees; the first of its frames not yet seen is the step's own.
            thread: of one worker, the same one for all steps: a flow's buffers belong to a single thread at a time.

        Raises:
            Whatever `step` or the flow raises. The thread then soon has nothing to do; `shutdown` waits for that.
        """
        labels: Future[np.ndarray] = Future()
        frame_rgb = clip.frame_rgb(self._next_index)
        begin_s = self._clock()
        try:
            beside = thread.submit(self._beside, clip, begin_s, labels)
            labels.set_result(step(frame_rgb))
        except BaseException as error:  # Ctrl-C too: the thread must not wait for the labels of a step that is over
            labels.set_exception(error)
            raise
        return beside.result()

    def _beside(self, clip: Clip, begin_s: float, labels: "Future[np.ndarray]") -> MovedStep:
        """The other thread's part: flows until the labels are there, then these moved."""
        source = newest = self._next_index
        flow_s = [self._add_frame(clip, source)]
        while True:
            next_at_s = begin_s + (newest - source + 1) * self._period_s
            is_over = bool(wait([labels], max(0.0, next_at_s - self._clock())).done)
            arrived = source + int((self._clock() - begin_s) / self._period_s)
            if arrived > newest:
                newest = arrived
                flow_s.append(self._add_frame(clip, newest))
            if is_over:
                break
        self._next_index = newest + 1
        self.compensator.add_labels(labels.result(), source)
        moved = self.compensator.labels_at(newest * self._period_s + self._ahead_s)
        assert moved is not None
        return MovedStep(self._clock() - begin_s, tuple(flow_s), moved.moved_px, moved.fallback)

    def _add_frame(self, clip: Clip, index: int) -> float:
        """Seconds that the flow of camera frame `index` took."""
        frame_rgb = clip.frame_rgb(index)
        begin_s = self._clock()
        self.compensator.add_frame(index, frame_rgb, index * self._period_s)
        return self._clock() - begin_s
