"""Counts by hand, and the theses' tables."""

import pytest
import torch
from torch import nn

from edgeseg.models.complexity import complexity, named_complexity
from edgeseg.models.vit import VIT_SIZES, VitSize
from edgeseg.models.vit_segmenter import build_segmenter


class OneConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(image)


def test_convolution_counts_one_per_multiply_and_the_table_adds_the_last_resize() -> None:
    cost = complexity(OneConvolution(), (8, 16))
    assert cost.parameters == 3 * 4 * 9 + 4
    assert cost.macs == 4 * 8 * 4 * 27
    assert cost.table_macs == cost.macs + 4 * 4 * 8 * 16


def test_transformer_counts_projections_attention_and_norms() -> None:
    dim, patches, classes = 24, 4 * 6, 5
    cost = complexity(build_segmenter(classes, VitSize(dim, 3, layers=2), "linear", (64, 96)), (64, 96))
    tokens = patches + 1
    layer = 12 * tokens * dim * dim + 2 * tokens * tokens * dim
    macs = patches * 16 * 16 * 3 * dim + 2 * layer + patches * dim * classes
    assert cost.macs == macs
    norms = 5 * dim * (4 * tokens + patches)
    assert cost.table_macs == macs + norms + 4 * classes * 64 * 96


def test_counting_leaves_the_network_as_it_is() -> None:
    network = OneConvolution().train()
    complexity(network, (8, 8))
    assert network.training
    assert network.conv.weight.device.type == "cpu"


# What the tables count for the product of classes and masks at full size, which is element-wise here.
PRODUCT = 150 * 150 * 512 * 512 / 1e9


@pytest.mark.parametrize(
    ("name", "options", "table"),
    [
        ("setr_naive_b", {}, 107.7),
        ("segmenter_b", {"decoder": "mask"}, 129.6),
        ("segvit_b", {"cascade": [6, 8, 12]}, 115.0),
        ("segvit_b", {"cascade": [12]}, 109.9),
    ],
)
def test_gmacs_are_those_of_the_theses_tables(name: str, options: dict, table: float) -> None:
    cost = named_complexity(name, 150, (512, 512), options)
    assert cost.table_macs / 1e9 == pytest.approx(table, rel=0.02)


@pytest.mark.parametrize(("cascade", "table"), [([6, 8, 12], 120.9), ([12], 115.8)])
def test_gmacs_with_the_product_over_all_classes_are_those_of_the_tables(cascade: list[int], table: float) -> None:
    cost = named_complexity("segvit_b", 150, (512, 512), {"cascade": cascade})
    assert cost.table_macs / 1e9 + PRODUCT == pytest.approx(table, rel=0.02)


def test_sizes_are_those_of_the_source() -> None:
    assert {name: (each.dim, each.heads, each.layers) for name, each in VIT_SIZES.items()} == {
        "ti": (192, 3, 12),
        "s": (384, 6, 12),
        "b": (768, 12, 12),
    }
