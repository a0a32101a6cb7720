"""From camera bytes to label bytes: what a graph does besides the network itself.

image uint8 [1, H, W, 3] RGB -> float NCHW, normalised -> network -> logits -> (bilinear up-sampling) -> argmax -> uint8
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import InputError


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its input: `(frame / 255 - mean) / std` per channel, channels in `colour_order`."""

    mean: tuple[float, float, float]
    """Of frames scaled to 0-1, in the order of `colour_order`."""
    std: tuple[float, float, float]
    colour_order: str = "RGB"
    """`RGB` or `BGR`. Graphs always take RGB: one for a BGR network swaps the channels itself."""

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3:
            raise InputError(f"mean and std need three values each | got {self.mean} and {self.std}")
        if not all(value > 0 for value in self.std):
            raise InputError(f"std must be positive | got {self.std}")
        if self.colour_order not in ("RGB", "BGR"):
            raise InputError(f"unknown colour order {self.colour_order!r} | known: RGB, BGR")

    @property
    def shift(self) -> tuple[float, ...]:
        """Subtracted from bytes 0-255."""
        return tuple(255.0 * value for value in self.mean)

    @property
    def scale(self) -> tuple[float, ...]:
        """Multiplies what is left."""
        return tuple(1.0 / (255.0 * value) for value in self.std)


class LogitsOf(nn.Module):
    """A network of somebody else's as `(B, 3, H, W) -> logits (B, C, h, w)`: takes a tensor, an object with `.logits`,
    or a mapping with `logits` or `out`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return logits_tensor(self.network(image))


def logits_tensor(output: Any) -> Tensor:
    """The logits in what a network returned.

    Raises:
        InputError: there is no 4-dimensional tensor to be found.
    """
    if hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, dict):
        output = output.get("logits", output.get("out"))
    elif isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor) or output.dim() != 4:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the network's output has no logits | got {got}, expected a tensor (B, C, h, w)")
    return output


class CameraToLabels(nn.Module):
    """`network` from bytes to bytes.

    Args:
        network: normalised float `(1, 3 * input_frames, H, W)` -> logits `(1, C, h, w)`.
        labels_stride: 1 for labels at the input's size (logits are up-sampled, bilinear, half-pixel centres); else the
            stride of the logits.

    `forward(image, previous=None)` takes uint8 `(1, H, W, 3)` RGB, and the frame before for a two-frame network, and
    returns labels uint8 `(1, h, w)`, the logits, and what `watched` gives then.
    """

    watched: Callable[[], Sequence[Tensor]] | None = None
    """Inner tensors of the pass that just ran."""

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        size_hw: tuple[int, int],
        labels_stride: int = 1,
        input_frames: int = 1,
    ) -> None:
        super().__init__()
        self.network = network
        self.size_hw = size_hw
        self.labels_stride = labels_stride
        self.input_frames = input_frames
        self.swap_colours = preprocessing.colour_order == "BGR"
        shape = (1, 3 * input_frames, 1, 1)
        self.register_buffer("shift", torch.tensor(preprocessing.shift * input_frames).reshape(shape), persistent=False)
        self.register_buffer("scale", torch.tensor(preprocessing.scale * input_frames).reshape(shape), persistent=False)

    def forward(self, image: Tensor, previous: Tensor | None = None) -> tuple[Tensor, ...]:
        frames = [image] if previous is None else [previous, image]
        # TensorRT takes bytes as input, and then only a Cast of them: nothing is moved before it.
        numbers = [frame.float() for frame in frames]
        if self.swap_colours:
            numbers = [each[..., [2, 1, 0]] for each in numbers]
        stacked = numbers[0] if len(numbers) == 1 else torch.cat(numbers, dim=3)
        # One subtraction on bytes; the factor goes into the first convolution's weights where there is one. The mean
        # cannot: a convolution's zero padding stands for the mean colour, not for black.
        logits = self.network((stacked.permute(0, 3, 1, 2) - self.shift) * self.scale)
        full = logits
        target_hw = labels_size(self.size_hw, (int(logits.shape[2]), int(logits.shape[3])), self.labels_stride)
        if target_hw != (int(logits.shape[2]), int(logits.shape[3])):
            full = F.interpolate(logits, size=target_hw, mode="bilinear", align_corners=False)
        watched = () if self.watched is None else self.watched()
        return full.argmax(dim=1).to(torch.uint8), logits, *watched


def labels_size(size_hw: tuple[int, int], logits_hw: tuple[int, int], labels_stride: int) -> tuple[int, int]:
    """Height and width of the label map.

    Raises:
        InputError: `labels_stride` is neither 1 nor the stride of the logits.
    """
    if labels_stride == 1:
        return size_hw
    if logits_hw == tuple(-(-side // labels_stride) for side in size_hw):
        return logits_hw
    own = round(size_hw[0] / logits_hw[0])
    raise InputError(
        f"--labels-stride {labels_stride} does not fit: an input of {size_hw[0]}x{size_hw[1]} gives logits of "
        f"{logits_hw[0]}x{logits_hw[1]} | use 1 or {own}"
    )
