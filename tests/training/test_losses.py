"""Each loss against a computation by hand on a few pixels."""

import math

import pytest
import torch

from edgeseg.errors import InputError
from edgeseg.training.losses import LOSSES, build_loss

IGNORE = 255
# Four pixels, two classes: probabilities of class 1 are .5, .75, .25 and, ignored, .5.
PROBABILITIES = torch.tensor([0.5, 0.75, 0.25, 0.5])
LOGITS = torch.stack([torch.zeros(4), torch.logit(PROBABILITIES)]).view(1, 2, 2, 2)
LABELS = torch.tensor([[[0, 1], [1, IGNORE]]])
TRUE_P = [0.5, 0.75, 0.25]


def test_cross_entropy_is_the_mean_over_counted_pixels() -> None:
    expected = -sum(math.log(p) for p in TRUE_P) / 3
    assert build_loss("cross_entropy", ignore_value=IGNORE)(LOGITS, LABELS).item() == pytest.approx(expected)


def test_class_weighted_cross_entropy_divides_by_the_weights() -> None:
    loss = build_loss("cross_entropy", ignore_value=IGNORE, class_weights=torch.tensor([3.0, 1.0]))
    expected = -(3 * math.log(0.5) + math.log(0.75) + math.log(0.25)) / 5
    assert loss(LOGITS, LABELS).item() == pytest.approx(expected)


def test_focal_weighs_each_pixel_by_its_error() -> None:
    expected = -sum((1 - p) ** 2 * math.log(p) for p in TRUE_P) / 3
    assert build_loss("focal", ignore_value=IGNORE, gamma=2.0)(LOGITS, LABELS).item() == pytest.approx(expected)


def test_class_weighted_focal_divides_by_the_weights() -> None:
    loss = build_loss("focal", ignore_value=IGNORE, gamma=1.0, class_weights=torch.tensor([3.0, 1.0]))
    expected = -(3 * 0.5 * math.log(0.5) + 0.25 * math.log(0.75) + 0.75 * math.log(0.25)) / 5
    assert loss(LOGITS, LABELS).item() == pytest.approx(expected)


def test_tversky_counts_softly_per_class() -> None:
    # Class 0: TP .5; FP .25 + .75; FN .5. Class 1: TP .75 + .25; FP .5; FN .25 + .75.
    class0 = 0.5 / (0.5 + 0.3 * 1.0 + 0.7 * 0.5)
    class1 = 1.0 / (1.0 + 0.3 * 0.5 + 0.7 * 1.0)
    loss = build_loss("tversky", ignore_value=IGNORE, alpha=0.3, beta=0.7)
    assert loss(LOGITS, LABELS).item() == pytest.approx(1 - (class0 + class1) / 2)


def test_dice_is_one_minus_twice_the_overlap_over_the_sizes() -> None:
    # Sizes: labels 1 and 2 pixels, predictions 1.5 and 1.5.
    expected = 1 - (2 * 0.5 / (1 + 1.5) + 2 * 1.0 / (2 + 1.5)) / 2
    assert build_loss("dice", ignore_value=IGNORE)(LOGITS, LABELS).item() == pytest.approx(expected)


def test_dice_leaves_out_classes_without_labels() -> None:
    with_third = torch.cat([LOGITS, torch.full((1, 1, 2, 2), -30.0)], 1)
    loss = build_loss("dice", ignore_value=IGNORE)
    assert loss(with_third, LABELS).item() == pytest.approx(loss(LOGITS, LABELS).item())


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_ignored_value_below_the_class_count_of_uint8_is_never_counted(name: str) -> None:
    logits = torch.randn(1, 11, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = build_loss(name, ignore_value=11)(logits, torch.tensor([[[0, 11], [11, 11]]]))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum((0, 1)).bool().tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_is_zero_when_every_pixel_is_ignored(name: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = build_loss(name, ignore_value=IGNORE)(logits, torch.full((1, 2, 2), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown loss 'hinge' \| known: cross_entropy, focal, dice, tversky"):
        build_loss("hinge", ignore_value=IGNORE)


def test_option_of_another_loss_is_refused() -> None:
    with pytest.raises(InputError, match=r"loss dice has no option gamma"):
        build_loss("dice", ignore_value=IGNORE, gamma=2.0)
