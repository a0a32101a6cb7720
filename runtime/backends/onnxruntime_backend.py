"""ONNX Runtime: graphs as inference sessions, frames, labels and state in buffers bound once.

Worker threads do not spin. Measured on 2 cores that other programs use too, a convolutional network at 15 frames/s:
with spinning a step takes 61 ms of CPU time and 39 ms in the median, without it 24 ms and 25 ms. Spinning wins in the
best case only (12 against 16 ms), and a camera loop never has the cores to itself: capture and results need them.
Spinning for a short while (`session.intra_op.spin_duration_us`, 20 to 500) was no better there: back to back, the
fastest tenth of the steps took 14.2 ms without, 14.7 to 20.8 ms with it, for 8 to 31 % more CPU time.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgeseg.bundle import BundleConfiguration
from edgeseg.errors import ArtifactError, one_line
from edgeseg.runtime.backends.graph_contract import IMAGE, LABELS, GraphContract, GraphTensors, Tensor
from edgeseg.runtime.backends.int8_products import keep_products_exact
from edgeseg.runtime.backends.planned_runner import PlannedRunner
from edgeseg.runtime.state import Slot, StepPlan

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_SILENT = 4
"""Log level that leaves failures to our exceptions."""


class OnnxRuntimeRunner(PlannedRunner):
    """One inference session per role. State buffers lie on the device and are only ever handed on by address."""

    provider: str
    memory: str
    """Where the state lies, in ONNX Runtime's words."""

    def __init__(self, root: Path, configuration: BundleConfiguration, device: str, threads: int) -> None:
        super().__init__(root, configuration, device, threads)
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._slots: dict[Slot, ort.OrtValue] = {}
        self._bindings: dict[StepPlan, ort.IOBinding] = {}

    def activate_impl(self) -> tuple[np.ndarray, np.ndarray]:
        self._sessions = {role: self._load(role) for role in self.configuration.graphs}
        contract = GraphContract(self.configuration, {role: _tensors(each) for role, each in self._sessions.items()})
        self._follow(contract.plan)
        self._slots = {
            slot: ort.OrtValue.ortvalue_from_shape_and_type(
                tensor.shape, tensor.dtype.type, self.memory, self._device_index
            )
            for slot, tensor in contract.slots.items()
            if tensor.dtype is not None
        }
        image, labels = np.zeros(contract.image_shape, np.uint8), np.zeros(contract.labels_shape, np.uint8)
        self._bindings = {plan: self._bind(plan, image, labels) for plan in self._plan.distinct}
        return image[0], labels[0]

    def deactivate_impl(self) -> None:
        # Bindings hold the addresses of the buffers, so they go first.
        self._bindings.clear()
        self._slots.clear()
        self._sessions.clear()

    def _run(self, plan: StepPlan) -> None:
        self._sessions[plan.role].run_with_iobinding(self._bindings[plan])

    def _providers(self, role: str) -> list:
        """Execution providers of one graph in order of preference, as `InferenceSession` takes them."""
        return [self.provider]

    @property
    def _device_index(self) -> int:
        return int(self.device.partition(":")[2] or 0)

    def _load(self, role: str) -> ort.InferenceSession:
        path = self.root / self.configuration.graphs[role].file
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        keep_products_exact(options)
        try:
            return ort.InferenceSession(str(path), options, providers=self._providers(role))
        except Exception as error:  # see infer_impl
            raise ArtifactError(
                f"{path} cannot be loaded on {self.device} | {one_line(error)} | "
                "export the bundle again, or for a device that it runs on"
            ) from error

    def _bind(self, plan: StepPlan, image: np.ndarray, labels: np.ndarray) -> ort.IOBinding:
        binding = self._sessions[plan.role].io_binding()
        self._bind_frame(binding, image, labels)
        for name, slot in plan.reads:
            binding.bind_ortvalue_input(name, self._slots[slot])
        for name, slot in plan.writes:
            binding.bind_ortvalue_output(name, self._slots[slot])
        return binding

    def _bind_frame(self, binding: ort.IOBinding, image: np.ndarray, labels: np.ndarray) -> None:
        binding.bind_input(IMAGE, "cpu", 0, np.uint8, image.shape, image.ctypes.data)
        binding.bind_output(LABELS, "cpu", 0, np.uint8, labels.shape, labels.ctypes.data)


class CpuRunner(OnnxRuntimeRunner):
    """`cpu`: ONNX Runtime's CPU execution provider."""

    provider = "CPUExecutionProvider"
    memory = "cpu"

    @staticmethod
    def usable(device: str) -> str | None:
        return None if device == "cpu" else f"the CPU is written 'cpu', got {device!r}"


def _tensors(session: ort.InferenceSession) -> GraphTensors:
    inputs, outputs = (
        {
            entry.name: Tensor(
                tuple(entry.shape), entry.type, np.dtype(_DTYPES[entry.type]) if entry.type in _DTYPES else None
            )
            for entry in entries
        }
        for entries in (session.get_inputs(), session.get_outputs())
    )
    return GraphTensors(inputs, outputs)
