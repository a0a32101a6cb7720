"""A folder data set that is small enough to train on in a test, yet learnable: labels follow the colours."""

from pathlib import Path

import cv2
import numpy as np
import pytest

SIZE_HW = (32, 48)
FRAMES = 12


def write_folder_dataset(root: Path, fps: float = 10.0) -> Path:
    """Splits train (two videos) and val (one): a bright square moves over a dark ground, one pixel per frame."""
    root.mkdir(parents=True)
    (root / "dataset.toml").write_text(f'name = "square"\nfps = {fps}\n[classes]\nnames = ["ground", "square"]\n')
    for split, video, seed in (("train", "a", 1), ("train", "b", 2), ("val", "c", 3)):
        random = np.random.default_rng(seed)
        row, column = int(random.integers(0, 16)), int(random.integers(0, 12))
        for index in range(FRAMES):
            labels = np.zeros(SIZE_HW, np.uint8)
            labels[row : row + 16, column + index : column + index + 20] = 1
            frame = (60 + 120 * labels[..., None] + random.integers(0, 20, (*SIZE_HW, 3))).astype(np.uint8)
            for kind, image in (("frames", frame), ("labels", labels)):
                folder = root / kind / split / video
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / f"{index:03d}.png"), image)
    return root


@pytest.fixture(scope="session")
def square_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the data set, 10 frames per second."""
    return write_folder_dataset(tmp_path_factory.mktemp("data") / "square")


@pytest.fixture(scope="session")
def stills_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images, one per second."""
    return write_folder_dataset(tmp_path_factory.mktemp("data") / "stills", fps=1.0)
