"""How a network learns to prune tokens [Z 5.3.3]: direct, finetune, or retrain; and the loss that heads add."""

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.dynamic_pruning import DynamicPruning, PruningRule
from edgeseg.models.pruning_heads import THRESHOLDS
from edgeseg.models.token_pruning import heads_of
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.training.losses import Loss, at_label_size, cross_entropy
from edgeseg.training.segvit_loss import segvit
from edgeseg.training.token_reduction_recipe import PruningRecipe


def prepare_pruning(network: nn.Module, recipe: PruningRecipe) -> None:
    """Let `network` prune when it is scored, and fix its encoder where only the heads are finetuned.

    Raises:
        InputError: the network has no pruning heads, or the rule is out of range.
    """
    if not isinstance(network, VitSegmenter):
        raise InputError(f"[pruning] needs a network on a plain ViT | got {type(network).__name__}")
    heads = heads_of(network)
    threshold = THRESHOLDS[heads.kind] if recipe.threshold is None else recipe.threshold
    network.reduction = DynamicPruning(heads, PruningRule(threshold, recipe.context, recipe.k, recipe.share))
    if recipe.mode == "finetune":
        network.encoder.requires_grad_(False)


class PruningMethod:
    """What a network that learns to prune is trained on."""

    def __init__(self, network: nn.Module, recipe: PruningRecipe) -> None:
        assert isinstance(network, VitSegmenter)
        self.network = network
        self.listening = DynamicPruning(heads_of(network), None) if recipe.mode == "direct" else None

    def training_outputs(self, images: Tensor, random: torch.Generator) -> TrainingOutputs:
        """The decoder's outputs and the heads'; pruned, except in direct mode."""
        return self.network.training_outputs(images, random, self.listening)


def with_pruning_heads(loss: Loss, weight: float, *, ignore_value: int, takes_outputs: bool) -> Loss:
    """`loss` on what the decoder gives, plus that of the heads: SegViT's for ATMs, cross entropy for FCNs.

    Args:
        weight: of the heads; not of ATMs beside an ATM decoder, which SegViT's loss adds up with the decoder's.
        takes_outputs: whether `loss` is SegViT's, on `TrainingOutputs`.
    """

    def total(outputs: TrainingOutputs, labels: Tensor) -> Tensor:
        if takes_outputs:
            value = loss(outputs, labels)
        else:
            value = loss(at_label_size(outputs.logits, labels), labels)
            if outputs.masks:
                value = value + weight * segvit(outputs, labels, ignore_value=ignore_value)
        for logits in outputs.auxiliary:
            value = value + weight * cross_entropy(at_label_size(logits, labels), labels, ignore_value=ignore_value)
        return value

    return total
