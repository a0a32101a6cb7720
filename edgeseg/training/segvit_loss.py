"""SegViT's loss: classification + 20 focal + 1 dice, for every ATM of the cascade [Z eq. 4.5].

As in the authors' code: the mask losses look only at the classes that an image shows, focal with alpha 0.25 and gamma
2, dice with 1 added to both sides of the fraction, both summed over those masks and divided by their number; a class
token whose class is absent weighs a tenth in the classification. Decided here: ignored pixels count in no mask, and an
image without any counted pixel in nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.training.edge_loss import edge_loss

FOCAL_WEIGHT, DICE_WEIGHT = 20.0, 1.0
ABSENT_WEIGHT = 0.1
_ALPHA, _GAMMA = 0.25, 2


def segvit(outputs: TrainingOutputs, labels: Tensor, *, ignore_value: int) -> Tensor:
    """The sum of the three losses over all ATMs.

    Args:
        outputs: with `masks` and `presence` per ATM; where there are `edges`, their loss is added with weight 1.
        labels: int64 `(B, H, W)`.

    Raises:
        InputError: the network has no ATM.
    """
    if not outputs.masks:
        raise InputError("loss segvit needs an ATM decoder | use a segvit_* network or another loss.name")
    counted = labels != ignore_value
    # One image after another keeps memory at the classes shown rather than at all classes in full size.
    shown = [image[here].unique() for image, here in zip(labels, counted, strict=True)]
    total = outputs.logits.sum() * 0
    for masks, presence in zip(outputs.masks, outputs.presence, strict=True):
        total = total + presence_loss(presence.float(), shown) + mask_loss(masks.float(), labels, counted, shown)
    if outputs.edges is not None:
        total = total + edge_loss(outputs.edges, labels, ignore_value=ignore_value)
    return total


def presence_loss(presence: Tensor, shown: list[Tensor]) -> Tensor:
    """Cross entropy of what the class tokens `(B, C, 2)` or `(B, C, C + 1)` say against the classes shown."""
    batch, classes, answers = presence.shape
    absent = answers - 1
    targets = torch.full((batch, classes), absent, dtype=torch.int64, device=presence.device)
    weights = torch.zeros(batch, classes, device=presence.device)
    for image, present in enumerate(shown):
        if present.numel():
            targets[image, present] = 0 if answers == 2 else present
            weights[image] = ABSENT_WEIGHT
            weights[image, present] = 1.0
    each = F.cross_entropy(presence.transpose(1, 2), targets, reduction="none")
    return (each * weights).sum() / weights.sum().clamp(min=1e-12)


def mask_loss(masks: Tensor, labels: Tensor, counted: Tensor, shown: list[Tensor]) -> Tensor:
    """20 focal + 1 dice of masks `(B, C, h, w)` before the sigmoid, brought to the size of the labels."""
    number = max(1, sum(present.numel() for present in shown))
    total = masks.sum() * 0
    for image, present in enumerate(shown):
        if not present.numel():
            continue
        full = F.interpolate(masks[image : image + 1, present], labels.shape[-2:], mode="bilinear", align_corners=False)
        here = counted[image]
        logits = full[0][:, here]
        target = (labels[image][here] == present[:, None]).to(logits.dtype)
        total = total + FOCAL_WEIGHT * _focal(logits, target).sum() + DICE_WEIGHT * _dice(logits, target).sum()
    return total / number


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """Per mask, the mean over pixels `(masks, pixels)`."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    alpha = _ALPHA * target + (1 - _ALPHA) * (1 - target)
    return (alpha * (1 - torch.exp(-entropy)) ** _GAMMA * entropy).mean(1)


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """Per mask."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * target).sum(1) + 1
    return 1 - overlap / (probability.sum(1) + target.sum(1) + 1)
