"""Which layers INT8 costs most at, and how few of them have to stay float.

*Which*: each layer is put into INT8 alone, and its labels on calibration frames are scored with FP32's own as the
truth: what it costs is 1 - mIoU. Frames that the configuration is scored on have no part in the ranking, and frames
need no labels. (Against true labels a change for the better would hide one for the worse, and a single layer's cost
would drown in the noise of a few frames.)

*How many*: the caller measures the loss; the number is doubled until it is small enough, then bisected.

FP16 is not ranked: what it cannot hold stays float by value, see `half_precision`, and its rounding costs next to
nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.export.activation_ranges import run_inner
from edgeseg.export.calibration import KEPT_BYTES, Feeds, SteadyState
from edgeseg.export.kept_layers import layer_name
from edgeseg.export.node_precision import Quantized
from edgeseg.export.onnx_export import LABELS
from edgeseg.export.quantize import fold_weights, layer_weights, quantize_layer
from edgeseg.export.variant import Variant
from edgeseg.metrics.confusion import ConfusionMatrix

RANKED_IMAGES = 16
"""Calibration frames that layers are ranked on, those of all phases of a masked network together."""
MOST_KEPT = 0.5
"""Share of the layers that may be kept: a graph that needs more gains little from INT8."""


@dataclass(frozen=True)
class Ranking:
    """What INT8 costs at each layer by itself."""

    costs: Mapping[str, float]
    """Layer -> 1 - mIoU of its labels with FP32's as the truth, the worst first."""
    images: int
    """Frames that it was measured on."""

    @property
    def most_kept(self) -> int:
        """How many layers may be kept."""
        return max(1, int(MOST_KEPT * len(self.costs)))

    def worst(self, count: int) -> tuple[str, ...]:
        """The layers that cost most."""
        return tuple(self.costs)[:count]

    def note(self, kept: int, drop_before: float) -> dict[str, Any]:
        """What the manifest says: JSON-ready.

        Args:
            kept: how many of the worst layers stay float.
            drop_before: mIoU that was lost with none of them kept.
        """
        costs = {name: round(cost, 6) for name, cost in self.costs.items()}
        return {"kept": list(self.worst(kept)), "drop_before": drop_before, "images": self.images, "costs": costs}


def quantised_layers(base: Variant, made: Mapping[str, Quantized]) -> tuple[str, ...]:
    """The layers that read INT8 in any graph that follows the first, products and others, each once for all phases.

    Args:
        made: role -> what `quantize_graph` made of the graph of `base`.
    """
    names: dict[str, None] = {}
    for role in dict.fromkeys(base.then):
        nodes = fold_weights(base.graphs[role]).graph.node
        names |= dict.fromkeys(layer_name(nodes[position]) for position, _ in sorted(made[role].places))
    return tuple(names)


def rank_layers(
    base: Variant,
    made: Mapping[str, Quantized],
    steady: SteadyState,
    class_count: int,
    *,
    on_layer: Callable[[], None] | None = None,
) -> Ranking:
    """Rank the layers of `made` by what each costs alone, in all graphs that follow the first one.

    Graphs are run on what FP32 graphs are fed with in steady state. Ranges are those of `made`.

    Args:
        base: FP32 graphs.
        made: role -> what `quantize_graph` made of the graph of `base`.
        on_layer: called after each layer.
    """
    roles = tuple(dict.fromkeys(base.then))
    feeds = {role: ranked_feeds(steady, role, RANKED_IMAGES // len(roles)) for role in roles}
    truth = {role: [run[LABELS] for run in run_inner(base.graphs[role], [LABELS], feeds[role])] for role in roles}
    whole = layer_weights(base.graphs[base.first])
    costs = {}
    for layer in quantised_layers(base, made):
        counts = ConfusionMatrix(class_count)
        for role in roles:
            alone = quantize_layer(base.graphs[role], made[role], layer, whole_weights=whole)
            if alone is None:
                # Another phase computes all of it: here labels are those of FP32.
                for labels in truth[role]:
                    counts.add(labels, labels)
                continue
            for run, labels in zip(run_inner(alone, [LABELS], feeds[role]), truth[role], strict=True):
                counts.add(labels, run[LABELS])
        costs[layer] = 1 - counts.scores().miou
        if on_layer:
            on_layer()
    # Equal costs in execution order, so that the ranking is the same on every run.
    ranked = sorted(costs.items(), key=lambda item: -item[1])
    return Ranking(dict(ranked), sum(map(len, feeds.values())))


def ranked_feeds(steady: SteadyState, role: str, count: int) -> list[Feeds]:
    """About `count` of the feeds of `role`, evenly over all, at once in memory: fewer where they would not fit."""
    feeds = steady.feeds(role)
    size = sum(np.asarray(array).nbytes for array in feeds[0].values())
    count = max(1, min(count, len(feeds), KEPT_BYTES // size))
    return [feeds[(2 * index + 1) * len(feeds) // (2 * count)] for index in range(count)]


def fewest_kept(most: int, is_enough: Callable[[int], bool]) -> int | None:
    """The smallest number of layers kept that is enough, by doubling and then bisecting: 2 log2(n) questions for n.

    Args:
        most: the largest number to ask for.
        is_enough: asked for numbers from 1; taken to stay true once it is.

    Returns:
        A number for which `is_enough` was true; None when it is not even for `most`.
    """
    too_few, enough = 0, 1
    while not is_enough(enough):
        if enough >= most:
            return None
        too_few, enough = enough, min(2 * enough, most)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if is_enough(middle):
            enough = middle
        else:
            too_few = middle
    return enough
