"""Patch pausing (PAUMER) [C 3]: after a layer, the tokens that the auxiliary decoder is sure of wait for the decoder.

What a paused token was when it stopped is what the decoder sees of it. With early exit [C 3.I] the decoder does not see
it at all: its label is the auxiliary decoder's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.token_reduction import ReductionPass, TokenLayout, TokenStage
from edgeseg.models.token_selection import AuxiliaryDecoder, after_prefix, entropy, put, select_highest, take
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.models.vit_segmenter import VitSegmenter, to_map
from edgeseg.token_plan import TokenPlan

CRITERIA = ("entropy", "random")
"""Which tokens go on: those of the highest entropy, or any, which is the baseline to beat [C 3.4]."""


class Pausing:
    """A token reduction: `plan` says how many tokens stop where, `criterion` (one of `CRITERIA`) which ones.

    Args:
        auxiliary: what logits are wanted of; drawing by lot alone needs none.
        early_exit: whether paused tokens skip the decoder.
        keep_logits: whether the auxiliary logits are wanted even where nothing else needs them.
        random: draws the tokens of the random criterion for each image anew, in training; without it the places are
            the same for every image, as in a graph.
    """

    def __init__(
        self,
        plan: TokenPlan,
        auxiliary: AuxiliaryDecoder | None,
        *,
        criterion: str = "entropy",
        early_exit: bool = False,
        keep_logits: bool = False,
        random: torch.Generator | None = None,
    ) -> None:
        if criterion not in CRITERIA:
            raise InputError(f"unknown criterion {criterion!r} | known: {', '.join(CRITERIA)}")
        needs_logits = criterion == "entropy" or early_exit or keep_logits
        if needs_logits and auxiliary is None:
            raise ValueError("logits are needed, and there is no auxiliary decoder to give them")
        self.auxiliary = auxiliary if needs_logits else None
        own = () if self.auxiliary is None else self.auxiliary.layers
        if missing := [layer for layer, _ in plan.cuts if own and layer not in own]:
            raise InputError(
                f"plan {plan}: no auxiliary decoder after layer {missing[0]} | this network has them after "
                f"{', '.join(map(str, own))}"
            )
        self.plan, self.criterion, self.random, self.early_exit = plan, criterion, random, early_exit

    def begin(self, layout: TokenLayout) -> "PausingPass":
        return PausingPass(layout, self)


@dataclass(frozen=True)
class Pause:
    """What happened after one layer."""

    layer: int
    tokens: Tensor
    """`(B, prefix + n, D)`: all that were running, as the layer left them."""
    kept: Tensor
    """int64 `(B, k)`: which of the n patches went on."""
    logits: Tensor | None
    """`(B, n, C)` of the auxiliary decoder, where needed."""


class PausingPass(ReductionPass):
    """One forward pass with pauses; `pauses` tells afterwards what stopped where."""

    def __init__(self, layout: TokenLayout, pausing: Pausing) -> None:
        super().__init__(layout)
        self._pausing = pausing
        self._counts = pausing.plan.counts(layout.patches, layout.layers)
        self.pauses: list[Pause] = []
        self.stages: list[TokenStage] = []

    def after_layer(self, layer: int, tokens: Tensor) -> Tensor:
        if layer not in self._counts:
            return tokens
        prefix, pausing = self.layout.prefix, self._pausing
        logits = None if pausing.auxiliary is None else pausing.auxiliary(tokens, layer)[:, prefix:]
        # No gradient: what is chosen does not depend smoothly on the logits.
        doubt = entropy(logits.detach()) if pausing.criterion == "entropy" and logits is not None else None
        kept = self._choose(layer, tokens[:, prefix:], doubt)
        self.pauses.append(Pause(layer, tokens, kept, logits))
        if logits is not None and doubt is not None:
            self.stages.append(TokenStage(layer, kept, logits, doubt))
        return take(tokens, after_prefix(kept, prefix))

    def finish(self, collected: dict[int, Tensor]) -> dict[int, Tensor]:
        bring = self._narrow if self._pausing.early_exit else self._put_back
        return {layer: bring(layer, tokens)[:, self.layout.prefix :] for layer, tokens in collected.items()}

    def place(self, logits: Tensor) -> Tensor:
        if not self._pausing.early_exit:
            return logits
        for pause in reversed(self.pauses):
            assert pause.logits is not None
            logits = put(pause.logits, pause.kept, logits)
        return logits

    def _choose(self, layer: int, patches: Tensor, doubt: Tensor | None) -> Tensor:
        """Indices `(B, k)` of the patches that go on."""
        batch, count = int(patches.shape[0]), int(patches.shape[1])
        random, going = self._pausing.random, self._counts[layer]
        if doubt is not None:
            return select_highest(doubt, going)
        if random is not None:
            return select_highest(torch.rand((batch, count), generator=random).to(patches.device), going)
        places = np.sort(np.random.default_rng(layer).permutation(count)[:going])
        return torch.from_numpy(places).to(patches.device).expand(batch, -1)

    def _put_back(self, layer: int, tokens: Tensor) -> Tensor:
        """All tokens as they were after `layer`, those paused before it as they had stopped; innermost first."""
        for pause in reversed([each for each in self.pauses if each.layer < layer]):
            tokens = put(pause.tokens, after_prefix(pause.kept, self.layout.prefix), tokens)
        return tokens

    def _narrow(self, layer: int, tokens: Tensor) -> Tensor:
        """Of the tokens after `layer`, those that run to the end."""
        for pause in self.pauses:
            if pause.layer >= layer:
                tokens = take(tokens, after_prefix(pause.kept, self.layout.prefix))
        return tokens


class RandomisedPausing:
    """PAUMER's training [C 3.2.2]: per batch one pause, its layer and its proportion drawn evenly.

    Args:
        layers: to draw from, of the encoder's but the last.
        proportions: lowest and highest.

    Raises:
        InputError: the network has no auxiliary decoder, or a layer is out of range.
    """

    def __init__(
        self, network: VitSegmenter, layers: Sequence[int], proportions: tuple[float, float], criterion: str
    ) -> None:
        self.network, self.auxiliary = network, auxiliary_of(network)
        self.layers, self.proportions, self.criterion = tuple(layers), proportions, criterion
        last = len(network.encoder.blocks) - 1
        if outside := [layer for layer in self.layers if not 1 <= layer <= last]:
            raise InputError(f"pausing layer out of range | got {outside[0]}, expected 1 to {last} for this network")

    def training_outputs(self, images: Tensor, random: torch.Generator) -> TrainingOutputs:
        """Logits of the paused network, and the auxiliary decoder's at the pause."""
        low, high = self.proportions
        layer = self.layers[int(torch.randint(len(self.layers), (1,), generator=random))]
        share = low + (high - low) * float(torch.rand(1, generator=random))
        pausing = Pausing(
            TokenPlan(((layer, share),)), self.auxiliary, criterion=self.criterion, keep_logits=True, random=random
        )
        encoded = self.network.encoder(images, pausing)
        assert isinstance(encoded.reduction, PausingPass)
        logits = self.network.decoder(encoded.tokens)
        sure = [pause.logits for pause in encoded.reduction.pauses if pause.logits is not None]
        return TrainingOutputs(
            to_map(logits, encoded.grid_hw), auxiliary=tuple(to_map(each, encoded.grid_hw) for each in sure)
        )


def auxiliary_of(network: VitSegmenter) -> AuxiliaryDecoder:
    """The network's auxiliary decoder.

    Raises:
        InputError: it has none.
    """
    auxiliary = getattr(network, "auxiliary", None)
    if not isinstance(auxiliary, AuxiliaryDecoder):
        layers = None if network.pruning_heads is None else ", ".join(map(str, network.pruning_heads.layers))
        raise InputError(
            "the network has no auxiliary decoder, so it cannot tell which tokens may stop | "
            + (f"its heads after layers {layers} can: use --method prune, or " if layers else "")
            + "train it with a [pausing] table (edgeseg train street-vit)"
        )
    return auxiliary
