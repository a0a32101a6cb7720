"""ONNX Runtime: graphs as inference sessions, frames, labels and state in buffers bound once.

Worker threads do not spin. Measured on 2 cores that other programs use too, a convolutional network at 15 frames/s:
with spinning a step takes 61 ms of CPU time and 39 ms in the median, without it 24 ms and 25 ms. Spinning wins in the
best case only (12 against 16 ms), and a camera loop never has the cores to itself: capture and results need them.
Spinning for a short while (`session.intra_op.spin_duration_us`, 20 to 500) was no better there: back to back, the
fastest tenth of the steps took 14.2 ms without, 14.7 to 20.8 ms with it, for 8 to 31 % more CPU time.
"""

import math
import re
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgeseg.bundle import BundleConfiguration
from edgeseg.errors import ArtifactError, DeviceError
from edgeseg.runtime.backends.base import Runner
from edgeseg.runtime.state import Slot, StatePlan, StepPlan

IMAGE, LABELS = "image", "labels"
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


class OnnxRuntimeRunner(Runner):
    """One inference session per role. State buffers lie on the device and are only ever handed on by address."""

    provider: str
    memory: str
    """Where the state lies, in ONNX Runtime's words."""

    def __init__(self, root: Path, configuration: BundleConfiguration, device: str, threads: int) -> None:
        super().__init__(root, configuration, device, threads)
        self._plan = StatePlan(configuration)
        self._step = 0
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._slots: dict[Slot, ort.OrtValue] = {}
        self._bindings: dict[StepPlan, ort.IOBinding] = {}

    def activate_impl(self) -> tuple[np.ndarray, np.ndarray]:
        self._sessions = {role: self._load(role) for role in self.configuration.graphs}
        image_shape = self._common(IMAGE, "inputs")
        labels_shape = self._common(LABELS, "outputs")
        if len(image_shape) != 4 or image_shape[0] != 1 or image_shape[3] != 3:
            raise self._contract_error(f"input {IMAGE} has shape {list(image_shape)}, expected [1, H, W, 3]")
        if len(labels_shape) != 3 or labels_shape[0] != 1:
            raise self._contract_error(f"output {LABELS} has shape {list(labels_shape)}, expected [1, h, w]")
        image, labels = np.zeros(image_shape, np.uint8), np.zeros(labels_shape, np.uint8)
        self._bindings = {plan: self._bind(plan, image, labels) for plan in self._plan.distinct}
        self._step = 0
        return image[0], labels[0]

    def infer_impl(self) -> None:
        plan = self._plan.at(self._step)
        try:
            self._sessions[plan.role].run_with_iobinding(self._bindings[plan])
        except Exception as error:  # ONNX Runtime raises its own classes and plain RuntimeError alike
            raise DeviceError(
                f"{self.configuration.name}: graph {plan.role} failed on {self.device} | {_one_line(error)}"
            ) from error
        self._step += 1

    def reset_impl(self) -> None:
        self._step = 0

    def deactivate_impl(self) -> None:
        # Bindings hold the addresses of the buffers, so they go first.
        self._bindings.clear()
        self._slots.clear()
        self._sessions.clear()

    def _providers(self) -> list:
        """Execution providers in order of preference, as `InferenceSession` takes them."""
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
        try:
            return ort.InferenceSession(str(path), options, providers=self._providers())
        except Exception as error:  # see infer_impl
            raise ArtifactError(
                f"{path} cannot be loaded on {self.device} | {_one_line(error)} | "
                "export the bundle again, or for a device that it runs on"
            ) from error

    def _common(self, name: str, side: str) -> tuple[int, ...]:
        """Shape of `image` or `labels`, which is the same in every graph."""
        shapes = set()
        for role in self._sessions:
            shape, dtype = self._tensor(role, name, side)
            if dtype != np.uint8:
                raise self._contract_error(f"{name} of {role} is {np.dtype(dtype)}, expected uint8")
            shapes.add(shape)
        if len(shapes) != 1:
            raise self._contract_error(f"{name} differs between the graphs: {sorted(map(list, shapes))}")
        return shapes.pop()

    def _tensor(self, role: str, name: str, side: str) -> tuple[tuple[int, ...], type[np.generic]]:
        """Shape and dtype of one input or output of a graph; `side` is `inputs` or `outputs`."""
        known = {entry.name: entry for entry in getattr(self._sessions[role], f"get_{side}")()}
        if name not in known:
            raise self._contract_error(f"graph {role} has no {name} among its {side}: {', '.join(known)}")
        shape, dtype = known[name].shape, _DTYPES.get(known[name].type)
        if dtype is None or not all(isinstance(length, int) and length > 0 for length in shape):
            raise self._contract_error(f"{name} of {role} is {known[name].type} {shape}, expected a fixed shape")
        return tuple(shape), dtype

    def _bind(self, plan: StepPlan, image: np.ndarray, labels: np.ndarray) -> ort.IOBinding:
        session = self._sessions[plan.role]
        needed = {entry.name for entry in session.get_inputs()} - {IMAGE}
        given = {name for name, _ in plan.reads}
        if needed != given:
            raise self._contract_error(
                f"graph {plan.role} needs the inputs {', '.join(sorted(needed)) or 'none'}, "
                f"its links feed {', '.join(sorted(given)) or 'none'}"
            )
        binding = session.io_binding()
        binding.bind_input(IMAGE, "cpu", 0, np.uint8, image.shape, image.ctypes.data)
        binding.bind_output(LABELS, "cpu", 0, np.uint8, labels.shape, labels.ctypes.data)
        for name, slot in plan.reads:
            binding.bind_ortvalue_input(name, self._slot(slot, plan.role, name, "inputs"))
        for name, slot in plan.writes:
            binding.bind_ortvalue_output(name, self._slot(slot, plan.role, name, "outputs"))
        return binding

    def _slot(self, slot: Slot, role: str, name: str, side: str) -> ort.OrtValue:
        """The buffer of `slot`, allocated when it is first asked for and checked against the tensor that uses it."""
        shape, dtype = self._tensor(role, name, side)
        if slot not in self._slots:
            self._slots[slot] = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self.memory, self._device_index)
        value = self._slots[slot]
        if tuple(value.shape()) != shape or _DTYPES[value.data_type()] != dtype:
            raise self._contract_error(
                f"{name} of {role} is {np.dtype(dtype)} {list(shape)}, but the state it is linked with is "
                f"{value.data_type()} {value.shape()}"
            )
        return value

    def _contract_error(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self.configuration.name}: {what} | export the bundle again")

    @property
    def state_bytes(self) -> int:
        """Size of all state buffers, in bytes."""
        return sum(
            math.prod(value.shape()) * np.dtype(_DTYPES[value.data_type()]).itemsize for value in self._slots.values()
        )


