"""The tables of a recipe about token reduction: a network on a plain ViT learns to let some tokens stop or leave early.

At most one of them is in a recipe. Imports without torch, as `edgeseg.training.recipe`, which holds them.
"""

from dataclasses import dataclass

from edgeseg.errors import InputError
from edgeseg.training.recipe_checks import check_known, check_range


@dataclass(frozen=True)
class PausingRecipe:
    """Patch pausing [C 3.2.2], for networks on a plain ViT; leave the table out for one whose tokens all go through."""

    criterion: str = "entropy"
    """`entropy`, or `random`: the baseline, trained alike."""
    layers: tuple[int, ...] = (3, 4, 5, 6, 7, 8, 9)
    """One of these is drawn per batch; tokens stop after it."""
    proportions: tuple[float, float] = (0.2, 0.8)
    """The proportion of tokens that stop is drawn between these."""
    aux_weight: float = 0.1
    """Weight of the auxiliary decoder's loss."""

    def __post_init__(self) -> None:
        low, high = self.proportions
        check_known("pausing.criterion", self.criterion, ("entropy", "random"))
        check_range(0 < low <= high < 1, "pausing.proportions", self.proportions, "0 < lowest <= highest < 1")
        check_range(bool(self.layers) and min(self.layers) >= 1, "pausing.layers", self.layers, "layers from 1")
        check_range(self.aux_weight > 0, "pausing.aux_weight", self.aux_weight, "more than 0")


@dataclass(frozen=True)
class PruningRecipe:
    """Dynamic token pruning [Z 5], for a network with pruning heads (`network.prune_heads`)."""

    mode: str = "retrain"
    """`direct`: heads are trained beside a network whose tokens all go through, and prune when it is scored;
    `finetune`: the same checkpoint goes on with pruning, its encoder fixed; `retrain`: everything, with pruning."""
    threshold: float | None = None
    """p0; when left out 0.95 for ATM heads, 0.98 for FCN heads."""
    context: str = "top-k"
    """`top-k`, `average` or `remove`."""
    k: int = 5
    """Tokens of each class that stay as context; `top-k` only."""
    share: float | None = None
    """Instead of the threshold: this share of the running tokens leaves."""
    aux_weight: float = 0.4
    """Weight of the heads' loss; ATM heads of an ATM network weigh as its own ATMs, 1."""

    def __post_init__(self) -> None:
        check_known("pruning.mode", self.mode, ("direct", "finetune", "retrain"))
        check_range(self.aux_weight > 0, "pruning.aux_weight", self.aux_weight, "more than 0")
        if self.share is not None and self.threshold is not None:
            raise InputError("recipe: pruning.share contradicts pruning.threshold | set one of them")
