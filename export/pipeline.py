"""An export from beginning to end: graphs, weights, parity, accuracy, manifest, all of it or nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.config import DEFAULT_COMPENSATIONS, Compensation
from edgeseg.errors import InputError
from edgeseg.export.accuracy import MAX_OFFSET, EvaluationData, configuration_accuracies, expected_runs
from edgeseg.export.bundle_writer import check_bundle_name, read_variants, writing_bundle
from edgeseg.export.calibration import SteadyState
from edgeseg.export.calibration_frames import CalibrationSource
from edgeseg.export.graph_edit import halve_weights
from edgeseg.export.lower_precision import Lowering, PrecisionOptions
from edgeseg.export.nvidia_modelopt import modelopt
from edgeseg.export.parity import ParityVideo, check_parity, parity_video
from edgeseg.export.precision_loss import LowerVariants, PrecisionLoss
from edgeseg.export.program_parity import check_programs
from edgeseg.export.progress import NoProgress, Progress
from edgeseg.export.source import Source
from edgeseg.export.sweep import Request
from edgeseg.export.torch_program import check_formats, with_programs
from edgeseg.export.variant import Variant
from edgeseg.export.video_motion import moving

WEIGHT_FORMATS = ("fp32", "fp16")
"""How weights are stored; arithmetic is float32 either way."""


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
    precision: PrecisionOptions = field(default_factory=PrecisionOptions)
    """How lower precisions are made and judged."""
    formats: tuple[str, ...] = ()
    """Forms besides ONNX, see `torch_program.FORMATS`."""

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
    calibration: CalibrationSource | None = None,
    options: ExportOptions = ExportOptions(),
    progress: Progress | None = None,
) -> Bundle:
    """Export `requests` into the bundle `out`, each checked against its network and, with `data`, scored.

    Args:
        calibration: what lower precisions are calibrated on.

    Raises:
        EdgesegError: a network cannot be exported, fails its parity check, loses too much in a lower precision, or was
            trained on `data`; the disk is full.
            Nothing is left behind then, and a bundle that was there before stays as it was.
    """
    progress = progress or NoProgress()
    check_bundle_name(out)
    _check_precisions(requests, calibration, options)
    check_formats([request.knobs for request in requests], options.formats)
    classes = requests[0].source.facts.classes
    if data is not None:
        moving(options.compensations)
        for source in {id(request.source): request.source for request in requests}.values():
            data.check_network(classes, source.facts.trained_on, source.facts.origin)
    kept = _kept_variants(requests, out) if options.add else []
    made = [
        _with_programs(each, options.formats, progress)
        for each in _made(requests, data, calibration, options, progress)
    ]
    with writing_bundle(out, classes) as writer:
        entries = writer.write_graphs([*kept, *(each.variant for each in made)])
        video = parity_video(data.dataset if data else None, data.split if data else None)
        checked = list(entries[: len(kept)])
        for number, (each, entry) in enumerate(zip(made, entries[len(kept) :], strict=True), 1):
            progress.stage(f"parity of {each.variant.name} ({number} of {len(made)})", 1)
            checked.append(_checked(each, entry, writer.folder, video))
            progress.advance()
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


@dataclass(frozen=True)
class _Made:
    """A variant that is ready to be written, and what its precision costs where that was measured."""

    request: Request
    variant: Variant
    loss: PrecisionLoss | None = None


def _made(
    requests: Sequence[Request],
    data: EvaluationData | None,
    calibration: CalibrationSource | None,
    options: ExportOptions,
    progress: Progress,
) -> Iterator[_Made]:
    """The variants of `requests`; those that differ in precision alone are made from one set of FP32 graphs."""
    groups = [
        (knobs, list(group))
        for (_, knobs), group in groupby(requests, key=lambda request: (id(request.source), request.knobs.exact))
    ]
    for number, (knobs, wanted) in enumerate(groups, 1):
        progress.stage(f"graphs of {knobs.name} ({number} of {len(groups)})", 1)
        source = wanted[0].source
        base = _finished(source.variant(knobs), source, options.weights)
        progress.advance()
        lower = None
        for request in wanted:
            if request.knobs.is_exact:
                yield _Made(request, base)
                continue
            if lower is None:
                steady = SteadyState(base, calibration, on_frame=progress.advance) if calibration is not None else None
                lower = LowerVariants(
                    Lowering(base, steady, options.precision, source.facts.int8), data, options.threads, progress
                )
            yield _Made(request, *lower.made(request.knobs))


def _with_programs(made: _Made, formats: Sequence[str], progress: Progress) -> _Made:
    if not formats:
        return made
    progress.stage(f"programs of {made.variant.name}", 1)
    variant = with_programs(made.variant, formats)
    progress.advance()
    return replace(made, variant=variant)


def is_calibrated(request: Request) -> bool:
    """Whether it takes calibration to export `request`: a lower precision that the network was not trained for."""
    precision = request.knobs.precision
    return precision == "fp16" or (precision == "int8" and request.source.facts.int8 is None)


def _check_precisions(
    requests: Sequence[Request], calibration: CalibrationSource | None, options: ExportOptions
) -> None:
    """Raises:
    InputError: INT8 without anything to calibrate on, or options about precision that exclude each other.
    MissingPackageError: a library of the extra `quant` is not installed.
    """
    for request in requests:
        if is_calibrated(request) and calibration is None:
            raise InputError(
                f"--precision {request.knobs.precision} needs video to calibrate on | give it with --calib"
            )
        if request.knobs.precision != "fp32" and options.weights != "fp32":
            raise InputError(
                f"--weights {options.weights} is for configurations that compute in float32, and --precision "
                f"{request.knobs.precision} stores its own weights | leave one of them out"
            )
    if any(map(is_calibrated, requests)):
        modelopt("onnx")


def _finished(variant: Variant, source: Source, weights: str) -> Variant:
    """`variant` with its weights as they are stored, and what later readers must know about its network."""
    graphs, notes = variant.graphs, dict(variant.notes)
    if source.facts.trained_on:
        notes["trained_on"] = dict(source.facts.trained_on)
    if weights != "fp32":
        graphs = {role: halve_weights(graph) for role, graph in graphs.items()}
        notes["weights"] = weights
    return replace(variant, graphs=graphs, notes=notes)


def _checked(made: _Made, entry: BundleConfiguration, folder: Path, video: ParityVideo) -> BundleConfiguration:
    reference = made.request.source.reference(made.request.knobs)
    parity = check_parity(made.variant, reference, video, folder=folder, entry=entry)
    if made.loss is not None:
        parity = replace(parity, **vars(made.loss))
    entry = replace(entry, parity=parity)
    programs = check_programs(entry, reference, video, folder=folder)
    return replace(entry, programs=programs)


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
    progress.stage(f"accuracy of {len(entries)} configuration{'' if len(entries) == 1 else 's'}{beside}", runs)
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
