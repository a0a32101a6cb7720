"""Which convolutions are masked, on our networks and on small ones of other makes."""

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.cwm_placement import plan_cwm
from edgeseg.models.registry import build_network

IMAGE = torch.zeros(1, 3, 16, 16)


def test_swiftnet_masks_all_but_stem_head_and_block_projections() -> None:
    plan = plan_cwm(build_network("swiftnet_r18", 5, width=0.125), torch.zeros(1, 3, 32, 64))
    assert plan.dense == {
        "backbone.conv1": "first convolution (stem)",
        "backbone.layer2.0.downsample.0": "projection of a skip connection",
        "backbone.layer3.0.downsample.0": "projection of a skip connection",
        "backbone.layer4.0.downsample.0": "projection of a skip connection",
        "head.conv": "last convolution (head)",
    }
    assert len(plan.masked) == 28


class InPlaceResidual(nn.Module):
    """A residual block as torchvision writes it: in-place ReLU, `+=`, any names."""

    def __init__(self, stride: int, stem_channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem_channels, 3, padding=1)
        self.a = nn.Conv2d(stem_channels, 8, 3, stride, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.side = nn.Sequential(nn.Conv2d(stem_channels, 8, 1, stride), nn.BatchNorm2d(8))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        y = self.b(self.relu(self.a(x)))
        y += self.side(x)
        return self.head(self.relu(y))


@pytest.mark.parametrize("stride", [1, 2])
def test_projection_is_found_by_its_place_not_by_its_name(stride: int) -> None:
    plan = plan_cwm(InPlaceResidual(stride), IMAGE)
    assert plan.masked == ("a", "b")
    assert plan.dense["side.0"] == "projection of a skip connection"


def test_side_convolution_of_a_block_that_keeps_its_size_is_masked() -> None:
    assert plan_cwm(InPlaceResidual(1, stem_channels=8), IMAGE).masked == ("a", "b", "side.0")


class Pyramid(nn.Module):
    """A feature-pyramid decoder: the lateral convolution is added to an up-sampled map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, padding=1)
        self.down = nn.Conv2d(4, 8, 3, 2, padding=1)
        self.lateral = nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        return self.head(nn.functional.interpolate(self.down(fine), scale_factor=2) + self.lateral(fine))


def test_lateral_convolution_of_a_decoder_is_masked() -> None:
    assert plan_cwm(Pyramid(), IMAGE).masked == ("down", "lateral")


class Odd(nn.Module):
    """Layers that cannot be masked: unused, used twice, depthwise, one channel; the head is defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 2, 1)
        self.unused = nn.Conv2d(3, 4, 1)
        self.twice = nn.Conv2d(4, 4, 1)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4, padding=1)
        self.single = nn.Conv2d(4, 1, 1)
        self.plain = nn.Conv2d(4, 4, 1)
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(x)))
        return self.head(self.single(self.plain(self.depthwise(x))))


def test_layers_that_cannot_be_masked_stay_dense_with_the_reason() -> None:
    plan = plan_cwm(Odd(), IMAGE)
    assert plan.masked == ("plain",)
    assert {name: reason.split()[0] for name, reason in plan.dense.items()} == {
        "head": "last",
        "unused": "not",
        "twice": "executed",
        "depthwise": "grouped",
        "single": "fewer",
        "stem": "first",
    }


def test_patterns_exclude_further_layers() -> None:
    plan = plan_cwm(Pyramid(), IMAGE, exclude=["lat*"])
    assert plan.masked == ("down",)
    assert plan.dense["lateral"] == "excluded by the user"


def test_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"'decoder.\*' matches no convolution"):
        plan_cwm(Pyramid(), IMAGE, exclude=["decoder.*"])


def test_watching_leaves_the_network_as_it_was() -> None:
    network = InPlaceResidual(2).train()
    network.side.eval()
    plan_cwm(network, IMAGE)
    assert network.training
    assert not network.side.training
    assert not network.stem._forward_hooks
