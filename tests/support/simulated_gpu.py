"""A GPU for tests, in the CPU's memory: what the driver promises and no more, so that relying on more fails.

Work that is put on a stream runs when somebody waits for it, not before. Fresh memory holds garbage. A call without a
current context, a copy from memory that is not page-locked, an allocation while a graph is recorded, an address that
was freed: all are refused as the driver refuses them. `support.cuda_modules` gives it the faces of the packages.
"""

import threading
from collections import Counter
from collections.abc import Callable
from itertools import count

import numpy as np

GARBAGE = 0xA5
OUT_OF_MEMORY, INVALID_VALUE, INVALID_CONTEXT, INVALID_HANDLE, LAUNCH_FAILED = 2, 1, 201, 400, 719
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 900, 901
NAMES = {
    1: "CUDA_ERROR_INVALID_VALUE",
    2: "CUDA_ERROR_OUT_OF_MEMORY",
    201: "CUDA_ERROR_INVALID_CONTEXT",
    400: "CUDA_ERROR_INVALID_HANDLE",
    719: "CUDA_ERROR_LAUNCH_FAILED",
    900: "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
    901: "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
}
Work = Callable[[], None]


class CudaFault(Exception):
    """What the driver tells by an error code."""

    def __init__(self, code: int) -> None:
        super().__init__(NAMES[code])
        self.code = code


