"""The networks by name. A builder takes the number of classes and its own options, and returns the module.

What every network is: a `torch.nn.Module` that maps normalised float images `(B, 3 * input_frames, H, W)` to logits
`(B, classes, h, w)`, with two attributes, `input_frames` (1 or 2; the older frame first) and `logits_stride` (h =
ceil(H / stride)). One that can be trained with a loss that needs more than logits also has `training_outputs`, see
`edgeseg.models.training_outputs`.

The names can be read without torch.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from torch import nn

NETWORKS: dict[str, str] = {
    "swiftnet_r18": "edgeseg.models.swiftnet:swiftnet_r18",
    "swiftnet_r18_x": "edgeseg.models.swiftnet:swiftnet_r18_x",
    "segmenter_ti": "edgeseg.models.vit_segmenter:segmenter_ti",
    "segmenter_s": "edgeseg.models.vit_segmenter:segmenter_s",
    "segmenter_b": "edgeseg.models.vit_segmenter:segmenter_b",
    "setr_naive_b": "edgeseg.models.vit_segmenter:setr_naive_b",
    "segvit_ti": "edgeseg.models.vit_segmenter:segvit_ti",
    "segvit_s": "edgeseg.models.vit_segmenter:segvit_s",
    "segvit_b": "edgeseg.models.vit_segmenter:segvit_b",
}
"""Name -> `module:function`; the module is imported when its network is built."""


def network_builder(name: str) -> Callable[..., "nn.Module"]:
    """The function that builds the network `name`.

    Raises:
        InputError: no network has that name; the message lists those that there are.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r} | known: {', '.join(NETWORKS)}")
    module, _, attribute = NETWORKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def network_options(name: str) -> list[str]:
    """Names of the options that network `name` can be built with.

    Raises:
        InputError: no network has that name.
    """
    return [option for option in inspect.signature(network_builder(name)).parameters if option != "classes"]


def complete_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` of network `name`, and the builder's own values of those that are not given; sequences as lists.

    Raises:
        InputError: no network has that name.
    """
    parameters = inspect.signature(network_builder(name)).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in {**defaults, **options}.items()}


def build_network(name: str, classes: int, **options: Any) -> "nn.Module":
    """Build network `name` for `classes` classes, with fresh weights.

    Raises:
        InputError: the name, or one of its options, is unknown, or a value is out of range.
    """
    known = network_options(name)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"network {name} has no option {', '.join(unknown)} | known: {', '.join(known)}")
    return network_builder(name)(classes, **options)
