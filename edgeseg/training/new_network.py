"""The network that a recipe asks for, with seeded weights, and what its checkpoints say of it."""

from typing import Any

import torch
from torch import nn

from edgeseg.data.video import Dataset
from edgeseg.models.cwm import apply_cwm, generator_from_dict
from edgeseg.models.reductions import add_auxiliary_decoder
from edgeseg.models.registry import build_network, network_options
from edgeseg.training.checkpoint import CheckpointMeta
from edgeseg.training.pruning import prepare_pruning
from edgeseg.training.recipe import Recipe


def new_network(recipe: Recipe, dataset: Dataset) -> tuple[nn.Module, CheckpointMeta]:
    """The network, masked, pausing or pruning by `recipe`, its weights drawn by the recipe's seed; and its metadata.

    Raises:
        InputError: the recipe asks for what its network does not have.
    """
    torch.manual_seed(recipe.run.seed)
    options = _options(recipe)
    network = build_network(recipe.network.name, len(dataset.classes), **options)
    input_frames = int(network.input_frames)  # type: ignore[arg-type]
    cwm = _mask(network, recipe, input_frames) if recipe.cwm is not None else None
    auxiliary: dict[str, Any] | None = None
    if recipe.pausing is not None:
        add_auxiliary_decoder(network, len(dataset.classes))
        auxiliary = {"layers": [], "criterion": recipe.pausing.criterion}
    if recipe.pruning is not None:
        prepare_pruning(network, recipe.pruning)
    videos = dataset.videos(recipe.data.train_split)
    meta = CheckpointMeta(
        architecture=recipe.network.name,
        options=options,
        classes=dataset.classes,
        input_frames=input_frames,
        target_offset=recipe.sequence.target_offset,
        frame_stride=recipe.sequence.frame_stride,
        cwm=cwm,
        auxiliary=auxiliary,
        trained_on={
            "dataset": dataset.name,
            "splits": [recipe.data.train_split],
            "fps": recipe.data.fps if recipe.data.stills else videos[0].fps,
            "size_hw": list(recipe.data.size_hw),
        },
        recipe=recipe.as_dict(),
    )
    return network, meta


def _mask(network: nn.Module, recipe: Recipe, input_frames: int) -> dict[str, Any]:
    """Mask the channels of `network`; the entry `cwm` of its metadata."""
    assert recipe.cwm is not None
    generator = {"generator": recipe.cwm.generator, "rho": recipe.cwm.rho}
    if recipe.cwm.generator == "bi_step":
        generator["align"] = recipe.cwm.align
    made = generator_from_dict(generator)
    example = torch.zeros(1, 3 * input_frames, *recipe.data.size_hw)
    return {**made.as_dict(), "masked": apply_cwm(network, made, example=example, exclude=recipe.cwm.exclude)}


def _options(recipe: Recipe) -> dict[str, Any]:
    """What the network is built with; a position table is for the images trained on unless the recipe says more."""
    known = network_options(recipe.network.name)
    options = dict(recipe.network.options)
    if "width" in known:
        options = {"width": 1.0} | options
    if "size_hw" in known:
        options = {"size_hw": list(recipe.crop_hw)} | options
    return options