class CpuRunner(OnnxRuntimeRunner):
    """`cpu`: ONNX Runtime's CPU execution provider."""

    provider = "CPUExecutionProvider"
    memory = "cpu"

    @staticmethod
    def usable(device: str) -> str | None:
        return None if device == "cpu" else f"the CPU is written 'cpu', got {device!r}"


class CudaRunner(OnnxRuntimeRunner):
    """`cuda:N`: ONNX Runtime's CUDA execution provider; frames and labels cross over, the state stays on the GPU.

    Unverified: no GPU has run this yet.
    """

    provider = "CUDAExecutionProvider"
    memory = "cuda"

    @staticmethod
    def usable(device: str) -> str | None:
        if not re.fullmatch(r"cuda:\d+", device):
            return f"a GPU is written 'cuda:0', got {device!r}"
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            return "this onnxruntime has no CUDAExecutionProvider: it is in the package onnxruntime-gpu"
        return None

    def _providers(self) -> list:
        return [(self.provider, {"device_id": str(self._device_index)}), "CPUExecutionProvider"]

    def _load(self, role: str) -> ort.InferenceSession:
        session = super()._load(role)
        # ONNX Runtime falls back to the CPU without raising when the CUDA libraries are missing.
        if self.provider not in session.get_providers():
            raise DeviceError(
                f"device {self.device!r} cannot be used here | onnxruntime offers CUDA but could not start it: "
                "the CUDA or cuDNN libraries or the GPU are missing | see edgeseg doctor"
            )
        return session


def _one_line(error: BaseException) -> str:
    """The message of an ONNX Runtime exception without its line breaks and code prefix."""
    text = " ".join(str(error).split())
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text)[:400]
