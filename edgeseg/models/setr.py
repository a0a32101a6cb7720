"""SETR's naive decoder (Zheng et al., CVPR 2021): two 1x1 convolutions on the tokens of the last layer."""

from collections.abc import Sequence

from torch import Tensor, nn

from edgeseg.models.resnet import initialise


class NaiveDecoder(nn.Module):
    """1x1 convolution, batch norm, ReLU, 1x1 convolution: `[(B, m, D)]` -> logits `(B, m, C)`."""

    def __init__(self, classes: int, dim: int, channels: int = 256) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        # A 1x1 convolution does not ask how tokens are arranged, so any subset of them stands in one column.
        column = features[-1].transpose(1, 2).unsqueeze(-1)
        return self.conv_seg(self.relu(self.bn(self.conv(column)))).squeeze(-1).transpose(1, 2)
