"""PyTorch: the programs that `edgeseg export --format torch` wrote, on the CPU or on a GPU as CUDA graphs.

A comparison for the other backends, and a fallback where they cannot be had. Images come as rows of pixels, so maps are
channels-last from the first convolution on, and weights are laid out alike.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import BundleConfiguration
from edgeseg.errors import ArtifactError, DeviceError, EdgesegError, one_line
from edgeseg.runtime.backends.exported_program import NAMES_FILE, read_program
from edgeseg.runtime.backends.graph_contract import IMAGE, LABELS, GraphContract
from edgeseg.runtime.backends.planned_runner import PlannedRunner
from edgeseg.runtime.backends.torch_library import import_torch, import_torch_tensorrt, missing, missing_gpu
from edgeseg.runtime.backends.torch_programs import CompiledProgram, OperatorProgram, Program
from edgeseg.runtime.state import Slot, StepPlan

_WARM_UP = 3
"""Steps before a CUDA graph is captured, in which libraries choose their kernels and allocate."""


class Steps(ABC):
    """Runs the steps of a configuration: from the image buffer to the labels buffer, both tensors in host memory."""

    image: Any
    labels: Any

    @abstractmethod
    def run(self, plan: StepPlan) -> None:
        """One step; `labels` holds its result when it returns."""


class CpuSteps(Steps):
    """Steps on the CPU: a state is the very tensor that the step before made."""

    def __init__(self, torch: Any, programs: Mapping[str, Program], contract: GraphContract, threads: int) -> None:
        self._torch, self._programs, self._threads = torch, programs, threads
        self.image = torch.zeros(contract.image_shape, dtype=torch.uint8)
        self.labels = torch.zeros(contract.labels_shape, dtype=torch.uint8)
        self._slots: dict[Slot, Any] = {}

    def run(self, plan: StepPlan) -> None:
        with self._torch.inference_mode(), self._using_threads():
            states = {name: self._slots[slot] for name, slot in plan.reads}
            made = self._programs[plan.role]({IMAGE: self.image, **states})
            self.labels.copy_(made[LABELS])
            for name, slot in plan.writes:
                self._slots[slot] = self._kept(made[name])

    def _kept(self, state: Any) -> Any:
        """A state that stays as it is when the next image is written over this one."""
        is_image = state.untyped_storage().data_ptr() == self.image.untyped_storage().data_ptr()
        return state.clone() if is_image else state

    @contextmanager
    def _using_threads(self) -> Iterator[None]:
        # The number is the process's, and others may use torch too: an exporter, another session.
        before = self._torch.get_num_threads()
        if before == self._threads:
            yield
            return
        self._torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            self._torch.set_num_threads(before)


class GpuSteps(Steps):
    """Steps on a GPU: page-locked buffers on the host, everything else there and at addresses that stay.

    A step is a copy to the GPU, its graph, and a copy back, on one stream. The state is copied from where a graph makes
    it to where the next one reads it, on the GPU.

    Args:
        capture: make a CUDA graph of each distinct plan; otherwise operators are launched one by one.

    Unverified: no GPU has run this yet.
    """

    def __init__(
        self, torch: Any, programs: Mapping[str, Program], contract: GraphContract, place: Any, *, capture: bool
    ) -> None:
        self._torch, self._programs = torch, programs
        self.image = self._host(contract.image_shape)
        self.labels = self._host(contract.labels_shape)
        self._image = torch.zeros(contract.image_shape, dtype=torch.uint8, device=place)
        self._labels = torch.zeros(contract.labels_shape, dtype=torch.uint8, device=place)
        self._slots = {
            slot: torch.zeros(tensor.shape, dtype=getattr(torch, str(tensor.dtype)), device=place)
            for slot, tensor in contract.slots.items()
        }
        self._stream = torch.cuda.Stream(place)
        # Who waits for it sleeps; waiting for the stream itself would hold a core.
        self._done = torch.cuda.Event(blocking=True)
        # Weights and buffers are filled on the default stream, for which this one does not wait.
        torch.cuda.synchronize(place)
        self._graphs: dict[StepPlan, Any] = {}
        if capture:
            pool = torch.cuda.graph_pool_handle()
            self._graphs = {plan: self._captured(plan, pool) for plan in contract.plan.distinct}

    def run(self, plan: StepPlan) -> None:
        with self._torch.inference_mode(), self._torch.cuda.stream(self._stream):
            self._image.copy_(self.image, non_blocking=True)
            if plan in self._graphs:
                self._graphs[plan].replay()
            else:
                self._enqueue(plan)
            self.labels.copy_(self._labels, non_blocking=True)
            self._done.record(self._stream)
            self._done.synchronize()

    def _host(self, shape: tuple[int, ...]) -> Any:
        return self._torch.zeros(shape, dtype=self._torch.uint8, pin_memory=True)

    def _captured(self, plan: StepPlan, pool: Any) -> Any:
        """The CUDA graph of a step. The plans share one pool: what one leaves in it, none of the others reads."""
        torch = self._torch
        with torch.inference_mode(), _tuned(torch):
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP):
                    self._enqueue(plan)
            self._stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                self._enqueue(plan)
        return graph

    def _enqueue(self, plan: StepPlan) -> None:
        states = {name: self._slots[slot] for name, slot in plan.reads}
        made = self._programs[plan.role]({IMAGE: self._image, **states})
        self._labels.copy_(made[LABELS])
        for name, slot in plan.writes:
            self._slots[slot].copy_(made[name])


@contextmanager
def _tuned(torch: Any) -> Iterator[None]:
    """Convolutions by the fastest of cuDNN's algorithms, measured when each is first run."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class TorchRunner(PlannedRunner):
    """Devices `torch:cpu` and `torch:0`: programs of the form `torch`."""

    form = "torch"

    def __init__(self, root: Path, configuration: BundleConfiguration, device: str, threads: int) -> None:
        super().__init__(root, configuration, device, threads)
        self._steps: Steps | None = None

    @staticmethod
    def usable(device: str) -> str | None:
        if not re.fullmatch(r"torch:(cpu|\d+)", device):
            return f"it is written 'torch:cpu' or 'torch:0', got {device!r}"
        if reason := missing("torch"):
            return reason
        return None if device == "torch:cpu" else missing_gpu(int(device.partition(":")[2]))

    def activate_impl(self) -> tuple[np.ndarray, np.ndarray]:
        torch = import_torch()
        place, files = self._place(torch), self._files()
        try:
            with torch.inference_mode():
                programs = {role: self._load(torch, path, place) for role, path in files.items()}
            contract = GraphContract(self.configuration, {role: each.tensors for role, each in programs.items()})
            self._steps = self._make_steps(torch, programs, contract, place)
        except EdgesegError:
            raise
        except Exception as error:  # torch raises RuntimeError for most, out of memory too
            raise DeviceError(
                f"{self.configuration.name} cannot be loaded on {self.device} | {one_line(error)}"
            ) from error
        self._follow(contract.plan)
        return self._steps.image.numpy()[0], self._steps.labels.numpy()[0]

    def _run(self, plan: StepPlan) -> None:
        assert self._steps is not None
        self._steps.run(plan)

    def deactivate_impl(self) -> None:
        self._steps = None

    def _place(self, torch: Any) -> Any:
        where = self.device.partition(":")[2]
        return torch.device("cpu" if where == "cpu" else f"cuda:{where}")

    def _make_steps(self, torch: Any, programs: Mapping[str, Program], contract: GraphContract, place: Any) -> Steps:
        if self.device == "torch:cpu":
            return CpuSteps(torch, programs, contract, self.threads)
        return GpuSteps(torch, programs, contract, place, capture=True)

    def _files(self) -> dict[str, Path]:
        """Role -> its program."""
        if self.form not in self.configuration.programs:
            raise ArtifactError(
                f"{self.configuration.name} has no programs for {self.device} | the bundle was exported without them: "
                f"edgeseg export ... --format onnx,{self.form}"
            )
        return {role: self.root / file for role, file in self.configuration.programs[self.form].files.items()}

    def _load(self, torch: Any, path: Path, place: Any) -> Program:
        return OperatorProgram(torch, read_program(path), place)


