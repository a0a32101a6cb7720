"""The weights that a training starts from: those of a checkpoint of the same architecture, fitted to the network."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgeseg.errors import ArtifactError
from edgeseg.models.registry import NETWORKS, complete_options, network_options
from edgeseg.models.vit import patch_grid, resize_position_table
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.training.checkpoint import CheckpointMeta, load_weights, read_tensors


def check_same_network(mine: CheckpointMeta, theirs: CheckpointMeta, path: Path | str) -> None:
    """Refuse the checkpoint at `path` as a start of another network; the image size alone may differ.

    Raises:
        ArtifactError: it is of another architecture, or was built with other options; the message names those, and
            the overrides of the recipe that would train it.
    """
    got, expected, refused = theirs.architecture, mine.architecture, f"{path}: checkpoint of another network"
    if got not in NETWORKS or network_options(got) != network_options(expected):
        raise ArtifactError(
            f"{refused} | got {got}, expected {expected} | give a checkpoint of {expected}, or a recipe of {got}"
        )
    has, wanted = complete_options(got, theirs.options), complete_options(expected, mine.options)
    differing = [key for key in has if key != "size_hw" and has[key] != wanted.get(key)]
    if got != expected or differing:
        raise ArtifactError(
            f"{refused} | got {got}{_with(has, differing)}, expected {expected}{_with(wanted, differing)} | "
            f"train on as it is {_ways(got if got != expected else None, {key: has[key] for key in differing})}"
        )


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


def _with(options: dict[str, Any], keys: Sequence[str]) -> str:
    text = ", ".join(f"{key} {'none' if options.get(key) is None else options[key]}" for key in keys)
    return f" with {text}" if text else ""


def _ways(name: str | None, options: dict[str, Any]) -> str:
    """How a recipe comes to train the network `name` (None: the one that it trains), built with `options`."""
    settings = {**({"name": name} if name else {}), **options}
    given = [f"--set network.{key}={_toml(value)}" for key, value in settings.items() if value is not None]
    unset = [f"network.{key}" for key, value in settings.items() if value is None]
    ways = [f"with {' '.join(given)}"] if given else []
    return ", ".join([*ways, f"by a recipe without {', '.join(unset)}"] if unset else ways)


def _toml(value: Any) -> str:
    """`value` as `--set` takes it, without blanks, which a shell would need quotes for."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _on_grid_of(network: VitSegmenter, tensors: dict[str, Tensor], size_hw: Sequence[int]) -> dict[str, Tensor]:
    """Weights of a network built for `size_hw` with their position table resized for `network`."""
    encoder, name = network.encoder, "encoder.pos_embed"
    from_hw = patch_grid(list(size_hw), encoder.size.patch)
    if from_hw == encoder.grid_hw or name not in tensors:
        return tensors
    return {**tensors, name: resize_position_table(tensors[name], from_hw, encoder.grid_hw, encoder.resize_mode)}
