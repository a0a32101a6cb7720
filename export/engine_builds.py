"""The engines of a bundle: its graphs are held to the contract first, what fits is used again, the rest is built."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeseg.atomic import atomic_file, check_writable
from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.errors import ArtifactError, EdgesegError, InputError
from edgeseg.export.build_options import BuildOptions, BuildTarget, check_options
from edgeseg.export.build_progress import silent
from edgeseg.export.engine_lint import lint_graph
from edgeseg.export.layer_report import Layer, count_by_arithmetic
from edgeseg.export.tensorrt_build import build_engine
from edgeseg.runtime.engine_cache import (
    EngineRecord,
    engine_folder,
    graph_sha256,
    store_engine,
    stored_engine,
    timing_cache_path,
)
from edgeseg.runtime.engine_key import EngineKey

_SHOWN_FINDINGS = 20


@dataclass(frozen=True)
class EngineRow:
    """One engine of a bundle, and whether it was there already."""

    record: EngineRecord
    reused: bool

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(Layer.from_dict(each) for each in self.record.layers)

    @property
    def products(self) -> dict[str, int]:
        """Type of arithmetic -> convolutions and matrix products in it."""
        return count_by_arithmetic(self.layers)


def build_bundle(
    bundle: Bundle,
    target: BuildTarget,
    options: BuildOptions,
    *,
    configurations: Sequence[str] = (),
    rebuild: bool = False,
    progress: Callable[[str, float, str], None] = lambda name, share, phase: None,
) -> list[EngineRow]:
    """Build the engines of `configurations` (of all by default) into the cache beside the bundle.

    Args:
        rebuild: build those that are there too; damaged ones are built in any case, with a warning.
        progress: told the graph, the share of its build that is done, and the phase.

    Raises:
        ArtifactError: a file of the bundle is damaged, or a graph breaks the contract of engines.
        DeviceError: the library refuses an option or a graph.
        InputError: options that contradict each other, or the cache's folder cannot be written.
        Engines that were done before stay in the cache.
    """
    check_options(target, options)
    entries = [bundle.configuration(name) for name in configurations] or list(bundle.configurations)
    _check_precision(entries, options)
    check_writable(engine_folder(bundle.root) / "engine")
    for entry in entries:
        bundle.verify(entry.files)
    wanted = [(entry, role, _key(entry, role, target, options)) for entry in entries for role in entry.graphs]
    rows: dict[tuple[str, str], EngineRow] = {}
    for entry, role, key in wanted:
        record = None if rebuild else stored_engine(bundle.root, entry, role, key)
        if record is not None:
            rows[entry.name, role] = EngineRow(record, reused=True)
    missing = [each for each in wanted if (each[0].name, each[1]) not in rows]
    _check_graphs(bundle, [(entry, role) for entry, role, _ in missing])
    for entry, role, key in missing:
        name = f"{entry.name} ({role})"
        rows[entry.name, role] = _build(bundle, entry, role, key, target, options, _named(progress, name))
    return [rows[entry.name, role] for entry, role, _ in wanted]


def lint_bundle(bundle: Bundle, graphs: Sequence[tuple[BundleConfiguration, str]]) -> list[str]:
    """What in these graphs breaks the contract of engines, each with the graph's name."""
    found = []
    for entry, role in graphs:
        model = onnx.load(str(bundle.path(entry.graphs[role].file)))
        found += [f"{entry.name} ({role}), {finding}" for finding in lint_graph(model)]
    return found


def _check_graphs(bundle: Bundle, graphs: Sequence[tuple[BundleConfiguration, str]]) -> None:
    found = lint_bundle(bundle, graphs)
    if found:
        more = [f"and {len(found) - _SHOWN_FINDINGS} more"] if len(found) > _SHOWN_FINDINGS else []
        listed = "\n  ".join([*found[:_SHOWN_FINDINGS], *more])
        count = f"{len(found)} thing{'' if len(found) == 1 else 's'}"
        raise ArtifactError(f"{bundle.root.name} cannot become engines | got {count} that none takes:\n  {listed}")


def _check_precision(entries: Sequence[BundleConfiguration], options: BuildOptions) -> None:
    floats = [entry.name for entry in entries if entry.knobs.precision == "fp32"]
    if options.dla is not None and floats:
        raise InputError(
            f"--dla {options.dla}: a DLA computes in FP16 and INT8 only | got fp32: {', '.join(floats)} | export with "
            "--precision fp16 or int8, or name such ones by --configuration"
        )


def _key(entry: BundleConfiguration, role: str, target: BuildTarget, options: BuildOptions) -> EngineKey:
    return EngineKey(
        graph_sha256=graph_sha256(entry, role),
        library=target.library.name,
        version=target.library.version,
        compute_capabilities=target.compute_capabilities(options),
        gpu=target.gpu_name(options),
        options=options.as_dict(),
    )


def _build(
    bundle: Bundle,
    entry: BundleConfiguration,
    role: str,
    key: EngineKey,
    target: BuildTarget,
    options: BuildOptions,
    progress: Callable[[float, str], None] = silent,
) -> EngineRow:
    timing = timing_cache_path(bundle.root, key.library, key.version, target.gpu.name if target.gpu else "no-gpu")
    graph = bundle.path(entry.graphs[role].file)
    timed = timing.read_bytes() if timing.is_file() else None
    built = build_engine(graph, f"{entry.name} ({role})", target, options, progress=progress, timing_cache=timed)
    layers = [layer.as_dict() for layer in built.layers]
    record = store_engine(bundle.root, entry, role, key, memoryview(built.plan), build_s=built.build_s, layers=layers)
    if built.timing_cache is not None:
        _keep_timing(timing, built.timing_cache)
    return EngineRow(record, reused=False)


def _keep_timing(path: Path, content: bytes) -> None:
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    except EdgesegError:
        # The engine is there; without the timings the next build only takes longer.
        path.unlink(missing_ok=True)


def _named(progress: Callable[[str, float, str], None], name: str) -> Callable[[float, str], None]:
    return lambda share, phase: progress(name, share, phase)
