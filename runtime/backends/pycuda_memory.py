"""GPU memory by `pycuda`."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from edgeseg.runtime.backends import cuda_driver
from edgeseg.runtime.backends.device_memory import BLOCKING_SYNC, NON_BLOCKING, DeviceMemory, HostBuffer, gpu_fault


class PycudaMemory(DeviceMemory):
    """`pycuda`, with CUDA graphs by `cuda_driver`, for which it has no functions."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self._driver = importlib.import_module("pycuda.driver")
        with self._named_errors("cuInit"):
            self._driver.init()
            # Neither autoinit nor make_context: those make a context beside the one that other libraries use.
            self._context = self._driver.Device(index).retain_primary_context()
        self._allocated: dict[int, Any] = {}
        with self.current(), self._named_errors("cuStreamCreate"):
            self._stream: Any = self._driver.Stream(NON_BLOCKING)

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
            return self._driver.Event(BLOCKING_SYNC)

    def record(self, event: Any) -> None:
        with self._named_errors("cuEventRecord"):
            event.record(self._stream)

    def wait(self, event: Any) -> None:
        with self._named_errors("cuEventSynchronize"):
            event.synchronize()

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
            raise gpu_fault(call, self.index, str(error), size_bytes) from error
