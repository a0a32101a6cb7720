"""The runtime side of `tensorrt` 10.0, 10.3, 10.16 and 11.4 and of `tensorrt_rtx` 1.7, over a simulated GPU.

Each version has exactly the names of the API that it has (NVIDIA/TensorRT, python/src/infer/pyCore.cpp, the guide from
10.x to 11.x, and the bindings of TensorRT for RTX 1.7.1); any other raises AttributeError. Engines are ONNX graphs,
which ONNX Runtime runs on what lies at the addresses when the stream gets there.
"""

import hashlib
import json
from collections.abc import Callable
from enum import Enum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from support.simulated_gpu import SimulatedGpu

MAGIC = b"stand-in engine\n"
SCRATCH_BYTES = 1000
VERSIONS = {"tensorrt": ("10.0.1", "10.3.0", "10.16.2", "11.4.1"), "tensorrt_rtx": ("1.7.1.116",)}


class DataType(Enum):
    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"
    INT8 = "tensor(int8)"
    INT32 = "tensor(int32)"
    INT64 = "tensor(int64)"
    BOOL = "tensor(bool)"
    UINT8 = "tensor(uint8)"


NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64,
         "BOOL": np.bool_, "UINT8": np.uint8}  # fmt: skip


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


def engine_of(graph: Path, library: str, version: str) -> bytes:
    """An engine file of an ONNX file, its weights within."""
    header = json.dumps({"library": library, "version": version}).encode() + b"\n"
    return MAGIC + header + onnx.load(str(graph)).SerializeToString()


