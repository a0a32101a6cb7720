"""ResNet-18 (He et al., 2016) as a feature pyramid; parameters are named as in torchvision, to load by name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError


def scaled_channels(channels: int, width: float) -> int:
    """`channels` slimmed by the width multiplier `width` [C 2.4.3], rounded to the nearest multiple of 8, at least 8.

    Width 1 leaves the count as it is. Multiples of 8 because convolution kernels work on blocks of 8 or 16 channels:
    an odd count costs as much as the next full block.
    """
    if not 0 < width <= 4:
        raise InputError(
            f"width multiplier out of range | got {width}, expected more than 0 and at most 4 | use 0.25 to 1"
        )
    if width == 1:
        return channels
    return max(8, int(channels * width + 4) // 8 * 8)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection, which has a 1x1 convolution where the size or the channels change."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + skip)


class ResNet18(nn.Module):
    """Image `(B, in_channels, H, W)` -> four feature maps at strides 4, 8, 16 and 32, each after its block's ReLU.

    Args:
        width: multiplier of every layer's channels.
        in_channels: 3 per input frame.
        extra_stem_channels: None for the plain 7x7 convolution; a count puts conv(7x7, stride 2, that many
            channels), batch norm, ReLU and a 3x3 convolution in its place: room for more than one frame [C 1.4.3].
    """

    def __init__(self, width: float = 1.0, in_channels: int = 3, extra_stem_channels: int | None = None) -> None:
        super().__init__()
        self.channels = tuple(scaled_channels(count, width) for count in (64, 128, 256, 512))
        first = self.channels[0]
        self.conv1: nn.Module
        if extra_stem_channels is None:
            self.conv1 = nn.Conv2d(in_channels, first, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Sequential(
                nn.Conv2d(in_channels, extra_stem_channels, 7, stride=2, padding=3, bias=False),
                nn.BatchNorm2d(extra_stem_channels),
                nn.ReLU(),
                nn.Conv2d(extra_stem_channels, first, 3, padding=1, bias=False),
            )
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _layer(first, self.channels[0], stride=1)
        self.layer2 = _layer(self.channels[0], self.channels[1], stride=2)
        self.layer3 = _layer(self.channels[1], self.channels[2], stride=2)
        self.layer4 = _layer(self.channels[2], self.channels[3], stride=2)
        initialise(self)

    def forward(self, image: Tensor) -> Sequence[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        stride4 = self.layer1(x)
        stride8 = self.layer2(stride4)
        stride16 = self.layer3(stride8)
        return stride4, stride8, stride16, self.layer4(stride16)


def _layer(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1))


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """He initialisation (fan out) of every convolution in `module`; biases 0; batch norms keep scale 1, shift 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
