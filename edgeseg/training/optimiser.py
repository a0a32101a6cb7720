"""Optimisers, learning-rate schedules, and the training state on disk."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.errors import ArtifactError
from edgeseg.training.checkpoint import load_weights, read_tensors, write_tensors
from edgeseg.training.recipe import OptimiserRecipe

STATE_VERSION = 1
_NETWORK, _OPTIMISER = "network.", "optimiser."


def build_optimiser(network: nn.Module, recipe: OptimiserRecipe) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay on weights of two dimensions and more, not on norms and biases.

    Nor on what the network names in `undecayed`: embeddings are places, not products.
    """
    kept: frozenset[str] = getattr(network, "undecayed", frozenset())
    named = [(name, each) for name, each in network.named_parameters() if each.requires_grad]
    groups = [
        {"params": [each for name, each in named if _decays(name, each, kept)], "weight_decay": recipe.weight_decay},
        {"params": [each for name, each in named if not _decays(name, each, kept)], "weight_decay": 0.0},
    ]
    if recipe.name == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)


def _decays(name: str, parameter: nn.Parameter, kept: frozenset[str]) -> bool:
    return parameter.ndim > 1 and name not in kept


def learning_rate(step: int, recipe: OptimiserRecipe) -> float:
    """Learning rate of optimiser step `step`, counted from 0: a linear warm-up, then the schedule."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / (recipe.warmup_steps + 1)
    progress = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    if recipe.schedule == "cosine":
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * progress)) / 2
    if recipe.schedule == "poly":
        return recipe.lr * (1 - progress) ** recipe.power
    return recipe.lr


def save_state(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, counters: dict[str, Any]) -> None:
    """Write weights, optimiser tensors and JSON-ready `counters` as one file, whole or not at all."""
    tensors = {_NETWORK + name: value for name, value in network.state_dict().items()}
    for number, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            if value is not None:
                tensors[f"{_OPTIMISER}{number}.{name}"] = torch.as_tensor(value)
    write_tensors(path, tensors, {"state_version": STATE_VERSION, **counters})


def read_counters(path: Path) -> dict[str, Any]:
    """The counters that `save_state` wrote.

    Raises:
        ArtifactError: the file is missing, damaged, or of another version.
    """
    header = read_tensors(path, header_only=True)[1]
    if header.get("state_version") != STATE_VERSION:
        raise ArtifactError(
            f"{path}: training state of version {header.get('state_version')} | expected {STATE_VERSION} | "
            "resume with the edgeseg that wrote it"
        )
    return header


def load_state(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore what `save_state` wrote, in the memory layout of the parameters; its counters.

    Raises:
        ArtifactError: the file is damaged, or of another network or optimiser.
    """
    counters = read_counters(path)
    tensors = read_tensors(path)[0]
    weights = {name.removeprefix(_NETWORK): each for name, each in tensors.items() if name.startswith(_NETWORK)}
    load_weights(network, weights, str(path))
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if not name.startswith(_OPTIMISER):
            continue
        number, _, key = name.removeprefix(_OPTIMISER).partition(".")
        if int(number) >= len(parameters) or (value.ndim and value.shape != parameters[int(number)].shape):
            raise ArtifactError(f"{path}: {name} does not fit the optimiser | the recipe or the network has changed")
        # The arithmetic may differ in the last bit between memory layouts, so the parameter's is restored.
        if value.ndim:
            value = torch.empty_like(parameters[int(number)], dtype=value.dtype).copy_(value)
        state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return counters
