"""Weights of another code into a network of ours, and a report that accounts for every name on both sides."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg import __version__
from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.models.registry import build_network, network_options
from edgeseg.models.vit import VisionTransformer
from edgeseg.training.checkpoint import CheckpointMeta
from edgeseg.training.foreign_weights.backbone import foreign_backbone
from edgeseg.training.foreign_weights.conversion import Conversion
from edgeseg.training.foreign_weights.files import read_foreign_tensors
from edgeseg.training.foreign_weights.formats import convert_tensors
from edgeseg.training.foreign_weights.position_table import fit_position_table

Colour = tuple[float, float, float]
Difference = tuple[str, tuple[int, ...], tuple[int, ...]]
_NAMED = 3
_COUNTERS = ".num_batches_tracked"


@dataclass(frozen=True)
class ImportReport:
    """What became of the names of the file and of the network."""

    file: str
    format: str
    network: str
    options: dict[str, Any]
    """Options that the network was built with."""
    told_by_file: dict[str, Any]
    """Those of them that nobody gave: the file's names and shapes tell."""
    matched: tuple[str, ...]
    """Names of the network that got their values from the file."""
    missing: tuple[str, ...]
    """Names of the network that the file has nothing for: their weights are fresh."""
    unused: tuple[str, ...]
    """Names of the file that the network has no place for."""
    differing: tuple[Difference, ...]
    """Name in the network, shape in the file, shape in the network: their weights are fresh."""
    dropped: dict[str, str]
    """Names of the file that are left out on purpose, and why."""
    notes: tuple[str, ...]
    mean: Colour
    std: Colour
    colour_order: str

    @property
    def complete(self) -> bool:
        """Whether every name of the network has a value, and every name of the file a place."""
        return not (self.missing or self.unused or self.differing)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "file": self.file,
            "format": self.format,
            "network": self.network,
            "options": self.options,
            "told_by_file": self.told_by_file,
            "complete": self.complete,
            "matched": list(self.matched),
            "missing": list(self.missing),
            "unused": list(self.unused),
            "differing": [
                {"name": name, "in_file": list(theirs), "in_network": list(ours)}
                for name, theirs, ours in self.differing
            ],
            "dropped": self.dropped,
            "notes": list(self.notes),
            "mean": list(self.mean),
            "std": list(self.std),
            "colour_order": self.colour_order,
        }


@dataclass(frozen=True)
class Imported:
    """A network with the weights of the file in evaluation mode, what its checkpoint says, and the report."""

    network: nn.Module
    meta: CheckpointMeta
    report: ImportReport


def import_weights(
    path: Path | str,
    network: str,
    classes: ClassSet,
    *,
    options: Mapping[str, Any] | None = None,
    form: str = "auto",
    mean: Colour | None = None,
    std: Colour | None = None,
    colour_order: str = "RGB",
) -> Imported:
    """Build `network` for `classes` and put in the weights of the file `path`; what it lacks is fresh.

    Options of the network that are not given are taken from the file where it tells them (the decoder of a Segmenter).
    Mean and deviation (frames scaled to 0-1) are the format's own unless given. The same file gives the same weights.

    Raises:
        InputError: the file cannot be read, is of an unknown format, or its backbone is another one than the
            network's; the network or an option is unknown or out of range.
    """
    given = dict(options or {})
    known = network_options(network)
    tensors = read_foreign_tensors(path)
    form, conversion = convert_tensors(tensors, form, str(path))
    told = {key: value for key, value in conversion.options.items() if key in known and key not in given}
    built = _build(network, classes, {**given, **told})
    if built.input_frames != 1:
        raise InputError(f"{path}: weights for one frame | {network} takes {built.input_frames} | import into another")
    _fit_position_table(conversion, built, str(path))
    matched, missing, differing, homeless = _compare(conversion, built)
    report = ImportReport(
        file=str(path),
        format=form,
        network=network,
        options={**given, **told},
        told_by_file=told,
        matched=matched,
        missing=missing,
        unused=(*homeless, *conversion.left_over(tensors)),
        differing=differing,
        dropped=conversion.dropped,
        notes=tuple(conversion.notes),
        mean=mean or conversion.mean,
        std=std or conversion.std,
        colour_order=colour_order,
    )
    if foreign := foreign_backbone(conversion.tensors, built, network):
        wrong, advice = foreign
        raise InputError(
            f"{path}: {wrong} | it holds {form} weights{_examples('such as', report.differing[:1] or report.unused)} | "
            f"{advice}"
        )
    values = built.state_dict()
    built.load_state_dict({**values, **{name: conversion.tensors[name] for name in report.matched}})
    return Imported(built.eval(), _meta(report, classes, Path(path)), report)


def require_complete(report: ImportReport) -> None:
    """Refuse a report that lists mismatches.

    Raises:
        InputError: something is missing, unused or of another shape; the message counts them and names the first few.
    """
    if report.complete:
        return
    problems = [
        f"{len(names)} {word}{_examples(':', names)}"
        for word, names in (
            ("missing in the file", report.missing),
            ("of another shape", report.differing),
            ("without a place in the network", report.unused),
        )
        if names
    ]
    raise InputError(
        f"{report.file}: does not fit {report.network} whole | {len(report.matched)} names match, "
        f"{'; '.join(problems)} | --partial takes what fits and leaves the rest fresh; --verbose lists all names"
    )


def _build(network: str, classes: ClassSet, options: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return build_network(network, len(classes), **options)
        except TypeError as error:
            raise InputError(f"an option of {network} is of another type | got {options} ({error})") from error


def _fit_position_table(conversion: Conversion, network: nn.Module, where: str) -> None:
    for name, module in network.named_modules():
        table = conversion.tensors.get(f"{name}.pos_embed")
        if isinstance(module, VisionTransformer) and table is not None:
            try:
                conversion.tensors[f"{name}.pos_embed"], note = fit_position_table(table, module)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            conversion.notes += [note] if note else []


def _compare(
    conversion: Conversion, network: nn.Module
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Difference, ...], tuple[str, ...]]:
    """Matched, missing and differing names of the network, and names of the file for which it has no place."""
    values, tensors = network.state_dict(), conversion.tensors
    here = [name for name in values if name in tensors]
    differing = {name for name in here if tensors[name].shape != values[name].shape}
    homeless = [theirs for name, names in conversion.sources.items() if name not in values for theirs in names]
    return (
        tuple(name for name in here if name not in differing),
        # Older codes do not count the batches that a norm has seen; nothing depends on it.
        tuple(name for name in values if name not in tensors and not name.endswith(_COUNTERS)),
        tuple((name, tuple(tensors[name].shape), tuple(values[name].shape)) for name in here if name in differing),
        tuple(homeless),
    )


def _meta(report: ImportReport, classes: ClassSet, path: Path) -> CheckpointMeta:
    return CheckpointMeta(
        architecture=report.network,
        options=report.options,
        classes=classes,
        mean=report.mean,
        std=report.std,
        colour_order=report.colour_order,
        recipe={
            "name": f"imported from {path.name} ({report.format})",
            "sha256": _digest(path),
            "fresh": [*report.missing, *(name for name, _, _ in report.differing)],
            "notes": list(report.notes),
            "edgeseg": __version__,
        },
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _examples(before: str, names: tuple[Any, ...]) -> str:
    if not names:
        return ""
    words = [
        each if isinstance(each, str) else f"{each[0]} is {each[1]}, expected {each[2]}" for each in names[:_NAMED]
    ]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{' ' if before != ':' else ''}{before} {', '.join(words)}{more}"
