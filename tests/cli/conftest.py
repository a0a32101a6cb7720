"""What the tests of commands share: the runtime's tiny bundles, a tiny checkpoint, noisy labelled video."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.classes import ClassSet, distinct_colours
from edgeseg.manifest import save_manifest

_path = Path(__file__).parents[1] / "runtime" / "conftest.py"
_spec = importlib.util.spec_from_file_location("runtime_fixtures", _path)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

bundle, own_bundle, graphs, frame = _module.bundle, _module.own_bundle, _module.graphs, _module.frame


def write_noise(root: Path, splits: dict[str, int]) -> Path:
    """Folder data set `noise` of three classes: a video of that many labelled frames of 48 x 64 per split."""
    random = np.random.default_rng(0)
    for split, count in splits.items():
        for kind in ("frames", "labels"):
            (root / kind / split / "a").mkdir(parents=True)
        for index in range(count):
            name = f"{split}/a/{index:03d}.png"
            cv2.imwrite(str(root / "frames" / name), random.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            cv2.imwrite(str(root / "labels" / name), random.integers(0, 3, (48, 64), dtype=np.uint8))
    (root / "dataset.toml").write_text(
        'name = "noise"\nfps = 10.0\n[classes]\nnames = ["road", "car", "sky"]\nmovable = ["car"]\n'
    )
    return root


def write_checkpoint(
    path: Path, names: tuple[str, ...] = ("road", "car", "sky"), architecture: str | None = None
) -> Path:
    """An untrained SwiftNet of an eighth of the width for `names`; `architecture` is what the file says it is."""
    torch = pytest.importorskip("torch", reason="checkpoints need torch")
    from edgeseg.models.registry import build_network
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

    torch.manual_seed(0)
    meta = CheckpointMeta(
        architecture or "swiftnet_r18",
        {"width": 0.125},
        ClassSet(names, distinct_colours(len(names)), movable=("car",)),
        trained_on={"dataset": "other", "splits": ["train"], "size_hw": [48, 64]},
    )
    save_checkpoint(path, build_network("swiftnet_r18", len(names), width=0.125), meta)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Folder data set `noise`: val, 22 labelled frames of 48 x 64."""
    return write_noise(tmp_path / "video", {"val": 22})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained SwiftNet of an eighth of the width, for the classes of `noise`."""
    return write_checkpoint(tmp_path / "net.safetensors")


@pytest.fixture
def scored(tmp_path: Path, graphs: SimpleNamespace, make: SimpleNamespace) -> tuple[Bundle, Path]:
    """A bundle of before compensation, and the labelled video that its tables were made on."""
    pytest.importorskip("torch", reason="scoring needs the export extra")
    from edgeseg.data.open import open_dataset
    from edgeseg.export.accuracy import EvaluationData, configuration_accuracies

    data = make.noise(tmp_path / "data", {"val": 12})
    (data / "dataset.toml").write_text(
        'name = "noise"\nfps = 10.0\n[classes]\nnames = ["red", "green", "blue"]\nmovable = ["blue"]\n'
    )
    made = graphs.write_bundle(tmp_path / "before.edgeseg", [graphs.stateless("small", miou=None, size_hw=(48, 64))])
    evaluation = EvaluationData.open(open_dataset(str(data)), "val")
    accuracies = configuration_accuracies(made.root, made.configurations, evaluation, compensations=())
    entries = [
        replace(entry, accuracy=accuracy) for entry, accuracy in zip(made.configurations, accuracies, strict=True)
    ]
    save_manifest(replace(made, configurations=tuple(entries)))
    return Bundle.open(made.root), data


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The writers of this module, for tests that make their own data sets and checkpoints."""
    return SimpleNamespace(noise=write_noise, checkpoint=write_checkpoint)
