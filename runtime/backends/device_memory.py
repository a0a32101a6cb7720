"""The memory of one NVIDIA GPU behind a small seam: buffers, copies, one stream, events and CUDA graphs.

Two packages can do it, `cuda-python` and `pycuda`; backends know neither. Both use the GPU's primary context, which
other libraries of the process share, and make it current only while they work (`DeviceMemory.current`): so a runner may
be activated on one thread and stepped on another. Neither imports torch.
"""

import importlib
import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from edgeseg.errors import DeviceError, MissingPackageError
from edgeseg.runtime.backends import cuda_driver

ALIGNMENT = 256
"""Bytes that every device address is a multiple of, as TensorRT asks for."""
NEITHER = (
    "neither cuda-python nor pycuda is installed, of which one is needed: pip install cuda-python, "
    "or where CUDA's headers and a compiler are pip install pycuda"
)
_NON_BLOCKING = 1
"""`CU_STREAM_NON_BLOCKING`: the stream does not wait for the default one."""
_DEVICEMAP = 2
"""`CU_MEMHOSTALLOC_DEVICEMAP`."""


@dataclass(frozen=True)
class HostBuffer:
    """Page-locked memory of the host. The array owns it: it lives as long as anybody holds the array."""

    array: np.ndarray
    device_address: int | None
    """Where the GPU sees it, when it is mapped: then nothing needs to be copied."""


class DeviceMemory(ABC):
    """Memory, one non-default stream and its events and graphs on one GPU.

    All but `close` are to be called while it is `current` on the calling thread. Copies, launches and events are put on
    the stream in order; `synchronise` waits for them.
    """

    package: str
    """Who does it, for people."""

    def __init__(self, index: int) -> None:
        self.index = index

    @property
    @abstractmethod
    def stream(self) -> int:
        """Handle of the stream (`CUstream`)."""

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the GPU's context current on this thread until the end of the block."""

    @abstractmethod
    def alloc(self, size_bytes: int) -> int:
        """Address of `size_bytes` on the device, a multiple of `ALIGNMENT`; the content is undefined.

        Raises:
            DeviceError: the device has no such memory left.
        """

    @abstractmethod
    def free(self, address: int) -> None:
        """Free what `alloc` gave."""

    @abstractmethod
    def host_buffer(self, shape: tuple[int, ...], *, mapped: bool) -> HostBuffer:
        """Page-locked uint8 memory of `shape`, zeros.

        Args:
            mapped: let the GPU see it. For a GPU that shares the CPU's memory, and for what is read or written once.

        Raises:
            DeviceError: the system has no such memory left.
        """

    @abstractmethod
    def copy_to_device(self, address: int, source: np.ndarray) -> None:
        """Put a copy of a page-locked array on the stream; the array stays as it is until `synchronise`."""

    @abstractmethod
    def copy_to_host(self, target: np.ndarray, address: int) -> None:
        """Put a copy into a page-locked array on the stream; it is there after `synchronise`."""

    @abstractmethod
    def synchronise(self) -> None:
        """Wait until the stream is empty.

        Raises:
            DeviceError: something on the stream failed.
        """

    @abstractmethod
    def event(self) -> Any:
        """A point in time on the stream, to be recorded again and again."""

    @abstractmethod
    def record(self, event: Any) -> None:
        """Put an event on the stream."""

    @abstractmethod
    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two recorded events, after `synchronise`."""

    @abstractmethod
    def begin_capture(self) -> None:
        """From now on the stream's work is recorded and not run: `capture` does it, and stops when something fails."""

    @abstractmethod
    def end_capture(self) -> Any:
        """Stop recording; a graph of what was recorded, its addresses frozen.

        Raises:
            DeviceError: it cannot be a graph; the stream runs again.
        """

    def capture(self, work: Callable[[], None]) -> Any:
        """A graph of what `work` puts on the stream. What it does was run before, and has ended.

        Raises:
            DeviceError: it cannot be recorded; the stream runs again.
        """
        self.begin_capture()
        try:
            work()
        except BaseException:
            with suppress(DeviceError):
                self.destroy(self.end_capture())
            raise
        return self.end_capture()

    @abstractmethod
    def launch(self, graph: Any) -> None:
        """Put a graph on the stream."""

    @abstractmethod
    def destroy(self, graph: Any) -> None:
        """Free a graph."""

    @abstractmethod
    def close(self) -> None:
        """Free the stream, what `alloc` gave and was not freed, and let the context go. May be called twice."""


class CudaPythonMemory(DeviceMemory):
    """`cuda-python`, by `cuda.bindings.driver`: versions 12.9 and 13."""

    package = "cuda-python"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._call = _DriverCalls(index)
        self._call("cuInit", 0)
        self._context = _PrimaryContext(self._call, index)
        self._allocated: set[int] = set()
        with self.current():
            self._stream = self._call("cuStreamCreate", _NON_BLOCKING)
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
        owner = _PageLocked(self._call, self._context, shape, _DEVICEMAP if mapped else 0)
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
        """What a function gives beside its error code: nothing, or one value."""
        code, *values = getattr(self.module, name)(*arguments)
        if int(code):
            named = self.module.cuGetErrorName(code)[1]
            reason = named.decode() if isinstance(named, bytes) else str(named)
            raise _failed(name, self._index, reason, arguments[0] if name in ("cuMemAlloc", "cuMemHostAlloc") else None)
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
        self.handle = call("cuEventCreate", 0)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            with suppress(DeviceError):
                self._call("cuEventDestroy", self.handle)