class SimulatedGpu:
    """One GPU.

    Args:
        name: as the driver gives it.
        compute_capability: major and minor.
        is_integrated: CPU and GPU share their memory.
        multiprocessors: how many it has.
        memory_bytes: what `alloc` can give.
    """

    def __init__(
        self,
        name: str = "Simulated GPU",
        compute_capability: tuple[int, int] = (8, 7),
        *,
        is_integrated: bool = False,
        multiprocessors: int = 8,
        memory_bytes: int = 1 << 26,
    ) -> None:
        self.name, self.compute_capability, self.is_integrated = name, compute_capability, is_integrated
        self.memory_bytes, self.cuda_version = memory_bytes, 12060
        self.multiprocessors = multiprocessors
        self.copies: Counter[str] = Counter()
        """`in` and `out` -> copies that ran."""
        self.launches = 0
        """Graphs that were launched."""
        self.busy_waits = 0
        """Waits that poll, and keep a core busy."""
        self.contexts = 0
        """Retains of the primary context that were not released."""
        self.refuses_capture = False
        """Whether recording fails at its end."""
        self.fails = False
        """Whether the next work fails, and all calls after it."""
        self._fault: int | None = None
        self._thread = threading.local()
        self._handles = count(0x1000, 0x10)
        self._device: dict[int, np.ndarray] = {}
        self._host: dict[int, np.ndarray] = {}
        self._mapped: dict[int, int] = {}
        self._streams: dict[int, list[Work]] = {}
        self._recording: dict[int, list[Work]] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._events: dict[int, float | None] = {}
        self._sleeping: set[int] = set()
        self._now_ms = 0.0

    @property
    def held(self) -> dict[str, int]:
        """What was not given back, by kind."""
        kinds = {
            "device memory": self._device,
            "page-locked memory": self._host,
            "streams": self._streams,
            "graphs": self._graphs,
            "events": self._events,
        }
        return {kind: len(entries) for kind, entries in kinds.items() if entries} | (
            {"contexts": self.contexts} if self.contexts else {}
        )

    @property
    def device_bytes(self) -> int:
        """Device memory that is allocated."""
        return sum(len(raw) - 256 for raw in self._device.values())

    def push(self) -> None:
        self._check_alive()
        self._thread.depth = getattr(self._thread, "depth", 0) + 1

    def pop(self) -> None:
        if not getattr(self._thread, "depth", 0):
            raise CudaFault(INVALID_CONTEXT)
        self._thread.depth -= 1

    def alloc(self, size_bytes: int) -> int:
        self._check(INVALID_VALUE if size_bytes <= 0 else None, allocates=True)
        if self.device_bytes + size_bytes > self.memory_bytes:
            raise CudaFault(OUT_OF_MEMORY)
        raw = np.full(size_bytes + 256, GARBAGE, np.uint8)
        address = -(-raw.ctypes.data // 256) * 256
        self._device[address] = raw
        return address

    def free(self, address: int) -> None:
        self._check(None if address in self._device else INVALID_VALUE)
        self._device.pop(address)[...] = 0

    @property
    def is_current(self) -> bool:
        """Whether the context is current on this thread."""
        return bool(getattr(self._thread, "depth", 0))

    def host_alloc(self, size_bytes: int, *, mapped: bool) -> np.ndarray:
        self._check(allocates=True)
        # Room for an aligned address, since the GPU sees mapped memory where it lies.
        raw = np.full(size_bytes + 256, GARBAGE, np.uint8)
        start = -raw.ctypes.data % 256
        array = raw[start : start + size_bytes]
        self._host[array.ctypes.data] = array
        if mapped:
            self._mapped[array.ctypes.data] = size_bytes
        return array

    def host_free(self, address: int) -> None:
        self._check(None if address in self._host else INVALID_VALUE)
        del self._host[address]
        self._mapped.pop(address, None)

    def mapped_address(self, address: int) -> int:
        self._check(None if address in self._mapped else INVALID_VALUE)
        return address

    def view(self, address: int, size_bytes: int) -> np.ndarray:
        """What the GPU sees at an address, uint8."""
        for begin, raw in self._device.items():
            offset = address - begin
            start = begin - raw.ctypes.data
            if offset >= 0 and offset + size_bytes <= len(raw) - 256:
                return raw[start + offset : start + offset + size_bytes]
        for begin, length in self._mapped.items():
            if begin <= address and address + size_bytes <= begin + length:
                return self._host[begin][address - begin : address - begin + size_bytes]
        raise CudaFault(LAUNCH_FAILED)

    def copy_in(self, stream: int, address: int, source: int, size_bytes: int) -> None:
        host = self._page_locked(source, size_bytes)

        def work() -> None:
            self.view(address, size_bytes)[...] = host
            self.copies["in"] += 1

        self.put(stream, work)

    def copy_out(self, stream: int, target: int, address: int, size_bytes: int) -> None:
        host = self._page_locked(target, size_bytes)

        def work() -> None:
            host[...] = self.view(address, size_bytes)
            self.copies["out"] += 1

        self.put(stream, work)

    def put(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into the graph that is recorded of it."""
        self._check(None if stream in self._streams else INVALID_HANDLE)
        self._recording.get(stream, self._streams[stream]).append(work)

    def is_recording(self, stream: int) -> bool:
        return stream in self._recording

    def new_stream(self) -> int:
        self._check()
        handle = next(self._handles)
        self._streams[handle] = []
        return handle

    def destroy_stream(self, stream: int) -> None:
        self._check(None if stream in self._streams else INVALID_HANDLE)
        del self._streams[stream]

    def synchronise(self, stream: int) -> None:
        self._check(CAPTURE_UNSUPPORTED if self._recording else None)
        self.busy_waits += 1
        self._run(stream)

    def _run(self, stream: int) -> None:
        waiting, self._streams[stream] = self._streams[stream], []
        for work in waiting:
            self._now_ms += 0.25
            try:
                if self.fails:
                    raise CudaFault(LAUNCH_FAILED)
                work()
            except Exception as error:
                self._fault = LAUNCH_FAILED
                raise CudaFault(LAUNCH_FAILED) from error

    def new_event(self, flags: int = 0) -> int:
        self._check()
        handle = next(self._handles)
        self._events[handle] = None
        if flags & 1:
            self._sleeping.add(handle)
        return handle

    def wait_for(self, event: int) -> None:
        """Wait for an event; one that was never recorded has come."""
        self._check(CAPTURE_UNSUPPORTED if self._recording else None if event in self._events else INVALID_HANDLE)
        self.busy_waits += event not in self._sleeping
        for stream in self._streams:
            self._run(stream)

    def destroy_event(self, event: int) -> None:
        del self._events[event]

    def record_event(self, event: int, stream: int) -> None:
        def work() -> None:
            self._events[event] = self._now_ms

        self.put(stream, work)

    def elapsed_ms(self, begin: int, end: int) -> float:
        times = self._events[begin], self._events[end]
        self._check(INVALID_HANDLE if None in times else None)
        return times[1] - times[0]  # type: ignore[operator]

    def begin_capture(self, stream: int) -> None:
        busy = self.is_recording(stream) or self._streams.get(stream)
        self._check(CAPTURE_UNSUPPORTED if busy or stream not in self._streams else None)
        self._recording[stream] = []

    def end_capture(self, stream: int) -> list[Work]:
        self._check(None if stream in self._recording else INVALID_VALUE)
        recorded = self._recording.pop(stream)
        if self.refuses_capture:
            raise CudaFault(CAPTURE_INVALIDATED)
        return recorded

    def instantiate(self, recorded: list[Work]) -> int:
        self._check()
        handle = next(self._handles)
        self._graphs[handle] = recorded
        return handle

    def launch(self, graph: int, stream: int) -> None:
        self._check(None if graph in self._graphs else INVALID_HANDLE)
        self.launches += 1
        for work in self._graphs[graph]:
            self.put(stream, work)

    def destroy_graph(self, graph: int) -> None:
        self._check(None if graph in self._graphs else INVALID_HANDLE)
        del self._graphs[graph]

    def _page_locked(self, address: int, size_bytes: int) -> np.ndarray:
        for begin, array in self._host.items():
            if begin <= address and address + size_bytes <= begin + array.nbytes:
                return array[address - begin : address - begin + size_bytes]
        raise AssertionError("a copy that does not wait is only safe with page-locked memory")

    def _check(self, code: int | None = None, *, allocates: bool = False) -> None:
        self._check_alive()
        if not getattr(self._thread, "depth", 0):
            raise CudaFault(INVALID_CONTEXT)
        if allocates and self._recording:
            raise CudaFault(CAPTURE_UNSUPPORTED)
        if code is not None:
            raise CudaFault(code)

    def _check_alive(self) -> None:
        if self._fault is not None:
            raise CudaFault(self._fault)
