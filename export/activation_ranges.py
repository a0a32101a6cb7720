"""Ranges of activations on calibration data, by one of three methods, in one pass over the data.

The magnitudes of each tensor fill a histogram whose range doubles when a larger value comes, so that the result does
not depend on the order of the images. (In ONNX Runtime's calibrator, which ModelOpt uses, the first image sets the
bins: with one image its `entropy` gives what `max` gives, and with more, about the maximum of the first.)
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from edgeseg.errors import InputError
from edgeseg.export.graph_edit import with_outputs
from edgeseg.runtime.backends.int8_products import keep_products_exact

CALIBRATION_METHODS = ("entropy", "max", "percentile")
PERCENTILE = 99.99
"""Share of the magnitudes that lie within the range, in percent."""
_BINS = 2048
_LEVELS = 128
_STEP = 8
_RAREST = 1e-7
"""Share that an empty bin counts as having, into which larger values are clipped: no divergence is infinite."""


class _Magnitudes:
    """A histogram of the magnitudes of one tensor."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.top = 0.0
        self.peak = 0.0

    def add(self, values: np.ndarray) -> None:
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        peak = float(magnitudes.max(initial=0))
        self.peak = max(self.peak, peak)
        if self.peak == 0:
            self.counts[0] += magnitudes.size
            return
        # Zeros that came before lie in the lowest bin, whatever the range.
        self.top = self.top or self._power_above(peak)
        while peak >= self.top:
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate((merged, np.zeros_like(merged)))
            self.top *= 2
        places = (magnitudes * np.float32(_BINS / self.top)).astype(np.int32)
        self.counts += np.bincount(places, minlength=_BINS)

    @staticmethod
    def _power_above(peak: float) -> float:
        """The next power of two: by these, bins merged are the bins of the wider range, exactly."""
        return 2.0 ** math.frexp(peak)[1]

    def range_by(self, method: str) -> float:
        if method == "max" or self.peak == 0:
            return self.peak
        bins = _entropy_bins(self.counts) if method == "entropy" else _percentile_bins(self.counts)
        return min(self.peak, bins * self.top / _BINS)


def activation_ranges(
    model: onnx.ModelProto, names: Iterable[str], feeds: Sequence[Mapping[str, np.ndarray]], method: str
) -> dict[str, float]:
    """The largest magnitude that each of the float tensors `names` should represent.

    Args:
        names: inputs or inner tensors of the graph, of known type.
        feeds: values of all inputs of the graph, one mapping per run.
        method: `max`: the largest that occurs; `percentile`: 99.99 % of all values lie within; `entropy`: the one by
            which the distribution in 128 steps diverges least from the true one (Kullback-Leibler), as TensorRT had it,
            but for outputs of Softmax, which have the range of `percentile`.

    Raises:
        InputError: an unknown method, no feeds, inputs that the graph does not have or that it lacks, or values that
            are not finite.
    """
    if method not in CALIBRATION_METHODS:
        raise InputError(f"unknown calibration method {method!r} | known: {', '.join(CALIBRATION_METHODS)}")
    check_feeds(model, feeds)
    magnitudes = {name: _Magnitudes() for name in names}
    for values in run_inner(model, list(magnitudes), feeds):
        for name, histogram in magnitudes.items():
            if not np.isfinite(values[name]).all():
                raise InputError(
                    f"calibration gives NaN or infinite values in {name} | check the calibration data and the network"
                )
            histogram.add(values[name])
    # Most attention is near zero; the little that matters is what entropy would clip.
    attention = {node.output[0] for node in model.graph.node if node.op_type == "Softmax"}
    instead = {name: "percentile" if method == "entropy" and name in attention else method for name in magnitudes}
    return {name: histogram.range_by(instead[name]) for name, histogram in magnitudes.items()}


def run_inner(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Mapping[str, np.ndarray]]
) -> Iterable[dict[str, np.ndarray]]:
    """For each of `feeds`, the values of the inputs or inner tensors `names`."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    keep_products_exact(options)
    session = onnxruntime.InferenceSession(
        with_outputs(typed, names).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    computed = [name for name in names if name in {entry.name for entry in session.get_outputs()}]
    for feed in feeds:
        yield {**feed, **dict(zip(computed, session.run(computed, dict(feed)) if computed else (), strict=True))}


def check_feeds(model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Raises:
    InputError: there are none, or one does not hold exactly the inputs of `model` in their shapes and types.
    """
    if not feeds:
        raise InputError("calibration needs data | got no images, expected some of what the camera will see")
    expected = {
        entry.name: (
            tuple(side.dim_value for side in entry.type.tensor_type.shape.dim),
            onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type),
        )
        for entry in model.graph.input
    }
    for number, feed in enumerate(feeds):
        got = {name: (value.shape, value.dtype) for name, value in feed.items()}
        for name in sorted(expected.keys() | got.keys()):
            if expected.get(name) != got.get(name):
                raise InputError(
                    f"calibration input {number} does not fit the graph in {name} | "
                    f"got {_text(got.get(name))}, expected {_text(expected.get(name))}"
                )
            if feed[name].dtype.kind == "f" and not np.isfinite(feed[name]).all():
                raise InputError(f"calibration input {number} has NaN or infinite values in {name} | leave it out")


def _text(entry: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return "none" if entry is None else f"{entry[1]} {list(entry[0])}"


def _percentile_bins(counts: np.ndarray) -> int:
    cumulative = np.cumsum(counts)
    return int(np.searchsorted(cumulative, cumulative[-1] * (PERCENTILE / 100))) + 1


def _entropy_bins(counts: np.ndarray) -> int:
    """How many of the lowest bins to represent, all values above them clipped."""
    bins = counts.astype(np.float64)
    # Zeros are exact at any range; after a ReLU they would outweigh everything else.
    bins[0] = bins[1]
    last = int(np.flatnonzero(bins)[-1]) + 1 if bins.any() else _BINS
    best, least = last, np.inf
    for stop in (*range(_LEVELS, last, _STEP), last):
        divergence = _divergence(bins, stop)
        if divergence < least:
            best, least = stop, divergence
    return best


def _divergence(bins: np.ndarray, stop: int) -> float:
    """Of the lowest `stop` bins in 128 steps from all bins clipped there."""
    inside = bins[:stop]
    clipped = inside.copy()
    clipped[-1] += bins[stop:].sum()
    level = np.arange(stop) * _LEVELS // stop
    filled = inside > 0
    totals = np.bincount(level, weights=inside, minlength=_LEVELS)
    numbers = np.bincount(level, weights=filled, minlength=_LEVELS)
    coarse = np.where(filled, (totals / np.maximum(numbers, 1))[level], 0)
    if not inside.any():
        return np.inf
    share, coarse_share = clipped / clipped.sum(), coarse / coarse.sum()
    some = share > 0
    return float((share[some] * np.log(share[some] / np.maximum(coarse_share[some], _RAREST))).sum())
