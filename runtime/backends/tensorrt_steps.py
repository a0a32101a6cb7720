"""The steps of one configuration on a GPU: engines, buffers, execution contexts and CUDA graphs.

Everything of a step lies on the GPU. One frame is copied in and one label map out; where CPU and GPU share their memory
nothing is. States lie in ping-pong buffers: TensorRT gives wrong results when an input and an output share an address.
Each step plan has an execution context of its own, bound to its addresses, and is recorded as a CUDA graph, which
freezes them; scratch memory is shared, since steps run one after the other on one stream.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from edgeseg.errors import DeviceError
from edgeseg.runtime.backends.device_memory import ALIGNMENT, DeviceMemory, HostBuffer
from edgeseg.runtime.backends.graph_contract import IMAGE, LABELS, GraphContract, GraphTensors, Tensor
from edgeseg.runtime.backends.kernel_cache import KernelCache
from edgeseg.runtime.backends.tensorrt_library import TensorrtLibrary
from edgeseg.runtime.state import StepPlan

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}
_SCRATCH = "scratch"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ends:
    """Where a step begins and ends on the host."""

    frame: HostBuffer
    labels: HostBuffer


@dataclass
class _Step:
    """One step plan, ready to run."""

    context: Any
    addresses: dict[str, int]
    """Tensor -> device address."""
    graph: Any = None
    """Its CUDA graph; None where it cannot be recorded."""


class EngineSteps:
    """Engines of a configuration and what they need to run. `load`, `prepare`, then `run`; `close` in any case.

    Args:
        library: whose engines they are.
        memory: of the GPU; closed by `close`.
        what: name of the configuration, for messages.
        kernels: where the library keeps what it compiles; None for a library that compiles nothing.
    """

    def __init__(
        self, library: TensorrtLibrary, memory: DeviceMemory, what: str, kernels: KernelCache | None = None
    ) -> None:
        self._library, self._memory, self._what, self._kernels = library, memory, what, kernels
        self._runtime: Any = None
        self._engines: dict[str, Any] = {}
        self._steps: dict[StepPlan, _Step] = {}
        self._events: tuple[Any, ...] = ()
        self._ends: _Ends | None = None
        self.device_ms: float | None = None
        """What the GPU counted for the last step, copies included."""

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether every step is one launch."""
        return all(step.graph is not None for step in self._steps.values())

    def load(
        self, engines: Mapping[str, bytes], options: Mapping[str, Any] = MappingProxyType({})
    ) -> dict[str, GraphTensors]:
        """Load the engines (role -> content), which were built with `options`; role -> inputs and outputs.

        Raises:
            DeviceError: the library does not start, or refuses an engine.
        """
        with self._memory.current():
            self._runtime = self._library.runtime(options)
            for role, content in engines.items():
                self._engines[role] = self._library.deserialize(self._runtime, content, f"{self._what} ({role})")
        return {role: self._tensors(engine) for role, engine in self._engines.items()}

    def prepare(self, contract: GraphContract, *, mapped: bool) -> tuple[np.ndarray, np.ndarray]:
        """Allocate all buffers, run each step once and record it.

        Args:
            contract: of these engines.
            mapped: the GPU reads the frame and writes the labels in the CPU's memory.

        Returns:
            Frame and labels, uint8 `(1, H, W, 3)` and `(1, h, w)`, page-locked.

        Raises:
            DeviceError: memory is short, or an engine does not run.
        """
        with self._memory.current():
            self._ends = ends = _Ends(
                self._memory.host_buffer(contract.image_shape, mapped=mapped),
                self._memory.host_buffer(contract.labels_shape, mapped=mapped),
            )
            self._make_steps(contract, ends)
            self._events = self._memory.event(), self._memory.event()
            self._warm_up()
            if self._kernels is not None:
                self._kernels.save()
        return ends.frame.array, ends.labels.array

    def run(self, plan: StepPlan) -> None:
        """Run one step, from frame to labels, and wait for it.

        Raises:
            DeviceError: the GPU or the library failed.
        """
        memory, step, (begin, end) = self._memory, self._steps[plan], self._events
        with memory.current():
            memory.record(begin)
            if step.graph is None:
                self._enqueue(step)
            else:
                memory.launch(step.graph)
            memory.record(end)
            memory.wait(end)
            self.device_ms = memory.elapsed_ms(begin, end)

    def close(self) -> None:
        """Free everything; frame and labels stay as long as somebody holds them."""
        # After a failure of the GPU every call fails, and what it failed of is what people have to read.
        with suppress(DeviceError), self._memory.current():
            for step in self._steps.values():
                if step.graph is not None:
                    self._memory.destroy(step.graph)
        with suppress(DeviceError), self._memory.current():
            self._steps.clear()
            self._engines.clear()
            self._events, self._runtime, self._kernels = (), None, None
            # Here, where the context is current: on another thread than that of `prepare` pycuda would leak them.
            self._ends = None
        with suppress(DeviceError):
            self._memory.close()

    def _make_steps(self, contract: GraphContract, ends: _Ends) -> None:
        """Contexts of all step plans, and one slab of memory for all that lies on the GPU."""
        # TensorRT 10.0 has no size of that name: there each context has scratch memory of its own.
        engines = self._engines.values()
        shares = all(hasattr(engine, "device_memory_size_v2") for engine in engines)
        scratch_bytes = max(int(engine.device_memory_size_v2) for engine in engines) if shares else None
        needed: dict[Any, int] = {slot: tensor.nbytes for slot, tensor in contract.slots.items()}
        needed[_SCRATCH] = scratch_bytes or 0
        if ends.frame.device_address is None:
            needed |= {IMAGE: ends.frame.array.nbytes, LABELS: ends.labels.array.nbytes}
        for plan in contract.plan.distinct:
            needed |= {(plan.role, name): tensor.nbytes for name, tensor in contract.unread(plan).items()}
        places = _slab(self._memory, needed)
        outer = {
            IMAGE: ends.frame.device_address or places[IMAGE],
            LABELS: ends.labels.device_address or places[LABELS],
        }
        for plan in contract.plan.distinct:
            states = {name: places[slot] for name, slot in (*plan.reads, *plan.writes)}
            unread = {name: places[plan.role, name] for name in contract.unread(plan)}
            context = self._context(plan.role, places[_SCRATCH], scratch_bytes)
            self._steps[plan] = _Step(context, {**outer, **states, **unread})

    def _context(self, role: str, scratch: int, scratch_bytes: int | None) -> Any:
        """An execution context, in shared scratch memory of `scratch_bytes` unless those are None."""
        engine = self._engines[role]
        self._library.logger.errors.clear()
        if scratch_bytes is None:
            context = engine.create_execution_context()
        else:
            strategy = self._library.module.ExecutionContextAllocationStrategy.USER_MANAGED
            how = strategy if self._kernels is None else self._kernels.config(engine, strategy)
            context = engine.create_execution_context(how)
        if context is None:
            raise DeviceError(f"{self._what} ({role}) gets no execution context | {self._library.why()}")
        if scratch_bytes is not None:
            context.set_device_memory(scratch, scratch_bytes)
        return context

    def _warm_up(self) -> None:
        """Run each step once, as TensorRT needs before it is recorded, and record it.

        They come in the order of the sequence, so each reads a state that was written. What they leave is never read:
        the first step after a reset reads no state.
        """
        for plan, step in self._steps.items():
            self._enqueue(step)
            self._memory.synchronise()
            try:
                step.graph = self._recorded(step)
            except DeviceError as error:
                _log.info("%s (%s) runs without a CUDA graph: %s", self._what, plan.role, error)

    def _recorded(self, step: _Step) -> Any:
        # TensorRT for RTX tells beforehand.
        if hasattr(step.context, "is_stream_capturable") and not step.context.is_stream_capturable(self._memory.stream):
            raise DeviceError("the library says that it cannot be recorded")
        return self._memory.capture(lambda: self._enqueue(step))

    def _enqueue(self, step: _Step) -> None:
        """Put one step on the stream: the frame's copy, the engine, the labels' copy."""
        assert self._ends is not None
        frame, labels = self._ends.frame, self._ends.labels
        self._library.logger.errors.clear()
        for name, address in step.addresses.items():
            if not step.context.set_tensor_address(name, address):
                raise DeviceError(f"{self._library.title} refuses the address of {name} | {self._library.why()}")
        if frame.device_address is None:
            self._memory.copy_to_device(step.addresses[IMAGE], frame.array)
        if not step.context.execute_async_v3(self._memory.stream):
            raise DeviceError(f"{self._library.title} does not run the engine | {self._library.why()}")
        if labels.device_address is None:
            self._memory.copy_to_host(labels.array, step.addresses[LABELS])

    def _tensors(self, engine: Any) -> GraphTensors:
        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            kind = engine.get_tensor_dtype(name).name
            dtype = np.dtype(_DTYPES[kind]) if kind in _DTYPES else None
            is_input = engine.get_tensor_mode(name) == self._library.module.TensorIOMode.INPUT
            (inputs if is_input else outputs)[name] = Tensor(tuple(engine.get_tensor_shape(name)), kind, dtype)
        return GraphTensors(inputs, outputs)


def _slab(memory: DeviceMemory, sizes: Mapping[Any, int]) -> dict[Any, int]:
    """Addresses of buffers of `sizes` bytes, each aligned, in one allocation."""
    offsets, end = {}, 0
    for key, size in sizes.items():
        offsets[key] = end
        end += -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
    begin = memory.alloc(end)
    return {key: begin + offset for key, offset in offsets.items()}
