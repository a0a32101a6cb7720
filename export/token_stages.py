"""Where tokens stop, inside a graph: the names of its tensors, and what they hold for one image.

For each layer after which tokens stop, a graph of `export_module` has tensors of these names. They are tensors that it
computes anyway: a graph that can be looked into costs the same.

| name | holds |
| --- | --- |
| `tokens_after_L.kept` | int64 `(1, k)`: which of the n tokens that ran until here went on |
| `tokens_after_L.scores` | float32 `(1, n, C)`: what the auxiliary head says of them |
| `tokens_after_L.measure` | float32 `(1, n)`: what they were ranked by |
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from onnx import ModelProto
from onnx.shape_inference import infer_shapes
from torch import Tensor

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.export.cached_video import fit_frame
from edgeseg.export.graph_runner import GraphRunner
from edgeseg.export.variant import Variant
from edgeseg.export.wrapper import CameraToLabels
from edgeseg.models.token_reduction import ReductionPass, TokenLayout, TokenReduction
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.runtime.token_picture import TokenStages, TokenStop

_PARTS = ("kept", "scores", "measure")
_NAME = re.compile(r"tokens_after_(\d+)\.kept")
_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")


class _Recording:
    """A token reduction that remembers its last pass."""

    def __init__(self, reduction: TokenReduction) -> None:
        self._reduction = reduction
        self.last: ReductionPass | None = None

    def begin(self, layout: TokenLayout) -> ReductionPass:
        self.last = self._reduction.begin(layout)
        return self.last


@contextmanager
def recorded_stages(module: CameraToLabels) -> Iterator[list[str]]:
    """Within the block `module` also returns the tensors of its stages; the list fills with their names as it runs."""
    network, names = module.network, list[str]()
    if not isinstance(network, VitSegmenter) or not hasattr(network.reduction, "plan"):
        yield names
        return
    reduction = network.reduction
    recording = _Recording(reduction)

    def watched() -> list[Tensor]:
        stages = () if recording.last is None else recording.last.stages
        names[:] = [f"tokens_after_{stage.layer}.{part}" for stage in stages for part in _PARTS]
        return [getattr(stage, part) for stage in stages for part in _PARTS]

    network.reduction, module.watched = recording, watched
    try:
        yield names
    finally:
        network.reduction, module.watched = reduction, None


def token_stages(variant: Variant, frame_rgb: np.ndarray, classes: ClassSet) -> TokenStages:
    """What the graph of `variant` does with the tokens of one image.

    Args:
        frame_rgb: uint8 `(H, W, 3)` RGB; resized to the graph's input.

    Raises:
        InputError: no tokens stop in this graph by what it sees.
    """
    knobs, graph = variant.knobs, variant.graphs[variant.first]
    layers = stopping_layers(graph)
    if not layers:
        raise InputError(_why_nothing_to_see(variant))
    names = [f"tokens_after_{layer}.{part}" for layer in layers for part in _PARTS]
    frame_rgb = fit_frame(frame_rgb, knobs.size_hw)
    # Graphs of a bundle are stored without the types of their inner tensors.
    typed = replace(variant, graphs={variant.first: infer_shapes(graph)})
    outputs = GraphRunner(typed, names).step(frame_rgb)
    tokens = int(variant.notes["tokens"])
    patch = math.isqrt(knobs.size_hw[0] * knobs.size_hw[1] // tokens)
    grid_hw = (knobs.size_hw[0] // patch, knobs.size_hw[1] // patch)
    stops, running = [], np.arange(tokens)
    labels = np.full(tokens, classes.ignore_value, np.uint8)
    for layer in layers:
        kept, scores, measure = (outputs[f"tokens_after_{layer}.{part}"][0] for part in _PARTS)
        ran, went_on = np.zeros(tokens, bool), np.zeros(tokens, bool)
        doubt = np.full(tokens, np.nan, np.float32)
        ran[running], went_on[running[kept]] = True, True
        # Pruning ranks by log(p / (1 - p)); shown is 1 - p, so that high is unsure for all methods.
        doubt[running] = 1 / (1 + np.exp(measure)) if knobs.method == "prune" else measure
        labels = labels.copy()
        labels[running] = scores.argmax(axis=-1)
        stops.append(TokenStop(layer, *(each.reshape(grid_hw) for each in (ran, went_on, doubt, labels))))
        running = running[kept]
    doubt_name = "1 - probability of the class" if knobs.method == "prune" else "entropy (nats)"
    return TokenStages(variant.name, frame_rgb, tuple(stops), outputs["labels"][0], classes, _layers(graph), doubt_name)


def stopping_layers(graph: ModelProto) -> list[int]:
    """The layers after which tokens stop by what `graph` sees, ascending; none where it does not name its stages."""
    return [int(found[1]) for node in graph.graph.node for name in node.output if (found := _NAME.fullmatch(name))]


def _layers(graph: ModelProto) -> int:
    """Layers of the encoder."""
    return 1 + max(int(found[1]) for node in graph.graph.node if (found := _BLOCK.match(node.name)))


def _why_nothing_to_see(variant: Variant) -> str:
    if variant.knobs.plan is None:
        return f"{variant.name}: all tokens go through all layers | choose a configuration with a token plan"
    if variant.knobs.method == "pause-random":
        return f"{variant.name}: places are drawn by lot, whatever the image shows | choose another configuration"
    return f"{variant.name}: the graph does not name its stages: an older edgeseg made it | export it again"
