"""The auxiliary heads of dynamic token pruning (DToP): after a layer, how sure is which class of each token [Z 5.2.3].

Two kinds. `atm`: an ATM with class tokens of its own per layer and one layer instead of three; a class's score is
presence times mask. `fcn`: SETR's naive head; the score is the softmax. What a head says of a token that leaves must
stand beside what the decoder says of its neighbours, so it is brought to the decoder's terms: scores in [0, 1] beside
an ATM decoder, logits beside another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.segvit import AtmDecoder, AtmStage
from edgeseg.models.setr import NaiveDecoder
from edgeseg.models.vit import VitSize

PRUNE_HEADS = ("atm", "fcn")
PRUNE_LAYERS = (6, 8)
"""Of 12 [Z table 5.4]; (8, 16) of 24."""
THRESHOLDS = {"atm": 0.95, "fcn": 0.98}
"""p0: the probability from which a token is easy [Z tables 5.2 and 5.3]."""
_ATM_LAYERS = 1
LOWEST_SCORE = 1e-6
"""Of a class that an ATM excludes, so that its logarithm is a logit like others."""
_SMALLEST = 1e-30
"""Whose logarithm still is a number."""


@dataclass(frozen=True)
class HeadPrediction:
    """What a head says of n tokens."""

    scores: Tensor
    """`(B, n, C)` in the terms of the network's decoder."""
    confidence: Tensor
    """`(B, n)` in [0, 1]: probability p of the likeliest class; no gradient."""
    certainty: Tensor
    """`(B, n)`: log(p / (1 - p)), within -50 and 50. It ranks as p does, but tells apart what rounds to p = 1, so that
    every engine ranks alike."""
    classes: Tensor
    """int64 `(B, n)`: the likeliest class."""
    stage: AtmStage | None
    """Masks `(B, C, n)` and presence of an ATM; None of an FCN."""


class PruningHeads(nn.Module):
    """One head per pruning layer.

    Args:
        kind: one of `PRUNE_HEADS`.
        layers: after which tokens may leave, rising.
        encoder_layers: of the encoder; after the last one there is nothing to leave from.
        beside_atm: whether the network's decoder is an ATM.

    Raises:
        InputError: the kind is unknown, or a layer is out of range.
    """

    def __init__(
        self, classes: int, size: VitSize, kind: str, layers: Sequence[int], encoder_layers: int, *, beside_atm: bool
    ) -> None:
        super().__init__()
        if kind not in PRUNE_HEADS:
            raise InputError(f"unknown prune_heads {kind!r} | known: {', '.join(PRUNE_HEADS)}")
        rising = not isinstance(layers, str) and all(type(each) is int for each in layers)
        if not rising or not layers or list(layers) != sorted(set(layers)):
            raise InputError(f"prune_layers is a rising list of layers, such as [6, 8] | got {layers!r}")
        if layers[0] < 1 or layers[-1] >= encoder_layers:
            raise InputError(f"prune_layers out of range | got {list(layers)}, expected 1 to {encoder_layers - 1}")
        self.kind, self.layers, self.beside_atm = kind, tuple(layers), beside_atm
        self.heads = nn.ModuleDict()
        for layer in layers:
            if kind == "atm":
                self.heads[str(layer)] = AtmDecoder(classes, size, 1, layers=_ATM_LAYERS)
            else:
                self.heads[str(layer)] = NaiveDecoder(classes, size.dim)

    def forward(self, layer: int, tokens: Tensor, mask: Tensor | None = None) -> HeadPrediction:
        """Of tokens `(B, n, D)` after `layer`; those where `mask` bool `(B, n)` is False count for nothing."""
        head = self.heads[str(layer)]
        if isinstance(head, AtmDecoder):
            stage = head.predictions([tokens], mask)[-1]
            probability = head.scores(stage)
            scores = probability if self.beside_atm else probability.clamp(min=LOWEST_SCORE).log()
            doubt = _atm_doubt(stage)
        else:
            stage = None
            logits = head([tokens])
            probability = logits.softmax(dim=-1)
            scores = probability if self.beside_atm else logits
            doubt = _softmax_doubt(logits.detach())
        confidence, classes = probability.detach().max(dim=-1)
        certainty = (confidence.clamp(min=_SMALLEST).log() - doubt.clamp(min=_SMALLEST).log()).clamp(-50, 50)
        return HeadPrediction(scores, confidence, certainty, classes, stage)


@torch.no_grad()
def _atm_doubt(stage: AtmStage) -> Tensor:
    """`(B, n)`: 1 - presence * sigmoid(S) of the likeliest class, without the difference of two near ones."""
    present = stage.presence.softmax(dim=-1)
    doubt = present[..., 1:] + present[..., :1] * torch.sigmoid(-stage.masks)
    return doubt.amin(dim=1)


@torch.no_grad()
def _softmax_doubt(logits: Tensor) -> Tensor:
    """`(B, n)`: the sum of the other classes' probabilities."""
    top, classes = logits.max(dim=-1, keepdim=True)
    others = (classes != torch.arange(int(logits.shape[2]), device=logits.device)).to(logits)
    share = (logits - top).exp()
    return (share * others).sum(dim=-1) / share.sum(dim=-1)
