from collections.abc import Callable

import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.runtime.result import Result

CLASSES = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)), movable=("blue",))


@pytest.fixture
def made() -> Callable[..., Result]:
    """frame index -> a result of that frame: 32 x 48, the label of all pixels is the index modulo 3."""

    def result(index: int, *, size_hw: tuple[int, int] = (32, 48), noise: bool = False) -> Result:
        frame = np.zeros((*size_hw, 3), np.uint8)
        if noise:
            frame = np.random.default_rng(index).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        return Result(
            frame_index=index,
            captured_at=10.0 + index / 10,
            published_at=10.05 + index / 10,
            step_ms=20.0,
            labels=np.full(size_hw, index % 3, np.uint8),
            frame_rgb=frame,
            configuration="plain_32x48",
            source_index=index,
            source_at=10.0 + index / 10,
            stands_for=10.0 + index / 10,
            classes=CLASSES,
        )

    return result
