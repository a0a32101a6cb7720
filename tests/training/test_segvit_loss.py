"""SegViT's loss against a computation by hand on a few pixels."""

import math

import pytest
import torch

from edgeseg.errors import InputError
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.training.losses import build_loss
from edgeseg.training.segvit_loss import mask_loss, presence_loss

IGNORE = 255
# One image of two pixels that count (class 0 and class 1 of three) and two that do not.
LABELS = torch.tensor([[[0, 1], [IGNORE, IGNORE]]])
SHOWN = [torch.tensor([0, 1])]
# Probabilities of the masks at the pixels; class 2 is not shown, so its mask does not matter.
P = [[0.5, 0.75, 0.9, 0.9], [0.25, 0.5, 0.1, 0.1], [0.6, 0.6, 0.6, 0.6]]
MASKS = torch.logit(torch.tensor(P)).view(1, 3, 2, 2)


def focal(p: float, target: int) -> float:
    p, alpha = (p, 0.25) if target else (1 - p, 0.75)
    return -alpha * (1 - p) ** 2 * math.log(p)


def test_mask_loss_is_focal_and_dice_over_the_classes_shown() -> None:
    focal0, focal1 = (focal(0.5, 1) + focal(0.75, 0)) / 2, (focal(0.25, 0) + focal(0.5, 1)) / 2
    dice0, dice1 = 1 - (2 * 0.5 + 1) / (1.25 + 1 + 1), 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1)
    expected = (20 * (focal0 + focal1) + dice0 + dice1) / 2
    assert mask_loss(MASKS, LABELS, LABELS != IGNORE, SHOWN).item() == pytest.approx(expected, rel=1e-5)


def test_presence_loss_weighs_absent_classes_a_tenth() -> None:
    present = torch.tensor([0.8, 0.5, 0.4])
    logits = torch.stack((present.log(), (1 - present).log()), dim=1)[None]
    expected = -(math.log(0.8) + math.log(0.5) + 0.1 * math.log(0.6)) / 2.1
    assert presence_loss(logits, SHOWN).item() == pytest.approx(expected, rel=1e-5)


def test_presence_by_classes_asks_each_token_for_its_own_class() -> None:
    table = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.2, 0.4, 0.2, 0.2], [0.1, 0.1, 0.2, 0.6]])
    expected = -(math.log(0.7) + math.log(0.4) + 0.1 * math.log(0.6)) / 2.1
    assert presence_loss(table.log()[None], SHOWN).item() == pytest.approx(expected, rel=1e-5)


def outputs(stages: int) -> TrainingOutputs:
    presence = torch.zeros(1, 3, 2, requires_grad=True)
    return TrainingOutputs(torch.zeros(1, 3, 2, 2), masks=(MASKS,) * stages, presence=(presence,) * stages)


def test_every_atm_of_the_cascade_counts() -> None:
    loss = build_loss("segvit", ignore_value=IGNORE)
    assert loss(outputs(3), LABELS).item() == pytest.approx(3 * loss(outputs(1), LABELS).item(), rel=1e-5)


def test_loss_is_zero_with_gradients_when_all_labels_are_ignored() -> None:
    given = outputs(2)
    value = build_loss("segvit", ignore_value=IGNORE)(given, torch.full((1, 2, 2), IGNORE))
    value.backward()
    assert value.item() == 0
    assert given.presence[0].grad is not None
    assert given.presence[0].grad.abs().sum() == 0


def test_network_without_atm_is_refused() -> None:
    with pytest.raises(InputError, match="needs an ATM decoder"):
        build_loss("segvit", ignore_value=IGNORE)(TrainingOutputs(torch.zeros(1, 3, 2, 2)), LABELS)
