"""GPU memory by `cuda-python` (`cuda.bindings.driver`, 12.9 and 13)."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import prod
from typing import Any

import numpy as np

from edgeseg.errors import DeviceError
from edgeseg.runtime.backends.device_memory import (
    BLOCKING_SYNC,
    DEVICEMAP,
    NON_BLOCKING,
    DeviceMemory,
    HostBuffer,
    gpu_fault,
)


class CudaPythonMemory(DeviceMemory):
    """`cuda-python`, by `cuda.bindings.driver`: versions 12.9 and 13."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._call = _DriverCalls(index)
        self._call("cuInit", 0)
        self._context = _PrimaryContext(self._call, index)
        self._allocated: set[int] = set()
        with self.current():
            self._stream = self._call("cuStreamCreate", NON_BLOCKING)
        self._is_open = True

    @property
    def stream(self) -> int:
        return int(self._stream)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call("cuCtxPushCurrent", self._context.handle)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def alloc(self, size_bytes: int) -> int:
        address = int(self._call("cuMemAlloc", size_bytes))
        self._allocated.add(address)
        return address

    def free(self, address: int) -> None:
        self._allocated.discard(address)
        self._call("cuMemFree", address)

    def host_buffer(self, shape: tuple[int, ...], *, mapped: bool) -> HostBuffer:
        owner = _PageLocked(self._call, self._context, shape, DEVICEMAP if mapped else 0)
        array = np.asarray(owner)
        array[...] = 0
        address = int(self._call("cuMemHostGetDevicePointer", owner.address, 0)) if mapped else None
        return HostBuffer(array, address)

    def copy_to_device(self, address: int, source: np.ndarray) -> None:
        self._call("cuMemcpyHtoDAsync", address, source.ctypes.data, source.nbytes, self._stream)

    def copy_to_host(self, target: np.ndarray, address: int) -> None:
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, address, target.nbytes, self._stream)

    def synchronise(self) -> None:
        self._call("cuStreamSynchronize", self._stream)

    def event(self) -> Any:
        return _Event(self._call, self._context)

    def record(self, event: Any) -> None:
        self._call("cuEventRecord", event.handle, self._stream)

    def wait(self, event: Any) -> None:
        self._call("cuEventSynchronize", event.handle)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        return float(self._call("cuEventElapsedTime", begin.handle, end.handle))

    def begin_capture(self) -> None:
        # Thread-local: what other threads do meanwhile neither fails nor spoils the recording.
        mode = self._call.module.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)

    def end_capture(self) -> Any:
        graph = self._call("cuStreamEndCapture", self._stream)
        try:
            return self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        self._call("cuGraphLaunch", graph, self._stream)

    def destroy(self, graph: Any) -> None:
        self._call("cuGraphExecDestroy", graph)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with self.current():
            for address in tuple(self._allocated):
                self.free(address)
            self._call("cuStreamDestroy", self._stream)


class _DriverCalls:
    """Calls functions of `cuda.bindings.driver`."""

    def __init__(self, index: int) -> None:
        self.module = importlib.import_module("cuda.bindings.driver")
        self._index = index

    def __call__(self, name: str, *arguments: Any) -> Any:
        """What a function gives beside its error code: nothing, or one value.

        Raises:
            DeviceError: it failed, or the driver has no such function.
        """
        try:
            code, *values = getattr(self.module, name)(*arguments)
        except RuntimeError as error:
            raise gpu_fault(name, self._index, str(error)) from error
        if int(code):
            named = self.module.cuGetErrorName(code)[1]
            reason = named.decode() if isinstance(named, bytes) else str(named)
            size_bytes = arguments[0] if name in ("cuMemAlloc", "cuMemHostAlloc") else None
            raise gpu_fault(name, self._index, reason, size_bytes)
        return values[0] if values else None


class _PrimaryContext:
    """Keeps a GPU's primary context alive as long as somebody holds this."""

    def __init__(self, call: _DriverCalls, index: int) -> None:
        self._call = call
        self._device = call("cuDeviceGet", index)
        self.handle = call("cuDevicePrimaryCtxRetain", self._device)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            with suppress(DeviceError):
                self._call("cuDevicePrimaryCtxRelease", self._device)


class _PageLocked:
    """Owns page-locked memory; an array made of it keeps it, and with it the context that the memory belongs to."""

    def __init__(self, call: _DriverCalls, context: _PrimaryContext, shape: tuple[int, ...], flags: int) -> None:
        self._call, self._context = call, context
        self.address = int(call("cuMemHostAlloc", prod(shape), flags))
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": "|u1", "data": (self.address, False)}

    def __del__(self) -> None:
        if not hasattr(self, "address"):
            return
        # After a failure of the GPU, or at the end of the process, the driver has freed it or never will.
        with suppress(DeviceError):
            self._call("cuCtxPushCurrent", self._context.handle)
            try:
                self._call("cuMemFreeHost", self.address)
            finally:
                self._call("cuCtxPopCurrent")


class _Event:
    """Owns an event of the driver."""

    def __init__(self, call: _DriverCalls, context: _PrimaryContext) -> None:
        self._call, self._context = call, context
        self.handle = call("cuEventCreate", BLOCKING_SYNC)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            with suppress(DeviceError):
                self._call("cuEventDestroy", self.handle)
