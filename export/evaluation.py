"""All scores of one predictor on one split, for people to read: `edgeseg eval`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.accuracy import CompensatedAccuracy
from edgeseg.bundle import BundleConfiguration
from edgeseg.config import Compensation
from edgeseg.errors import InputError
from edgeseg.export.accuracy import EvaluationData, OffsetTables, none_if_nan
from edgeseg.export.video_motion import moving
from edgeseg.export.video_pass import Predictor, SessionPredictor, VideoPass
from edgeseg.metrics.boundary import trimap_labels
from edgeseg.metrics.confusion import ConfusionMatrix
from edgeseg.metrics.latency_aware import AsymptoticScores, OffsetScores
from edgeseg.runtime.session import Session

WARM_UP_FRAMES = 18
"""Frames that asymptotic behaviour testing does not score [C 2.4.4]."""


@dataclass(frozen=True)
class Evaluation:
    """Scores in [0, 1]; None where there is nothing to score."""

    name: str
    miou: tuple[float, ...]
    """At k = 0..K frames of delay."""
    movable_miou: tuple[float | None, ...]
    """Moving-object mIoU at k = 0..K."""
    iou: dict[str, float | None]
    """Per class, at k = 0."""
    frequency_weighted_iou: float
    """At k = 0, as all that follows: IoU weighted by each class's share of the labelled pixels."""
    pixel_accuracy: float
    mean_class_accuracy: float
    """Mean over the classes of the share of their pixels that are right."""
    trimap_miou: dict[float, float | None]
    """By radius in pixels, at k = 0."""
    asymptotic_miou: float | None
    """ABT over the videos that are long enough; None for a stateless network, or where none is [C 2.4.4]."""
    compensated: tuple[CompensatedAccuracy, ...] = ()
    """mIoU and moving-object mIoU at k = 0..K of the labels moved to the present."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **vars(self),
            "trimap_miou": {f"{radius:g}": value for radius, value in self.trimap_miou.items()},
            "compensated": [entry.as_dict() for entry in self.compensated],
        }


def evaluate(
    name: str,
    predictor: Predictor,
    data: EvaluationData,
    *,
    size_hw: tuple[int, int],
    stateful: bool,
    max_offset: int,
    radii_px: Sequence[float] = (3.0,),
    compensations: Sequence[Compensation] = (),
    target_offset: int = 0,
    on_frame: Callable[[], None] | None = None,
) -> Evaluation:
    """Score `predictor` in every way at once; frames are run no more often than the offsets need.

    Args:
        compensations: how labels are moved to the present, beside the scores of the labels as they come.
        target_offset: frames ahead that the predictor was trained for.

    Raises:
        InputError: the videos are too short for the offsets, a prediction names a class that there is none of, or a
            compensation cannot be scored.
    """
    classes = data.dataset.classes
    chosen = moving(compensations)
    offsets = OffsetScores(len(classes), max_offset=max_offset, stateful=stateful, moved_tables=len(chosen))
    trimaps = {radius: ConfusionMatrix(len(classes)) for radius in radii_px}
    asymptotic = AsymptoticScores(len(classes), warm_up_frames=WARM_UP_FRAMES)
    for entry in data.videos:
        video_pass = VideoPass(predictor, entry, size_hw, on_frame, compensations=chosen, target_offset=target_offset)
        count = len(entry.video)
        video_pass.score(offsets)
        video_pass.reset()
        for index in range(count):
            target = entry.labels(index)
            if stateful or target is not None:
                prediction = video_pass.predict(index)
            if target is not None:
                for radius, matrix in trimaps.items():
                    matrix.add(trimap_labels(target, radius, classes.ignore_value), prediction)
        if stateful:
            asymptotic.add_video(video_pass.predict, video_pass.reset, entry.labels, count)
    tables = OffsetTables(offsets, classes.movable_indices, chosen)
    return Evaluation(
        name=name,
        miou=tables.miou,
        movable_miou=tables.movable_miou,
        iou=dict(zip(classes.names, (none_if_nan(float(value)) for value in tables.at_zero.iou), strict=True)),
        frequency_weighted_iou=tables.at_zero.frequency_weighted_iou,
        mean_class_accuracy=tables.at_zero.mean_class_accuracy,
        pixel_accuracy=tables.at_zero.pixel_accuracy,
        trimap_miou={radius: none_if_nan(matrix.scores().miou) for radius, matrix in trimaps.items()},
        asymptotic_miou=none_if_nan(asymptotic.miou),
        compensated=tables.compensated,
    )


def evaluate_configuration(
    root: Path,
    entry: BundleConfiguration,
    data: EvaluationData,
    *,
    max_offset: int,
    radii_px: Sequence[float],
    compensations: Sequence[Compensation] = (),
    on_frame: Callable[[], None] | None = None,
) -> Evaluation:
    """Score a bundle's configuration through the runtime. See `evaluate`."""
    with Session(root, entry, device="cpu") as session:
        return evaluate(
            entry.name,
            SessionPredictor(session),
            data,
            size_hw=entry.knobs.size_hw,
            stateful=entry.knobs.stateful,
            max_offset=max_offset,
            radii_px=radii_px,
            compensations=compensations,
            target_offset=entry.knobs.target_offset,
            on_frame=on_frame,
        )


def evaluate_checkpoint(
    path: Path,
    data: EvaluationData,
    *,
    size_hw: tuple[int, int] | None,
    max_offset: int,
    radii_px: Sequence[float],
    compensations: Sequence[Compensation] = (),
    on_frame: Callable[[], None] | None = None,
) -> Evaluation:
    """Score a checkpoint in PyTorch as it was trained: masked, and with INT8's rounding. See `evaluate`.

    Raises:
        InputError: its classes are not the data's, it was trained on them, or its input size is not known.
        MissingPackageError: it was trained with INT8's rounding, and what that needs is not installed.
    """
    from edgeseg.export.checkpoint_source import checkpoint_source
    from edgeseg.export.sweep import Grid, plan_grid

    source = checkpoint_source(path)
    data.check_network(source.facts.classes, source.facts.trained_on, str(path))
    precision = "fp32" if source.facts.int8 is None else "int8"
    grid = Grid(sizes_hw=(size_hw,) if size_hw else (), precisions=(precision,))
    request = plan_grid([source], grid, sweep=False)[0]
    reference = source.reference(request.knobs)

    class ReferencePredictor:
        """The torch network as a predictor."""

        def reset(self) -> None:
            reference.reset()

        def __call__(self, frame_rgb: np.ndarray) -> np.ndarray:
            return reference.step(frame_rgb)[0]

    return evaluate(
        path.name,
        ReferencePredictor(),
        data,
        size_hw=request.knobs.size_hw,
        stateful=request.knobs.stateful,
        max_offset=max_offset,
        radii_px=radii_px,
        compensations=compensations,
        target_offset=request.knobs.target_offset,
        on_frame=on_frame,
    )


def check_radii(radii_px: Sequence[float]) -> None:
    """Raises:
    InputError: a radius is negative, or comes twice.
    """
    if any(radius < 0 for radius in radii_px) or len(set(radii_px)) != len(radii_px):
        raise InputError(
            f"--radius must be different numbers that are not negative | got {', '.join(map(str, radii_px))}"
        )
