"""Dynamic token pruning as its source has it [Z 5]: which tokens leave, and how many, depends on the image.

Every token at or above a confidence leaves, or the most confident share of them. It is what networks are trained with,
and the reference for accuracy; engines have the form of fixed counts, `edgeseg.models.token_pruning`.

So that what leaves is not missed, context is upheld [Z 5.2.4]: `top-k`: of each class, the k most confident of the
easy tokens stay; `average`: one more token per class, the mean of its easy ones, goes through the rest of the encoder;
`remove`: nothing. Images of a batch that keep fewer tokens than others are filled up with tokens that nobody attends
to. At least one token of an image always goes on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.pruning_heads import HeadPrediction, PruningHeads
from edgeseg.models.token_pruning import BEYOND_CERTAINTIES, CONTEXT, PruningPass, context_tokens, one_hot
from edgeseg.models.token_reduction import TokenLayout
from edgeseg.models.token_selection import select_highest, take

CONTEXTS = ("top-k", "average", "remove")


@dataclass(frozen=True)
class PruningRule:
    """Which tokens are easy, and what stays of them."""

    threshold: float
    """p0: tokens of at least this confidence are easy; none when it is 1."""
    context: str = "top-k"
    """One of `CONTEXTS`."""
    k: int = CONTEXT
    """Tokens of each class that stay; `top-k` only."""
    share: float | None = None
    """Instead of the threshold: this share of the running tokens, the most confident, is easy [Z table 5.5: 0.35]."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(f"pruning.threshold out of range | got {self.threshold}, expected more than 0, at most 1")
        if self.context not in CONTEXTS:
            raise InputError(f"unknown pruning.context {self.context!r} | known: {', '.join(CONTEXTS)}")
        if self.k < 1:
            raise InputError(f"pruning.k out of range | got {self.k}, expected at least 1")
        if self.share is not None and not 0 < self.share < 1:
            raise InputError(f"pruning.share out of range | got {self.share}, expected more than 0 and less than 1")


class DynamicPruning:
    """A token reduction whose counts follow from the image.

    Args:
        rule: None when the heads only listen, to be trained beside a network whose tokens all go through.
    """

    def __init__(self, heads: PruningHeads, rule: PruningRule | None) -> None:
        self.heads, self.rule = heads, rule

    def begin(self, layout: TokenLayout) -> "DynamicPruningPass":
        """A fresh pass over tokens of `layout`."""
        return DynamicPruningPass(layout, self)


class DynamicPruningPass(PruningPass):
    """One forward pass in the dynamic form; not for graphs."""

    def __init__(self, layout: TokenLayout, pruning: DynamicPruning) -> None:
        super().__init__(layout, pruning.heads, CONTEXT if pruning.rule is None else pruning.rule.k)
        self._rule = pruning.rule

    def after_layer(self, layer: int, tokens: Tensor) -> Tensor:
        if layer not in self.heads.layers:
            return tokens
        end = int(tokens.shape[1]) - self._extra
        first, patches, extra = tokens[:, : self.layout.prefix], tokens[:, self.layout.prefix : end], tokens[:, end:]
        prediction = self.predict(layer, patches)
        if self._rule is None:
            return tokens
        running = torch.ones_like(prediction.classes, dtype=torch.bool) if self._mask is None else self._mask
        easy = self._easy(prediction, running)
        leaves = easy
        if self._rule.context == "top-k":
            leaves = easy & (context_tokens(prediction, easy.to(prediction.certainty), self.k) == 0)
        going = running & ~leaves
        going |= _least_certain(prediction.certainty, running) & ~going.any(1, keepdim=True)
        if self._rule.context == "average":
            extra = self._averages(patches, prediction, running & ~going, extra)
        kept, self._mask = _fill_up(going)
        self.counts[layer] = going.sum(1)
        self._go_on(kept)
        return torch.cat((first, take(patches, kept), extra), dim=1)

    def _easy(self, prediction: HeadPrediction, running: Tensor) -> Tensor:
        """bool `(B, n)` of the running tokens."""
        assert self._rule is not None
        if self._rule.share is None:
            # Nobody is entirely sure, even where p rounds to 1.
            return running & (prediction.confidence >= self._rule.threshold) & (self._rule.threshold < 1)
        certainty = torch.where(running, prediction.certainty, -BEYOND_CERTAINTIES)
        order = certainty.argsort(dim=1, descending=True, stable=True)
        number = (running.sum(1, keepdim=True).double() * self._rule.share).floor()
        return order.argsort(dim=1) < number

    def _averages(self, patches: Tensor, prediction: HeadPrediction, leaving: Tensor, before: Tensor) -> Tensor:
        """The tokens `before`, and one for each class that leaves: `(B, e, D)`."""
        of_class = one_hot(prediction) * leaving.unsqueeze(1)
        number = of_class.sum(2)
        average = (of_class @ patches) / number.clamp(min=1).unsqueeze(2)
        old = torch.ones_like(before[..., 0], dtype=torch.bool) if self._extra_mask is None else self._extra_mask
        shown = torch.cat((old, number > 0), dim=1)
        kept, self._extra_mask = _fill_up(shown)
        self._extra = int(kept.shape[1])
        return take(torch.cat((before, average), dim=1), kept)


def _least_certain(certainty: Tensor, running: Tensor) -> Tensor:
    """bool `(B, n)`: True for one running token of each image."""
    lowest = torch.where(running, certainty, BEYOND_CERTAINTIES).argmin(dim=1, keepdim=True)
    return torch.zeros_like(running).scatter(1, lowest, True)


def _fill_up(going: Tensor) -> tuple[Tensor, Tensor | None]:
    """Indices `(B, k)` of the True of bool `(B, n)`, in order, k being the most of any image; and which are no filling.

    None when there is no filling.
    """
    count = int(going.sum(1).max())
    kept = select_highest(going.float(), count)
    real = going.gather(1, kept)
    return kept, None if bool(real.all()) else real
