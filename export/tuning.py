"""Where token plans of a checkpoint are measured and scored for `edgeseg.runtime.plan_search`, and what the search
leaves behind: a bundle of the plans worth having, measured together.

The search measures every plan by its exported graph in turns with the whole network, whose drift is taken out, and
scores it in PyTorch on a part of the data: that ranks plans. What is chosen is then exported, compared, scored on all
data and measured as by `edgeseg export` and `edgeseg profile`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from edgeseg.bundle import Bundle, Candidate
from edgeseg.config import DEFAULT_COMPENSATIONS, UNCOMPENSATED, Compensation, Configuration
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import InputError
from edgeseg.export.accuracy import MAX_OFFSET, EvaluationData, OffsetTables
from edgeseg.export.bundle_writer import BundleWriter
from edgeseg.export.source import TorchSource
from edgeseg.export.sweep import Request
from edgeseg.export.variant import Variant
from edgeseg.export.video_motion import moving
from edgeseg.export.video_pass import VideoPass
from edgeseg.metrics.latency_aware import OffsetScores
from edgeseg.runtime.clip import first_frames
from edgeseg.runtime.optical_flow import flow_size_hw, unusable_reason
from edgeseg.runtime.plan_search import SearchResult, Trial, pareto_front
from edgeseg.runtime.profiler import profile_bundle
from edgeseg.token_plan import METHODS, TokenPlan

DEFAULT_LAYERS = (3, 5, 7)
"""Layers to cut after unless told otherwise, those of [C table 3.1]."""
DEFAULT_PROPORTIONS = (0.2, 0.3, 0.4, 0.6, 0.8)
"""Those of [C table 3.1]."""
SAMPLES = 15
"""Timed steps of a measurement of the search."""
RANK_FRAMES = 120
"""Frames that a plan is scored on in the search: as many as `benchmarks.tuning` shows to be enough."""


@dataclass(frozen=True)
class Measuring:
    """How steps are timed: arguments of `edgeseg.runtime.profiler.profile_bundle`."""

    fps: float
    """Of the camera."""
    device: str = "cpu"
    samples: int = SAMPLES
    threads: int | None = None
    frame_size_hw: tuple[int, int] | None = None
    clock: Callable[[], float] = time.perf_counter


class ReferencePredictor:
    """A network in PyTorch as a predictor of `edgeseg.export.video_pass`."""

    def __init__(self, source: TorchSource, knobs: Configuration) -> None:
        self._reference = source.reference(knobs)

    def reset(self) -> None:
        self._reference.reset()

    def __call__(self, frame_rgb: np.ndarray) -> np.ndarray:
        return self._reference.step(frame_rgb)[0]


class CheckpointBench:
    """A `edgeseg.runtime.plan_search.Workbench` on a network's weights.

    Args:
        knobs: the whole network; a trial adds `method` and its plan.
        rank_frames: frames that a plan is scored on at most, the first ones of each video; None: `RANK_FRAMES`, or more
            where there are so many videos that it takes more to reach `max_offset` in each.
        compensations: ways to move labels beside leaving them as they come. What each adds to the latency is measured
            once, with the whole network.

    Raises:
        InputError: a compensation cannot be scored, or no frame is so late as `max_offset` among so few.
    """

    def __init__(
        self,
        source: TorchSource,
        knobs: Configuration,
        method: str,
        data: EvaluationData,
        measuring: Measuring,
        *,
        rank_frames: int | None = None,
        max_offset: int = MAX_OFFSET,
        compensations: Sequence[Compensation] = (),
    ) -> None:
        self.source, self.knobs, self.method, self.data, self.measuring = source, knobs, method, data, measuring
        self.ways = (UNCOMPENSATED, *moving(compensations))
        if rank_frames is None:
            rank_frames = max(RANK_FRAMES, (max_offset + 1) * len(data.videos))
        self.frames_per_video = -(-rank_frames // len(data.videos))
        """Frames that a plan is scored on in each video at most."""
        if self.frames_per_video <= max_offset < max(len(entry.video) for entry in data.videos):
            least = max_offset * len(data.videos) + 1
            raise InputError(
                f"--rank-frames leaves too few frames to score labels {max_offset} frames late | got {rank_frames} "
                f"over {len(data.videos)} videos | use at least {least}, or a smaller --max-offset"
            )
        self._max_offset = max_offset
        self._whole: Variant | None = None
        self._whole_s: tuple[float, ...] = ()

    def planned(self, plan: TokenPlan | None) -> Configuration:
        """The configuration with `plan`."""
        return self.knobs if plan is None else replace(self.knobs, method=self.method, plan=plan)

    def added_s(self) -> tuple[float, ...]:
        """What each of `ways` adds to the latency of the whole network, in seconds: the difference of the medians."""
        if len(self.ways) == 1:
            return (0.0,)
        profile = self._profile([self._whole_variant()], self.ways)
        (entry,) = {each.name for each in profile.entries}
        plain = profile.entry(entry)
        assert plain is not None
        added = []
        for way in self.ways:
            found = next(each for each in profile.entries if each.compensation == way)
            if not found.samples_ms:
                raise InputError(f"compensation {way.name} cannot be measured here | {found.skipped}")
            added.append(max(0.0, (found.percentile_ms(50) - plain.percentile_ms(50)) / 1e3))
        return tuple(added)

    def latencies_s(self, plan: TokenPlan | None) -> np.ndarray:
        """Latencies of `plan`, in turns with the whole network: as they would be had its latency not drifted since the
        first measurement."""
        whole = self._whole_variant()
        variants = [whole] if plan is None else [whole, self.source.variant(self.planned(plan))]
        profile = self._profile(variants, (UNCOMPENSATED,))
        beside = profile.entry(whole.name)
        found = profile.entry(self.planned(plan).name)
        assert beside is not None
        assert found is not None
        if not self._whole_s:
            self._whole_s = tuple(beside.latencies_s)
        return found.latencies_s * (median(self._whole_s) / median(beside.latencies_s))

    def tables(self, plan: TokenPlan | None) -> np.ndarray:
        """mIoU of the network in PyTorch on the first frames of each video, as labels come and moved in each way."""
        knobs, classes = self.planned(plan), self.data.dataset.classes
        chosen = self.ways[1:]
        scores = OffsetScores(
            len(classes), max_offset=self._max_offset, stateful=knobs.stateful, moved_tables=len(chosen)
        )
        predictor = ReferencePredictor(self.source, knobs)
        for entry in self.data.videos:
            run = VideoPass(
                predictor, entry, knobs.size_hw, compensations=chosen, target_offset=knobs.target_offset
            )  # fmt: skip
            frames = min(self.frames_per_video, len(entry.video))
            scores.add_video(run.predict, run.reset, entry.labels, frames, run.moved)
        tables = OffsetTables(scores, classes.movable_indices, chosen)
        return np.array([tables.miou, *(each.miou for each in tables.compensated)])

    def _whole_variant(self) -> Variant:
        if self._whole is None:
            self._whole = self.source.variant(self.knobs)
        return self._whole

    def _profile(self, variants: Sequence[Variant], ways: Sequence[Compensation]) -> DeviceProfile:
        """Every sample of `variants` in each way, measured in turns."""
        with TemporaryDirectory(prefix="edgeseg-tune-") as folder:
            writer = BundleWriter(Path(folder), "tune", self.source.facts.classes)
            writer.finish(writer.write_graphs(variants))
            return measure(Bundle.open(folder), self.data, self.measuring, ways)


def usable_compensations(frame_size_hw: tuple[int, int]) -> tuple[Compensation, ...]:
    """Those that an export makes tables for by default and that can move labels here, on frames of this size."""
    return tuple(
        each
        for each in DEFAULT_COMPENSATIONS
        if not each.moves
        or (flow_size_hw(frame_size_hw, each.divisor) is not None and unusable_reason(each.flow) is None)
    )


def measure(
    bundle: Bundle,
    data: EvaluationData,
    measuring: Measuring,
    compensations: Sequence[Compensation] | None,
    progress: Callable[[str, float], None] | None = None,
) -> DeviceProfile:
    """All configurations of `bundle`, in full, on the first frames of the data; arguments as of `profile_bundle`."""
    return profile_bundle(
        bundle,
        device=measuring.device,
        fps=measuring.fps,
        exhaustive=True,
        samples=measuring.samples,
        threads=measuring.threads,
        frame_size_hw=measuring.frame_size_hw,
        frames_rgb=first_frames(data.videos[0].video),
        compensations=compensations,
        progress=progress,
        clock=measuring.clock,
    )


def worth_having(result: SearchResult) -> list[Trial]:
    """The Pareto front of latency and mIoU among the trials, the one with the best LAmIoU, and the whole network;
    fast ones first."""
    by_name = {str(trial.plan): trial for trial in result.trials}
    front = pareto_front({name: (trial.median_s, trial.miou) for name, trial in by_name.items()})
    chosen = {*front, str(result.best.plan), str(None)}
    return sorted((by_name[name] for name in chosen), key=lambda trial: trial.median_s)


def requests_for(bench: CheckpointBench, trials: Sequence[Trial]) -> tuple[Request, ...]:
    """What to export: the whole network first."""
    knobs = sorted((bench.planned(trial.plan) for trial in trials), key=lambda each: each.plan is not None)
    return tuple(Request(bench.source, each) for each in knobs)


def plain_points(bundle: Bundle, profile: DeviceProfile) -> dict[str, tuple[float, float]]:
    """Configuration -> median latency in ms without compensation, and mIoU without delay."""
    points = {}
    for entry in bundle.configurations:
        found = profile.entry_of(Candidate(entry))
        if found is not None and found.samples_ms and entry.accuracy is not None:
            points[entry.name] = (found.percentile_ms(50), entry.accuracy.miou[0])
    return points


def plannable_layers(source: TorchSource, knobs: Configuration, method: str) -> tuple[int, ...]:
    """Layers after which `method` can stop tokens of this network.

    Raises:
        InputError: the network is no plain ViT, the method is unknown, or was not trained after any layer.
    """
    if not source.facts.takes_plans:
        raise InputError(
            f"edgeseg tune chooses token plans, which are for networks on a plain ViT | got {source.facts.origin}, a "
            f"{source.facts.network} | to choose a size, width or rho: edgeseg export --sweep, then edgeseg profile"
        )
    if method not in METHODS:
        raise InputError(f"unknown --method {method!r} | known: {', '.join(METHODS)}")
    able, refusal = [], InputError(f"{source.facts.origin} has a single layer | nothing can stop in it")
    for layer in range(1, source.token_stack(knobs.size_hw).layers):
        try:
            source.reference(replace(knobs, method=method, plan=TokenPlan(((layer, 0.5),))))
            able.append(layer)
        except InputError as error:
            refusal = error
    if not able:
        raise InputError(f"--method {method} does not fit {source.facts.origin} | {refusal}")
    return tuple(able)


def checked_layers(asked: Sequence[int] | None, able: Sequence[int], origin: str) -> tuple[int, ...]:
    """The layers of the grid: those asked for, or as many of `DEFAULT_LAYERS` as there are, or all that there are.

    Raises:
        InputError: a layer that nothing can stop after.
    """
    if asked is None:
        return tuple(layer for layer in DEFAULT_LAYERS if layer in able) or tuple(able)
    if outside := [layer for layer in asked if layer not in able]:
        raise InputError(
            f"--layers: layer out of range | got {outside[0]}, tokens of {origin} can stop after "
            f"{', '.join(map(str, able))}"
        )
    return tuple(asked)
