"""TensorRT and TensorRT for RTX: engines that `edgeseg build` put beside the bundle. No GPU has run this yet."""

import re
from pathlib import Path

import numpy as np

from edgeseg.bundle import BundleConfiguration
from edgeseg.classes import file_name_safe
from edgeseg.errors import DeviceError
from edgeseg.runtime.backends import cuda_driver
from edgeseg.runtime.backends.device_memory import memory_problem, open_memory
from edgeseg.runtime.backends.graph_contract import GraphContract
from edgeseg.runtime.backends.kernel_cache import KernelCache
from edgeseg.runtime.backends.planned_runner import PlannedRunner
from edgeseg.runtime.backends.tensorrt_library import library_problem, load_library
from edgeseg.runtime.backends.tensorrt_steps import EngineSteps
from edgeseg.runtime.engine_cache import engine_folder, find_engine
from edgeseg.runtime.engine_key import DEVICE_FAMILIES, EngineHost
from edgeseg.runtime.state import StepPlan


class TensorrtRunner(PlannedRunner):
    """`tensorrt:N`: TensorRT 10.0 to 11.x."""

    family = "tensorrt"
    """First part of the device string."""
    failures = (DeviceError,)

    def __init__(self, root: Path, configuration: BundleConfiguration, device: str, threads: int) -> None:
        super().__init__(root, configuration, device, threads)
        self._steps: EngineSteps | None = None

    @staticmethod
    def usable(device: str) -> str | None:
        return _problem(device, TensorrtRunner.family)

    @property
    def device_ms(self) -> float | None:
        return None if self._steps is None else self._steps.device_ms

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether every step is one launch; False where the library or the driver could not record some."""
        return self._steps is not None and self._steps.uses_cuda_graphs

    def activate_impl(self) -> tuple[np.ndarray, np.ndarray]:
        library = load_library(DEVICE_FAMILIES[self.family])
        gpu = cuda_driver.gpu(int(self.device.partition(":")[2]))
        host = EngineHost(self.device, library.name, library.version, gpu.compute_capability, gpu.name)
        # All are looked up before any is loaded: a missing one is told at once.
        first = find_engine(self.root, self.configuration, self.configuration.first, host)
        options = first.key.options
        records = {self.configuration.first: first}
        for role in self.configuration.graphs:
            if role not in records:
                records[role] = find_engine(self.root, self.configuration, role, host, options=options)
        name = self.configuration.name
        kernels = self._kernels(f"{name}.{library.name}-{library.version}-{gpu.name}.kernels")
        self._steps = steps = EngineSteps(library, open_memory(gpu.index), name, kernels)
        tensors = steps.load({role: record.read() for role, record in records.items()}, options)
        contract = GraphContract(self.configuration, tensors)
        image, labels = steps.prepare(contract, mapped=gpu.is_integrated)
        self._follow(contract.plan)
        return image[0], labels[0]

    def _kernels(self, file: str) -> KernelCache | None:
        """Where kernels are kept that the library compiles at load: TensorRT has them in its engines."""
        return None

    def _run(self, plan: StepPlan) -> None:
        assert self._steps is not None
        self._steps.run(plan)

    def deactivate_impl(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.close()


class TensorrtRtxRunner(TensorrtRunner):
    """`tensorrt-rtx:N`: TensorRT for RTX."""

    family = "tensorrt-rtx"

    @staticmethod
    def usable(device: str) -> str | None:
        return _problem(device, TensorrtRtxRunner.family)

    def _kernels(self, file: str) -> KernelCache | None:
        return KernelCache(engine_folder(self.root) / file_name_safe(file))


def _problem(device: str, family: str) -> str | None:
    if not re.fullmatch(rf"{family}:\d+", device):
        return f"a GPU is written '{family}:0', got {device!r}"
    return (
        cuda_driver.driver_problem(int(device.partition(":")[2]))
        or library_problem(DEVICE_FAMILIES[family])
        or memory_problem()
    )
