"""From the FP32 graphs of a configuration to those of a lower precision."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeseg.calibration_record import Calibration
from edgeseg.config import Configuration
from edgeseg.errors import InputError
from edgeseg.export.calibration import SteadyState
from edgeseg.export.calibration_cache import CalibrationCache, ranges_key
from edgeseg.export.half_precision import half_graph, half_states
from edgeseg.export.kept_layers import layer_name
from edgeseg.export.node_precision import Quantized
from edgeseg.export.quantize import CALIBRATION_METHODS, layer_weights, quantize_graph
from edgeseg.export.trained_ranges import quantize_as_trained
from edgeseg.export.variant import Variant
from edgeseg.training.trained_int8 import TrainedInt8

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


class Lowering:
    """Makes the variants of lower precision of one FP32 variant.

    Args:
        base: FP32 graphs.
        steady: what they are calibrated on; None when nothing needs calibration.
        trained: the rounding that the network was trained with, which INT8 then has; None to calibrate.

    Attributes:
        reused: roles whose ranges came from the cache.
        calibrated: role -> what calibration made of its graph, with no layer kept by name; empty before INT8 was made.
    """

    def __init__(
        self,
        base: Variant,
        steady: SteadyState | None,
        options: PrecisionOptions,
        trained: TrainedInt8 | None = None,
    ) -> None:
        self.base, self.steady, self.options, self.trained = base, steady, options, trained
        self.reused: list[str] = []
        self.calibrated: Mapping[str, Quantized] = {}
        self._ranges: dict[str, Mapping[str, float]] = {}

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
            if knobs.precision == "int8" and self.trained is None and not keep_high:
                self.calibrated = made
            graphs = {role: entry.model for role, entry in made.items()}
            notes["lower_precision"] = layer_counts(made)
            calibration = self._record(knobs.precision)
        if knobs.state_dtype != "fp32":
            # Without calibration the parity check still sees states that float16 cannot hold.
            feeds = {role: self.steady.feeds(role) if self.steady is not None else () for role in graphs}
            graphs = {role: half_states(graph, feeds[role]) for role, graph in graphs.items()}
        return replace(self.base, knobs=knobs, graphs=graphs, notes=notes, calibration=calibration)

    def _quantized(self, role: str, precision: str, keep_high: Collection[str]) -> Quantized:
        graph = self.base.graphs[role]
        whole = layer_weights(self.base.graphs[self.base.first])
        # A layer that one phase computes alone is none of the others' graphs.
        keep_high = {layer_name(node) for node in graph.graph.node}.intersection(keep_high)
        if precision == "int8" and self.trained is not None:
            return quantize_as_trained(graph, self.trained.ranges, keep_high=keep_high, whole_weights=whole)
        assert self.steady is not None
        if precision == "fp16":
            return half_graph(graph, self.steady.feeds(role), keep_high=keep_high)
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

    def _record(self, precision: str) -> Calibration:
        if precision == "int8" and self.trained is not None:
            return self.trained.calibration
        assert self.steady is not None
        return self.steady.record(self.options.method if precision == "int8" else "autocast")

    def _known_ranges(self, role: str) -> Mapping[str, float]:
        if role not in self._ranges and self.options.cache is not None:
            stored = self.options.cache.get(self._key(role))
            if stored is not None:
                self._ranges[role] = {name: float(value) for name, value in stored.items()}
                self.reused.append(role)
        return self._ranges.get(role, {})

    def _remember(self, role: str, ranges: Mapping[str, float]) -> None:
        if dict(ranges) == self._ranges.get(role):
            return
        self._ranges[role] = dict(ranges)
        if self.options.cache is not None:
            self.options.cache.put(self._key(role), self._ranges[role])

    def _key(self, role: str) -> str:
        assert self.steady is not None
        return ranges_key(self.base.graphs, role, self.steady.sha256, [self.options.method])


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
