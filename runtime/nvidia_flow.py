"""Optical flow by NVIDIA's hardware: through OpenCV's CUDA module on desktop GPUs, through VPI on Jetson.

Not verified on hardware yet. The names and signatures used here are those of opencv_contrib's `cudaoptflow` (4.5.2 to
5.0) and of the Python bindings of VPI 2.3 to 4. The hardware is therefore asked for a known motion when it is opened,
and refused when it answers anything else: a wrong direction or scale cannot go unnoticed.

Both give one vector per 4 x 4 pixels, which is the resolution that motion is kept at.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from edgeseg.errors import DeviceError, MissingPackageError

GRID = 4
"""Pixels per vector, in x and y."""
FIXED_POINT = 32.0
"""Vectors are S10.5: 16 bits signed, in 1 / 32 pixel."""
PROBE_HW = (256, 320)
PROBE_XY = (6.0, -4.0)
"""What is asked for when the hardware is opened: a picture of this size, moved this far."""
PROBE_TOLERANCE_PX = 1.0

_Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def open_nvidia() -> _Flow:
    """Flow by the optical flow engine of Turing and later GPUs, through OpenCV (`NvidiaOpticalFlow_2_0`, or `_1_0`).

    Raises:
        MissingPackageError: this OpenCV is built without it.
        DeviceError: there is no GPU, it has no such engine, or it fails.
    """
    cuda: Any = getattr(cv2, "cuda", None)
    if not (hasattr(cuda, "NvidiaOpticalFlow_2_0") or hasattr(cuda, "NvidiaOpticalFlow_1_0")):
        raise MissingPackageError(
            f"OpenCV {cv2.__version__} has no NvidiaOpticalFlow | needed for the flow nvidia | "
            "build OpenCV with CUDA and opencv_contrib's cudaoptflow, or choose a dis flow"
        )
    if cuda.getCudaEnabledDeviceCount() < 1:
        raise DeviceError("OpenCV's CUDA module sees no GPU | the flow nvidia needs one, Turing or later")
    return _checked("nvidia", _OpenCVFlow(cuda))


def open_vpi() -> _Flow:
    """Flow by the optical flow accelerator of Jetson Orin and Thor, through VPI.

    Only the accelerator (OFA): Xavier's NVENC goes with JetPack 5, whose Python is older than edgeseg's.

    Raises:
        MissingPackageError: VPI's Python bindings are not there.
        DeviceError: the machine has no such accelerator, or it fails.
    """
    try:
        vpi = importlib.import_module("vpi")
    except ImportError as error:
        raise MissingPackageError(
            f"vpi cannot be imported ({error}) | it comes with JetPack, not from pip | install JetPack's VPI with its "
            "Python bindings, and let the virtual environment see system packages"
        ) from error
    if not hasattr(vpi.Backend, "OFA"):
        raise DeviceError("this VPI has no optical flow accelerator | the flow vpi needs Jetson Orin or later")
    return _checked("vpi", _VpiFlow(vpi))


class _OpenCVFlow:
    """The engine is made for one image size, and made anew when the size changes."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._engine: Any = None
        self._size_wh: tuple[int, int] | None = None

    def __call__(self, newer: np.ndarray, older: np.ndarray) -> np.ndarray:
        size_wh = newer.shape[1], newer.shape[0]
        if size_wh != self._size_wh:
            self._engine, self._size_wh = self._open(size_wh), size_wh
        vectors = self._engine.calc(newer, older, None)[0]
        if hasattr(self._engine, "convertToFloat"):
            flow = self._engine.convertToFloat(vectors, None)
        else:
            flow = np.asarray(vectors, np.float32) / FIXED_POINT
        return np.asarray(flow, np.float32)

    def _open(self, size_wh: tuple[int, int]) -> Any:
        if not hasattr(self._cuda, "NvidiaOpticalFlow_2_0"):
            return self._cuda.NvidiaOpticalFlow_1_0.create(
                size_wh, perfPreset=self._cuda.NvidiaOpticalFlow_1_0_NV_OF_PERF_LEVEL_SLOW
            )
        return self._cuda.NvidiaOpticalFlow_2_0.create(
            size_wh,
            perfPreset=self._cuda.NvidiaOpticalFlow_2_0_NV_OF_PERF_LEVEL_SLOW,
            outputGridSize=self._cuda.NvidiaOpticalFlow_2_0_NV_OF_OUTPUT_VECTOR_GRID_SIZE_4,
        )


class _VpiFlow:
    def __init__(self, vpi: ModuleType) -> None:
        self._vpi: Any = vpi

    def __call__(self, newer: np.ndarray, older: np.ndarray) -> np.ndarray:
        vpi = self._vpi
        # The first image's content is followed into the second one. A vector per 4 x 4 pixels is the default.
        motion = vpi.optflow_dense(
            self._image(newer), self._image(older), quality=vpi.OptFlowQuality.HIGH, backend=vpi.Backend.OFA
        )
        with motion.rlock_cpu() as vectors:
            return np.asarray(vectors, np.float32) / FIXED_POINT

    def _image(self, grey: np.ndarray) -> Any:
        """The accelerator reads block-linear images, which the image compositor (VIC) makes."""
        vpi = self._vpi
        image = vpi.asimage(np.ascontiguousarray(grey), vpi.Format.Y8_ER)
        return image.convert(vpi.Format.Y8_ER_BL, backend=vpi.Backend.VIC)


def _checked(name: str, flow: _Flow) -> _Flow:
    """`flow`, its failures told as DeviceError, once it has found a known motion."""

    def guarded(newer: np.ndarray, older: np.ndarray) -> np.ndarray:
        try:
            return flow(newer, older)
        except (cv2.error, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DeviceError(
                f"the flow {name} failed on {newer.shape[1]} x {newer.shape[0]} pixels | {reason}"
            ) from error

    newer, older = _probe()
    found = guarded(newer, older)
    shape = (-(-PROBE_HW[0] // GRID), -(-PROBE_HW[1] // GRID), 2)
    if found.shape != shape:
        raise DeviceError(f"the flow {name} is not what it is known for | got {found.shape}, expected {shape}")
    x, y = np.median(found[4:-4, 4:-4], axis=(0, 1))
    if np.hypot(x - PROBE_XY[0], y - PROBE_XY[1]) > PROBE_TOLERANCE_PX:
        raise DeviceError(
            f"the flow {name} does not find a known motion | got ({x:.1f}, {y:.1f}), expected {PROBE_XY} pixels | "
            "use a dis flow and report this with the versions of driver and library"
        )
    return guarded


def _probe() -> tuple[np.ndarray, np.ndarray]:
    """Two grey pictures: what is at x in the first one is at x + `PROBE_XY` in the second."""
    coarse = np.random.default_rng(0).uniform(0, 255, (PROBE_HW[0] // 8, PROBE_HW[1] // 8))
    newer = cv2.resize(coarse.astype(np.uint8), PROBE_HW[::-1], interpolation=cv2.INTER_CUBIC)
    move = np.array([[1, 0, PROBE_XY[0]], [0, 1, PROBE_XY[1]]], np.float32)
    return newer, cv2.warpAffine(newer, move, PROBE_HW[::-1], borderMode=cv2.BORDER_REFLECT)
