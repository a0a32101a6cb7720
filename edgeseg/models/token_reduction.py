"""Which tokens a plain ViT goes on with, and how its result is put back: one interface, asked by one encoder.

The encoder opens one `ReductionPass` per forward pass and asks it, for each layer l (1-based):

    layer_input = run.before_layer(l, tokens)   # who queries whom: all and all, or fewer queries (QD)
    tokens = block(layer_input)                 # one token per query
    tokens = run.after_layer(l, tokens)         # who goes on (pausing, pruning, early exit)

and at the end, once, `run.finish(collected)` for the tokens that the decoder sees, and `run.place(logits)` for the
predictions of those tokens at their places in the grid. How each method fits in:

| method | before_layer | after_layer | finish | place |
| --- | --- | --- | --- | --- |
| pausing (PAUMER) [C 3] | | keep the top-k by entropy; hold the others | put the held tokens back, innermost first | |
| early exit [C 3.I] | | the same, with the auxiliary logits of the others | | put those logits in |
| pruning (DToP) [Z 5] | a key mask while batches are trained | the same, easy tokens | | put those logits in |
| query down-sampling (QD, EQD) [Z 4.2.2] | a subset as queries, all as context | | up-sample (QU) to the grid | |

A `TokenReduction` is configuration and, where it has weights of its own (edge head, QU), an `nn.Module`; everything
that belongs to one image is in the pass. Tokens are float `(B, prefix + n, D)`: the prefix (class token) comes first,
always goes on, and never counts in n. In graphs n must follow from the plan and the grid alone, never from values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from edgeseg.models.training_outputs import TrainingOutputs


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a pass come from."""

    grid_hw: tuple[int, int]
    """Rows and columns of patches; patch (y, x) is token `prefix + y * columns + x` before any reduction."""
    prefix: int
    """Tokens before the patches: 1, the class token."""
    layers: int
    """Layers of the encoder."""

    @property
    def patches(self) -> int:
        """Patch tokens before any reduction."""
        return self.grid_hw[0] * self.grid_hw[1]


@dataclass(frozen=True)
class LayerInput:
    """What one encoder layer computes on."""

    queries: Tensor
    """`(B, m, D)`: the tokens that the layer updates and returns."""
    context: Tensor | None = None
    """`(B, n, D)`: the tokens attended to; None for the queries themselves, which takes one matrix product less."""
    key_mask: Tensor | None = None
    """bool `(B, n)`: False where a token must not be attended to; for training on batches, never in a graph."""


@dataclass(frozen=True)
class TokenStage:
    """Why tokens stopped after a layer, to look at."""

    layer: int
    kept: Tensor
    """int64 `(B, k)`: which of the n tokens that ran until here went on."""
    scores: Tensor
    """`(B, n, C)`: what an auxiliary head says of them; the highest is their class."""
    measure: Tensor
    """`(B, n)`: what they were ranked by."""


class ReductionPass:
    """One forward pass of the encoder without any reduction; methods override what they change.

    Args:
        layout: of the image's tokens.
    """

    stages: Sequence[TokenStage] = ()
    """Where tokens stopped by what was said of them, in order."""

    def __init__(self, layout: TokenLayout) -> None:
        self.layout = layout

    def before_layer(self, layer: int, tokens: Tensor) -> LayerInput:
        """What layer `layer` (from 1) computes on, out of the `tokens` that go on."""
        return LayerInput(tokens)

    def after_layer(self, layer: int, tokens: Tensor) -> Tensor:
        """The tokens `(B, prefix + n', D)` that go on, out of those that layer `layer` returned."""
        return tokens

    def finish(self, collected: dict[int, Tensor]) -> dict[int, Tensor]:
        """Patch tokens `(B, m, D)` for the decoder, per layer that it reads.

        Args:
            collected: what each of those layers returned, before `after_layer`; prefix included.

        All sequences returned have the same length and the same order of places: m is the whole grid, row by row,
        unless tokens have left with a prediction of their own; then `place` knows the places of the others.
        """
        return {layer: tokens[:, self.layout.prefix :] for layer, tokens in collected.items()}

    @property
    def memory_mask(self) -> Tensor | None:
        """bool `(B, m)`: False for those of the tokens that `finish` gave that only fill up a batch."""
        return None

    def place(self, logits: Tensor) -> Tensor:
        """Predictions `(B, m, C)` of the tokens that `finish` gave, as `(B, patches, C)` in the order of the grid."""
        return logits

    def place_masks(self, masks: Tensor) -> Tensor:
        """Class masks `(B, m, C)` of the tokens that `finish` gave, before the sigmoid, as `(B, patches, C)`."""
        return masks

    def add_outputs(self, outputs: TrainingOutputs) -> TrainingOutputs:
        """`outputs` of the decoder with what the method itself has for a loss."""
        return outputs


class TokenReduction(Protocol):
    """A way of computing less: opens a pass per image batch."""

    def begin(self, layout: TokenLayout) -> ReductionPass:
        """A fresh pass over tokens of `layout`.

        Raises:
            InputError: the plan does not fit the layout (a layer out of range, no token left).
        """


class KeepAll:
    """No reduction: every token goes through every layer."""

    def begin(self, layout: TokenLayout) -> ReductionPass:
        """A pass that changes nothing."""
        return ReductionPass(layout)
