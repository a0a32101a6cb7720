"""Bring your own network: `package.module:factory` or `model.onnx`, described by a small TOML file or by options.

name = "my-fcn"                        # in configurations; the factory's or the file's name when left out
size_hw = [360, 480]                   # input size when --size is not given
mean = [0.485, 0.456, 0.406]           # of frames scaled to 0-1; the network gets (frame / 255 - mean) / std
std = [0.229, 0.224, 0.225]            # for a network that takes 0-255: mean 0 and std 0.00392157
colour_order = "RGB"                   # or "BGR"
input_layout = "NCHW"                  # ONNX only, when the shape does not tell
output = "logits"                      # ONNX only, when there are several
target_offset = 0                      # frames ahead that it was trained to predict

[classes]                              # left out: those of the data set
names = ["road", "car"]                # in the order of the output's channels
movable = ["car"]

[trained_on]                           # never scored there
dataset = "my-road"
splits = ["train"]
"""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgeseg.classes import CAMVID, CITYSCAPES, ClassSet, distinct_colours, file_name_safe
from edgeseg.errors import InputError
from edgeseg.export.onnx_source import OnnxSource
from edgeseg.export.source import Source, SourceFacts, TorchSource
from edgeseg.export.wrapper import LogitsOf, Preprocessing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CLASS_SETS = {"camvid": CAMVID, "cityscapes": CITYSCAPES}
DEFAULT_MEAN, DEFAULT_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Description:
    """What a network does not tell by itself. None or empty: not given."""

    name: str | None = None
    size_hw: tuple[int, int] | None = None
    classes: ClassSet | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    colour_order: str | None = None
    input_layout: str | None = None
    output: str | None = None
    target_offset: int | None = None
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    @property
    def preprocessing(self) -> Preprocessing:
        """`frame / 255` unless told otherwise."""
        return Preprocessing(self.mean or DEFAULT_MEAN, self.std or DEFAULT_STD, self.colour_order or "RGB")

    def merged(self, flags: "Description", where: str) -> "Description":
        """This description, from the file `where`, with what the options add.

        Raises:
            InputError: an option says something else than the file.
        """
        added = {}
        for entry in fields(self):
            ours, theirs = getattr(self, entry.name), getattr(flags, entry.name)
            if theirs in (None, {}):
                continue
            if ours not in (None, {}) and ours != theirs:
                option = "--" + entry.name.removesuffix("_hw").replace("_", "-")
                raise InputError(
                    f"{option} and {entry.name} in {where} contradict each other | got {theirs} and {ours}"
                )
            added[entry.name] = theirs
        return replace(self, **added)


def read_description(path: Path) -> Description:
    """Read a `--network-toml` file.

    Raises:
        InputError: missing file, not TOML, an unknown key, or a value that is not what it should be.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--network-toml {path} cannot be read ({error.strerror or error})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--network-toml {path} is not TOML ({error})") from error
    known = {entry.name for entry in fields(Description)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"{path}: unknown keys {', '.join(unknown)} | known: {', '.join(sorted(known))}")
    try:
        if "classes" in values:
            values["classes"] = ClassSet.from_dict(values["classes"])
        if "size_hw" in values:
            height, width = values["size_hw"]
            values["size_hw"] = (int(height), int(width))
        for key in ("mean", "std"):
            if key in values:
                first, second, third = values[key]
                values[key] = (float(first), float(second), float(third))
        return Description(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: a value is not readable ({error}) | see edgeseg export --help") from error


def parse_classes(text: str) -> ClassSet:
    """`camvid`, `cityscapes`, or names separated by commas.

    Raises:
        InputError: an empty name or one that comes twice.
    """
    if text in CLASS_SETS:
        return CLASS_SETS[text]
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise InputError(f"--classes has an empty name | got {text!r}, expected names separated by commas")
    return ClassSet(names, distinct_colours(len(names)))


def foreign_source(
    spec: str, description: Description, *, data_classes: ClassSet | None = None, cwm_align: int = 1
) -> Source:
    """The network that `spec` names: an `.onnx` file or `package.module:factory`.

    Args:
        data_classes: the data set's classes, for a network whose own are not described.

    Raises:
        InputError: it cannot be loaded, or its classes are not known.
    """
    classes = description.classes or data_classes
    if classes is None:
        raise InputError(
            f"{spec}: the classes are not known | add --classes NAME,NAME,... (or camvid, cityscapes), "
            "a --network-toml with a table [classes], or --data"
        )
    is_onnx = spec.endswith(".onnx")
    default_name = Path(spec).stem if is_onnx else spec.rpartition(":")[2]
    facts = SourceFacts(
        network=file_name_safe(description.name or default_name),
        origin=spec,
        classes=classes,
        target_offset=description.target_offset or 0,
        default_size_hw=description.size_hw,
        trained_on=description.trained_on,
    )
    if is_onnx:
        return _onnx_source(facts, Path(spec), description)
    for option, value in (("--input-layout", description.input_layout), ("--output", description.output)):
        if value is not None:
            raise InputError(f"{option} is for ONNX files, and {spec} is a torch module | leave it out")
    network = call_factory(spec)
    input_frames = getattr(network, "input_frames", 1)
    facts = replace(
        facts,
        input_frames=input_frames if input_frames in (1, 2) else 1,
        logits_stride=getattr(network, "logits_stride", None),
    )
    return TorchSource(facts, LogitsOf(network), description.preprocessing, cwm_align=cwm_align)


def _onnx_source(facts: SourceFacts, path: Path, description: Description) -> OnnxSource:
    source = OnnxSource(
        facts, path, description.preprocessing, layout=description.input_layout, output=description.output
    )
    if source.face.takes_bytes and (description.mean is not None or description.std is not None):
        raise InputError(
            f"{path} takes bytes and normalises by itself, so --mean and --std do not apply | leave them out"
        )
    height, width = source.face.fixed_hw
    if height is not None and width is not None:
        source.facts = replace(facts, default_size_hw=facts.default_size_hw or (height, width), has_free_size=False)
    return source


def call_factory(spec: str) -> nn.Module:
    """Import `package.module`, the working directory first, and call its `factory` without arguments.

    Raises:
        InputError: it cannot be imported, is not there, fails, or does not return a torch module.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{spec!r} names no factory | expected package.module:factory, for example mynets.fcn:build")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise InputError(
            f"{module_name!r} is no module name | expected package.module:factory with dots, not a path, in {spec!r}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target: Any = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise InputError(
            f"{module_name} cannot be imported ({type(error).__name__}: {error}) | it must be installed, or lie in the "
            "working directory"
        ) from error
    factory: Callable[[], Any] | nn.Module | None = getattr(target, attribute, None)
    if factory is None:
        public = [name for name, value in vars(target).items() if callable(value) and not name.startswith("_")]
        raise InputError(f"{module_name} has no {attribute!r} | it has: {', '.join(public[:12]) or 'nothing to call'}")
    try:
        network = factory if isinstance(factory, nn.Module) else factory()
    except Exception as error:  # the user's code
        raise InputError(
            f"{spec} failed ({type(error).__name__}: {error}) | "
            "it is called without arguments and must return a torch module"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{spec} returned {type(network).__name__} | expected a torch.nn.Module")
    return network