class TorchTensorrtRunner(TorchRunner):
    """Device `torch-tensorrt:0`: programs that Torch-TensorRT compiled for a GPU of this model.

    They are loaded by Torch-TensorRT, which unpickles the engines that it saved: a bundle with such programs is trusted
    like any program, and so only this device, when it is asked for, loads them. `edgeseg.runtime.load` has compared
    them with the manifest's hashes then.

    Unverified: no GPU has run this yet.
    """

    form = "torch-tensorrt"

    @staticmethod
    def usable(device: str) -> str | None:
        if not re.fullmatch(r"torch-tensorrt:\d+", device):
            return f"it is written 'torch-tensorrt:0', got {device!r}"
        return missing("torch_tensorrt") or missing_gpu(int(device.partition(":")[2]))

    def _make_steps(self, torch: Any, programs: Mapping[str, Program], contract: GraphContract, place: Any) -> Steps:
        # Its engines launch on streams of their own, which a capture of ours would not see.
        return GpuSteps(torch, programs, contract, place, capture=False)

    def _load(self, torch: Any, path: Path, place: Any) -> Program:
        extra = {NAMES_FILE: ""}
        library = import_torch_tensorrt()
        with torch.cuda.device(place):
            program = library.load(str(path), extra_files=extra)
        try:
            names = json.loads(extra[NAMES_FILE])
            return CompiledProgram(program, names["inputs"], names["outputs"])
        except (LookupError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{path} is not a program of edgeseg ({error!r}) | export it again with --format torch-tensorrt"
            ) from error
