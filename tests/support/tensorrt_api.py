"""Stand-ins for the Python interface of TensorRT: modules with exactly the names that a version has, and no GPU.

Names were taken from the bindings' source (`python/src/infer/pyCore.cpp`, 10.x) and from NVIDIA's migration pages (what
11 removed of 10) and release notes (SAME_COMPUTE_CAPABILITY is of 10.9). Builders, their configurations and runtimes
have all their names, and like the real ones refuse any other; of the rest there is what a build touches. What a build
was asked for is in `StandIn`, which also says how it ends.
"""

import enum
import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from edgeseg.export import build_options, tensorrt_build
from edgeseg.export.build_options import BuildTarget, open_target
from edgeseg.runtime.backends.cuda_driver import Gpu

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
FLAGS_10 = (
    "FP16 BF16 INT8 DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE EDITABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS "
    "SAFETY_SCOPE OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS DIRECT_IO REJECT_EMPTY_ALGORITHMS "
    "VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME FP8 ERROR_ON_TIMING_CACHE_MISS DISABLE_COMPILATION_CACHE WEIGHTLESS "
    "STRIP_PLAN REFIT_IDENTICAL WEIGHT_STREAMING INT4"
)
GONE_FLAGS_11 = "FP16 BF16 INT8 FP8 INT4 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS"
CONFIG = (
    "DLA_core add_optimization_profile avg_timing_iterations builder_optimization_level can_run_on_DLA clear_flag "
    "create_timing_cache default_device_type engine_capability flags get_device_type get_flag get_memory_pool_limit "
    "get_preview_feature get_tactic_sources get_timing_cache hardware_compatibility_level is_device_type_set "
    "max_aux_streams num_optimization_profiles plugins_to_serialize profile_stream profiling_verbosity "
    "progress_monitor reset reset_device_type set_device_type set_flag set_memory_pool_limit set_preview_feature "
    "set_tactic_sources set_timing_cache"
)
GONE_CONFIG_11 = (
    "algorithm_selector int8_calibrator quantization_flags set_calibration_profile get_calibration_profile "
    "set_quantization_flag get_quantization_flag clear_quantization_flag"
)
BUILDER = (
    "build_serialized_network create_builder_config create_network create_optimization_profile error_recorder "
    "get_plugin_registry gpu_allocator is_network_supported logger max_DLA_batch_size max_threads num_DLA_cores reset"
)
GONE_BUILDER_11 = "platform_has_tf32 platform_has_fast_fp16 platform_has_fast_int8 build_engine_with_config"
RUNTIME = (
    "DLA_core deserialize_cuda_engine engine_host_code_allowed error_recorder get_plugin_registry gpu_allocator "
    "load_runtime logger max_threads num_DLA_cores tempfile_control_flags temporary_directory"
)
PHASES = (("Building engine", None, 2), ("Timing tactics", "Building engine", 4))


@dataclass
class StandIn:
    """How the stand-in behaves, and what it was asked for."""

    parse_errors: tuple[tuple[str, str, str], ...] = ()
    """(node, operator, words) of a graph that is not parsed."""
    build_error: str = ""
    """The line in the log of a build that gives None."""
    dla_cores: int = 0
    starts: bool = True
    loads: bool = True
    """Whether there is room to load an engine after it was built."""
    takes_timing_cache: bool = True
    asked: dict[str, Any] = field(default_factory=dict)
    """What was set or called, by name."""
    steps: int = 0
    """Steps of the build that were reported."""


ORIN = Gpu(0, "Orin", "8.7", True)


