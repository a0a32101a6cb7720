"""The weights that a training starts from: those of a checkpoint of the same architecture, fitted to the network."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgeseg.errors import ArtifactError
from edgeseg.models.registry import complete_options
from edgeseg.models.vit import patch_grid, resize_position_table
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.training.checkpoint import CheckpointMeta, load_weights, read_tensors


def check_same_network(mine: CheckpointMeta, theirs: CheckpointMeta, path: Path | str) -> None:
    """Refuse the checkpoint at `path` as a start of another network; the image size alone may differ.

    Raises:
        ArtifactError: it is of another architecture, or was built with other options.
    """
    got, expected = (theirs.architecture, theirs.options), (mine.architecture, mine.options)
    if got[0] != expected[0] or _but_size(complete_options(*got)) != _but_size(complete_options(*expected)):
        raise ArtifactError(f"{path}: checkpoint of another network | got {got}, expected {expected}")


def with_frames_of(mine: CheckpointMeta, theirs: CheckpointMeta) -> CheckpointMeta:
    """`mine` with the normalisation and colour order of `theirs`: other numbers would be new to its weights."""
    return replace(mine, mean=theirs.mean, std=theirs.std, colour_order=theirs.colour_order)


def load_first_weights(network: nn.Module, path: Path | str, meta: CheckpointMeta) -> None:
    """Load the weights of the checkpoint at `path`, whose metadata are `meta`.

    A position table is resized to the images of `network`. An auxiliary decoder that the checkpoint does not have keeps
    its fresh weights.

    Raises:
        ArtifactError: the checkpoint is damaged, or its weights are others than those of `network`.
    """
    tensors = read_tensors(path)[0]
    if meta.auxiliary is None:
        # A network that learns to pause starts from one that does not [C 3.4]; its auxiliary decoder is fresh.
        fresh = {name: each for name, each in network.state_dict().items() if name.startswith("auxiliary.")}
        tensors = fresh | tensors
    if isinstance(network, VitSegmenter):
        tensors = _on_grid_of(network, tensors, complete_options(meta.architecture, meta.options)["size_hw"])
    load_weights(network, tensors, str(path))


def _but_size(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "size_hw"}


def _on_grid_of(network: VitSegmenter, tensors: dict[str, Tensor], size_hw: Sequence[int]) -> dict[str, Tensor]:
    """Weights of a network built for `size_hw` with their position table resized for `network`."""
    encoder, name = network.encoder, "encoder.pos_embed"
    from_hw = patch_grid(list(size_hw), encoder.size.patch)
    if from_hw == encoder.grid_hw or name not in tensors:
        return tensors
    return {**tensors, name: resize_position_table(tensors[name], from_hw, encoder.grid_hw, encoder.resize_mode)}
