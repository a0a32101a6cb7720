"""Tiny graphs that are wide enough for INT8, and what to calibrate them with."""

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from edgeseg.export.onnx_export import export_module
from edgeseg.export.rewrites.fold_batch_norm import fold_batch_norm
from edgeseg.export.wrapper import CameraToLabels, Preprocessing

SIZE_HW = (32, 48)
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class WideFcn(nn.Module):
    """Stem, three convolutions with a residual around two, head: `width` channels, three classes, stride 2."""

    logits_stride = 2

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, padding=1)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        stem = self.stem(image).relu()
        return self.head(self.third((self.second(self.first(stem).relu()) + stem).relu()).relu())


def wide_graph(width: int = 16) -> onnx.ModelProto:
    """The graph of `WideFcn`, the same in every run."""
    torch.manual_seed(0)
    module = CameraToLabels(WideFcn(width).eval(), IMAGENET, size_hw=SIZE_HW, labels_stride=2, input_frames=1)
    return fold_batch_norm(export_module(module))[0]


def images(count: int = 4, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Feeds of coarse patches of colour, uint8 `(1, 32, 48, 3)`."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (count, 1, 4, 6, 3), dtype=np.uint8)
    return [{"image": patch.repeat(8, axis=1).repeat(8, axis=2)} for patch in patches]


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initialisers by name."""
    return {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
