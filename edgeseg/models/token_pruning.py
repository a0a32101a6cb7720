"""Dynamic token pruning (DToP) [Z 5]: easy tokens leave early with the class that an auxiliary head gave them.

- `edgeseg.models.dynamic_pruning`, the source's form: how many leave depends on the image.
- `PlannedPruning` (**decided**, for engines): a plan gives the count, the same for every image. Tokens are ranked by
  confidence; the `CONTEXT` most confident of each class that the image shows go last; the first ones leave.

`PruningPass` is what both share. So that what leaves is not missed, context is upheld [Z 5.2.4]: of each class some of
the most confident tokens stay.
"""

from dataclasses import replace

import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.pruning_heads import LOWEST_SCORE, HeadPrediction, PruningHeads
from edgeseg.models.token_reduction import LayerInput, ReductionPass, TokenLayout, TokenStage
from edgeseg.models.token_selection import after_prefix, put, select_highest, take
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.models.vit_segmenter import VitSegmenter, to_map
from edgeseg.token_plan import TokenPlan

CONTEXT = 5
"""k: tokens of each class that stay as context [Z 5.3.2]."""
BEYOND_CERTAINTIES = 128.0
"""More than certainties lie apart."""


class PruningPass(ReductionPass):
    """What both forms share: who runs, where they belong, and what the heads said of those who left."""

    def __init__(self, layout: TokenLayout, heads: PruningHeads, k: int) -> None:
        super().__init__(layout)
        self.heads, self.k = heads, k
        self.places: Tensor | None = None
        """int64 `(B, n)`: which patch each running token is; None while all run."""
        self.counts: dict[int, Tensor] = {}
        """Layer -> int64 `(B,)`: tokens that went on after it, padding not counted."""
        self._mask: Tensor | None = None
        self._extra = 0
        self._extra_mask: Tensor | None = None
        self._grid: Tensor | None = None
        self._mask_grid: Tensor | None = None
        self._outputs: list[tuple[Tensor | None, Tensor, Tensor | None]] = []

    def before_layer(self, layer: int, tokens: Tensor) -> LayerInput:
        """All running tokens; padding is not attended to."""
        if self._mask is None and self._extra_mask is None:
            return LayerInput(tokens)
        always = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        end = int(tokens.shape[1]) - self._extra
        patches = always[:, self.layout.prefix : end] if self._mask is None else self._mask
        extra = always[:, end:] if self._extra_mask is None else self._extra_mask
        return LayerInput(tokens, key_mask=torch.cat((always[:, : self.layout.prefix], patches, extra), dim=1))

    def finish(self, collected: dict[int, Tensor]) -> dict[int, Tensor]:
        """The patches that ran to the end, without averages; decoders beside pruning heads read one layer."""
        ((layer, tokens),) = collected.items()
        return {layer: tokens[:, self.layout.prefix : int(tokens.shape[1]) - self._extra]}

    @property
    def memory_mask(self) -> Tensor | None:
        """Which of the finished tokens are no padding."""
        return self._mask

    def place(self, logits: Tensor) -> Tensor:
        """Those who ran to the end by the decoder, the others by the head after which they left."""
        return self._onto(self._grid, logits)

    def place_masks(self, masks: Tensor) -> Tensor:
        """As `place`; where the heads are no ATMs, the masks of those who left are zero and have no gradient."""
        if self.places is None or self._mask_grid is not None:
            return self._onto(self._mask_grid, masks)
        empty = masks.new_zeros(int(masks.shape[0]), self.layout.patches, int(masks.shape[2]))
        return self._onto(empty, masks)

    def add_outputs(self, outputs: TrainingOutputs) -> TrainingOutputs:
        """With what each head says: an ATM's masks and presence, an FCN's logits."""
        masks, presence, auxiliary = [], [], []
        for mask_grid, grid, said in self._outputs:
            if mask_grid is None or said is None:
                # Beside an ATM the grid holds probabilities; their logarithms are logits.
                logits = grid.clamp(min=LOWEST_SCORE).log() if self.heads.beside_atm else grid
                auxiliary.append(to_map(logits, self.layout.grid_hw))
            else:
                masks.append(to_map(mask_grid, self.layout.grid_hw))
                presence.append(said)
        return replace(
            outputs,
            auxiliary=(*outputs.auxiliary, *auxiliary),
            masks=(*outputs.masks, *masks),
            presence=(*outputs.presence, *presence),
        )

    def predict(self, layer: int, tokens: Tensor) -> HeadPrediction:
        """Ask the head after `layer` about the running patches `(B, n, D)`, and remember what it says."""
        prediction = self.heads(layer, tokens, self._mask)
        self._grid = self._onto(self._grid, prediction.scores)
        said = prediction.stage
        if said is not None:
            self._mask_grid = self._onto(self._mask_grid, said.masks.transpose(1, 2))
        self._outputs.append((self._mask_grid, self._grid, None if said is None else said.presence))
        return prediction

    def _onto(self, grid: Tensor | None, values: Tensor) -> Tensor:
        """Values `(B, n, C)` of the running tokens, on top of `grid` `(B, patches, C)`; padding changes nothing."""
        if self.places is None or grid is None:
            return values
        if self._mask is not None:
            values = torch.where(self._mask.unsqueeze(-1), values, take(grid, self.places).to(values.dtype))
        return put(grid, self.places, values)

    def _go_on(self, kept: Tensor) -> None:
        """Only the running tokens `kept` `(B, k)` go on."""
        self.places = kept if self.places is None else self.places.gather(1, kept)


