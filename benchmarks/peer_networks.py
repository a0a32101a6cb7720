"""The peers: one dense network, run as its owner would run it without us.

Each goes the whole way, from a camera frame (uint8 `(H, W, 3)` RGB) to a label map (uint8, the network's input size):
resized by OpenCV, normalised, network, logits up-sampled (bilinear), argmax. A peer is a function and a row in `PEERS`.
Where users have two habits it gets the better one: `torch.compile` and OpenVINO see the whole pipeline, not the network
alone, so that they can fuse what surrounds it.
"""

import copy
import io
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import DeviceError, EdgesegError, first_line
from edgeseg.export.parity import fit_frame
from edgeseg.export.wrapper import Preprocessing
from edgeseg.optional import require

Predict = Callable[[np.ndarray], np.ndarray]
"""Camera frame uint8 `(H, W, 3)` RGB -> labels uint8 `(h, w)`."""


@dataclass(frozen=True)
class DenseNetwork:
    """What all peers run."""

    module: nn.Module
    """Normalised float `(1, 3, H, W)` -> logits `(1, C, h, w)`, in evaluation mode."""
    preprocessing: Preprocessing
    size_hw: tuple[int, int]
    """Input size of the network, and size of the label maps."""
    threads: int
    """CPU threads of one step."""

    def fit(self, frame_rgb: np.ndarray) -> np.ndarray:
        """A camera frame at the network's input size, channels in the network's order; uint8 `(*size_hw, 3)`."""
        # Averaged over areas, as in training.
        fitted = fit_frame(frame_rgb, self.size_hw)
        return cv2.cvtColor(fitted, cv2.COLOR_RGB2BGR) if self.preprocessing.colour_order == "BGR" else fitted


@dataclass(frozen=True)
class Peer:
    """A peer that is ready to run."""

    predict: Predict
    note: str
    """What a reader has to know: precision, compile time."""


class Pipeline(nn.Module):
    """The network with what goes before and after it, in torch: uint8 `(1, H, W, 3)` -> labels uint8 `(1, H, W)`."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__()
        self.network = network.module
        self.register_buffer("mean", torch.tensor(network.preprocessing.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(network.preprocessing.std).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        # A permuted NHWC frame is channels_last already; a network in the other format gets what it was built for.
        planes = image.permute(0, 3, 1, 2)
        logits = self.network(self.arranged((planes.float() / 255 - self.mean) / self.std))
        full = F.interpolate(logits, size=image.shape[1:3], mode="bilinear", align_corners=False)
        return full.argmax(1).to(torch.uint8)

    def arranged(self, planes: Tensor) -> Tensor:
        """The network's input in the memory format that its weights are in."""
        return planes.contiguous()


class ChannelsLastPipeline(Pipeline):
    """The same with the network's weights and activations in `torch.channels_last`."""

    def __init__(self, network: DenseNetwork) -> None:
        super().__init__(network)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def arranged(self, planes: Tensor) -> Tensor:
        return planes.contiguous(memory_format=torch.channels_last)


def torch_eager(network: DenseNetwork) -> Peer:
    """PyTorch as it is."""
    return Peer(_torch_predict(network, Pipeline(_own_copy(network))), "float32")


def torch_channels_last(network: DenseNetwork) -> Peer:
    """PyTorch with channels last in memory, which its CPU convolutions prefer."""
    return Peer(_torch_predict(network, ChannelsLastPipeline(_own_copy(network))), "float32")


