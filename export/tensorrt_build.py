"""One graph becomes one engine: TensorRT 10.0 to 11.x and TensorRT for RTX 1.x, by one path and without torch.

Networks are strongly typed: precision is what the ONNX file says and never a builder flag. Names newer than 10.0 are
asked for by `hasattr`. The library does not raise: its None becomes our exception, with the last error of its log.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import DeviceError
from edgeseg.export.build_options import HARDWARE_LEVELS, BuildOptions, BuildTarget, open_builder
from edgeseg.export.build_progress import BuildProgress, PhaseTree, progress_monitor, silent
from edgeseg.export.layer_report import Layer, layers_of_inspector, layers_of_log
from edgeseg.runtime.backends.cuda_driver import current_gpu
from edgeseg.runtime.backends.tensorrt_library import TensorrtLibrary

_OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "bad_alloc",
    "failed to allocate",
    "failed_allocation",
    "cudaerror 2 ",
)
_WORKSPACE = "workspace limit"


@dataclass(frozen=True)
class BuiltEngine:
    """What a build gave."""

    plan: Any
    """The engine's bytes, as a buffer."""
    build_s: float
    layers: tuple[Layer, ...]
    """Empty where the library did not tell."""
    timing_cache: bytes | None
    """For the next build; None where the library has no use of one."""


def build_engine(
    graph: Path | bytes,
    name: str,
    target: BuildTarget,
    options: BuildOptions,
    *,
    progress: BuildProgress = silent,
    timing_cache: bytes | None = None,
) -> BuiltEngine:
    """Build the engine of one graph.

    Ctrl-C stops the build at its next step and is raised again then; nothing of the build is left.

    Args:
        graph: an ONNX file, which may have its weights beside it, or the bytes of one that has them inside.
        name: what the graph is called in messages.
        progress: told how far the build is, on a thread of its own.
        timing_cache: what an earlier build gave.

    Raises:
        DeviceError: the library does not start, does not know an option, or refuses the graph, by name of the node.
    """
    with _on_gpu(target):
        return _build(graph, name, target, options, progress, timing_cache)


def _build(
    graph: Path | bytes,
    name: str,
    target: BuildTarget,
    options: BuildOptions,
    progress: BuildProgress,
    timing_cache: bytes | None,
) -> BuiltEngine:
    library, trt = target.library, target.library.module
    library.logger.errors.clear()
    builder = open_builder(library)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, library.logger)
    parsed = parser.parse_from_file(str(graph)) if isinstance(graph, Path) else parser.parse(graph)
    if not parsed:
        raise DeviceError(_why_not_parsed(parser, library, name))
    config = builder.create_builder_config()
    _configure(config, target, options)
    cache = _set_timing_cache(config, timing_cache) if not target.is_rtx else None
    tree = PhaseTree(progress)
    monitor = progress_monitor(trt, tree)
    config.progress_monitor = monitor
    library.logger.layers = ""
    started_s = time.monotonic()
    plan = _cancellable(lambda: builder.build_serialized_network(network, config), tree, target)
    build_s = time.monotonic() - started_s
    if tree.failure is not None:
        raise tree.failure
    if plan is None:
        raise DeviceError(_why_not_built(library, name, options))
    layers = _layers(target, plan, options)
    content = bytes(memoryview(config.get_timing_cache().serialize())) if cache is not None else None
    return BuiltEngine(plan, build_s, tuple(layers), content)


def _configure(config: Any, target: BuildTarget, options: BuildOptions) -> None:
    trt = target.library.module
    # The report of layers is made of it.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible != "none":
        level = getattr(trt.HardwareCompatibilityLevel, HARDWARE_LEVELS[options.hardware_compatible])
        config.hardware_compatibility_level = level
    if options.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, each in enumerate(options.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{each.replace('.', '')}"), index)


def _set_timing_cache(config: Any, content: bytes | None) -> Any:
    """Give the builder what it measured before; one that it does not take (of another GPU, damaged) is begun anew."""
    cache = config.create_timing_cache(content or b"")
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _cancellable(build: Callable[[], Any], tree: PhaseTree, target: BuildTarget) -> Any:
    """What `build` returns. It runs on a thread of its own, so that Ctrl-C reaches this one."""
    result: list[Any] = []
    ended = threading.Event()

    def work() -> None:
        try:
            with _on_gpu(target):
                result.append(build())
        except BaseException as error:
            tree.failure = tree.failure or error
        finally:
            ended.set()

    worker = threading.Thread(target=work, name="edgeseg-build", daemon=True)
    try:
        worker.start()
        # Not Thread.join: up to Python 3.12 one that was interrupted takes the thread for ended, and the library, left
        # alone, would end the process when it next logs.
        ended.wait()
    except BaseException:
        tree.cancel()
        if worker in threading.enumerate():
            ended.wait()
        raise
    return result[0] if result else None


def _on_gpu(target: BuildTarget) -> AbstractContextManager[None]:
    """The calling thread's CUDA calls go to the target's GPU, which TensorRT for RTX does not need."""
    return nullcontext() if target.gpu is None or target.is_rtx else current_gpu(target.gpu.index)


def _layers(target: BuildTarget, plan: Any, options: BuildOptions) -> list[Layer]:
    """From the inspector where the engine can be loaded, otherwise from the log."""
    logged = layers_of_log(target.library.logger.layers)
    if target.gpu is None or target.is_rtx:
        return logged
    try:
        runtime = target.library.runtime(options.as_dict())
        engine = runtime.deserialize_cuda_engine(plan)
    except DeviceError:
        # Loading takes memory of its own: what was built is kept, whether it can be looked into now or not.
        engine = None
    inspector = None if engine is None else engine.create_engine_inspector()
    if inspector is None:
        return logged
    form = target.library.module.LayerInformationFormat.JSON
    return layers_of_inspector(inspector.get_engine_information(form)) or logged


def _why_not_parsed(parser: Any, library: TensorrtLibrary, name: str) -> str:
    reasons = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        # Newer than 10.0 are the names; there the log has them.
        node = " ".join(filter(None, (_called(error, "node_name"), _called(error, "node_operator"))))
        said = " ".join(error.desc().split())
        reasons.append(f"node {node or error.node()}: {'it is not supported' if said == 'false' else said}")
    found = "; ".join(reasons) or library.why()
    return (
        f"{library.title} {library.version} does not take the graph {name} | {found} | leave that operator out of the "
        "network, or run this configuration on device cpu or cuda:0"
    )


def _called(error: Any, method: str) -> str:
    return str(getattr(error, method)()) if hasattr(error, method) else ""


def _why_not_built(library: TensorrtLibrary, name: str, options: BuildOptions) -> str:
    said, who = library.why(), f"{library.title} {library.version}"
    everything = " ".join(library.logger.errors).lower()
    if _WORKSPACE in everything and options.workspace_mb is not None:
        return (
            f"{who} finds no way to compute {name} in --workspace-mb {options.workspace_mb} | {said} | give more, or "
            "leave it out"
        )
    if any(words in everything for words in _OUT_OF_MEMORY) or _WORKSPACE in everything:
        return (
            f"{who} ran out of memory while it built {name} | {said} | close other programs, add swap on a Jetson, "
            "limit it by --workspace-mb, or choose a smaller size"
        )
    return f"{who} cannot build {name} | {said} | run this configuration on device cpu or cuda:0, or leave it out"
