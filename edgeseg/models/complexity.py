"""Parameters and multiply-accumulates (MACs) of a network, counted while it runs on tensors without numbers.

Two ways to count, because the theses' tables use the second one:

- `macs`: one multiply-accumulate counts one; convolutions, linear layers, and both products of attention.
- `table_macs`: the same, plus 5 per output element of LayerNorm and 4 per output element of a bilinear resize, the
  last one to the size of the input included.

Neither counts batch norms (folded away when exported), activations, softmax and sums. Layers that do not run at
inference, such as auxiliary heads, do not count.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from edgeseg.models.registry import build_network

LAYER_NORM_MACS, BILINEAR_MACS = 5, 4
"""Per output element, in the theses' tables."""


@dataclass(frozen=True)
class Complexity:
    """What a network costs at one input size."""

    size_hw: tuple[int, int]
    """Height and width of the input in pixels."""
    parameters: int
    """Numbers learnt, position table and class token included."""
    macs: int
    """Per image, of the network up to its logits."""
    table_macs: int
    """The same, as the theses' tables count, with the resize of the logits to the input's size."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**asdict(self), "size_hw": list(self.size_hw)}


def complexity(network: nn.Module, size_hw: tuple[int, int]) -> Complexity:
    """Count `network`, which is left as it is, for one image of `size_hw`.

    Raises:
        InputError: the network does not take that size.
    """
    hollow = copy.deepcopy(network).to("meta").eval()
    image = torch.zeros(1, 3 * int(getattr(network, "input_frames", 1)), *size_hw, device="meta")
    with torch.no_grad():
        with _Counter() as counter:
            logits = hollow(image)
        with _Counter() as resize:
            F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)
    return Complexity(
        size_hw=size_hw,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=counter.macs,
        table_macs=counter.macs + counter.extra + resize.extra,
    )


def named_complexity(
    name: str, classes: int, size_hw: tuple[int, int], options: Mapping[str, Any] | None = None
) -> Complexity:
    """Count the network `name` of the registry without ever filling it with numbers.

    Raises:
        InputError: unknown name or option, or the network does not take that size.
    """
    with torch.device("meta"):
        network = build_network(name, classes, **(options or {}))
    return complexity(network, size_hw)


class _Counter(TorchDispatchMode):
    """Adds up what each operator costs."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.extra = 0
        """What only the tables count."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            # The registry counts multiplications and additions apart.
            self.macs += flop_registry[packet](*args, **kwargs, out_val=output) // 2
        elif packet in _EXTRA:
            self.extra += _EXTRA[packet](output)
        return output


_EXTRA: dict[Any, Callable[[Any], int]] = {
    torch.ops.aten.native_layer_norm: lambda output: LAYER_NORM_MACS * output[0].numel(),
    torch.ops.aten.upsample_bilinear2d: lambda output: BILINEAR_MACS * output.numel(),
}
