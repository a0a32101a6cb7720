"""The seam between the runtime and the libraries that run graphs: a runner, and the table of device strings.

A backend is a subclass of `Runner` and a row in `BACKENDS`. Its module is imported when a device of it is asked for.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from edgeseg.bundle import BundleConfiguration
from edgeseg.errors import DeviceError


class Runner(ABC):
    """Runs the graphs of one configuration on one device, and owns their buffers and state.

    Nothing is loaded before `activate`; nothing is held after `deactivate`. Use it as a context manager, from one
    thread at a time. The public methods check the life cycle; a backend implements those with `_impl`.
    """

    def __init__(self, root: Path, configuration: BundleConfiguration, device: str, threads: int) -> None:
        """
        Args:
            root: folder that the configuration's file names are relative to.
            configuration: graphs, sequence and links.
            device: device string, one that `usable` answered None for.
            threads: CPU threads that one step may use, at least 1.
        """
        if threads < 1:
            raise DeviceError(f"threads is at least 1 | got {threads}")
        self.root = root
        self.configuration = configuration
        self.device = device
        self.threads = threads
        self.is_active = False
        self._image: np.ndarray | None = None
        self._labels: np.ndarray | None = None

    @staticmethod
    @abstractmethod
    def usable(device: str) -> str | None:
        """None when `device` can be used here, otherwise why not, as one clause."""

    @abstractmethod
    def activate_impl(self) -> tuple[np.ndarray, np.ndarray]:
        """Load the graphs; return the buffers `image` and `labels` as `image` and `labels` describe them."""

    @abstractmethod
    def infer_impl(self) -> None:
        """Run one step: from the image buffer to the labels buffer, and the state one step on."""

    @abstractmethod
    def reset_impl(self) -> None:
        """Make the next step the first one."""

    @abstractmethod
    def deactivate_impl(self) -> None:
        """Free graphs and buffers."""

    def activate(self) -> None:
        """Load the graphs and allocate all buffers, the state's included.

        Raises:
            DeviceError: the device cannot load them.
            ArtifactError: a graph does not have the inputs and outputs that the manifest promises.
        """
        if self.is_active:
            raise DeviceError(f"{self.configuration.name} is already active on {self.device} | deactivate it first")
        try:
            self._image, self._labels = self.activate_impl()
        except BaseException:
            self.deactivate_impl()
            raise
        self.is_active = True

    @property
    def image(self) -> np.ndarray:
        """uint8 `(H, W, 3)` in the bundle's colour order: the runner's own buffer, to be filled before `infer`."""
        self._check_active()
        assert self._image is not None
        return self._image

    @property
    def device_ms(self) -> float | None:
        """Milliseconds that the device itself counted for the last step, its copies included; None where it does not
        count, or before the first step.
        """
        return None

    @property
    def labels(self) -> np.ndarray:
        """uint8 `(h, w)`: the runner's own output buffer, overwritten by the next `infer`."""
        self._check_active()
        assert self._labels is not None
        return self._labels

    def infer(self) -> None:
        """Run one step on what `image` holds; `labels` holds the result when it returns.

        Raises:
            DeviceError: the runner is not active, or the device failed.
        """
        self._check_active()
        self.infer_impl()

    def reset(self) -> None:
        """Forget the state: the next `infer` is the first step of a sequence."""
        self._check_active()
        self.reset_impl()

    def deactivate(self) -> None:
        """Free everything; the buffers that `image` and `labels` gave out stay as they are. May be called twice."""
        if self.is_active:
            self.is_active = False
            self._image = self._labels = None
            self.deactivate_impl()

    def __enter__(self) -> "Runner":
        self.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.deactivate()

    def _check_active(self) -> None:
        if not self.is_active:
            raise DeviceError(
                f"{self.configuration.name} is not active on {self.device} | activate it, or load it again"
            )


class Backend(NamedTuple):
    """One row of the device table."""

    runner: str
    """`module:class`, imported when it is asked for."""
    devices: str
    """What its device strings look like."""
    library: str = "ONNX Runtime"
    """What runs the graphs, for people."""

    @property
    def example(self) -> str:
        """The first of its device strings."""
        return self.devices.partition(",")[0]


BACKENDS: dict[str, Backend] = {
    "cpu": Backend("edgeseg.runtime.backends.onnxruntime_backend:CpuRunner", "cpu"),
    "cuda": Backend(
        "edgeseg.runtime.backends.onnxruntime_gpu_backend:CudaRunner", "cuda:0, cuda:1, ...", "ONNX Runtime, CUDA"
    ),
    "ort-tensorrt": Backend(
        "edgeseg.runtime.backends.onnxruntime_gpu_backend:OrtTensorrtRunner",
        "ort-tensorrt:0, ...",
        "ONNX Runtime, TensorRT",
    ),
    "tensorrt": Backend("edgeseg.runtime.backends.tensorrt_backend:TensorrtRunner", "tensorrt:0, ...", "TensorRT"),
    "tensorrt-rtx": Backend(
        "edgeseg.runtime.backends.tensorrt_backend:TensorrtRtxRunner", "tensorrt-rtx:0, ...", "TensorRT for RTX"
    ),
    "torch": Backend("edgeseg.runtime.backends.torch_backend:TorchRunner", "torch:cpu, torch:0, ...", "PyTorch"),
    "torch-tensorrt": Backend(
        "edgeseg.runtime.backends.torch_backend:TorchTensorrtRunner", "torch-tensorrt:0, ...", "Torch-TensorRT"
    ),
}
"""First part of a device string (before the colon) -> who runs graphs there."""


def runner_class(device: str) -> type[Runner]:
    """The class that runs graphs on `device`.

    Raises:
        DeviceError: the device is unknown, or not usable here; the message says why, and lists what there is.
    """
    runner, reason = _known(device), usable_reason(device)
    if reason is not None:
        usable = [backend.example for backend in BACKENDS.values() if usable_reason(backend.example) is None]
        raise DeviceError(
            f"device {device!r} cannot be used here | {reason} | usable here: {', '.join(usable)}; edgeseg doctor says "
            "why others are not"
        )
    return runner


def usable_reason(device: str) -> str | None:
    """None when `device` can be used here, otherwise why not.

    Raises:
        DeviceError: the device is unknown.
    """
    return _known(device).usable(device)


def open_runner(root: Path, configuration: BundleConfiguration, *, device: str, threads: int) -> Runner:
    """A runner, not yet active, for `configuration` on `device`.

    Raises:
        DeviceError: see `runner_class`.
    """
    # The class of a device takes what Runner takes; mypy sees the abstract one.
    build: Callable[..., Runner] = runner_class(device)
    return build(root, configuration, device, threads)


def _known(device: str) -> type[Runner]:
    family = device.partition(":")[0]
    if family not in BACKENDS:
        known = ", ".join(backend.example for backend in BACKENDS.values())
        raise DeviceError(f"unknown device {device!r} | known: {known}")
    module, _, name = BACKENDS[family].runner.partition(":")
    return getattr(importlib.import_module(module), name)
