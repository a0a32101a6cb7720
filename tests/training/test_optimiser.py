"""Learning rates on literal numbers; the training state survives its file."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeseg.errors import ArtifactError
from edgeseg.training.checkpoint import write_tensors
from edgeseg.training.optimiser import build_optimiser, learning_rate, load_state, save_state
from edgeseg.training.recipe import OptimiserRecipe


@pytest.mark.parametrize(("step", "rate"), [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (8, 0.55), (13, 0.1)])
def test_cosine_rises_linearly_then_falls_to_the_minimum(step: int, rate: float) -> None:
    recipe = OptimiserRecipe(steps=13, lr=1.0, min_lr=0.1, warmup_steps=3)
    assert learning_rate(step, recipe) == pytest.approx(rate)


@pytest.mark.parametrize(("schedule", "rate"), [("poly", 0.25), ("constant", 1.0)])
def test_other_schedules_half_way(schedule: str, rate: float) -> None:
    assert learning_rate(5, OptimiserRecipe(steps=10, lr=1.0, schedule=schedule, power=2.0)) == pytest.approx(rate)


def test_norms_and_biases_have_no_weight_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    groups = build_optimiser(network, OptimiserRecipe(weight_decay=0.1)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.1), (3, 0.0)]


def stepped(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small network after two optimiser steps."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimiser = build_optimiser(network, OptimiserRecipe(name=name))
    for _ in range(2):
        step(network, optimiser)
    return network, optimiser


def step(network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    network(torch.linspace(0, 1, 32).view(2, 1, 4, 4)).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_restored_state_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    network, optimiser = stepped(name)
    save_state(tmp_path / "state.safetensors", network, optimiser, {"step": 2})
    torch.manual_seed(99)
    other = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    other_optimiser = build_optimiser(other, OptimiserRecipe(name=name))
    assert load_state(tmp_path / "state.safetensors", other, other_optimiser)["step"] == 2
    step(network, optimiser)
    step(other, other_optimiser)
    for mine, theirs in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_state_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "state.safetensors", {}, {"state_version": 9})
    with pytest.raises(ArtifactError, match=r"training state of version 9 \| expected 1"):
        load_state(tmp_path / "state.safetensors", *stepped("sgd"))


def test_state_of_another_network_is_refused(tmp_path: Path) -> None:
    network, optimiser = stepped("sgd")
    save_state(tmp_path / "state.safetensors", network, optimiser, {})
    other = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5))
    with pytest.raises(ArtifactError, match="weights are of another architecture"):
        load_state(tmp_path / "state.safetensors", other, build_optimiser(other, OptimiserRecipe(name="sgd")))
