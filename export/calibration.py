"""What each graph of a configuration is fed with in steady state: the images and states that it is calibrated on.

The FP32 graphs run over stretches of consecutive frames, and what every role is given at the frames that count is
recorded. A state is thus the one that the role before really wrote.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

import numpy as np

from edgeseg.calibration_record import Calibration
from edgeseg.errors import InputError
from edgeseg.export.calibration_frames import MASKED_WARM_UP, CalibrationFrames, CalibrationSource, Stretch
from edgeseg.export.graph_runner import GraphRunner
from edgeseg.export.onnx_export import IMAGE
from edgeseg.export.variant import Variant

KEPT_BYTES = 512 << 20
"""Feeds are kept in memory up to this; beyond it a stretch is run again when it is asked for again."""

Feeds = Mapping[str, np.ndarray]
"""All inputs of a graph by name."""


class SteadyState:
    """The feeds of every role of `variant` over the frames of `source`. Nothing is run before they are asked for.

    Args:
        variant: FP32 graphs.
        on_frame: called after each frame that is run.
        kept_bytes: memory that feeds may take.

    Raises:
        InputError: the source's videos are too few or too short.
    """

    def __init__(
        self,
        variant: Variant,
        source: CalibrationSource,
        *,
        on_frame: Callable[[], None] | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        knobs = variant.knobs
        # A two-frame network remembers one frame, a masked one what its layers have not renewed since.
        self._warm_up = 0 if not knobs.stateful else 1 if knobs.rho is None else MASKED_WARM_UP
        self._variant, self._source, self._on_frame = variant, source, on_frame
        self.frames = CalibrationFrames(
            source.stretches(phases=len(variant.then), warm_up=self._warm_up), variant.knobs.size_hw
        )
        self._runner: GraphRunner | None = None
        self._kept: dict[int, dict[str, list[Feeds]]] = {}
        self._room = kept_bytes
        self._latest: tuple[int, dict[str, list[Feeds]]] | None = None

    def feeds(self, role: str) -> Sequence[Feeds]:
        """What `role` is given, one entry per image."""
        return RoleFeeds(self, role)

    def record(self, method: str) -> Calibration:
        """The record for the manifest; reads all frames."""
        source = self._source
        return Calibration(
            data_set=source.data_set,
            split=source.split,
            images=source.images,
            frames=self.frames.count,
            size_hw=self.frames.size_hw,
            sha256=self.sha256,
            method=method,
            warm_up=self._warm_up,
            stills_moved=bool(self._warm_up) and source.is_stills,
            also_scored=source.also_scored,
        )

    @cached_property
    def sha256(self) -> str:
        """Of all frames; reads them."""
        return self.frames.sha256()

    @property
    def images(self) -> int:
        """Feeds per role."""
        return self._source.images

    def of_stretch(self, number: int) -> dict[str, list[Feeds]]:
        """Role -> its feeds at the counted frames of one stretch.

        Raises:
            InputError: a state is not finite there.
        """
        if number in self._kept:
            return self._kept[number]
        if self._latest is None or self._latest[0] != number:
            self._latest = (number, self._run(self.frames.stretches[number]))
            self._keep(*self._latest)
        return self._latest[1]

    @property
    def per_stretch(self) -> int:
        """Feeds per role that one stretch gives."""
        return self.frames.stretches[0].counted // len(self._variant.then)

    def _keep(self, number: int, feeds: dict[str, list[Feeds]]) -> None:
        size = sum(array.nbytes for each in feeds.values() for entry in each for array in entry.values())
        if size <= self._room:
            self._room -= size
            self._kept[number] = feeds

    def _run(self, stretch: Stretch) -> dict[str, list[Feeds]]:
        variant = self._variant
        if not variant.knobs.stateful:
            return {variant.first: [{IMAGE: frame[None]} for frame in self._stepped(stretch)]}
        recorded: dict[str, list[Feeds]] = {role: [] for role in variant.graphs}
        runner = self._runner = self._runner or GraphRunner(variant)
        runner.reset()
        for step, frame in enumerate(self._stepped(stretch)):
            counted = step - stretch.warm_up
            if counted >= 0:
                recorded[runner.role].append(self._checked(runner.feeds(frame), stretch, step))
                if counted % len(variant.then) == 0:
                    # The first step after a reset has no state: any frame can be the first of a video.
                    recorded[variant.first].append({IMAGE: frame[None]})
            runner.step(frame)
        return recorded

    def _stepped(self, stretch: Stretch) -> Iterator[np.ndarray]:
        for frame in self.frames.of(stretch):
            yield frame
            if self._on_frame:
                self._on_frame()

    def _checked(self, feeds: Feeds, stretch: Stretch, step: int) -> Feeds:
        for name, array in feeds.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InputError(
                    f"{self._variant.name} cannot be calibrated: state {name} has NaN or infinite values after {step} "
                    f"steps on {stretch.video.video.name} | its weights are damaged, or its mean and std are wrong"
                )
        return feeds


class RoleFeeds(Sequence[Feeds]):
    """The feeds of one role, stretch by stretch."""

    def __init__(self, steady: SteadyState, role: str) -> None:
        self._steady, self._role = steady, role

    def __len__(self) -> int:
        return self._steady.images

    @overload
    def __getitem__(self, index: int) -> Feeds: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feeds]: ...
    def __getitem__(self, index: int | slice) -> Feeds | list[Feeds]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        stretch, place = divmod(index % len(self), self._steady.per_stretch)
        return self._steady.of_stretch(stretch)[self._role][place]

    def __iter__(self) -> Iterator[Feeds]:
        return (self[index] for index in range(len(self)))
