"""The CUDA driver through ctypes: what GPUs there are, and the calls that record CUDA graphs.

Needs no package: `libcuda` comes with the driver. Nothing is loaded before it is asked for.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from edgeseg.errors import DeviceError

LIBRARY = "libcuda.so.1"
OLDEST_CUDA = (11, 8)
"""CUDA version that a driver must support at least: the oldest that TensorRT 10 is made for."""
_MAJOR, _MINOR, _INTEGRATED, _MULTIPROCESSORS = 75, 76, 18, 16
"""`CUdevice_attribute`: compute capability, whether the GPU shares its memory with the CPU, and its size."""
_WHY = {
    3: "the driver is not initialised",
    34: "it is a stub library: no driver is installed",
    100: "there is no NVIDIA GPU",
    101: "there is no such GPU",
    803: "the loaded kernel module and the installed libraries are of different drivers: reboot",
    804: "the driver does not support this GPU with these libraries",
}
_THREAD_LOCAL = 1
"""`CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: what other threads do meanwhile neither fails nor spoils the recording."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver describes it."""

    index: int
    name: str
    """As the driver gives it. The GPUs of all boards of a series are called `Orin`: there with the number of streaming
    multiprocessors, `Orin (8 SMs)`, for which TensorRT chooses its kernels."""
    compute_capability: str
    """Such as `8.7`."""
    is_integrated: bool
    """Whether GPU and CPU share one memory, as on a Jetson."""


def driver_problem(index: int = 0) -> str | None:
    """Why GPU `index` cannot be used, as one clause; None when it can."""
    try:
        library = open_library()
    except OSError:
        return f"no NVIDIA driver: {LIBRARY} cannot be loaded"
    code = library.cuInit(0)
    if code:
        return f"the NVIDIA driver does not start: {_reason(code)}"
    version = cuda_version()
    if version < OLDEST_CUDA:
        return (
            f"the NVIDIA driver is too old: it supports CUDA {version[0]}.{version[1]}, "
            f"needed is {OLDEST_CUDA[0]}.{OLDEST_CUDA[1]} or later: update the driver"
        )
    count = ctypes.c_int()
    _check("cuDeviceGetCount", library.cuDeviceGetCount(ctypes.byref(count)))
    if index >= count.value:
        return f"there is no GPU {index}: the driver knows {count.value}, counted from 0"
    return None


def cuda_version() -> tuple[int, int]:
    """The newest CUDA that the driver supports, such as `(12, 6)`.

    Raises:
        DeviceError: there is no driver.
    """
    version = ctypes.c_int()
    _check("cuDriverGetVersion", _library().cuDriverGetVersion(ctypes.byref(version)))
    return version.value // 1000, version.value % 1000 // 10


def gpu(index: int) -> Gpu:
    """GPU `index`.

    Raises:
        DeviceError: there is no driver, or no such GPU.
    """
    reason = driver_problem(index)
    if reason is not None:
        raise DeviceError(f"GPU {index} cannot be used | {reason}")
    library = _library()
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    _check("cuDeviceGet", library.cuDeviceGet(ctypes.byref(device), index))
    _check("cuDeviceGetName", library.cuDeviceGetName(name, len(name), device))

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        _check("cuDeviceGetAttribute", library.cuDeviceGetAttribute(ctypes.byref(value), which, device))
        return value.value

    called, is_integrated = name.value.decode(errors="replace"), bool(attribute(_INTEGRATED))
    return Gpu(
        index,
        f"{called} ({attribute(_MULTIPROCESSORS)} SMs)" if is_integrated else called,
        f"{attribute(_MAJOR)}.{attribute(_MINOR)}",
        is_integrated,
    )


@contextmanager
def current_gpu(index: int) -> Iterator[None]:
    """CUDA calls of this thread go to GPU `index` inside the block, those of libraries too.

    Raises:
        DeviceError: it cannot be used.
    """
    library = _library()
    device, context, popped = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    _check("cuInit", library.cuInit(0))
    _check("cuDeviceGet", library.cuDeviceGet(ctypes.byref(device), index))
    _check("cuDevicePrimaryCtxRetain", library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    try:
        _check("cuCtxPushCurrent", library.cuCtxPushCurrent_v2(context))
        try:
            yield
        finally:
            library.cuCtxPopCurrent_v2(ctypes.byref(popped))
    finally:
        library.cuDevicePrimaryCtxRelease_v2(device)


def begin_capture(stream: int) -> None:
    """Record what follows on `stream` instead of running it.

    Raises:
        DeviceError: the driver refuses, as with the default stream.
    """
    _check("cuStreamBeginCapture", _library().cuStreamBeginCapture_v2(ctypes.c_void_p(stream), _THREAD_LOCAL))


def end_capture(stream: int) -> int:
    """Stop recording; the handle of an executable graph.

    Raises:
        DeviceError: what was recorded cannot be a graph; the stream runs again.
    """
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    library = _library()
    _check("cuStreamEndCapture", library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph)))
    try:
        code = library.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        _check("cuGraphInstantiateWithFlags", code)
    finally:
        library.cuGraphDestroy(graph)
    assert executable.value is not None
    return executable.value


def launch_graph(executable: int, stream: int) -> None:
    """Run a graph on `stream`.

    Raises:
        DeviceError: the driver refuses.
    """
    _check("cuGraphLaunch", _library().cuGraphLaunch(ctypes.c_void_p(executable), ctypes.c_void_p(stream)))


def destroy_graph(executable: int) -> None:
    """Free a graph."""
    _check("cuGraphExecDestroy", _library().cuGraphExecDestroy(ctypes.c_void_p(executable)))


def open_library() -> ctypes.CDLL:
    """The driver's library.

    Raises:
        OSError: there is none.
    """
    return _loaded(LIBRARY)


@lru_cache
def _loaded(name: str) -> ctypes.CDLL:
    # Once: each one more is a class of its own, and a graph is launched at every step.
    return ctypes.CDLL(name)


def _library() -> ctypes.CDLL:
    try:
        return open_library()
    except OSError as error:
        raise DeviceError(f"no NVIDIA driver | {LIBRARY} cannot be loaded: {error}") from error


def _check(call: str, code: int) -> None:
    if code:
        raise DeviceError(f"{call} failed | {_reason(code)}")


def _reason(code: int) -> str:
    return f"{_WHY[code]} (CUDA error {code})" if code in _WHY else f"CUDA error {code}"
