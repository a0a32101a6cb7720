"""SwiftNet: sizes, counts, and pooling against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from edgeseg.errors import InputError
from edgeseg.models.registry import build_network
from edgeseg.models.resnet import scaled_channels
from edgeseg.models.swiftnet import grid_average


def parameter_count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "millions"), [("swiftnet_r18", 11.80), ("swiftnet_r18_x", 11.90)])
def test_network_has_the_papers_parameter_count_at_width_one(name: str, millions: float) -> None:
    assert parameter_count(build_network(name, 19)) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("size_hw", [(64, 128), (180, 240), (360, 480), (33, 47), (8, 8)])
def test_logits_have_stride_four_at_any_size(size_hw: tuple[int, int]) -> None:
    network = build_network("swiftnet_r18", 5, width=0.125).eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, *size_hw))
    assert logits.shape == (1, 5, -(-size_hw[0] // 4), -(-size_hw[1] // 4))


def test_two_frame_network_takes_six_channels() -> None:
    network = build_network("swiftnet_r18_x", 5, width=0.25).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 6, 32, 64)).shape == (2, 5, 8, 16)
    assert network.input_frames == 2
    assert network.logits_stride == 4


def test_two_frame_stem_is_the_thesiss_at_width_one() -> None:
    stem = build_network("swiftnet_r18_x", 5).backbone.conv1
    assert stem[0].weight.shape == (130, 6, 7, 7)
    assert stem[3].weight.shape == (64, 130, 3, 3)


def test_backbone_parameters_are_named_as_in_torchvision() -> None:
    names = set(build_network("swiftnet_r18", 5, width=0.125).backbone.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer4.0.downsample.1.bias"} <= names


@pytest.mark.parametrize(
    ("width", "channels"),
    [(0.25, (16, 32, 64, 128)), (0.5, (32, 64, 128, 256)), (0.65, (40, 80, 168, 336)), (0.8, (48, 104, 208, 408))],
)
def test_width_rounds_channels_to_multiples_of_eight(width: float, channels: tuple[int, ...]) -> None:
    assert tuple(scaled_channels(count, width) for count in (64, 128, 256, 512)) == channels


@pytest.mark.parametrize("width", [0, -1, 5])
def test_width_out_of_range_is_refused(width: float) -> None:
    with pytest.raises(InputError, match="width multiplier out of range"):
        scaled_channels(64, width)


@pytest.mark.parametrize(
    ("map_hw", "grid_hw"), [((16, 32), (8, 16)), ((6, 8), (4, 5)), ((6, 8), (1, 1)), ((5, 7), (5, 7))]
)
def test_grid_average_equals_adaptive_pooling(map_hw: tuple[int, int], grid_hw: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *map_hw, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grid_average(x, grid_hw), F.adaptive_avg_pool2d(x, grid_hw))


def test_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown network 'swiftnet_r19' \| known: swiftnet_r18, swiftnet_r18_x"):
        build_network("swiftnet_r19", 5)


def test_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no option depth \| known: width"):
        build_network("swiftnet_r18", 5, depth=3)
