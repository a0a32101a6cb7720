"""A Segmenter that computes next to nothing, as a network of the registry: `support.tiny_vit:build`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from edgeseg.models.reductions import add_auxiliary_decoder
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, build_segmenter

NAME = "tiny_vit"
BUILDER = "support.tiny_vit:build"
SIZE = VitSize(dim=24, heads=3, layers=6, patch=8)
SHALLOW_BUILDER = "support.tiny_vit:build_shallow"
SHALLOW_SIZE = replace(SIZE, layers=4)


def build(classes: int, size_hw: Sequence[int] = (48, 64)) -> VitSegmenter:
    """Fresh weights, 48 tokens at 48 x 64."""
    return build_segmenter(classes, SIZE, "linear", size_hw)


def build_shallow(classes: int, size_hw: Sequence[int] = (48, 64)) -> VitSegmenter:
    """Four layers in the place of six: what exports many graphs is faster by that much."""
    return build_segmenter(classes, SHALLOW_SIZE, "linear", size_hw)


def seeded(classes: int, builder: Callable[[int], VitSegmenter] = build) -> VitSegmenter:
    """Weights that are the same in every run and far from their start, with an auxiliary decoder."""
    torch.manual_seed(0)
    network = builder(classes)
    add_auxiliary_decoder(network, classes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()
