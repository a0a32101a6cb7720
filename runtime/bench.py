"""Timed steps of a bundle's candidates: sessions loaded when they are needed, and the flow's thread beside them."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from edgeseg.bundle import Bundle, BundleConfiguration, Candidate
from edgeseg.config import Compensation
from edgeseg.device_profile import LatencyProfile
from edgeseg.runtime.clip import Clip, noise_frames
from edgeseg.runtime.device import memory_is_short, resident_mb
from edgeseg.runtime.moved_steps import MovedSteps
from edgeseg.runtime.pick import flow_fault
from edgeseg.runtime.race import Outcome
from edgeseg.runtime.session import Session

STEPS_A_TURN = 5
"""Timed steps in a row. Odd, so that the phases of a two-phase network get equally many over two turns."""
WARM_UP_STEPS = (6, 30)
"""Least and most steps before the first sample."""
STEADY = 0.05
"""The warm-up ends when the median of three steps differs by less than this share from that of the three before."""
STEPS_AFTER_A_CHANGE = 2
"""Steps that are not timed at the start of a turn: the caches hold another candidate's weights and frames."""


@dataclass
class _Loaded:
    """What the bench remembers of one configuration, which its candidates share."""

    session: Session | None = None
    steps: int = 0
    """Since the last reset: tells which phase comes next."""
    frames: int = 0
    """Frames of the clip that were shown, whatever was reset."""
    warm_up_steps: int = 0
    memory_mb: float | None = None
    first_step_ms: float | None = None


@dataclass
class _Lane:
    """What the bench remembers of one candidate."""

    turns: int = 0
    warm_up_steps: int = 0
    flow_s: list[float] = field(default_factory=list)
    device_ms: list[float] = field(default_factory=list)
    """Of the timed steps, where the device counts."""