def torch_compile(network: DenseNetwork) -> Peer:
    """`torch.compile` of the whole pipeline with frozen weights; compiled here, before anything is timed.

    Raises:
        DeviceError: no C++ compiler, which it needs on a CPU.
    """
    compiler = next(filter(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++"))), None)
    if compiler is None:
        raise DeviceError("torch.compile needs a C++ compiler on a CPU | no g++ or clang++ on the path")
    pipeline = Pipeline(_own_copy(network))
    compiled = torch.compile(pipeline, options={"freezing": True})
    predict = _torch_predict(network, compiled)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict(np.zeros((*network.size_hw, 3), np.uint8))
    return Peer(predict, f"float32, freezing, compiled in {time.perf_counter() - begin:.0f} s")


def plain_onnxruntime(network: DenseNetwork) -> Peer:
    """The network exported as it is (float image in, logits out), the rest in numpy and OpenCV, default session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = network.threads
    session = onnxruntime.InferenceSession(_onnx_bytes(network), options, providers=["CPUExecutionProvider"])
    mean = np.asarray(network.preprocessing.mean, np.float32)
    std = np.asarray(network.preprocessing.std, np.float32)
    height, width = network.size_hw

    def predict(frame_rgb: np.ndarray) -> np.ndarray:
        image = (network.fit(frame_rgb).astype(np.float32) / 255 - mean) / std
        (logits,) = session.run(None, {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None])})
        full = cv2.resize(logits[0].transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR)
        return full.argmax(axis=2).astype(np.uint8)

    return Peer(predict, "float32, pre- and post-processing in numpy")


def openvino_latency(network: DenseNetwork) -> Peer:
    """OpenVINO as it comes: the whole torch pipeline, latency hint; where the CPU has bfloat16 it takes that by itself.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    return _openvino(network, {})


def openvino_float32(network: DenseNetwork) -> Peer:
    """The same held to float32, the arithmetic of the others.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    return _openvino(network, {"INFERENCE_PRECISION_HINT": "f32"})


PEERS: dict[str, Callable[[DenseNetwork], Peer]] = {
    "torch eager": torch_eager,
    "torch channels_last": torch_channels_last,
    "torch.compile": torch_compile,
    "onnxruntime": plain_onnxruntime,
    "openvino": openvino_latency,
    "openvino float32": openvino_float32,
}
"""Name -> function that makes the peer ready to run."""


def build_peers(names: Sequence[str], network: DenseNetwork) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers `names` that run here, and for the others the reason why they do not."""
    torch.set_num_threads(network.threads)
    ready: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            ready[name] = PEERS[name](network)
        except EdgesegError as error:
            missing[name] = str(error)
        except Exception as error:  # a peer's own failure is a result to report, not the end of the comparison
            missing[name] = f"failed: {type(error).__name__}: {first_line(error)}"
    return ready, missing


def _torch_predict(network: DenseNetwork, pipeline: Callable[[Tensor], Tensor]) -> Predict:
    @torch.inference_mode()
    def predict(frame_rgb: np.ndarray) -> np.ndarray:
        return pipeline(torch.from_numpy(network.fit(frame_rgb))[None])[0].numpy()

    return predict


def _openvino(network: DenseNetwork, settings: dict[str, str]) -> Peer:
    openvino = require("openvino", extra="bench")
    shape = [1, *network.size_hw, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(
            Pipeline(_own_copy(network)).eval(),
            example_input=torch.zeros(shape, dtype=torch.uint8),
            input=[(shape, np.uint8)],
        )
    common = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": network.threads}
    compiled = openvino.compile_model(model, "CPU", {**common, **settings})
    request = compiled.create_infer_request()

    def predict(frame_rgb: np.ndarray) -> np.ndarray:
        request.infer({0: network.fit(frame_rgb)[None]}, share_inputs=True)
        return request.get_output_tensor(0).data[0].copy()

    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return Peer(predict, f"{precision}, latency hint")


def _own_copy(network: DenseNetwork) -> DenseNetwork:
    """The network with weights of its own: peers change memory formats and freeze them."""
    return replace(network, module=copy.deepcopy(network.module).eval())


def _onnx_bytes(network: DenseNetwork) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.module,
            (torch.zeros(1, 3, *network.size_hw),),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
        )
    return buffer.getvalue()
