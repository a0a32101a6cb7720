"""What a network gives to a loss that needs more than its logits.

Such a network has, beside `forward`, a method `training_outputs(images, random) -> TrainingOutputs`. `random` is a
`torch.Generator` on the CPU, seeded by the training's step: whatever the network draws (a pause plan, random tokens)
comes from it, so that a resumed training repeats itself.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingOutputs:
    """Everything that a loss may look at; all maps are `(B, C, h, w)`, each of its own size."""

    logits: Tensor
    """What `forward` returns."""
    auxiliary: tuple[Tensor, ...] = ()
    """Logits of auxiliary decoders."""
    masks: tuple[Tensor, ...] = ()
    """Per ATM of a cascade, in its order: class masks before the sigmoid."""
    presence: tuple[Tensor, ...] = ()
    """Per ATM: `(B, C, 2)` logits of {present, absent}, or `(B, C, C + 1)` of a class or none."""
    edges: Tensor | None = None
    """`(B, 2, rows, columns)`: logits of {no edge, edge} in each patch."""


@runtime_checkable
class GivesTrainingOutputs(Protocol):
    """A network that can be trained with a loss that needs more than logits."""

    def training_outputs(self, images: Tensor, random: torch.Generator) -> TrainingOutputs:
        """Outputs for normalised images `(B, 3 * input_frames, H, W)`."""
