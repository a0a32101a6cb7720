"""The accuracy table: mIoU of a configuration at k = 0..K frames of delay, by its graphs, through the runtime.

Beside it the same with the labels moved to the present, one table per compensation, from the same predictions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeseg.accuracy import Accuracy, CompensatedAccuracy
from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.config import Compensation
from edgeseg.errors import InputError
from edgeseg.export.evaluation_data import EvaluationData
from edgeseg.export.video_motion import Flow, moving
from edgeseg.export.video_pass import Predictor, SessionPredictor, VideoPass
from edgeseg.manifest import save_manifest
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.latency_aware import OffsetScores
from edgeseg.runtime.session import Session

MAX_OFFSET = 8
"""Last entry of the table unless told otherwise, in frames."""
SAME_DATA_MIOU = 0.005
"""Scores of the same graphs on the same data differ by less, whatever the machine's rounding."""


@dataclass(frozen=True)
class OffsetTables:
    """What was gathered about one predictor."""

    offsets: OffsetScores
    movable: Sequence[int]
    compensations: tuple[Compensation, ...] = ()
    """Of the moved tables, in their order."""

    @property
    def at_zero(self) -> Scores:
        return self.offsets.scores(0)

    @property
    def miou(self) -> tuple[float, ...]:
        return self.offsets.table().miou

    @property
    def movable_miou(self) -> tuple[float | None, ...]:
        """Moving-object mIoU at each offset; None where no movable class occurs."""
        return self._movable_miou(None)

    @property
    def compensated(self) -> tuple[CompensatedAccuracy, ...]:
        """The tables of the labels moved to the present."""
        return tuple(
            CompensatedAccuracy(each, self.offsets.table(moved_table=number).miou, self._movable_miou(number))
            for number, each in enumerate(self.compensations)
        )

    def _movable_miou(self, moved_table: int | None) -> tuple[float | None, ...]:
        offsets = range(self.offsets.max_offset + 1)
        return tuple(none_if_nan(self.offsets.mean_miou(k, self.movable, moved_table=moved_table)) for k in offsets)


def score_offsets(
    predictor: Predictor,
    data: EvaluationData,
    *,
    size_hw: tuple[int, int],
    stateful: bool,
    max_offset: int = MAX_OFFSET,
    on_frame: Callable[[], None] | None = None,
) -> OffsetTables:
    """Run `predictor` over the data as often as the table needs, and gather its scores at every offset.

    Args:
        size_hw: input size of the predictor; predictions are resized (nearest) to the label maps' size.
        stateful: whether predictions depend on the frames before.
        on_frame: called after each frame that the predictor was run on, about `expected_runs` times.
    """
    classes = data.dataset.classes
    offsets = OffsetScores(len(classes), max_offset=max_offset, stateful=stateful)
    for entry in data.videos:
        VideoPass(predictor, entry, size_hw, on_frame).score(offsets)
    return OffsetTables(offsets, classes.movable_indices)


def expected_runs(data: EvaluationData, *, stateful: bool, max_offset: int = MAX_OFFSET) -> int:
    """About how many frames `score_offsets` runs its predictor on, for a progress bar."""
    frames = sum(len(entry.video) for entry in data.videos)
    return frames * (max_offset + 1 if stateful and max_offset else 2 if stateful else 1)


def configuration_accuracies(
    folder: Path,
    entries: Sequence[BundleConfiguration],
    data: EvaluationData,
    *,
    max_offset: int = MAX_OFFSET,
    compensations: Sequence[Compensation] = (),
    threads: int | None = None,
    on_frame: Callable[[], None] | None = None,
) -> list[Accuracy]:
    """The accuracy records of configurations whose files lie in `folder`, in their order.

    Args:
        compensations: what to make tables of moved labels for, beside those of the labels as they come.
        threads: CPU threads; None for all.

    Raises:
        InputError: the videos are too short for the table, a prediction names a class that there is none of, or a
            compensation cannot be scored.
    """
    chosen = moving(compensations)
    scores = [ConfigurationScores(entry, max_offset, chosen) for entry in entries]
    tables = _gathered(folder, scores, data, threads, on_frame)
    return [
        Accuracy(
            data_set=data.dataset.name,
            split=data.split,
            fps=data.fps,
            frames=data.labelled_frames,
            size_hw=data.size_hw,
            miou=each.miou,
            movable_miou=each.movable_miou,
            iou=tuple(none_if_nan(float(value)) for value in each.at_zero.iou),
            compensated=each.compensated,
        )
        for each in tables
    ]


@dataclass(frozen=True)
class ConfigurationScores:
    """A configuration to be scored, up to which delay and moved in which ways."""

    entry: BundleConfiguration
    max_offset: int
    compensations: tuple[Compensation, ...]