def stand_in_target(monkeypatch: pytest.MonkeyPatch, version: str, behaviour: StandIn, gpu: Gpu = ORIN) -> BuildTarget:
    """Device tensorrt:0 with the stand-in of `version` and a GPU that is not there."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_module(version, behaviour))
    monkeypatch.setattr(build_options, "driver_problem", lambda index: None)
    monkeypatch.setattr(build_options, "gpu", lambda index: gpu)
    monkeypatch.setattr(tensorrt_build, "current_gpu", lambda index: nullcontext())
    return open_target("tensorrt:0")


def tensorrt_module(version: str, behaviour: StandIn) -> ModuleType:
    """The module `tensorrt` of `version`: 8.6.x, 10.x.y or 11.x.y."""
    release = tuple(int(part) for part in version.split(".")[:2])
    module: Any = ModuleType("tensorrt")
    module.__version__ = version
    module.ILogger = _logger()
    if release < (10, 0):
        return module
    eleven = release >= (11, 0)
    creation = ["STRONGLY_TYPED"] if eleven else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]
    levels = ["NONE", "AMPERE_PLUS", *(["SAME_COMPUTE_CAPABILITY"] if release >= (10, 9) else [])]
    members = {
        "BuilderFlag": [flag for flag in FLAGS_10.split() if not (eleven and flag in GONE_FLAGS_11.split())],
        "NetworkDefinitionCreationFlag": creation,
        "HardwareCompatibilityLevel": levels,
        "MemoryPoolType": ["WORKSPACE", "DLA_MANAGED_SRAM", "DLA_LOCAL_DRAM", "DLA_GLOBAL_DRAM", "TACTIC_DRAM"],
        "ProfilingVerbosity": ["LAYER_NAMES_ONLY", "DETAILED", "NONE"],
        "DeviceType": ["GPU", "DLA"],
        "LayerInformationFormat": ["ONELINE", "JSON"],
    }
    for name, values in members.items():
        setattr(module, name, enum.IntEnum(name, values, start=0))
    module.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
    config = _restricted("IBuilderConfig", CONFIG if eleven else f"{CONFIG} {GONE_CONFIG_11}", behaviour)
    _timing_cache(config, behaviour)
    network = type("INetworkDefinition", (), {})
    builder = _restricted("Builder", BUILDER if eleven else f"{BUILDER} {GONE_BUILDER_11}", behaviour)
    _builder(builder, config, network, behaviour, version)
    module.Builder, module.OnnxParser = builder, _parser(behaviour)
    module.Runtime = _runtime(behaviour, "Datatype" if eleven else "Format/Datatype")
    return module


def _logger() -> type:
    class ILogger:
        Severity = enum.IntEnum("Severity", SEVERITIES, start=0)

        def __init__(self) -> None:
            pass

    return ILogger


def _restricted(name: str, members: str, behaviour: StandIn) -> type:
    """A class whose objects have `members` and no others; what they are set to or called with is written down."""
    names = members.split()

    def get(self: Any, key: str) -> Any:
        if key not in names:
            raise AttributeError(f"'tensorrt.{name}' object has no attribute {key!r}")
        return behaviour.asked.get(key)

    def put(self: Any, key: str, value: Any) -> None:
        if key not in names:
            raise AttributeError(f"'tensorrt.{name}' object has no attribute {key!r}")
        behaviour.asked[key] = value

    def call(key: str) -> Any:
        return lambda self, *arguments: behaviour.asked.setdefault(key, []).append(arguments)

    methods = {key: call(key) for key in names if key.startswith(("set_", "add_", "clear_", "create_", "build_"))}
    return type(name, (), {**methods, "__getattr__": get, "__setattr__": put})


def _timing_cache(config: Any, behaviour: StandIn) -> None:
    class Cache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> bytes:
            return self.content + b"+timed"

    def create(self: Any, content: bytes) -> Cache | None:
        return Cache(content) if behaviour.takes_timing_cache or not content else None

    def put(self: Any, cache: Cache, ignore_mismatch: bool) -> bool:
        behaviour.asked["timing_cache"] = cache
        return True

    config.create_timing_cache, config.set_timing_cache = create, put
    config.get_timing_cache = lambda self: behaviour.asked["timing_cache"]


def _builder(builder: Any, config: Any, network: Any, behaviour: StandIn, version: str) -> None:
    def start(self: Any, logger: Any) -> None:
        if not behaviour.starts:
            logger.log(logger.Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        behaviour.asked["logger"] = logger

    def build(self: Any, given: Any, config: Any) -> bytes | None:
        logger, monitor = behaviour.asked["logger"], behaviour.asked["progress_monitor"]
        for name, parent, steps in PHASES:
            monitor.phase_start(name, parent, steps)
        for name, _, steps in reversed(PHASES):
            for step in range(steps):
                behaviour.steps += 1
                if not monitor.step_complete(name, step):
                    logger.log(logger.Severity.ERROR, "Build canceled by user")
                    return None
            monitor.phase_finish(name)
        if behaviour.build_error:
            logger.log(logger.Severity.ERROR, behaviour.build_error)
            return None
        return f"plan of {version}".encode()

    builder.__init__ = start
    builder.create_network = lambda self, flags: behaviour.asked.update(network_flags=flags) or network()
    builder.create_builder_config = lambda self: config()
    builder.build_serialized_network = build
    builder.num_DLA_cores = behaviour.dla_cores


def _parser(behaviour: StandIn) -> Any:
    class ParserError:
        def __init__(self, node: str, operator: str, words: str) -> None:
            self._node, self._operator, self._words = node, operator, words

        def node(self) -> int:
            return 0

        def node_name(self) -> str:
            return self._node

        def node_operator(self) -> str:
            return self._operator

        def desc(self) -> str:
            return self._words

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            self.num_errors = len(behaviour.parse_errors)

        def parse_from_file(self, model: str) -> bool:
            behaviour.asked["file"] = model
            return not behaviour.parse_errors

        def parse(self, model: bytes) -> bool:
            return not behaviour.parse_errors

        def get_error(self, index: int) -> ParserError:
            return ParserError(*behaviour.parse_errors[index])

    return OnnxParser


def _runtime(behaviour: StandIn, key: str) -> Any:
    """An inspector that tells of one INT8 convolution, its types under `key`."""
    kind = "Int8" if key == "Datatype" else "Channel major INT8 format"
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", key: kind}],
        "Outputs": [{"Name": "y", key: kind}],
        "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: relu]",
    }

    class Inspector:
        def get_engine_information(self, form: Any) -> str:
            assert form.name == "JSON"
            return json.dumps({"Layers": [layer]})

    class Engine:
        def create_engine_inspector(self) -> Inspector:
            return Inspector()

    runtime = _restricted("Runtime", RUNTIME, behaviour)

    def start(self: Any, logger: Any) -> None:
        if not behaviour.loads:
            logger.log(logger.Severity.ERROR, "CUDA initialization failure with error: 2")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    runtime.__init__ = start  # type: ignore[misc]
    runtime.deserialize_cuda_engine = lambda self, plan: Engine()  # type: ignore[attr-defined]
    return runtime
