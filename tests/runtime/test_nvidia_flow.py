"""The bridges to NVIDIA's flow hardware, against stand-ins that hold the verified names and no others.

A name that the libraries do not have raises AttributeError here. Vectors are S10.5 on a grid of 4 pixels, as theirs.
"""

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest

from edgeseg.config import FLOWS, Compensation
from edgeseg.errors import DeviceError, MissingPackageError
from edgeseg.runtime import nvidia_flow
from edgeseg.runtime.compensation import Compensator
from edgeseg.runtime.optical_flow import open_flow, unusable_reason


def vectors_s10_5(first, second):
    """From `first` to `second`, as the hardware writes them."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    height, width = first.shape
    grid_wh = -(-width // 4), -(-height // 4)
    return np.floor(32 * cv2.resize(flow, grid_wh, interpolation=cv2.INTER_AREA)).astype(np.int16)


class Engine20:
    """`cv2.cuda.NvidiaOpticalFlow_2_0`."""

    made: ClassVar[list] = []

    def __init__(self, size_wh):
        self.size_wh = size_wh

    @classmethod
    def create(cls, imageSize, *, perfPreset=5, outputGridSize=1, hintGridSize=1):
        assert (perfPreset, outputGridSize) == (5, 4)
        cls.made.append(imageSize)
        return cls(imageSize)

    def calc(self, inputImage, referenceImage, flow):
        assert inputImage.shape == referenceImage.shape == self.size_wh[::-1]
        return vectors_s10_5(inputImage, referenceImage), None

    def convertToFloat(self, flow, floatFlow):
        return flow.astype(np.float32) / 32


class Engine10:
    """`cv2.cuda.NvidiaOpticalFlow_1_0`: its grid is 4 pixels, and it converts only to one vector per pixel."""

    @classmethod
    def create(cls, imageSize, *, perfPreset=5):
        return cls()

    def calc(self, inputImage, referenceImage, flow):
        return vectors_s10_5(inputImage, referenceImage), None


def cuda_20(**changed):
    names = {
        "getCudaEnabledDeviceCount": lambda: 1,
        "NvidiaOpticalFlow_2_0": Engine20,
        "NvidiaOpticalFlow_2_0_NV_OF_PERF_LEVEL_SLOW": 5,
        "NvidiaOpticalFlow_2_0_NV_OF_OUTPUT_VECTOR_GRID_SIZE_4": 4,
    }
    return SimpleNamespace(**(names | changed))


def cuda_10():
    return SimpleNamespace(
        getCudaEnabledDeviceCount=lambda: 1,
        NvidiaOpticalFlow_1_0=Engine10,
        NvidiaOpticalFlow_1_0_NV_OF_PERF_LEVEL_SLOW=5,
    )


class VpiImage:
    def __init__(self, pixels, form):
        self.pixels, self.form = pixels, form

    def convert(self, form, *, backend):
        assert (self.form, form, backend) == ("Y8_ER", "Y8_ER_BL", "VIC")
        return VpiImage(self.pixels, form)

    @contextmanager
    def rlock_cpu(self):
        yield self.pixels


def vpi_module(**backends):
    def optflow_dense(ref, frame, *, quality, backend):
        assert (ref.form, frame.form, quality, backend) == ("Y8_ER_BL", "Y8_ER_BL", "HIGH", "OFA")
        return VpiImage(vectors_s10_5(ref.pixels, frame.pixels), "2S16_BL")

    vpi = ModuleType("vpi")
    vpi.Backend = SimpleNamespace(**(backends or {"OFA": "OFA", "VIC": "VIC"}))
    vpi.Format = SimpleNamespace(Y8_ER="Y8_ER", Y8_ER_BL="Y8_ER_BL")
    vpi.OptFlowQuality = SimpleNamespace(HIGH="HIGH")
    vpi.asimage = VpiImage
    vpi.optflow_dense = optflow_dense
    return vpi


@pytest.fixture(params=["nvidia 2.0", "nvidia 1.0", "vpi"])
def hardware_flow(request, monkeypatch):
    """The name of a flow whose hardware stands in."""
    if request.param == "vpi":
        monkeypatch.setitem(sys.modules, "vpi", vpi_module())
        return "vpi"
    monkeypatch.setattr(cv2, "cuda", cuda_20() if request.param == "nvidia 2.0" else cuda_10())
    return "nvidia"


def frames_moving_right(number, step_px=4):
    rng = np.random.default_rng(2)
    picture = cv2.resize(rng.uniform(0, 255, (24, 40)).astype(np.uint8), (320, 192), interpolation=cv2.INTER_CUBIC)
    return [np.repeat(np.roll(picture, step_px * i, axis=1)[..., None], 3, axis=2) for i in range(number)]


def test_labels_move_with_the_picture_by_the_hardware_flow(hardware_flow):
    compensator = Compensator(Compensation("late-warp", hardware_flow, 1))
    for index, frame in enumerate(frames_moving_right(4)):
        compensator.add_frame(index, frame, index / 15)
    labels = np.zeros((192, 320), np.uint8)
    labels[:, 100:200] = 1
    compensator.add_labels(labels, 0)
    moved = compensator.labels_at(0.2)
    assert moved.fallback is None
    assert (moved.labels == np.roll(labels, 12, axis=1))[16:-16, 40:-40].mean() > 0.98


def test_engine_is_made_anew_when_the_image_size_changes(monkeypatch):
    monkeypatch.setattr(cv2, "cuda", cuda_20())
    Engine20.made.clear()
    flow = open_flow("nvidia")
    for size in ((64, 96), (64, 96), (96, 64)):
        assert flow(np.zeros(size, np.uint8), np.zeros(size, np.uint8)).shape == (size[0] // 4, size[1] // 4, 2)
    assert Engine20.made == [(320, 256), (96, 64), (64, 96)]


def test_flow_is_refused_when_the_library_has_no_such_engine(monkeypatch):
    monkeypatch.setattr(cv2, "cuda", SimpleNamespace(getCudaEnabledDeviceCount=lambda: 1))
    with pytest.raises(MissingPackageError, match=r"no NvidiaOpticalFlow .* cudaoptflow"):
        open_flow("nvidia")


def test_flow_is_refused_when_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(cv2, "cuda", cuda_20(getCudaEnabledDeviceCount=lambda: 0))
    with pytest.raises(DeviceError, match="sees no GPU"):
        open_flow("nvidia")


def test_flow_is_refused_in_one_line_when_the_engine_cannot_be_made(monkeypatch):
    def create(*_, **__):
        raise cv2.error("NVOF_API_CALL\n  error code 2")

    monkeypatch.setattr(cv2, "cuda", cuda_20(NvidiaOpticalFlow_2_0=SimpleNamespace(create=create)))
    with pytest.raises(DeviceError, match=r"nvidia failed on 320 x 256 pixels .* error code 2") as caught:
        open_flow("nvidia")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [lambda v: -v, lambda v: v // 4, lambda v: v * 0, lambda v: v[..., ::-1]])
def test_flow_is_refused_when_it_does_not_find_a_known_motion(monkeypatch, wrong):
    class Wrong(Engine20):
        def calc(self, *images):
            return wrong(super().calc(*images)[0]), None

    monkeypatch.setattr(cv2, "cuda", cuda_20(NvidiaOpticalFlow_2_0=Wrong))
    with pytest.raises(DeviceError, match="does not find a known motion"):
        open_flow("nvidia")


def test_flow_is_refused_when_its_grid_is_another(monkeypatch):
    class Coarse(Engine20):
        def calc(self, *images):
            return super().calc(*images)[0][::2, ::2], None

    monkeypatch.setattr(cv2, "cuda", cuda_20(NvidiaOpticalFlow_2_0=Coarse))
    with pytest.raises(DeviceError, match=r"got \(32, 40, 2\), expected \(64, 80, 2\)"):
        open_flow("nvidia")


def test_vpi_is_refused_when_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "vpi", None)
    with pytest.raises(MissingPackageError, match=r"vpi cannot be imported .* JetPack"):
        open_flow("vpi")


def test_vpi_is_refused_when_there_is_no_accelerator(monkeypatch):
    monkeypatch.setitem(sys.modules, "vpi", vpi_module(NVENC="NVENC", VIC="VIC"))
    with pytest.raises(DeviceError, match="no optical flow accelerator"):
        open_flow("vpi")


def test_every_flow_of_the_knob_opens_or_says_why_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "vpi", None)
    reasons = {name: unusable_reason(name) for name in FLOWS}
    assert [name for name, reason in reasons.items() if reason is None][:4] == list(FLOWS[:4])
    assert "vpi cannot be imported" in reasons["vpi"]


def test_probe_is_a_picture_moved_as_it_says():
    newer, older = nvidia_flow._probe()
    x, y = (int(way) for way in nvidia_flow.PROBE_XY)
    assert (older[20 + y : 220 + y, 20 + x : 280 + x] == newer[20:220, 20:280]).all()
