"""Whether the weights of a file are those of a network's backbone, and if they are not, of which network's."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseg.models.registry import NETWORKS, build_network
from edgeseg.models.vit import VisionTransformer

_PREFIXES = ("encoder.", "backbone.")
_LEAST = 0.5
"""Share of the backbone's numbers that a file has to hold; a head without its backbone is not worth an import."""


def foreign_backbone(tensors: Mapping[str, Tensor], network: nn.Module, name: str) -> tuple[str, str] | None:
    """What is wrong with the backbone and what to do, in words; None when it is that of `network`.

    Args:
        tensors: of the file, by the names of our networks.
        name: of `network`, in `NETWORKS`.
    """
    share = _fitting_share(tensors, network)
    if share >= _LEAST:
        return None
    widths = _widths(tensors, network)
    if widths is not None and widths[0] != widths[1]:
        wrong = f"weights of width {widths[0]}, but {name} has width {widths[1]}"
    elif share:
        wrong = f"too little in it fits network {name}, {100 * share:.0f} % of the numbers of its backbone"
    else:
        wrong = f"nothing in it fits network {name}"
    family = [each for each in NETWORKS if _family(each) == _family(name)]
    fits = [each for each in family if _fits(tensors, each)]
    return wrong, _advice(fits or [each for each in NETWORKS if each not in family and _fits(tensors, each)], name)


def _fitting_share(tensors: Mapping[str, Tensor], network: nn.Module) -> float:
    """Share of the backbone's numbers that the file has; without a position table, which is resized to any grid."""
    ours = {
        name: each
        for name, each in network.named_parameters()
        if name.startswith(_PREFIXES) and not name.endswith("pos_embed")
    }
    same = [name for name, each in ours.items() if name in tensors and tensors[name].shape == each.shape]
    numbers = sum(each.numel() for each in ours.values())
    return sum(ours[name].numel() for name in same) / max(numbers, 1)


def _fits(tensors: Mapping[str, Tensor], name: str) -> bool:
    with torch.device("meta"):  # shapes alone: the numbers of the largest take seconds to draw
        network = build_network(name, 2)
    return bool(network.input_frames == 1) and _fitting_share(tensors, network) >= _LEAST


def _family(name: str) -> str:
    """What the networks that differ from `name` in their size alone have in common."""
    return name.partition("_")[0]


def _widths(tensors: Mapping[str, Tensor], network: nn.Module) -> tuple[int, int] | None:
    """Numbers per token in the file and in the network; None when either is no plain ViT."""
    for name, module in network.named_modules():
        patches = tensors.get(f"{name}.patch_embed.proj.weight")
        if isinstance(module, VisionTransformer) and patches is not None:
            return int(patches.shape[0]), module.size.dim
    return None


def _advice(fits: list[str], name: str) -> str:
    if name in fits:
        return f"they fit {name} as it is without options: leave its --set out"
    if not fits:
        return "no network here has that backbone as it is without options: another --set network.OPTION=VALUE may help"
    return f"use --network {' or '.join(filter(None, (', '.join(fits[:-1]), fits[-1])))}"