def runtime_module(
    library: str,
    version: str,
    gpu: SimulatedGpu,
    faults: set[str] | None = None,
    compiled: list[str] | None = None,
) -> ModuleType:
    """The module `library` of that version.

    Args:
        faults: what goes wrong, and may be changed later: `runtime`, `context`, `address`, `execute`, `capture`.
        compiled: gets an entry for each engine whose kernels TensorRT for RTX compiles.
    """
    numbers = tuple(int(part) for part in version.split("."))
    is_rtx, wrong = library == "tensorrt_rtx", set() if faults is None else faults
    compiled = [] if compiled is None else compiled
    has_v2_sizes, has_v1_sizes = is_rtx or numbers >= (10, 1), not is_rtx and numbers < (11,)

    class IExecutionContext:
        def __init__(self, engine: "ICudaEngine", strategy: ExecutionContextAllocationStrategy) -> None:
            self._engine = engine
            self._addresses: dict[str, int] = {}
            self._needs_memory = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
            self._scratch: tuple[int, int] | None = None
            self._has_run = False

        def set_tensor_address(self, name: str, memory: int) -> bool:
            if name not in self._engine._tensors or memory % 256 or "address" in wrong:
                self._engine._error(f"set_tensor_address: invalid address {memory:#x} of {name}")
                return False
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            missing = self._engine._tensors.keys() - self._addresses.keys()
            if missing or "execute" in wrong or (self._needs_memory and self._scratch is None):
                self._engine._error(f"enqueueV3: no memory is set, tensors {sorted(missing)}")
                return False
            assert len(set(self._addresses.values())) == len(self._addresses), "two tensors share an address"
            assert stream_handle, "the default stream makes TensorRT wait"
            if gpu.is_recording(stream_handle) and (not self._has_run or "capture" in wrong):
                self._engine._error("enqueueV3: operation not permitted when stream is capturing")
                return False
            self._has_run = True
            gpu.put(stream_handle, self._engine._work(dict(self._addresses), self._scratch))
            return True

        if has_v2_sizes:

            def set_device_memory(self, memory: int, size: int) -> None:
                assert memory % 256 == 0
                assert size >= self._engine.device_memory_size_v2
                self._scratch = memory, size

        if is_rtx:

            def is_stream_capturable(self, stream: int) -> bool:
                return "capture" not in wrong

    class ICudaEngine:
        def __init__(self, content: bytes, logger: ILogger) -> None:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 4
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self._logger, self._digest = logger, hashlib.sha256(content).hexdigest()
            self._inputs = {entry.name: entry for entry in self._session.get_inputs()}
            self._outputs = {entry.name: entry for entry in self._session.get_outputs()}
            self._tensors = {**self._inputs, **self._outputs}

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType(self._tensors[name].type)

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(self._tensors[name].shape)

        def create_execution_context(
            self,
            strategy: "ExecutionContextAllocationStrategy | IRuntimeConfig" = ExecutionContextAllocationStrategy.STATIC,
        ) -> IExecutionContext | None:
            if "context" in wrong:
                self._error("createExecutionContext: out of memory")
                return None
            if isinstance(strategy, IRuntimeConfig):
                if strategy.get_runtime_cache() is not None:
                    strategy.get_runtime_cache()._compile(self._digest)
                strategy = strategy.get_execution_context_allocation_strategy()
            return IExecutionContext(self, strategy)

        if is_rtx:

            def create_runtime_config(self) -> "IRuntimeConfig":
                return IRuntimeConfig()

        if has_v2_sizes:
            device_memory_size_v2 = SCRATCH_BYTES
        if has_v1_sizes:
            device_memory_size = SCRATCH_BYTES

        def _error(self, message: str) -> None:
            self._logger.log(ILogger.Severity.ERROR, message)

        def _work(self, addresses: dict[str, int], scratch: tuple[int, int] | None) -> Callable[[], None]:
            def view(name: str) -> np.ndarray:
                dtype = np.dtype(NUMPY[self.get_tensor_dtype(name).name])
                shape = self.get_tensor_shape(name)
                size = int(np.prod(shape, dtype=int)) * dtype.itemsize
                return gpu.view(addresses[name], size).view(dtype).reshape(shape)

            def work() -> None:
                if scratch is not None:
                    gpu.view(*scratch)[...] = 0x5A
                results = self._session.run(list(self._outputs), {name: view(name).copy() for name in self._inputs})
                for name, result in zip(self._outputs, results, strict=True):
                    view(name)[...] = result

            return work

    class IRuntimeCache:
        def __init__(self) -> None:
            self._kernels: set[str] = set()

        def serialize(self) -> memoryview:
            return memoryview(json.dumps({version: sorted(self._kernels)}).encode())

        def deserialize(self, blob: bytes) -> bool:
            try:
                self._kernels |= set(json.loads(blob)[version])
            except (ValueError, KeyError):
                return False
            return True

        def _compile(self, engine: str) -> None:
            if engine not in self._kernels:
                compiled.append(engine)
            self._kernels.add(engine)

    class IRuntimeConfig:
        def __init__(self) -> None:
            self._cache: IRuntimeCache | None = None
            self._strategy = ExecutionContextAllocationStrategy.STATIC

        def create_runtime_cache(self) -> IRuntimeCache:
            return IRuntimeCache()

        def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
            self._cache = cache
            return True

        def get_runtime_cache(self) -> IRuntimeCache | None:
            return self._cache

        def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
            self._strategy = strategy

        def get_execution_context_allocation_strategy(self) -> ExecutionContextAllocationStrategy:
            return self._strategy

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            self._logger = logger
            if "runtime" in wrong:
                logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35.")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            assert len(serialized_engine) > len(MAGIC)
            header, _, graph = serialized_engine.removeprefix(MAGIC).partition(b"\n")
            if not serialized_engine.startswith(MAGIC) or json.loads(header) != {
                "library": library,
                "version": version,
            }:
                self._logger.log(ILogger.Severity.ERROR, "The engine plan file is not compatible with this version")
                return None
            return ICudaEngine(graph, self._logger)

    module = ModuleType(library)
    module.__spec__ = ModuleSpec(library, None)
    names = {
        "__version__": version,
        "DataType": DataType,
        "TensorIOMode": TensorIOMode,
        "ExecutionContextAllocationStrategy": ExecutionContextAllocationStrategy,
        "ILogger": ILogger,
        "Runtime": Runtime,
        "ICudaEngine": ICudaEngine,
        "IExecutionContext": IExecutionContext,
    }
    if is_rtx:
        names |= {"IRuntimeCache": IRuntimeCache, "IRuntimeConfig": IRuntimeConfig}
    for name, entry in names.items():
        setattr(module, name, entry)
    return module
