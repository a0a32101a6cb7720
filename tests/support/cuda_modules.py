"""The faces of `cuda.bindings.driver`, `pycuda.driver` and `libcuda`, as far as they are used, over a simulated GPU.

Names, arguments and results are those of cuda-python 12.9 and 13.5 and of pycuda 2026.1.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeseg.runtime.backends import cuda_driver
from support.simulated_gpu import NAMES, CudaFault, SimulatedGpu


def install(monkeypatch: pytest.MonkeyPatch, gpu: SimulatedGpu, package: str | None) -> None:
    """Put the GPU behind the driver's library, and behind `package`: `cuda-python`, `pycuda` or None for neither."""
    monkeypatch.setattr(cuda_driver, "open_library", lambda: libcuda(gpu))
    made = {"cuda-python": cuda_python, "pycuda": pycuda}
    for name in ("cuda", "cuda.bindings", "cuda.bindings.driver", "pycuda", "pycuda.driver"):
        # None makes an import fail, wherever the package may be installed.
        monkeypatch.setitem(sys.modules, name, None)
    if package is not None:
        for module in made[package](gpu):
            monkeypatch.setitem(sys.modules, module.__name__, module)


def cuda_python(gpu: SimulatedGpu) -> list[ModuleType]:
    """`cuda`, `cuda.bindings` and `cuda.bindings.driver`."""
    packages = [_module("cuda"), _module("cuda.bindings"), _module("cuda.bindings.driver")]
    driver = packages[-1]

    def function(name: str, work: Callable[..., Any]) -> None:
        def call(*arguments: Any) -> tuple:
            try:
                value = work(*arguments)
            except CudaFault as fault:
                return (fault.code, None)
            return (0,) if value is None else (0, value)

        setattr(driver, name, call)

    def release(device: int) -> None:
        gpu.contexts -= 1

    for name, work in {
        "cuInit": lambda flags: None,
        "cuDeviceGet": lambda index: index,
        "cuDevicePrimaryCtxRetain": lambda device: _retain(gpu),
        "cuDevicePrimaryCtxRelease": release,
        "cuCtxPushCurrent": lambda context: gpu.push(),
        "cuCtxPopCurrent": lambda: gpu.pop(),
        "cuMemAlloc": gpu.alloc,
        "cuMemFree": gpu.free,
        "cuMemHostAlloc": lambda size, flags: gpu.host_alloc(size, mapped=bool(flags & 2)).ctypes.data,
        "cuMemFreeHost": gpu.host_free,
        "cuMemHostGetDevicePointer": lambda address, flags: gpu.mapped_address(address),
        "cuMemcpyHtoDAsync": lambda target, source, size, stream: gpu.copy_in(stream, target, source, size),
        "cuMemcpyDtoHAsync": lambda target, source, size, stream: gpu.copy_out(stream, target, source, size),
        "cuStreamCreate": lambda flags: gpu.new_stream(),
        "cuStreamDestroy": gpu.destroy_stream,
        "cuStreamSynchronize": gpu.synchronise,
        "cuEventCreate": gpu.new_event,
        "cuEventDestroy": gpu.destroy_event,
        "cuEventRecord": gpu.record_event,
        "cuEventSynchronize": gpu.wait_for,
        "cuEventElapsedTime": gpu.elapsed_ms,
        "cuStreamBeginCapture": lambda stream, mode: gpu.begin_capture(stream),
        "cuStreamEndCapture": gpu.end_capture,
        "cuGraphInstantiate": lambda graph, flags: gpu.instantiate(graph),
        "cuGraphLaunch": gpu.launch,
        "cuGraphExecDestroy": gpu.destroy_graph,
        "cuGraphDestroy": lambda graph: None,
        "cuGetErrorName": lambda code: NAMES[code].encode(),
    }.items():
        function(name, work)
    driver.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)  # type: ignore[attr-defined]
    return packages


