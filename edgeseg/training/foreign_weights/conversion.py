"""The tensors of a file on their way to the names of our networks; every name of the file is accounted for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from edgeseg.errors import InputError

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation of frames for ViTs that Google trained (AugReg): numbers from -1 to 1."""


@dataclass
class Conversion:
    """What a format makes of a file. Formats rename and reshape; whether the network wants it is not their matter."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    """By the names of our networks."""
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Our name -> the names in the file that it is made of; none for what the other code leaves out as zero."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Names in the file that are left out on purpose, and why."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of our builder that the file's names and shapes tell."""
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    notes: list[str] = field(default_factory=list)

    def take(self, ours: str, tensor: Tensor, *theirs: str) -> None:
        """Put `tensor`, made of the file's `theirs`, under `ours`."""
        self.tensors[ours], self.sources[ours] = tensor, theirs

    def rename(self, tensors: Mapping[str, Tensor], rules: Mapping[str, str]) -> None:
        """Take each tensor whose whole name fits a pattern of `rules`, under the name that the rule gives it."""
        for name, tensor in tensors.items():
            for pattern, replacement in rules.items():
                match = re.fullmatch(pattern, name)
                if match:
                    self.take(match.expand(replacement), tensor, name)
                    break

    def drop(self, tensors: Mapping[str, Tensor], pattern: str, why: str) -> None:
        """Leave out the names that fit `pattern`."""
        self.dropped.update({name: why for name in tensors if re.fullmatch(pattern, name)})

    def left_over(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Names of the file that became nothing, and were not dropped on purpose."""
        used = {name for names in self.sources.values() for name in names} | set(self.dropped)
        return [name for name in tensors if name not in used]


def need_axes(name: str, tensor: Tensor, axes: int) -> Tensor:
    """`tensor`, if it has that many axes.

    Raises:
        InputError: it has not; `name` is the file's.
    """
    if tensor.ndim != axes:
        raise InputError(f"{name} is of another shape | got {tuple(tensor.shape)}, expected {axes} axes")
    return tensor


def join(parts: Mapping[str, Tensor]) -> Tensor:
    """The tensors of `parts` one after the other along the first axis.

    Raises:
        InputError: their other axes differ.
    """
    if len({tuple(part.shape[1:]) for part in parts.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(part.shape)}" for name, part in parts.items())
        raise InputError(f"query, key and value of one layer do not fit each other | got {shapes}")
    return torch.cat(list(parts.values()))
