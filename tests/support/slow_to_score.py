"""`edgeseg` on a source whose label maps take a tenth of a second each; it says so on standard error when one is read.

python slow_to_score.py run BUNDLE --source any ...
"""

import sys
import time
from typing import Any

import numpy as np

import edgeseg.runtime.source_opening as source_opening
from edgeseg.classes import ClassSet
from edgeseg.cli.process import run
from edgeseg.data.video import Video
from edgeseg.runtime.source import Source, VideoSource

LABELS_S = 0.1


class Slow(Video):
    """Grey for ever, at 100 frames/s."""

    name, fps, size_hw = "slow", 100.0, (32, 48)

    def __len__(self) -> int:
        return 1_000_000

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((32, 48, 3), 99, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        print("scoring", file=sys.stderr, flush=True)
        time.sleep(LABELS_S)
        return np.zeros((32, 48), np.uint8)


def open_slow(named: Any, **options: Any) -> Source:
    """In the place of `open_source`."""
    if isinstance(named, Source):
        return named
    return VideoSource(Slow(), ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255))))


if __name__ == "__main__":
    source_opening.open_source = open_slow
    run()
