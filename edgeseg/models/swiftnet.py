"""SwiftNet (Orsic et al., CVPR 2019): ResNet-18, spatial pyramid pooling, a ladder of three light up-sampling modules.

Decisions where sources differ:

- The lateral connections take the features **after** a block's ReLU. The paper draws them before it, but the
  in-place ReLU of the reference code changes that very tensor, so its published weights know rectified features.
- The pooling grid of a level g is `(g, round(g * W / H))`, as in the reference code, and never finer than the
  feature map.
- No final up-sampling: the logits are at stride 4, and whoever needs labels decides at which resolution.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.resnet import ResNet18, initialise, scaled_channels


class BnReluConv(nn.Sequential):
    """Batch norm, ReLU, convolution that keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, bias: bool = False) -> None:
        super().__init__()
        self.add_module("bn", nn.BatchNorm2d(in_channels))
        self.add_module("relu", nn.ReLU())
        self.add_module("conv", nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias))


class SpatialPyramidPooling(nn.Module):
    """Features `(B, in_channels, H, W)` -> `(B, channels, H, W)` with context pooled on several grids joined in."""

    def __init__(self, in_channels: int, channels: int, level_channels: int, grids: Sequence[int]) -> None:
        super().__init__()
        self.grids = tuple(grids)
        self.reduce = BnReluConv(in_channels, channels, 1)
        self.levels = nn.ModuleList(BnReluConv(channels, level_channels, 1) for _ in self.grids)
        self.fuse = BnReluConv(channels + level_channels * len(self.grids), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = int(x.shape[-2]), int(x.shape[-1])
        x = self.reduce(x)
        joined = [x]
        for grid, level in zip(self.grids, self.levels, strict=True):
            # Rounded half up in integers: no float decides a shape.
            columns = max(1, (2 * grid * width + height) // (2 * height))
            pooled = grid_average(x, (min(grid, height), min(columns, width)))
            joined.append(resize(level(pooled), (height, width)))
        return self.fuse(torch.cat(joined, dim=1))


class UpsampleModule(nn.Module):
    """Coarse features, up-sampled to a finer map, plus that map's 1x1 projection, blended by a 3x3 convolution."""

    def __init__(self, channels: int, lateral_channels: int) -> None:
        super().__init__()
        self.lateral = BnReluConv(lateral_channels, channels, 1)
        self.blend = BnReluConv(channels, channels, 3)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.blend(resize(coarse, (int(fine.shape[-2]), int(fine.shape[-1]))) + self.lateral(fine))


class SwiftNet(nn.Module):
    """Normalised images `(B, 3 * input_frames, H, W)` float -> logits `(B, classes, h, w)` at stride 4, h = ceil(H /
    4).

    With two input frames the older one comes first: channels 0-2 are frame t-1, channels 3-5 frame t. H and W are
    free, at least 1; they need not be divisible by 32.

    Args:
        spp_levels: grids of the pooling pyramid: 4, or the 3 of the reference code, whose weights are imported.
        head_kernel: side of the last convolution: 1, or the 3 of the code of [C 2].
    """

    logits_stride = 4

    def __init__(
        self,
        classes: int,
        width: float = 1.0,
        input_frames: int = 1,
        extra_stem_channels: int | None = None,
        spp_levels: int = 4,
        head_kernel: int = 1,
    ) -> None:
        super().__init__()
        if classes < 1 or input_frames not in (1, 2):
            raise InputError(
                f"SwiftNet cannot be built | got {classes} classes and {input_frames} input frames, "
                "expected at least 1 class and 1 or 2 frames"
            )
        if spp_levels not in (3, 4) or head_kernel not in (1, 3):
            raise InputError(
                f"SwiftNet cannot be built | got spp_levels {spp_levels} and head_kernel {head_kernel}, "
                "expected 3 or 4, and 1 or 3"
            )
        self.classes = classes
        self.input_frames = input_frames
        channels = scaled_channels(128, width)
        self.backbone = ResNet18(width, 3 * input_frames, extra_stem_channels)
        stride4, stride8, stride16, stride32 = self.backbone.channels
        level_channels = scaled_channels(32, width) if spp_levels == 4 else channels // spp_levels
        self.spp = SpatialPyramidPooling(stride32, channels, level_channels, grids=(8, 4, 2, 1)[:spp_levels])
        self.upsample = nn.ModuleList(UpsampleModule(channels, lateral) for lateral in (stride16, stride8, stride4))
        self.head = BnReluConv(channels, classes, head_kernel, bias=True)
        for part in (self.spp, self.upsample, self.head):
            initialise(part)

    def forward(self, image: Tensor) -> Tensor:
        stride4, stride8, stride16, stride32 = self.backbone(image)
        x = self.spp(stride32)
        for module, fine in zip(self.upsample, (stride16, stride8, stride4), strict=True):
            x = module(x, fine)
        return self.head(x)


def swiftnet_r18(classes: int, width: float = 1.0, spp_levels: int = 4, head_kernel: int = 1) -> SwiftNet:
    """SwiftNet on ResNet-18, one input frame; 11.8 M parameters at width 1 and 19 classes."""
    return SwiftNet(classes, width, spp_levels=spp_levels, head_kernel=head_kernel)


def swiftnet_r18_x(classes: int, width: float = 1.0) -> SwiftNet:
    """SwiftNet-R18-X: two input frames, stem conv(6, 130, 7x7, stride 2), BN, ReLU, conv(130, 64, 3x3) [C 1.4.3]."""
    return SwiftNet(classes, width, input_frames=2, extra_stem_channels=scaled_channels(130, width))


def resize(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """`x` `(B, C, h, w)` at `size_hw`, bilinear with half-pixel centres; unchanged when it has that size."""
    if (int(x.shape[-2]), int(x.shape[-1])) == size_hw:
        return x
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)


def grid_average(x: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Adaptive average pooling of `x` `(B, C, H, W)` to `(B, C, *grid_hw)`; the grid is not finer than the map.

    The same numbers as `F.adaptive_avg_pool2d`, but as operators that every runtime has: AveragePool where the grid
    divides the map, two constant matrix products where it does not (ONNX has no adaptive pooling).
    """
    height, width = int(x.shape[-2]), int(x.shape[-1])
    if height % grid_hw[0] == 0 and width % grid_hw[1] == 0:
        return F.avg_pool2d(x, (height // grid_hw[0], width // grid_hw[1]))
    rows = x.new_tensor(_bin_weights(height, grid_hw[0]))
    columns = x.new_tensor(_bin_weights(width, grid_hw[1]))
    return rows @ (x @ columns.transpose(0, 1))


@lru_cache(maxsize=64)
def _bin_weights(length: int, bins: int) -> list[list[float]]:
    """`bins` rows of `length` weights: bin i averages the cells from floor(i L / b) up to ceil((i + 1) L / b)."""
    table = []
    for index in range(bins):
        start, stop = index * length // bins, -(-(index + 1) * length // bins)
        table.append([1.0 / (stop - start) if start <= cell < stop else 0.0 for cell in range(length)])
    return table
