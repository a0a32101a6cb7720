"""ONNX Runtime on NVIDIA GPUs: its CUDA and TensorRT execution providers, everything bound to device memory.

One frame is copied in and one label map out per step; states stay on the GPU in ping-pong buffers. ONNX Runtime records
CUDA graphs itself, which freezes addresses: a graph per step plan, told apart by `gpu_graph_id`. It runs a step several
times to record it, which is harmless here because no step writes what it reads. No GPU has run this yet.
"""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edgeseg.bundle import BundleConfiguration
from edgeseg.errors import ArtifactError, DeviceError
from edgeseg.runtime.backends import cuda_driver
from edgeseg.runtime.backends.graph_contract import IMAGE, LABELS
from edgeseg.runtime.backends.onnxruntime_backend import OnnxRuntimeRunner
from edgeseg.runtime.engine_cache import engine_folder
from edgeseg.runtime.state import StatePlan, StepPlan

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_CANNOT_CAPTURE = "graph capture feature"
"""Part of what ONNX Runtime says when some node of a graph does not run on the GPU."""
_log = logging.getLogger(__name__)


class GpuRunner(OnnxRuntimeRunner):
    """What both providers share. Frames and labels cross over by one copy each."""

    memory = "cuda"
    libraries: str
    """What has to be installed beside onnxruntime-gpu."""

    def __init__(self, root: Path, configuration: BundleConfiguration, device: str, threads: int) -> None:
        super().__init__(root, configuration, device, threads)
        self._captures: dict[str, bool] = {}
        """Role -> whether its steps are CUDA graphs."""
        self._options: dict[StepPlan, Any] = {}
        self._frame: tuple[np.ndarray, Any] | None = None
        self._result: tuple[np.ndarray, Any] | None = None

    def activate_impl(self) -> tuple[np.ndarray, np.ndarray]:
        image, labels = super().activate_impl()
        for index, plan in enumerate(self._plan.distinct):
            self._options[plan] = options = ort.RunOptions()
            if self._captures[plan.role]:
                options.add_run_config_entry("gpu_graph_id", str(index + 1))
        return image, labels

    def deactivate_impl(self) -> None:
        super().deactivate_impl()
        self._options.clear()
        self._frame = self._result = None

    def _run(self, plan: StepPlan) -> None:
        assert self._frame is not None
        assert self._result is not None
        image, image_value = self._frame
        labels, labels_value = self._result
        image_value.update_inplace(image)
        self._sessions[plan.role].run_with_iobinding(self._bindings[plan], self._options[plan])
        np.copyto(labels, labels_value.numpy())

    def _bind_frame(self, binding: ort.IOBinding, image: np.ndarray, labels: np.ndarray) -> None:
        if self._frame is None:
            self._frame = image, self._on_device(image.shape)
            self._result = labels, self._on_device(labels.shape)
        assert self._result is not None
        binding.bind_ortvalue_input(IMAGE, self._frame[1])
        binding.bind_ortvalue_output(LABELS, self._result[1])

    def _on_device(self, shape: tuple[int, ...]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, np.uint8, self.memory, self._device_index)

    def _may_capture(self, role: str) -> bool:
        """Whether the provider can record the steps of `role`, as far as is known before it is loaded."""
        return True

    def _load(self, role: str) -> ort.InferenceSession:
        self._captures[role] = self._may_capture(role)
        try:
            session = super()._load(role)
        except ArtifactError as error:
            if not self._captures[role] or _CANNOT_CAPTURE not in str(error):
                raise
            _log.info("%s (%s) runs without a CUDA graph: %s", self.configuration.name, role, error)
            self._captures[role] = False
            session = super()._load(role)
        # ONNX Runtime falls back to the CPU without raising when the CUDA libraries are missing.
        if self.provider not in session.get_providers():
            raise DeviceError(
                f"device {self.device!r} cannot be used here | onnxruntime offers {self.provider} but could not start "
                f"it: the {self.libraries} libraries or the GPU are missing | see edgeseg doctor"
            )
        return session

    @classmethod
    def _problem(cls, device: str, family: str) -> str | None:
        if not re.fullmatch(rf"{family}:\d+", device):
            return f"a GPU is written '{family}:0', got {device!r}"
        if cls.provider not in ort.get_available_providers():
            return f"this onnxruntime has no {cls.provider}: it is in the package onnxruntime-gpu"
        return cuda_driver.driver_problem(int(device.partition(":")[2]))


class CudaRunner(GpuRunner):
    """`cuda:N`: the CUDA execution provider."""

    provider = CUDA
    libraries = "CUDA and cuDNN"

    @staticmethod
    def usable(device: str) -> str | None:
        return CudaRunner._problem(device, "cuda")

    def _providers(self, role: str) -> list:
        options = {"device_id": str(self._device_index), "enable_cuda_graph": str(int(self._captures[role]))}
        return [(CUDA, options), "CPUExecutionProvider"]


class OrtTensorrtRunner(GpuRunner):
    """`ort-tensorrt:N`: the TensorRT execution provider, which builds engines when it loads a graph and keeps them in
    the folder `onnxruntime` of the bundle's engine cache.
    """

    provider = TENSORRT
    libraries = "CUDA, cuDNN and TensorRT"

    @staticmethod
    def usable(device: str) -> str | None:
        return OrtTensorrtRunner._problem(device, "ort-tensorrt")

    def _may_capture(self, role: str) -> bool:
        # It records one graph per session, with the addresses of the first run: not for buffers that take turns.
        return sum(plan.role == role for plan in StatePlan(self.configuration).distinct) == 1

    def _providers(self, role: str) -> list:
        knobs, index = self.configuration.knobs, str(self._device_index)
        options = {
            "device_id": index,
            "trt_cuda_graph_enable": str(self._captures[role]),
            # Its networks are weakly typed: halves and Q/DQ in the graph are only kept when these are on.
            "trt_fp16_enable": str(knobs.precision == "fp16" or knobs.state_dtype == "fp16"),
            "trt_int8_enable": str(knobs.precision == "int8"),
        }
        folder = engine_folder(self.root) / "onnxruntime"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            _log.warning("engines are built anew each time: %s cannot be made (%s)", folder, error.strerror)
        else:
            options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder)}
            options |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": str(folder)}
        return [(TENSORRT, options), (CUDA, {"device_id": index}), "CPUExecutionProvider"]