def pycuda(gpu: SimulatedGpu) -> list[ModuleType]:
    """`pycuda` and `pycuda.driver`."""
    package, driver = _module("pycuda"), _module("pycuda.driver")

    class Error(Exception):
        pass

    def guarded(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            try:
                return work(*arguments, **named)
            except CudaFault as fault:
                raise Error(str(fault)) from fault

        return call

    pushed: list[Any] = []

    class Context:
        def __init__(self) -> None:
            _retain(gpu)

        def push(self) -> None:
            guarded(gpu.push)()
            pushed.append(self)

        @staticmethod
        def pop() -> None:
            guarded(gpu.pop)()
            pushed.pop()

        def __del__(self) -> None:
            gpu.contexts -= 1

    class Device:
        def __init__(self, index: int) -> None:
            self._index = index

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            self.handle = guarded(gpu.new_stream)()

        def synchronize(self) -> None:
            guarded(gpu.synchronise)(self.handle)

        def __del__(self) -> None:
            with suppress(CudaFault):
                gpu.destroy_stream(self.handle)

    class Event:
        def __init__(self, flags: int = 0) -> None:
            self.handle = guarded(gpu.new_event)(flags)

        def record(self, stream: Stream) -> None:
            guarded(gpu.record_event)(self.handle, stream.handle)

        def synchronize(self) -> "Event":
            guarded(gpu.wait_for)(self.handle)
            return self

        def time_since(self, other: "Event") -> float:
            return guarded(gpu.elapsed_ms)(other.handle, self.handle)

        def __del__(self) -> None:
            gpu.destroy_event(self.handle)

    class DeviceAllocation:
        def __init__(self, size_bytes: int) -> None:
            self._address = guarded(gpu.alloc)(size_bytes)

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            guarded(gpu.free)(self._address)

    class PagelockedHostAllocation:
        def __init__(self, shape: tuple[int, ...], mapped: bool) -> None:
            self._context, self._thread = pushed[-1], threading.get_ident()
            self._memory = guarded(gpu.host_alloc)(int(np.prod(shape)), mapped=mapped)
            self._address = self._memory.ctypes.data
            self.__array_interface__ = {"version": 3, "shape": shape, "typestr": "|u1", "data": (self._address, False)}

        def get_device_pointer(self) -> int:
            return guarded(gpu.mapped_address)(self._address)

        def __del__(self) -> None:
            if not gpu.is_current and self._thread != threading.get_ident():
                return  # as pycuda, which makes a context current by itself on its own thread alone
            with suppress(CudaFault):
                gpu.push()
                gpu.host_free(self._address)
                gpu.pop()

    def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        assert dtype == np.uint8
        return np.asarray(PagelockedHostAllocation(shape, bool(mem_flags & 2)))

    def copy_in(address: int, source: np.ndarray, stream: Stream) -> None:
        gpu.copy_in(stream.handle, address, source.ctypes.data, source.nbytes)

    def copy_out(target: np.ndarray, address: int, stream: Stream) -> None:
        gpu.copy_out(stream.handle, target.ctypes.data, address, target.nbytes)

    for name, entry in {
        "Error": Error,
        "Context": Context,
        "Device": Device,
        "Stream": Stream,
        "Event": Event,
        "host_alloc_flags": SimpleNamespace(DEVICEMAP=2),
        "init": lambda: None,
        "mem_alloc": DeviceAllocation,
        "memcpy_htod_async": guarded(copy_in),
        "memcpy_dtoh_async": guarded(copy_out),
        "pagelocked_empty": pagelocked_empty,
    }.items():
        setattr(driver, name, entry)
    return [package, driver]


def libcuda(gpu: SimulatedGpu) -> SimpleNamespace:
    """The driver's library as ctypes gives it: arguments by reference, error codes as results."""
    recorded: dict[int, Any] = {}
    major, minor = gpu.compute_capability
    attributes = {75: major, 76: minor, 18: int(gpu.is_integrated), 16: gpu.multiprocessors}

    def give(reference: Any, value: int) -> None:
        reference._obj.value = value

    def end_capture(stream: Any, graph: Any) -> None:
        recorded[len(recorded) + 1] = gpu.end_capture(stream.value)
        give(graph, len(recorded))

    def name_of(buffer: Any, size: int, device: Any) -> None:
        buffer.value = gpu.name.encode()

    def guarded(work: Callable[..., Any]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            try:
                work(*arguments)
            except CudaFault as fault:
                return fault.code
            return 0

        return call

    functions: dict[str, Callable[..., Any]] = {
        "cuInit": lambda flags: None,
        "cuDriverGetVersion": lambda version: give(version, gpu.cuda_version),
        "cuDeviceGetCount": lambda number: give(number, 1),
        "cuDeviceGet": lambda device, index: give(device, index),
        "cuDeviceGetName": name_of,
        "cuDeviceGetAttribute": lambda value, which, device: give(value, attributes[which]),
        "cuStreamBeginCapture_v2": lambda stream, mode: gpu.begin_capture(stream.value),
        "cuStreamEndCapture": end_capture,
        "cuGraphInstantiateWithFlags": lambda made, graph, flags: give(made, gpu.instantiate(recorded[graph.value])),
        "cuGraphLaunch": lambda graph, stream: gpu.launch(graph.value, stream.value),
        "cuGraphExecDestroy": lambda graph: gpu.destroy_graph(graph.value),
        "cuGraphDestroy": lambda graph: recorded.pop(graph.value),
    }
    return SimpleNamespace(**{name: guarded(work) for name, work in functions.items()})


def _retain(gpu: SimulatedGpu) -> int:
    gpu.contexts += 1
    return 1


def _module(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__path__ = []
    return module
