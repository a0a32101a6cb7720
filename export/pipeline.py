"""An export from beginning to end: graphs, weights, parity, accuracy, manifest, all of it or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.config import DEFAULT_COMPENSATIONS, Compensation
from edgeseg.errors import InputError
from edgeseg.export.accuracy import MAX_OFFSET, EvaluationData, configuration_accuracies, expected_runs
from edgeseg.export.bundle_writer import check_bundle_name, read_variants, writing_bundle
from edgeseg.export.graph_edit import halve_weights
from edgeseg.export.parity import ParityVideo, check_parity, parity_video
from edgeseg.export.source import Source
from edgeseg.export.sweep import Request
from edgeseg.export.variant import Variant
from edgeseg.export.video_motion import moving

WEIGHT_FORMATS = ("fp32", "fp16")
"""How weights are stored; arithmetic is float32 either way."""


class Progress(Protocol):
    """Told how far an export is."""

    def stage(self, text: str, steps: int) -> None:
        """A new stage begins, of about `steps` steps."""

    def advance(self) -> None:
        """One step of it is done."""


class NoProgress:
    """Tells nobody."""

    def stage(self, text: str, steps: int) -> None:
        """Nothing."""

    def advance(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class ExportOptions:
    """Choices that are not knobs of a configuration."""

    max_offset: int = MAX_OFFSET
    """Last entry of the accuracy table, in frames."""
    weights: str = "fp32"
    """One of `WEIGHT_FORMATS`."""
    add: bool = False
    """Keep the configurations of the bundle that is there."""
    threads: int | None = None
    """CPU threads of the runs that make the accuracy table; None for all."""
    compensations: tuple[Compensation, ...] = DEFAULT_COMPENSATIONS
    """What accuracy tables of labels moved to the present are made for, beside those of the labels as they come."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_offset <= 60:
            raise InputError(f"--max-offset lies between 0 and 60 frames | got {self.max_offset}")
        if self.weights not in WEIGHT_FORMATS:
            raise InputError(f"unknown --weights {self.weights!r} | known: {', '.join(WEIGHT_FORMATS)}")


def export_bundle(
    requests: Sequence[Request],
    out: Path,
    *,
    data: EvaluationData | None,
    options: ExportOptions = ExportOptions(),
    progress: Progress | None = None,
) -> Bundle:
    """Export `requests` into the bundle `out`, each checked against its network and, with `data`, scored.

    Raises:
        EdgesegError: a network cannot be exported, fails its parity check, or was trained on `data`; the disk is full.
            Nothing is left behind then, and a bundle that was there before stays as it was.
    """
    progress = progress or NoProgress()
    check_bundle_name(out)
    classes = requests[0].source.facts.classes
    if data is not None:
        moving(options.compensations)
        for source in {id(request.source): request.source for request in requests}.values():
            data.check_network(classes, source.facts.trained_on, source.facts.origin)
    kept = _kept_variants(requests, out) if options.add else []
    progress.stage("graphs", len(requests))
    made = []
    for request in requests:
        made.append(_finished(request.source.variant(request.knobs), request.source, options.weights))
        progress.advance()
    with writing_bundle(out, classes) as writer:
        entries = writer.write_graphs([*kept, *made])
        video = parity_video(data.dataset if data else None, data.split if data else None)
        checked = list(entries[: len(kept)])
        for request, variant, entry in zip(requests, made, entries[len(kept) :], strict=True):
            checked.append(_checked(request, variant, entry, writer.folder, video, progress))
        if data is not None:
            checked[len(kept) :] = _scored(checked[len(kept) :], writer.folder, data, options, progress)
        progress.stage("manifest", 1)
        writer.finish(checked)
    return Bundle.open(out)


def _kept_variants(requests: Sequence[Request], out: Path) -> list[Variant]:
    """Configurations of the bundle at `out` that stay in it."""
    bundle = Bundle.open(out)
    facts = requests[0].source.facts
    if bundle.classes.names != facts.classes.names:
        raise InputError(
            f"{facts.origin} has other classes than {out} | got {len(facts.classes)} classes, expected the bundle's "
            f"{len(bundle.classes)} | a bundle has one set of classes: choose another --out"
        )
    present = {entry.name for entry in bundle.configurations} & {request.knobs.name for request in requests}
    if present:
        raise InputError(
            f"--add: {out} has {', '.join(sorted(present))} already | leave --add out to write the bundle anew"
        )
    return read_variants(bundle)


def _finished(variant: Variant, source: Source, weights: str) -> Variant:
    """`variant` with its weights as they are stored, and what later readers must know about its network."""
    graphs, notes = variant.graphs, dict(variant.notes)
    if source.facts.trained_on:
        notes["trained_on"] = dict(source.facts.trained_on)
    if weights != "fp32":
        graphs = {role: halve_weights(graph) for role, graph in graphs.items()}
        notes["weights"] = weights
    return replace(variant, graphs=graphs, notes=notes)


def _checked(
    request: Request,
    variant: Variant,
    entry: BundleConfiguration,
    folder: Path,
    video: ParityVideo,
    progress: Progress,
) -> BundleConfiguration:
    progress.stage(f"parity {variant.name}", 1)
    parity = check_parity(variant, request.source.reference(request.knobs), video, folder=folder, entry=entry)
    progress.advance()
    return replace(entry, parity=parity)


def _scored(
    entries: Sequence[BundleConfiguration],
    folder: Path,
    data: EvaluationData,
    options: ExportOptions,
    progress: Progress,
) -> list[BundleConfiguration]:
    runs = sum(expected_runs(data, stateful=each.knobs.stateful, max_offset=options.max_offset) for each in entries)
    moved = len(moving(options.compensations))
    beside = f", as labels come and moved in {moved} way{'' if moved == 1 else 's'}" if moved else ""
    progress.stage(f"accuracy of {len(entries)} configurations{beside}", runs)
    accuracies = configuration_accuracies(
        folder,
        entries,
        data,
        max_offset=options.max_offset,
        compensations=options.compensations,
        threads=options.threads,
        on_frame=progress.advance,
    )
    return [replace(entry, accuracy=accuracy) for entry, accuracy in zip(entries, accuracies, strict=True)]
