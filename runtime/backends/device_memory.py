"""The memory of one NVIDIA GPU behind a small seam: buffers, copies, one stream, events and CUDA graphs.

Two packages can do it, `cuda-python` and `pycuda`; backends know neither. Both use the GPU's primary context, which
other libraries of the process share, and make it current only while they work (`DeviceMemory.current`): so a runner may
be activated on one thread and stepped on another. Neither imports torch.
"""

import importlib
import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgeseg.errors import DeviceError, MissingPackageError
from edgeseg.runtime.backends import cuda_driver

ALIGNMENT = 256
"""Bytes that every device address is a multiple of, as TensorRT asks for."""
NEITHER = (
    "neither cuda-python nor pycuda is installed, of which one is needed: pip install cuda-python, "
    "or where CUDA's headers and a compiler are pip install pycuda"
)
BLOCKING_SYNC = 1
"""`CU_EVENT_BLOCKING_SYNC`: who waits for the event sleeps. Without it the driver polls, for which a core is busy that
capture and motion compensation need."""
NON_BLOCKING = 1
"""`CU_STREAMNON_BLOCKING`: the stream does not wait for the default one."""
DEVICEMAP = 2
"""`CU_MEMHOSTALLOCDEVICEMAP`."""


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
        """Wait until the stream is empty, which may keep a core busy: `wait` does not.

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
    def wait(self, event: Any) -> None:
        """Wait until the stream got to a recorded event, asleep: no core is busy meanwhile.

        Raises:
            DeviceError: something before it on the stream failed.
        """

    @abstractmethod
    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Milliseconds between two recorded events, after `wait` for the later one."""

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


class _Package(NamedTuple):
    """A package that does it."""

    name: str
    """For people."""
    memory: str
    """`module:class`, imported when it is asked for."""


_PACKAGES = {
    "cuda.bindings": _Package("cuda-python", "edgeseg.runtime.backends.cuda_python_memory:CudaPythonMemory"),
    "pycuda": _Package("pycuda", "edgeseg.runtime.backends.pycuda_memory:PycudaMemory"),
}
"""Module -> its package, in the order of preference."""


def memory_problem() -> str | None:
    """Why no package for device memory can be used, as one clause; None when one can."""
    module = _installed()
    if module is None:
        return NEITHER
    return _too_new() if module == "cuda.bindings" else None


def memory_package() -> str | None:
    """Name of the package that `open_memory` uses; None when there is none."""
    module = _installed()
    return None if module is None else _PACKAGES[module].name


def open_memory(index: int) -> DeviceMemory:
    """Memory of GPU `index`: by cuda-python when it is installed, else by pycuda.

    Raises:
        MissingPackageError: neither is installed.
        DeviceError: the driver or the GPU does not work.
    """
    module = _installed()
    if module is None:
        raise MissingPackageError(f"the GPU's memory cannot be used | {NEITHER}")
    place, _, name = _PACKAGES[module].memory.partition(":")
    memory: type[DeviceMemory] = getattr(importlib.import_module(place), name)
    try:
        return memory(index)
    except ImportError as error:  # it is there, but lacks the driver's library or a package that it needs
        raise DeviceError(f"GPU {index} cannot be used by {_PACKAGES[module].name} | {error}") from error


def _installed() -> str | None:
    for module in _PACKAGES:
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


def gpu_fault(call: str, index: int, reason: str, size_bytes: int | None = None) -> DeviceError:
    """The error of a driver's call that failed; `size_bytes` that were asked for, when it was to give memory."""
    if size_bytes is not None:
        return DeviceError(
            f"GPU {index} gives no {size_bytes / 1e6:.1f} MB | {call}: {reason} | "
            "end other programs on it, or take a smaller configuration"
        )
    return DeviceError(f"{call} failed on GPU {index} | {reason}")