class PlannedPruning:
    """A token reduction with fixed counts.

    Raises:
        InputError: the plan has a layer without a head.
    """

    def __init__(self, plan: TokenPlan, heads: PruningHeads, k: int = CONTEXT) -> None:
        if missing := [layer for layer, _ in plan.cuts if layer not in heads.layers]:
            raise InputError(
                f"plan {plan}: no pruning head after layer {missing[0]} | this network has them after "
                f"{', '.join(map(str, heads.layers))}"
            )
        self.plan, self.heads, self.k = plan, heads, k

    def begin(self, layout: TokenLayout) -> "PlannedPruningPass":
        """A fresh pass over tokens of `layout`."""
        return PlannedPruningPass(layout, self)


class PlannedPruningPass(PruningPass):
    """One forward pass in the fixed-shape form."""

    def __init__(self, layout: TokenLayout, pruning: PlannedPruning) -> None:
        super().__init__(layout, pruning.heads, pruning.k)
        self._going = pruning.plan.counts(layout.patches, layout.layers)
        self.stages: list[TokenStage] = []

    def after_layer(self, layer: int, tokens: Tensor) -> Tensor:
        if layer not in self._going:
            return tokens
        prediction = self.predict(layer, tokens[:, self.layout.prefix :])
        everyone = torch.ones_like(prediction.certainty)
        rank = BEYOND_CERTAINTIES * context_tokens(prediction, everyone, self.k) - prediction.certainty
        kept = select_highest(rank, self._going[layer])
        self.stages.append(TokenStage(layer, kept, prediction.scores, prediction.certainty))
        self._go_on(kept)
        return take(tokens, after_prefix(kept, self.layout.prefix))


def one_hot(prediction: HeadPrediction) -> Tensor:
    """`(B, C, n)` of 1 where the token is of the class, else 0."""
    number = int(prediction.scores.shape[2])
    classes = torch.arange(number, device=prediction.classes.device).reshape(1, number, 1)
    return (prediction.classes.unsqueeze(1) == classes).to(prediction.certainty)


def context_tokens(prediction: HeadPrediction, among: Tensor, k: int) -> Tensor:
    """`(B, n)` of 1 for the k most confident tokens of each class, else 0; tokens equal to the k-th one count too.

    Args:
        among: `(B, n)` of 1 for the tokens that count, else 0.
    """
    of_class = one_hot(prediction) * among.unsqueeze(1)
    certainty = of_class * (prediction.certainty.unsqueeze(1) + BEYOND_CERTAINTIES)
    least = certainty.topk(min(k, int(certainty.shape[2])), dim=2).values[..., -1:]
    return ((certainty >= least).to(of_class) * of_class).amax(dim=1)


def heads_of(network: VitSegmenter) -> PruningHeads:
    """The network's pruning heads.

    Raises:
        InputError: it has none.
    """
    if network.pruning_heads is None:
        pauses = getattr(network, "auxiliary", None) is not None
        raise InputError(
            "the network has no pruning heads, so it cannot tell which tokens are easy | "
            + ("its auxiliary decoder can: use --method pause, or " if pauses else "")
            + "train it with network.prune_heads = 'atm' or 'fcn' and a [pruning] table"
        )
    return network.pruning_heads


def prune(network: VitSegmenter, plan: TokenPlan) -> PlannedPruning:
    """The fixed-shape form for `network`, as a graph has it.

    Raises:
        InputError: the network has no pruning heads, or none after a layer of the plan.
    """
    return PlannedPruning(plan, heads_of(network))
