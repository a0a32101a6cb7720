"""What learning to prune adds to a loss, and the thresholds that heads have of their own."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgeseg.models.dynamic_pruning import DynamicPruning
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import add_pruning_heads, build_segvit
from edgeseg.training.losses import cross_entropy
from edgeseg.training.pruning import prepare_pruning, with_pruning_heads
from edgeseg.training.segvit_loss import segvit
from edgeseg.training.token_reduction_recipe import PruningRecipe

LABELS = torch.tensor([[[0, 1], [1, 0]]])


def outputs(**more: tuple[Tensor, ...]) -> TrainingOutputs:
    return replace(TrainingOutputs(torch.zeros(1, 2, 2, 2)), **more)


def no_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.sum() * 0


def test_fcn_heads_add_their_cross_entropy_by_weight() -> None:
    random = torch.Generator().manual_seed(0)
    heads = tuple(torch.randn(1, 2, 2, 2, generator=random) for _ in range(2))
    total = with_pruning_heads(no_loss, 0.4, ignore_value=255, takes_outputs=False)
    expected = 0.4 * sum(cross_entropy(each, LABELS, ignore_value=255) for each in heads)
    torch.testing.assert_close(total(outputs(auxiliary=heads), LABELS), expected)


def test_atm_heads_add_segvits_loss_by_weight_when_the_decoder_is_another() -> None:
    random = torch.Generator().manual_seed(0)
    said = outputs(
        masks=(torch.randn(1, 2, 2, 2, generator=random),), presence=(torch.randn(1, 2, 2, generator=random),)
    )
    total = with_pruning_heads(no_loss, 0.4, ignore_value=255, takes_outputs=False)
    torch.testing.assert_close(total(said, LABELS), 0.4 * segvit(said, LABELS, ignore_value=255))


@pytest.mark.parametrize(("kind", "threshold"), [("atm", 0.95), ("fcn", 0.98)])
def test_threshold_is_the_thesis_one_of_the_heads_unless_the_recipe_has_one(kind: str, threshold: float) -> None:
    size = VitSize(dim=24, heads=3, layers=4)
    network = add_pruning_heads(build_segvit(2, size, (4,), "binary", (32, 48)), 2, kind, (2,))
    for given, expected in ((None, threshold), (0.5, 0.5)):
        prepare_pruning(network, PruningRecipe(threshold=given))
        assert isinstance(network.reduction, DynamicPruning)
        assert network.reduction.rule is not None
        assert network.reduction.rule.threshold == expected