class Bench:
    """Measures candidates in turns. A context manager: at the end sessions and the flow's thread are closed.

    Args:
        candidates: to be measured; those of one configuration share a session.
        fps: frame rate of the camera, by which frames come while a step runs.
        frame_size_hw: size of the camera's frames; None: each configuration's own.
        frames_rgb: consecutive uint8 `(H, W, 3)` RGB frames, resized as needed; None: seeded noise that moves.
        clock: seconds.
    """

    def __init__(
        self,
        bundle: Bundle,
        candidates: Sequence[Candidate],
        *,
        device: str,
        threads: int,
        fps: float,
        frame_size_hw: tuple[int, int] | None,
        frames_rgb: Sequence[np.ndarray] | None,
        clock: Callable[[], float],
    ) -> None:
        self.unmoved: Counter[str] = Counter()
        """How often a timed step's labels could not be moved, by reason."""
        self._bundle = bundle
        self._candidates = {candidate.name: candidate for candidate in candidates}
        self._lanes = {name: _Lane() for name in self._candidates}
        self._loaded = {candidate.configuration.name: _Loaded() for candidate in candidates}
        self._device, self._threads, self._fps = device, threads, fps
        self._frame_size_hw, self._frames_rgb = frame_size_hw, frames_rgb
        self._clock = clock
        self._clips: dict[tuple[int, int], Clip] = {}
        self._moved: dict[Compensation, MovedSteps] = {}
        self._last: str | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgeseg-flow")

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *details: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        for loaded in self._loaded.values():
            _unload(loaded)

    def turn(self, name: str) -> list[float]:
        """Latencies in seconds of the next few steps of candidate `name`."""
        candidate, lane = self._candidates[name], self._lanes[name]
        loaded = self._loaded[candidate.configuration.name]
        if loaded.session is None:
            self._load(candidate.configuration, loaded)
        if self._last != name:
            for _ in range(self._steps_to_settle(candidate, lane, loaded)):
                self._step(candidate, loaded, lane=None)
                lane.warm_up_steps += 1
        self._last = name
        lane.turns += 1
        return [self._timed_step(candidate, loaded, lane) for _ in range(STEPS_A_TURN)]

    def flow_fault(self, name: str, is_full: bool) -> str | None:
        """Why the flow of candidate `name` cannot keep up with the camera; None when it can, or there is none.

        Before it is measured in full one slow flow in ten says nothing: then more than half of them must be too slow.
        """
        return flow_fault(self._lanes[name].flow_s, self._fps, percent=90 if is_full else 50)

    def entry(self, name: str, outcome: Outcome) -> LatencyProfile:
        """What was measured of candidate `name`."""
        candidate, lane = self._candidates[name], self._lanes[name]
        loaded = self._loaded[candidate.configuration.name]
        moves = candidate.compensation.moves
        return LatencyProfile(
            name=candidate.configuration.name,
            digest=candidate.configuration.digest,
            samples_ms=tuple(1e3 * sample for sample in outcome.samples_s),
            warm_up_steps=loaded.warm_up_steps + lane.warm_up_steps if lane.turns else 0,
            peak_memory_mb=loaded.memory_mb,
            # Without labels that come from a flow's first frames: there is nothing yet to move them by.
            first_step_ms=None if moves else loaded.first_step_ms,
            skipped=outcome.skipped,
            compensation=candidate.compensation,
            flow_ms=tuple(1e3 * value for value in lane.flow_s),
            device_ms=tuple(lane.device_ms),
        )

    def _steps_to_settle(self, candidate: Candidate, lane: _Lane, loaded: _Loaded) -> int:
        """Untimed steps, so many that each turn begins with the next phase: the candidates share the phases' order."""
        phases = len(candidate.configuration.then)
        return STEPS_AFTER_A_CHANGE + (lane.turns - loaded.steps - STEPS_AFTER_A_CHANGE) % phases

    def _timed_step(self, candidate: Candidate, loaded: _Loaded, lane: _Lane) -> float:
        """Seconds of one step that counts."""
        step_s = self._step(candidate, loaded, lane)
        assert loaded.session is not None
        if (device_ms := loaded.session.device_ms) is not None:
            lane.device_ms.append(round(device_ms, 4))
        return step_s

    def _step(self, candidate: Candidate, loaded: _Loaded, lane: _Lane | None) -> float:
        """Seconds of one step; a lane takes note of what came with it."""
        session = loaded.session
        assert session is not None
        clip = self._clip(session.frame_size_hw)
        loaded.steps += 1
        if not candidate.compensation.moves:
            frame_rgb = clip.frame_rgb(loaded.frames)
            loaded.frames += 1
            begin_s = self._clock()
            session.step(frame_rgb)
            return self._clock() - begin_s
        moved = self._moved_steps(candidate.compensation).run(session.step, clip, self._thread)
        if lane is not None:
            lane.flow_s += moved.flow_s
            if moved.fallback is not None:
                self.unmoved[moved.fallback] += 1
        return moved.latency_s

    def _moved_steps(self, compensation: Compensation) -> MovedSteps:
        if compensation not in self._moved:
            self._moved[compensation] = MovedSteps(compensation, 1.0 / self._fps, self._clock)
        return self._moved[compensation]

    def _load(self, configuration: BundleConfiguration, loaded: _Loaded) -> None:
        if memory_is_short() and self._last is not None:
            # All take turns in a ring, so the one that ran last is needed again last.
            _unload(self._loaded[self._candidates[self._last].configuration.name])
        is_first_time = loaded.warm_up_steps == 0
        before = resident_mb()
        loaded.session = Session(
            self._bundle.root,
            configuration,
            graph_colour_order=self._bundle.colour_order,
            device=self._device,
            threads=self._threads,
            frame_size_hw=self._frame_size_hw,
        )
        loaded.steps = 0
        plain = Candidate(configuration)
        self._warm_up(plain, loaded)
        if is_first_time:
            after = resident_mb()
            loaded.memory_mb = None if before is None or after is None else round(max(0.0, after - before), 1)
            if configuration.knobs.stateful:
                self._time_first_step(plain, loaded, loaded.session)

    def _warm_up(self, plain: Candidate, loaded: _Loaded) -> None:
        least, most = WARM_UP_STEPS
        recent: list[float] = []
        while len(recent) < most:
            recent.append(self._step(plain, loaded, lane=None))
            if len(recent) >= least and abs(median(recent[-3:]) / median(recent[-6:-3]) - 1) < STEADY:
                break
        loaded.warm_up_steps += len(recent)

    def _time_first_step(self, plain: Candidate, loaded: _Loaded, session: Session) -> None:
        session.reset()
        loaded.steps = 0
        loaded.first_step_ms = round(1e3 * self._step(plain, loaded, lane=None), 3)
        for _ in range(STEPS_AFTER_A_CHANGE):
            self._step(plain, loaded, lane=None)
        loaded.warm_up_steps += 1 + STEPS_AFTER_A_CHANGE

    def _clip(self, size_hw: tuple[int, int]) -> Clip:
        if size_hw not in self._clips:
            self._clips[size_hw] = Clip(self._frames_rgb or noise_frames(size_hw), size_hw)
        return self._clips[size_hw]


def _unload(loaded: _Loaded) -> None:
    if loaded.session is not None:
        loaded.session.close()
        loaded.session = None
