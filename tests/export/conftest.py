"""A tiny network of nobody's, and a tiny labelled video."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.classes import ClassSet
from edgeseg.data.folder import FolderDataset
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.calibration_frames import CalibrationSource
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.wrapper import Preprocessing

CLASSES = ClassSet(("road", "car", "sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), movable=("car",))
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZE_HW = (48, 64)


class TinyFcn(nn.Module):
    """Normalised image `(B, 3 * input_frames, H, W)` -> logits `(B, classes, H / 2, W / 2)`."""

    logits_stride = 2

    def __init__(self, classes: int = 3, input_frames: int = 1) -> None:
        super().__init__()
        self.input_frames = input_frames
        self.stem = nn.Sequential(
            nn.Conv2d(3 * input_frames, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(image)))


# Threads cost a tiny network more than they save.
torch.set_num_threads(1)


def tiny_fcn(input_frames: int = 1, seed: int = 0) -> TinyFcn:
    """With weights and batch norms that are not at their start values."""
    torch.manual_seed(seed)
    network = TinyFcn(input_frames=input_frames)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            nn.init.normal_(layer.running_mean, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture
def make_source() -> Callable[..., TorchSource]:
    """`make_source(input_frames=1, trained_on={})`: the tiny network as a source."""

    def make(input_frames: int = 1, network: nn.Module | None = None, **facts: object) -> TorchSource:
        known = {"default_size_hw": SIZE_HW, "logits_stride": 2, "classes": CLASSES, **facts}
        return TorchSource(
            SourceFacts("tiny", "tiny.py", input_frames=input_frames, **known),  # type: ignore[arg-type]
            network or tiny_fcn(input_frames),
            IMAGENET,
        )

    return make


@pytest.fixture
def video_root(tmp_path: Path) -> Path:
    """Folder data set: val, one video of 24 labelled frames of 48 x 64 at 10 Hz, a bright square moving over noise."""
    root = tmp_path / "video"
    random = np.random.default_rng(0)
    background = random.integers(0, 160, (48, 64, 3)).astype(np.uint8)
    for folder in ("frames/val/a", "labels/val/a", "frames/train/b", "labels/train/b"):
        (root / folder).mkdir(parents=True)
        for index in range(24 if "val" in folder else 2):
            frame, labels = background.copy(), np.zeros((48, 64), np.uint8)
            labels[:10], labels[-2:] = 2, 255
            frame[16:32, 2 * index : 2 * index + 16], labels[16:32, 2 * index : 2 * index + 16] = (40, 90, 250), 1
            cv2.imwrite(str(root / folder / f"{index:03d}.png"), frame if "frames" in folder else labels)
    names = ", ".join(f'"{name}"' for name in CLASSES.names)
    (root / "dataset.toml").write_text(
        f'name = "squares"\nfps = 10.0\n[classes]\nnames = [{names}]\nmovable = ["car"]\n', encoding="utf-8"
    )
    return root


@pytest.fixture
def video_data(video_root: Path) -> EvaluationData:
    """The split val of `video_root`, ready to be scored."""
    return EvaluationData.open(FolderDataset(video_root), "val")


@pytest.fixture
def frames_rgb() -> list[np.ndarray]:
    """21 random frames, uint8 `(48, 64, 3)`."""
    return list(np.random.default_rng(1).integers(0, 256, (21, *SIZE_HW, 3), dtype=np.uint8))


@pytest.fixture
def squares(video_root):
    """Calibration video: that of `video_root`, which is also scored."""
    cache = FrameCache(8 << 20)
    videos = FolderDataset(video_root).videos("val")
    return CalibrationSource(
        "squares", "val", tuple(CachedVideo(video, cache) for video in videos), 8, also_scored=True
    )
