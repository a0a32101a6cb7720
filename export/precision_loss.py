"""What a lower precision costs in mIoU, measured before anything is written."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeseg.config import Configuration
from edgeseg.errors import ParityError
from edgeseg.export.accuracy import configuration_accuracies, expected_runs
from edgeseg.export.bundle_writer import BundleWriter
from edgeseg.export.evaluation_data import EvaluationData
from edgeseg.export.lower_precision import Lowering
from edgeseg.export.pausing_changes import MOST_CHANGED, changed_stops
from edgeseg.export.progress import Progress
from edgeseg.export.sensitivity import RANKED_IMAGES, Ranking, fewest_kept, quantised_layers, rank_layers, ranked_feeds
from edgeseg.export.variant import Variant


@dataclass(frozen=True)
class PrecisionLoss:
    """What a lower precision costs, measured."""

    miou_fp32: float
    miou_drop: float
    max_drop: float

    @property
    def is_allowed(self) -> bool:
        """Whether it is no more than it may be; a nan is not."""
        return self.miou_drop <= self.max_drop


class DropMeter:
    """mIoU without delay of variants that are not written yet, on the data of the accuracy tables."""

    def __init__(self, data: EvaluationData, threads: int | None, on_frame: Callable[[], None] | None = None) -> None:
        self._data, self._threads, self._on_frame = data, threads, on_frame

    def miou(self, variant: Variant) -> float:
        """mIoU at k = 0 of its graphs through the runtime."""
        with tempfile.TemporaryDirectory(prefix="edgeseg-drop-") as folder:
            (entry,) = BundleWriter(Path(folder), "drop", self._data.dataset.classes).write_graphs([variant])
            (accuracy,) = configuration_accuracies(
                Path(folder), [entry], self._data, max_offset=0, threads=self._threads, on_frame=self._on_frame
            )
        return accuracy.miou[0]


def refused_loss(variant: Variant, loss: PrecisionLoss, data: EvaluationData, beside: str = "") -> ParityError:
    """The error that the variant loses more than it may.

    Args:
        beside: what was tried besides.
    """
    return ParityError(
        f"{variant.name} loses too much accuracy | got mIoU {loss.miou_fp32 - loss.miou_drop:.4f} on "
        f"{data.dataset.name} {data.split}, {loss.miou_drop:.4f} below the {loss.miou_fp32:.4f} of FP32, and "
        f"--max-drop is {loss.max_drop:g}{beside} | allow more with --max-drop, or try another --calib-method or more "
        "--calib-images; nothing was written"
    )


class LowerVariants:
    """The variants of lower precision of one configuration, and what each of them loses.

    Args:
        data: what it is measured on; None to measure nothing.
        threads: CPU threads; None for all.
    """

    def __init__(
        self, lowering: Lowering, data: EvaluationData | None, threads: int | None, progress: Progress
    ) -> None:
        self._lowering, self._data, self._progress = lowering, data, progress
        self._meter = DropMeter(data, threads, progress.advance) if data is not None else None
        self._miou_fp32: float | None = None
        self._ranking: Ranking | None = None

    def made(self, knobs: Configuration) -> tuple[Variant, PrecisionLoss | None]:
        """The variant with the precision of `knobs`, with as many layers in FP32 as the allowed loss asks for.

        Raises:
            ParityError: it loses more than it may, whatever layers are kept.
        """
        steady = self._lowering.steady
        self._progress.stage(f"calibration {knobs.name}", steady.frames.count if steady is not None else 1)
        variant = self._lowering.variant(knobs)
        if self._lowering.reused:
            roles = ", ".join(self._lowering.reused)
            self._progress.note(f"{knobs.name}: calibration of {roles} is that of an earlier export: nothing changed")
            self._lowering.reused.clear()
        if self._data is None:
            return self._with_pausing(variant), None
        loss = self._loss(variant)
        if not loss.is_allowed:
            variant, loss = self._with_kept_layers(variant, loss, self._data)
        return self._with_pausing(variant), loss

    def _with_kept_layers(
        self, variant: Variant, loss: PrecisionLoss, data: EvaluationData
    ) -> tuple[Variant, PrecisionLoss]:
        """`variant` with the fewest of the layers that cost most in FP32, and its loss."""
        if variant.knobs.precision != "int8" or not self._lowering.calibrated:
            raise refused_loss(variant, loss, data)
        ranking = self._ranked(variant.name, len(data.dataset.classes))
        of = f"of {len(ranking.costs)} layers"
        losses: dict[int, PrecisionLoss] = {}
        enough: dict[int, Variant] = {}

        def is_enough(count: int) -> bool:
            kept = self._lowering.variant(variant.knobs, ranking.worst(count))
            losses[count] = self._loss(kept, f", {count} {of} kept in FP32")
            if losses[count].is_allowed:
                # Graphs of larger numbers are done with: memory.
                enough.clear()
                enough[count] = kept
            return losses[count].is_allowed

        count = fewest_kept(ranking.most_kept, is_enough)
        if count is None:
            most = max(losses)
            beside = f"; with the {most} worst {of} in FP32 it is still {losses[most].miou_drop:.4f} below"
            raise refused_loss(variant, loss, data, beside)
        self._progress.note(
            f"{variant.name}: {count} {of} stay in FP32, {', '.join(ranking.worst(count))}: mIoU drop "
            f"{losses[count].miou_drop:.4f} instead of {loss.miou_drop:.4f}"
        )
        notes = {**enough[count].notes, "sensitivity": ranking.note(count, loss.miou_drop)}
        return replace(enough[count], notes=notes), losses[count]

    def _ranked(self, name: str, class_count: int) -> Ranking:
        if self._ranking is None:
            lowering = self._lowering
            assert lowering.steady is not None
            count = len(quantised_layers(lowering.base, lowering.calibrated))
            self._progress.stage(f"sensitivity of {count} layers of {name}", count)
            self._ranking = rank_layers(
                lowering.base, lowering.calibrated, lowering.steady, class_count, on_layer=self._progress.advance
            )
        return self._ranking

    def _with_pausing(self, variant: Variant) -> Variant:
        """`variant` with a note of the tokens that stop elsewhere than in FP32, where tokens stop."""
        steady, base = self._lowering.steady, self._lowering.base
        if variant.knobs.plan is None or variant.knobs.precision == "fp32" or steady is None:
            return variant
        changed = changed_stops(base, variant, ranked_feeds(steady, base.first, RANKED_IMAGES))
        if changed is None:
            return variant
        if changed["share"] > MOST_CHANGED:
            self._progress.note(
                f"{variant.name}: {100 * changed['share']:.1f} % of the tokens stop elsewhere than in FP32, expected "
                f"at most {100 * MOST_CHANGED:g} % | choose by the mIoU that it has, or FP32"
            )
        return replace(variant, notes={**variant.notes, "changed_stops": changed})

    def _loss(self, variant: Variant, beside: str = "") -> PrecisionLoss:
        if self._miou_fp32 is None:
            self._miou_fp32 = self._miou(self._lowering.base)
        drop = self._miou_fp32 - self._miou(variant, beside)
        return PrecisionLoss(self._miou_fp32, drop, self._lowering.options.max_drop)

    def _miou(self, variant: Variant, beside: str = "") -> float:
        assert self._data is not None
        assert self._meter is not None
        runs = expected_runs(self._data, stateful=variant.knobs.stateful, max_offset=0)
        self._progress.stage(f"mIoU of {variant.name}{beside}", runs)
        return self._meter.miou(variant)
