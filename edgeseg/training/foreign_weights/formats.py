"""The formats by name."""

import importlib
from collections.abc import Mapping

from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.training.foreign_weights.conversion import Conversion

_HERE = "edgeseg.training.foreign_weights"
FORMATS: dict[str, str] = {
    "timm": f"{_HERE}.timm_vit",
    "augreg": f"{_HERE}.augreg",
    "segmenter": f"{_HERE}.segmenter",
    "mmseg": f"{_HERE}.mmsegmentation",
    "cwm": f"{_HERE}.swiftnet_code",
    "torchvision": f"{_HERE}.torchvision_resnet",
}
"""Name -> module with `recognises(names)` and `convert(tensors)`."""


def convert_tensors(tensors: Mapping[str, Tensor], form: str, where: str) -> tuple[str, Conversion]:
    """Name of the format and what it makes of `tensors`; `form` is a name in `FORMATS`, or `auto`.

    Raises:
        InputError: an unknown format, the file is of none or not of the one asked for, or of a network that none of
            ours has; `where` names the file.
    """
    if form != "auto" and form not in FORMATS:
        raise InputError(f"unknown format {form!r} | known: auto, {', '.join(FORMATS)}")
    for name in FORMATS if form == "auto" else [form]:
        module = importlib.import_module(FORMATS[name])
        if module.recognises(tensors.keys()):
            try:
                return name, module.convert(tensors)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
    examples = f"its first names are {', '.join(list(tensors)[:3])}"
    if form == "auto":
        raise InputError(f"{where}: weights of no format that is known | {examples} | known: {', '.join(FORMATS)}")
    raise InputError(f"{where}: not of format {form} | {examples} | leave --format out to have it recognised")
