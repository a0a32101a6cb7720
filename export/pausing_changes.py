"""Whether a lower precision stops other tokens than FP32 does."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeseg.export.activation_ranges import run_inner
from edgeseg.export.calibration import Feeds
from edgeseg.export.token_stages import stopping_layers
from edgeseg.export.variant import Variant

MOST_CHANGED = 0.02
"""Share of the tokens above which the user is warned."""


def changed_stops(base: Variant, lower: Variant, feeds: Sequence[Feeds]) -> dict[str, Any] | None:
    """Over `feeds`, images of the only graph: what the manifest says of tokens that stop elsewhere than in FP32.

    A token counts once, if it stops after another layer, or in one of the two graphs only.

    Returns:
        `share`: of all tokens of all images, in [0, 1], and `images`; None where no tokens stop by what is seen.
    """
    layers = stopping_layers(base.graphs[base.first])
    if not layers:
        return None
    ours, theirs = (_stops(variant, layers, feeds) for variant in (base, lower))
    return {"share": float((ours != theirs).mean()), "images": len(feeds)}


def _stops(variant: Variant, layers: Sequence[int], feeds: Sequence[Feeds]) -> np.ndarray:
    """int64 `(images, tokens)`: the layer after which each token stops; 0 for those that never do."""
    names = [f"tokens_after_{layer}.kept" for layer in layers]
    stops = np.zeros((len(feeds), int(variant.notes["tokens"])), np.int64)
    for stopped, run in zip(stops, run_inner(variant.graphs[variant.first], names, feeds), strict=True):
        running = np.arange(len(stopped))
        for layer, name in zip(layers, names, strict=True):
            went_on = running[run[name][0]]
            stopped[np.setdiff1d(running, went_on)] = layer
            running = went_on
    return stops
