"""The networks by name. A builder takes the number of classes and its own options, and returns the module.

What every network is: a `torch.nn.Module` that maps normalised float images `(B, 3 * input_frames, H, W)` to logits
`(B, classes, h, w)`, with two attributes, `input_frames` (1 or 2; the older frame first) and `logits_stride` (h =
ceil(H / stride)).
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from edgeseg.errors import InputError

NETWORKS: dict[str, str] = {
    "swiftnet_r18": "edgeseg.models.swiftnet:swiftnet_r18",
    "swiftnet_r18_x": "edgeseg.models.swiftnet:swiftnet_r18_x",
}
"""Name -> `module:function`; the module is imported when its network is built."""


def network_builder(name: str) -> Callable[..., nn.Module]:
    """The function that builds the network `name`.

    Raises:
        InputError: no network has that name; the message lists those that there are.
    """
    if name not in NETWORKS:
        raise InputError(f"unknown network {name!r} | known: {', '.join(sorted(NETWORKS))}")
    module, _, attribute = NETWORKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build_network(name: str, classes: int, **options: Any) -> nn.Module:
    """Build network `name` for `classes` classes, with fresh weights.

    Raises:
        InputError: the name, or one of its options, is unknown, or a value is out of range.
    """
    builder = network_builder(name)
    known = [option for option in inspect.signature(builder).parameters if option != "classes"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"network {name} has no option {', '.join(unknown)} | known: {', '.join(known)}")
    return builder(classes, **options)
