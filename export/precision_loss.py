"""What a lower precision costs in mIoU, measured before anything is written."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeseg.config import Configuration
from edgeseg.errors import ParityError
from edgeseg.export.accuracy import configuration_accuracies, expected_runs
from edgeseg.export.bundle_writer import BundleWriter
from edgeseg.export.evaluation_data import EvaluationData
from edgeseg.export.lower_precision import Lowering
from edgeseg.export.progress import Progress
from edgeseg.export.variant import Variant


@dataclass(frozen=True)
class PrecisionLoss:
    """What a lower precision costs, measured."""

    miou_fp32: float
    miou_drop: float
    max_drop: float


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


def check_drop(variant: Variant, miou: float, loss: PrecisionLoss, data: EvaluationData) -> None:
    """Raises:
    ParityError: the variant loses more than it may.
    """
    # Written so that a nan fails.
    if not loss.miou_drop <= loss.max_drop:
        raise ParityError(
            f"{variant.name} loses too much accuracy | got mIoU {miou:.4f} on {data.dataset.name} {data.split}, "
            f"{loss.miou_drop:.4f} below the {loss.miou_fp32:.4f} of FP32, and --max-drop is {loss.max_drop:g} | allow "
            "more with --max-drop, or try another --calib-method or more --calib-images; nothing was written"
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

    def made(self, knobs: Configuration) -> tuple[Variant, PrecisionLoss | None]:
        """The variant with the precision of `knobs`.

        Raises:
            ParityError: it loses more than it may.
        """
        steady = self._lowering.steady
        self._progress.stage(f"calibration {knobs.name}", steady.frames.count if steady is not None else 1)
        variant = self._lowering.variant(knobs)
        if self._lowering.reused:
            roles = ", ".join(self._lowering.reused)
            self._progress.note(f"{knobs.name}: calibration of {roles} is that of an earlier export: nothing changed")
            self._lowering.reused.clear()
        if self._data is None:
            return variant, None
        if self._miou_fp32 is None:
            self._miou_fp32 = self._miou(self._lowering.base)
        miou = self._miou(variant)
        loss = PrecisionLoss(self._miou_fp32, self._miou_fp32 - miou, self._lowering.options.max_drop)
        check_drop(variant, miou, loss, self._data)
        return variant, loss

    def _miou(self, variant: Variant) -> float:
        assert self._data is not None
        assert self._meter is not None
        runs = expected_runs(self._data, stateful=variant.knobs.stateful, max_offset=0)
        self._progress.stage(f"mIoU of {variant.name}", runs)
        return self._meter.miou(variant)
