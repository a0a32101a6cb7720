"""Losses for label maps, each with an ignored label value; all are means, so they do not grow with the image.

Every loss takes logits `(B, C, H, W)` float and labels `(B, H, W)` int64, and gives a scalar. Those of `OUTPUT_LOSSES`
take a network's `TrainingOutputs` in the place of logits. A batch whose labels are all ignored has loss 0, with zero
gradients.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.training.segvit_loss import segvit

Loss = Callable[[Any, Tensor], Tensor]
"""Logits, or `TrainingOutputs` where `needs_outputs`, and labels -> scalar."""


def cross_entropy(logits: Tensor, labels: Tensor, *, ignore_value: int, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy averaged over the counted pixels, each weighted by its class's weight when there are weights."""
    per_pixel = F.cross_entropy(logits, labels, class_weights, ignore_index=ignore_value, reduction="none")
    return per_pixel.sum() / _weight_sum(labels, ignore_value, class_weights, per_pixel).clamp(min=1e-12)


def focal(
    logits: Tensor, labels: Tensor, *, ignore_value: int, class_weights: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    """Focal loss (Lin et al., 2017): cross entropy times (1 - p)^gamma, p being the true class's probability."""
    negative_log_p = F.cross_entropy(logits, labels, ignore_index=ignore_value, reduction="none")
    per_pixel = (1 - torch.exp(-negative_log_p)) ** gamma * negative_log_p
    if class_weights is not None:
        counted = labels.where(labels != ignore_value, 0)
        per_pixel = per_pixel * class_weights[counted]
    return per_pixel.sum() / _weight_sum(labels, ignore_value, class_weights, per_pixel).clamp(min=1e-12)


def tversky(logits: Tensor, labels: Tensor, *, ignore_value: int, alpha: float = 0.5, beta: float = 0.5) -> Tensor:
    """Tversky loss (Salehi et al., 2017): 1 - TP / (TP + alpha FP + beta FN), counted softly over the batch.

    The mean over the classes that occur in the labels: a class that is absent has no true positive to reward.
    """
    counted = (labels != ignore_value).unsqueeze(1)
    probability = logits.softmax(1) * counted
    target = F.one_hot(labels.where(counted.squeeze(1), 0), logits.shape[1]).permute(0, 3, 1, 2) * counted
    true_positive = (probability * target).sum((0, 2, 3))
    labelled = target.sum((0, 2, 3))
    false_positive = probability.sum((0, 2, 3)) - true_positive
    false_negative = labelled - true_positive
    index = true_positive / (true_positive + alpha * false_positive + beta * false_negative).clamp(min=1e-12)
    present = (labelled > 0).to(index.dtype)
    return ((1 - index) * present).sum() / present.sum().clamp(min=1)


def dice(logits: Tensor, labels: Tensor, *, ignore_value: int) -> Tensor:
    """Dice loss (Milletari et al., 2016): the Tversky loss with alpha = beta = 1/2."""
    return tversky(logits, labels, ignore_value=ignore_value)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "dice": dice,
    "tversky": tversky,
}
OUTPUT_LOSSES: dict[str, Callable[..., Tensor]] = {"segvit": segvit}
"""Losses that need more than logits, so only networks with `training_outputs` can be trained with them."""


def needs_outputs(name: str) -> bool:
    """Whether the loss `name` takes `TrainingOutputs` in the place of logits."""
    return name in OUTPUT_LOSSES


def build_loss(name: str, *, ignore_value: int, **options: Any) -> Loss:
    """The loss `name` with its options bound: a function of logits (or training outputs) and labels.

    Options that are None count as not given.

    Raises:
        InputError: the loss, or one of its options, is unknown.
    """
    functions = LOSSES | OUTPUT_LOSSES
    if name not in functions:
        raise InputError(f"unknown loss {name!r} | known: {', '.join(functions)}")
    function = functions[name]
    given = {key: value for key, value in options.items() if value is not None}
    known = set(inspect.signature(function).parameters) - {"logits", "outputs", "labels", "ignore_value"}
    if unknown := sorted(set(given) - known):
        raise InputError(
            f"loss {name} has no option {', '.join(unknown)} | known: {', '.join(sorted(known)) or 'none'}"
        )

    def loss(outputs: Any, labels: Tensor) -> Tensor:
        return function(outputs, labels, ignore_value=ignore_value, **given)

    return loss


def with_auxiliary(loss: Loss, weight: float) -> Loss:
    """A loss on `TrainingOutputs`: `loss` on the logits, plus `weight` times `loss` on each auxiliary map [C 3.2.2]."""

    def total(outputs: TrainingOutputs, labels: Tensor) -> Tensor:
        value = loss(at_label_size(outputs.logits, labels), labels)
        for logits in outputs.auxiliary:
            value = value + weight * loss(at_label_size(logits, labels), labels)
        return value

    return total


def at_label_size(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits `(B, C, h, w)`, bilinearly resized to the labels `(B, H, W)`, float32."""
    return F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)


def _weight_sum(labels: Tensor, ignore_value: int, class_weights: Tensor | None, like: Tensor) -> Tensor:
    """Sum of the counted pixels' weights: their number when all classes weigh 1."""
    counted = labels != ignore_value
    if class_weights is None:
        return counted.sum().to(like.dtype)
    return (class_weights[labels.where(counted, 0)] * counted).sum()