class PycudaMemory(DeviceMemory):
    """`pycuda`, with CUDA graphs by `cuda_driver`, for which it has no functions."""

    package = "pycuda"

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._driver = importlib.import_module("pycuda.driver")
        with self._named_errors("cuInit"):
            self._driver.init()
            # Neither autoinit nor make_context: those make a context beside the one that other libraries use.
            self._context = self._driver.Device(index).retain_primary_context()
        self._allocated: dict[int, Any] = {}
        with self.current(), self._named_errors("cuStreamCreate"):
            self._stream: Any = self._driver.Stream(_NON_BLOCKING)

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._named_errors("cuCtxPushCurrent"):
            self._context.push()
        try:
            yield
        finally:
            with self._named_errors("cuCtxPopCurrent"):
                self._driver.Context.pop()

    def alloc(self, size_bytes: int) -> int:
        with self._named_errors("cuMemAlloc", size_bytes):
            allocation = self._driver.mem_alloc(size_bytes)
        self._allocated[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        with self._named_errors("cuMemFree"):
            self._allocated.pop(address).free()

    def host_buffer(self, shape: tuple[int, ...], *, mapped: bool) -> HostBuffer:
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with self._named_errors("cuMemHostAlloc", prod(shape)):
            array = self._driver.pagelocked_empty(shape, np.uint8, mem_flags=flags)
            address = int(array.base.get_device_pointer()) if mapped else None
        array[...] = 0
        return HostBuffer(array, address)

    def copy_to_device(self, address: int, source: np.ndarray) -> None:
        with self._named_errors("cuMemcpyHtoDAsync"):
            self._driver.memcpy_htod_async(address, source, self._stream)

    def copy_to_host(self, target: np.ndarray, address: int) -> None:
        with self._named_errors("cuMemcpyDtoHAsync"):
            self._driver.memcpy_dtoh_async(target, address, self._stream)

    def synchronise(self) -> None:
        with self._named_errors("cuStreamSynchronize"):
            self._stream.synchronize()

    def event(self) -> Any:
        with self._named_errors("cuEventCreate"):
            return self._driver.Event()

    def record(self, event: Any) -> None:
        with self._named_errors("cuEventRecord"):
            event.record(self._stream)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        with self._named_errors("cuEventElapsedTime"):
            return float(end.time_since(begin))

    def begin_capture(self) -> None:
        cuda_driver.begin_capture(self.stream)

    def end_capture(self) -> Any:
        return cuda_driver.end_capture(self.stream)

    def launch(self, graph: Any) -> None:
        cuda_driver.launch_graph(graph, self.stream)

    def destroy(self, graph: Any) -> None:
        cuda_driver.destroy_graph(graph)

    def close(self) -> None:
        if self._stream is None:
            return
        with self.current():
            for address in tuple(self._allocated):
                self.free(address)
            # The last reference frees it, which pycuda does only on a thread where the context is current.
            self._stream = None

    @contextmanager
    def _named_errors(self, call: str, size_bytes: int | None = None) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise _failed(call, self.index, str(error), size_bytes) from error


MEMORIES: dict[str, type[DeviceMemory]] = {"cuda.bindings": CudaPythonMemory, "pycuda": PycudaMemory}
"""Module -> who uses it, in the order of preference."""


def memory_problem() -> str | None:
    """Why no package for device memory can be used, as one clause; None when one can."""
    module = _installed()
    if module is None:
        return NEITHER
    return _too_new() if MEMORIES[module] is CudaPythonMemory else None


def memory_package() -> str | None:
    """Name of the package that `open_memory` uses; None when there is none."""
    module = _installed()
    return None if module is None else MEMORIES[module].package


def open_memory(index: int) -> DeviceMemory:
    """Memory of GPU `index`: by cuda-python when it is installed, else by pycuda.

    Raises:
        MissingPackageError: neither is installed.
        DeviceError: the driver or the GPU does not work.
    """
    module = _installed()
    if module is None:
        raise MissingPackageError(f"the GPU's memory cannot be used | {NEITHER}")
    try:
        return MEMORIES[module](index)
    except (ImportError, RuntimeError) as error:
        # cuda-python looks for the driver when it is first called, and raises an error of its own.
        raise DeviceError(f"GPU {index} cannot be used by {MEMORIES[module].package} | {error}") from error


def _installed() -> str | None:
    for module in MEMORIES:
        try:
            if importlib.util.find_spec(module) is not None:
                return module
        except ImportError:
            continue
    return None


def _too_new() -> str | None:
    """Why cuda-python does not go with the driver: a newer one calls functions that an older driver has not."""
    try:
        version = importlib.metadata.version("cuda-bindings")
        major, _ = cuda_driver.cuda_version()
    except (importlib.metadata.PackageNotFoundError, DeviceError):
        return None
    if int(version.partition(".")[0]) <= major:
        return None
    return (
        f"the NVIDIA driver is too old for cuda-python {version}, it supports CUDA {major}: update the driver, "
        f"or pip install 'cuda-python<{major + 1}'"
    )


def _failed(call: str, index: int, reason: str, size_bytes: int | None) -> DeviceError:
    if size_bytes is not None:
        return DeviceError(
            f"GPU {index} gives no {size_bytes / 1e6:.1f} MB | {call}: {reason} | "
            "end other programs on it, or take a smaller configuration"
        )
    return DeviceError(f"{call} failed on GPU {index} | {reason}")
