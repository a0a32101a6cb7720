"""From the FP32 graphs of a configuration to those of a lower precision, and what that costs in mIoU."""

import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeseg.config import Configuration
from edgeseg.errors import InputError, ParityError
from edgeseg.export.accuracy import configuration_accuracies
from edgeseg.export.bundle_writer import BundleWriter
from edgeseg.export.calibration import SteadyState
from edgeseg.export.calibration_cache import CalibrationCache, ranges_key
from edgeseg.export.evaluation_data import EvaluationData
from edgeseg.export.quantize import CALIBRATION_METHODS, Quantized, layer_weights, quantize_graph
from edgeseg.export.variant import Variant

MAX_DROP = 0.01
"""mIoU that a lower precision may lose against FP32 unless told otherwise."""


@dataclass(frozen=True)
class PrecisionOptions:
    """How lower precisions are made and judged."""

    method: str = "entropy"
    """One of `CALIBRATION_METHODS`."""
    max_drop: float = MAX_DROP
    """mIoU that a configuration may lose."""
    cache: CalibrationCache | None = None
    """Where ranges are kept from one export to the next."""

    def __post_init__(self) -> None:
        if self.method not in CALIBRATION_METHODS:
            raise InputError(f"unknown --calib-method {self.method!r} | known: {', '.join(CALIBRATION_METHODS)}")
        if not 0 <= self.max_drop <= 1:
            raise InputError(f"--max-drop is an mIoU from 0 to 1 | got {self.max_drop}")


@dataclass(frozen=True)
class PrecisionLoss:
    """What a lower precision costs, measured."""

    miou_fp32: float
    miou_drop: float
    max_drop: float


class Lowering:
    """Makes the variants of lower precision of one FP32 variant.

    Args:
        base: FP32 graphs.
        steady: what they are calibrated on; None when nothing needs calibration.
        on_reuse: told the role whose ranges came from the cache.
    """

    def __init__(
        self,
        base: Variant,
        steady: SteadyState | None,
        options: PrecisionOptions,
        on_reuse: Callable[[str], None] | None = None,
    ) -> None:
        self.base, self.steady, self.options = base, steady, options
        self._on_reuse = on_reuse
        self._ranges: dict[str, Mapping[str, float]] = {}
        self._sha256: str | None = None

    def variant(self, knobs: Configuration, keep_high: Collection[str] = ()) -> Variant:
        """The variant with the precision and type of states of `knobs`, which are otherwise those of the base.

        Args:
            keep_high: layers that stay in FP32 besides those that always do.

        Raises:
            EdgesegError: as `quantize_graph` and `half_graph`.
        """
        graphs, notes, calibration = dict(self.base.graphs), dict(self.base.notes), None
        if knobs.precision != "fp32":
            made = {role: self._quantized(role, knobs.precision, keep_high) for role in graphs}
            graphs = {role: entry.model for role, entry in made.items()}
            notes["lower_precision"] = layer_counts(made)
            if self.steady is not None:
                method = self.options.method if knobs.precision == "int8" else "autocast"
                calibration = self.steady.record(method)
        if knobs.state_dtype != "fp32":
            from edgeseg.export.half_precision import half_states

            graphs = half_states(graphs, self.base.links)
        return replace(self.base, knobs=knobs, graphs=graphs, notes=notes, calibration=calibration)

    def _quantized(self, role: str, precision: str, keep_high: Collection[str]) -> Quantized:
        graph = self.base.graphs[role]
        if precision == "fp16":
            from edgeseg.export.half_precision import half_graph

            return half_graph(graph, self.steady.feeds(role) if self.steady else (), keep_high=keep_high)
        assert self.steady is not None
        whole = layer_weights(self.base.graphs[self.base.first])
        made = quantize_graph(
            graph,
            self.steady.feeds(role),
            method=self.options.method,
            keep_high=keep_high,
            ranges=self._known_ranges(role),
            whole_weights=whole,
        )
        self._remember(role, made.ranges)
        return made

    def _known_ranges(self, role: str) -> Mapping[str, float]:
        if role not in self._ranges and self.options.cache is not None:
            stored = self.options.cache.get(self._key(role))
            if stored is not None:
                self._ranges[role] = {name: float(value) for name, value in stored.items()}
                if self._on_reuse:
                    self._on_reuse(role)
        return self._ranges.get(role, {})

    def _remember(self, role: str, ranges: Mapping[str, float]) -> None:
        if dict(ranges) == self._ranges.get(role):
            return
        self._ranges[role] = dict(ranges)
        if self.options.cache is not None:
            self.options.cache.put(self._key(role), self._ranges[role])

    def _key(self, role: str) -> str:
        assert self.steady is not None
        if self._sha256 is None:
            self._sha256 = self.steady.frames.sha256()
        return ranges_key(self.base.graphs, role, self._sha256, [self.options.method])


def layer_counts(made: Mapping[str, Quantized]) -> dict[str, Any]:
    """How many layers are of lower precision in all graphs of a configuration, of how many, and why the others are not:
    the note of the manifest.
    """
    reduced: dict[str, bool] = {}
    kept: dict[str, str] = {}
    for entry in made.values():
        for node in entry.nodes:
            reduced[node.layer] = reduced.get(node.layer, True) and node.reduced
            if not node.reduced:
                kept.setdefault(node.layer, node.reason or "not known")
    return {"layers": sum(reduced.values()), "of": len(reduced), "kept_high": kept}


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