def _gathered(
    folder: Path,
    wanted: Sequence[ConfigurationScores],
    data: EvaluationData,
    threads: int | None,
    on_frame: Callable[[], None] | None,
) -> list[OffsetTables]:
    """The tables of configurations whose files lie in `folder`.

    All of them are scored on some videos, then all on the next: each frame is read once, and each pair of frames
    matched once per flow, however many they are.
    """
    classes = data.dataset.classes
    tables = [
        OffsetTables(
            OffsetScores(
                len(classes),
                max_offset=each.max_offset,
                stateful=each.entry.knobs.stateful,
                moved_tables=len(each.compensations),
            ),
            classes.movable_indices,
            each.compensations,
        )
        for each in wanted
    ]
    sizes = {each.entry.knobs.size_hw for each in wanted}
    flows = {Flow.of(compensation) for each in wanted for compensation in each.compensations}
    for videos in data.batches(sizes, flows):
        for each, table in zip(wanted, tables, strict=True):
            knobs = each.entry.knobs
            with Session(folder, each.entry, device="cpu", threads=threads) as session:
                for video in videos:
                    video_pass = VideoPass(
                        SessionPredictor(session),
                        video,
                        knobs.size_hw,
                        on_frame,
                        compensations=each.compensations,
                        target_offset=knobs.target_offset,
                    )
                    video_pass.score(table.offsets)
    return tables


def add_compensated_tables(
    bundle: Bundle,
    data: EvaluationData,
    compensations: Sequence[Compensation],
    *,
    threads: int | None = None,
    on_frame: Callable[[], None] | None = None,
) -> Bundle:
    """Score the `compensations` that a bundle has no accuracy tables for yet, and add them to its manifest.

    Every configuration that has an accuracy table gains them. Its graphs are run again, on the data of that table:
    they give the same predictions, so that the new tables can be compared with the old. Files and digests stay as
    they are, and device profiles stay valid. The manifest is replaced at the end, or not at all.

    Args:
        data: the data that the bundle's tables were made on.
        threads: CPU threads; None for all.
        on_frame: called after each frame that a configuration was run on, about `compensated_runs` times.

    Returns:
        The bundle as it is now on disk; the same one when nothing was missing.

    Raises:
        InputError: no configuration has an accuracy table, the data are others than those of the tables, or a
            compensation cannot be scored.
        ArtifactError: a file of the bundle is missing or damaged.
    """
    missing = missing_tables(bundle, compensations)
    if not missing:
        return bundle
    for each in missing:
        _check_same_data(bundle, each.entry, data)
    bundle.verify({file for each in missing for file in each.entry.files})
    tables = _gathered(bundle.root, missing, data, threads, on_frame)
    grown = {}
    for each, table in zip(missing, tables, strict=True):
        accuracy = each.entry.accuracy
        assert accuracy is not None
        if abs(table.miou[0] - accuracy.miou[0]) > SAME_DATA_MIOU:
            raise InputError(
                f"{each.entry.name} scores other than its accuracy table says | got mIoU {table.miou[0]:.3f} without "
                f"delay, expected {accuracy.miou[0]:.3f} | {data.dataset.name} {data.split} was changed since: give "
                "the data of the export, or export again"
            )
        grown[each.entry.name] = replace(each.entry, accuracy=accuracy.with_compensated(table.compensated))
    entries = tuple(grown.get(entry.name, entry) for entry in bundle.configurations)
    added = replace(bundle, configurations=entries)
    save_manifest(added)
    return added


def missing_tables(bundle: Bundle, compensations: Sequence[Compensation]) -> list[ConfigurationScores]:
    """What `add_compensated_tables` has to score.

    Raises:
        InputError: no configuration has an accuracy table, or a compensation cannot be scored.
    """
    chosen = moving(compensations)
    if not any(entry.accuracy for entry in bundle.configurations):
        raise InputError(
            f"{bundle.root.name} has no accuracy tables to add to | export it again with --data, on labelled video"
        )
    missing = []
    for entry in bundle.configurations:
        if entry.accuracy is not None:
            new = tuple(each for each in chosen if each not in entry.accuracy.compensations)
            if new:
                missing.append(ConfigurationScores(entry, len(entry.accuracy.miou) - 1, new))
    return missing


def compensated_runs(bundle: Bundle, data: EvaluationData, compensations: Sequence[Compensation]) -> int:
    """About how many frames `add_compensated_tables` runs configurations on, for a progress bar; errors as there."""
    return sum(
        expected_runs(data, stateful=each.entry.knobs.stateful, max_offset=each.max_offset)
        for each in missing_tables(bundle, compensations)
    )


def _check_same_data(bundle: Bundle, entry: BundleConfiguration, data: EvaluationData) -> None:
    """Raises:
    InputError: the accuracy table of `entry` was made on other data.
    """
    data.check_network(bundle.classes, entry.notes.get("trained_on", {}), entry.name)
    accuracy = entry.accuracy
    assert accuracy is not None
    own = (accuracy.data_set, accuracy.split, accuracy.fps, accuracy.frames, accuracy.size_hw)
    given = (data.dataset.name, data.split, data.fps, data.labelled_frames, data.size_hw)
    if own[:2] != given[:2] or abs(accuracy.fps - data.fps) > 1e-6 * data.fps or own[3:] != given[3:]:
        raise InputError(
            f"the accuracy table of {entry.name} was made on other data | got {_data_text(*given)}, expected "
            f"{_data_text(*own)} | give these with --data and --split: tables of other data cannot be compared"
        )


def _data_text(name: str, split: str, fps: float, frames: int, size_hw: tuple[int, int]) -> str:
    return f"{name} {split}, {frames} labelled frames of {size_hw[0]}x{size_hw[1]} at {fps:g} frames/s"


def none_if_nan(value: float) -> float | None:
    """None for a score of nothing: JSON has no nan."""
    return None if np.isnan(value) else value
