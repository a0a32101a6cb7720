"""Measures a bundle's configurations on this device: from frame bytes in to label bytes out, nothing trimmed."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import InputError
from edgeseg.runtime.backends.base import runner_class
from edgeseg.runtime.device import device_facts, memory_is_short, resident_mb
from edgeseg.runtime.pick import rated_table
from edgeseg.runtime.race import Contender, Outcome, Race
from edgeseg.runtime.session import Session, checked_threads

SAMPLES = 60
"""Samples per configuration that stays to the end."""
STEPS_A_TURN = 5
"""Timed steps in a row. Odd, so that the phases of a two-phase network get equally many over two turns."""
WARM_UP_STEPS = (6, 30)
"""Least and most steps before the first sample."""
STEADY = 0.05
"""The warm-up ends when the median of three steps differs by less than this share from that of the three before."""
STEPS_AFTER_A_CHANGE = 2
"""Steps that are not timed at the start of a turn: the caches hold another configuration's weights."""
_FRAMES = 4


def profile_bundle(
    bundle: Bundle,
    *,
    device: str = "cpu",
    fps: float,
    exhaustive: bool = False,
    samples: int = SAMPLES,
    threads: int | None = None,
    frame_size_hw: tuple[int, int] | None = None,
    frames_rgb: Sequence[np.ndarray] | None = None,
    progress: Callable[[str, float], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> DeviceProfile:
    """Measure the configurations of `bundle` on `device`, taking turns; those that cannot win at `fps` are left early.

    A step is what `Session.step` does, resizing and colour order included, steps back to back; the steps of a stateful
    configuration are steady ones, its first step after a reset is noted beside them. Sessions are loaded at their
    first turn and stay loaded while the machine has memory; beyond that they are loaded anew for each turn.

    Args:
        fps: frame rate of the camera, which decides what can still win (`edgeseg.runtime.race`).
        exhaustive: measure everything in full.
        samples: samples per configuration, at least 1.
        threads: CPU threads of one step; None: all that this process may use.
        frame_size_hw: size of the camera's frames; None: each configuration's own.
        frames_rgb: uint8 `(H, W, 3)` RGB frames to step through, resized as needed; None: seeded noise.
        progress: called after each turn with the configuration's name and the share of the work that is done.
        clock: seconds.

    Raises:
        ArtifactError: a file of the bundle is damaged.
        DeviceError: the device is unknown, not usable here, or failed.
        InputError: a number is out of range.
    """
    if samples < 1 or not 0 < fps < float("inf"):
        raise InputError(f"samples is at least 1 and fps positive | got {samples} and {fps}")
    runner_class(device)
    bundle.verify()
    facts = device_facts()
    threads = checked_threads(threads)
    bench = _Bench(bundle, device, threads, frame_size_hw, frames_rgb, clock)
    contenders = [_contender(entry, fps) for entry in bundle.configurations]
    try:
        outcomes = Race(contenders, bench.turn, samples=samples, exhaustive=exhaustive, progress=progress).run()
    finally:
        bench.close()
    after = device_facts()
    facts["after"] = {
        key: after[key] for key in ("date", "load_average", "frequency_mhz", "temperature_c") if key in after
    }
    return DeviceProfile(
        device=device,
        facts=facts,
        bundle_name=bundle.name,
        bundle_digest=bundle.digest,
        fps=fps,
        exhaustive=exhaustive,
        frame_size_hw=frame_size_hw,
        threads=threads,
        entries=tuple(bench.entry(name, outcome) for name, outcome in outcomes.items()),
        measured_at=facts["date"],
        command_line=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def noise_frames(size_hw: tuple[int, int], count: int = _FRAMES) -> list[np.ndarray]:
    """Seeded uint8 `(H, W, 3)` frames with structure at several scales, each different: no zeros, no constant image.

    They stand for real video: the graphs do the same arithmetic whatever they are shown. CPU time of a SwiftNet's step,
    measured in turns on CamVid and on noise, is the same within 1 %.
    """
    rng = np.random.default_rng(0)
    height, width = size_hw
    frames = []
    for _ in range(count):
        frame = np.zeros((height, width, 3), np.float32)
        for cells in (4, 16, 64):
            coarse = rng.uniform(0, 80, (cells, cells, 3)).astype(np.float32)
            frame += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        frames.append(np.clip(frame + rng.normal(0, 8, frame.shape), 0, 255).astype(np.uint8))
    return frames


@dataclass
class _Lane:
    """What the bench remembers of one configuration."""

    session: Session | None = None
    step_index: int = 0
    warm_up_steps: int = 0
    memory_mb: float | None = None
    first_step_ms: float | None = None


@dataclass
class _Bench:
    """Sessions by name, loaded when they are needed, and timed steps of them."""

    bundle: Bundle
    device: str
    threads: int
    frame_size_hw: tuple[int, int] | None
    frames_rgb: Sequence[np.ndarray] | None
    clock: Callable[[], float]
    lanes: dict[str, _Lane] = field(default_factory=dict)
    _frames: dict[tuple[int, int], list[np.ndarray]] = field(default_factory=dict)
    _last: str | None = None

    def turn(self, name: str) -> list[float]:
        """Latencies in seconds of the next few steps of `name`."""
        lane = self.lanes.setdefault(name, _Lane())
        if lane.session is None:
            self._load(name, lane)
        elif self._last != name:
            for _ in range(STEPS_AFTER_A_CHANGE):
                self._step(lane)
            lane.warm_up_steps += STEPS_AFTER_A_CHANGE
        self._last = name
        return [self._step(lane) for _ in range(STEPS_A_TURN)]

    def entry(self, name: str, outcome: Outcome) -> LatencyProfile:
        """What was measured of `name`."""
        lane = self.lanes[name]
        return LatencyProfile(
            name=name,
            digest=self.bundle.configuration(name).digest,
            samples_ms=tuple(1e3 * sample for sample in outcome.samples_s),
            warm_up_steps=lane.warm_up_steps,
            peak_memory_mb=lane.memory_mb,
            first_step_ms=lane.first_step_ms,
            skipped=outcome.skipped,
        )

    def close(self) -> None:
        for lane in self.lanes.values():
            self._unload(lane)

    def _step(self, lane: _Lane) -> float:
        assert lane.session is not None
        frames = self._frames_of(lane.session.frame_size_hw)
        frame = frames[lane.step_index % len(frames)]
        lane.step_index += 1
        begin = self.clock()
        lane.session.step(frame)
        return self.clock() - begin

    def _load(self, name: str, lane: _Lane) -> None:
        if memory_is_short() and self._last is not None:
            # All take turns in a ring, so the one that ran last is needed again last.
            self._unload(self.lanes[self._last])
        is_first_time = lane.warm_up_steps == 0
        before = resident_mb()
        configuration = self.bundle.configuration(name)
        lane.session = Session(
            self.bundle.root,
            configuration,
            graph_colour_order=self.bundle.colour_order,
            device=self.device,
            threads=self.threads,
            frame_size_hw=self.frame_size_hw,
        )
        self._warm_up(lane)
        if is_first_time:
            after = resident_mb()
            lane.memory_mb = None if before is None or after is None else round(max(0.0, after - before), 1)
            if configuration.knobs.stateful:
                self._time_first_step(lane, lane.session)

    def _warm_up(self, lane: _Lane) -> None:
        least, most = WARM_UP_STEPS
        recent: list[float] = []
        while len(recent) < most:
            recent.append(self._step(lane))
            if len(recent) >= least and abs(median(recent[-3:]) / median(recent[-6:-3]) - 1) < STEADY:
                break
        lane.warm_up_steps += len(recent)

    def _time_first_step(self, lane: _Lane, session: Session) -> None:
        session.reset()
        lane.first_step_ms = round(1e3 * self._step(lane), 3)
        for _ in range(STEPS_AFTER_A_CHANGE):
            self._step(lane)
        lane.warm_up_steps += 1 + STEPS_AFTER_A_CHANGE

    def _frames_of(self, size_hw: tuple[int, int]) -> list[np.ndarray]:
        if size_hw not in self._frames:
            given = self.frames_rgb
            self._frames[size_hw] = [_at_size(frame, size_hw) for frame in given] if given else noise_frames(size_hw)
        return self._frames[size_hw]

    @staticmethod
    def _unload(lane: _Lane) -> None:
        if lane.session is not None:
            lane.session.close()
            lane.session = None


def _at_size(frame_rgb: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    if frame_rgb.shape[:2] == size_hw:
        return frame_rgb
    return cv2.resize(frame_rgb, size_hw[::-1], interpolation=cv2.INTER_AREA)


def _contender(configuration: BundleConfiguration, fps: float) -> Contender:
    macs = sum(configuration.graphs[role].macs for role in configuration.then) / len(configuration.then)
    return Contender(configuration.name, macs, rated_table(configuration, fps) if configuration.accuracy else None)
