"""Token reductions by the name of their method, for networks on a plain ViT."""

import importlib
from collections.abc import Callable

from torch import nn

from edgeseg.errors import InputError
from edgeseg.models.pausing import Pausing, auxiliary_of
from edgeseg.models.segvit import AtmDecoder
from edgeseg.models.shrunk import Shrunk
from edgeseg.models.token_reduction import KeepAll, TokenReduction
from edgeseg.models.token_selection import AuxiliaryDecoder
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.token_plan import TokenPlan

Builder = Callable[[VitSegmenter, TokenPlan], TokenReduction]


def pause(network: VitSegmenter, plan: TokenPlan) -> TokenReduction:
    """Pausing by entropy [C 3]."""
    return Pausing(plan, auxiliary_of(network))


def pause_random(network: VitSegmenter, plan: TokenPlan) -> TokenReduction:
    """Pausing at places drawn once: the baseline [C 3.4]: any plain ViT can, trained for it or not."""
    return Pausing(plan, None, criterion="random")


def early_exit(network: VitSegmenter, plan: TokenPlan) -> TokenReduction:
    """Pausing by entropy, the paused tokens' labels from the auxiliary decoder [C 3.I].

    Raises:
        InputError: the decoder is an ATM, whose scores in [0, 1] are on another scale than the auxiliary logits.
    """
    if isinstance(network.decoder, AtmDecoder):
        raise InputError(
            "early exit is for decoders that give logits, as the auxiliary one does | got an ATM (SegViT), whose "
            "scores lie in [0, 1] | use pause, or prune with the pruning heads that SegViT can be trained with"
        )
    return Pausing(plan, auxiliary_of(network), early_exit=True)


REDUCTIONS: dict[str, Builder | str] = {
    "pause": pause,
    "pause-random": pause_random,
    "early-exit": early_exit,
    "prune": "edgeseg.models.token_pruning:prune",
}
"""A builder for each of `edgeseg.token_plan.METHODS`."""


def build_reduction(network: nn.Module, method: str, plan: TokenPlan) -> TokenReduction:
    """The reduction of `network`, with its weights.

    Raises:
        InputError: the network is no ViT, or was not trained for it, or the plan does not fit it.
    """
    if not isinstance(network, VitSegmenter):
        raise InputError(f"token plans are for networks on a plain ViT | got {type(network).__name__}")
    _refuse_shrunk(network)
    if not isinstance(network.reduction, KeepAll):
        raise InputError("the network computes fewer tokens already, as it was trained | leave the token plan out")
    # Also says which layers there are, before anything runs.
    plan.counts(network.encoder.grid_hw[0] * network.encoder.grid_hw[1], len(network.encoder.blocks))
    builder = REDUCTIONS[method]
    if isinstance(builder, str):
        module, _, attribute = builder.partition(":")
        builder = getattr(importlib.import_module(module), attribute)
    return builder(network, plan)


def add_auxiliary_decoder(network: nn.Module, classes: int, layers: tuple[int, ...] = ()) -> None:
    """Give `network` a fresh auxiliary decoder, as `network.auxiliary`; see `AuxiliaryDecoder`.

    Raises:
        InputError: the network is no ViT.
    """
    if not isinstance(network, VitSegmenter):
        raise InputError(f"an auxiliary decoder needs a network on a plain ViT | got {type(network).__name__}")
    _refuse_shrunk(network)
    network.auxiliary = AuxiliaryDecoder(classes, network.encoder.size.dim, layers)


def _refuse_shrunk(network: VitSegmenter) -> None:
    if isinstance(network.reduction, Shrunk):
        raise InputError("a network built with shrink has its own way with tokens | it takes no plan and no [pausing]")
