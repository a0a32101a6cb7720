"""On which frames the ranges of a configuration in lower precision were measured, as a bundle keeps it."""

import re
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import InputError


@dataclass(frozen=True)
class Calibration:
    """The frames that a configuration was calibrated on, and how."""

    data_set: str
    split: str
    images: int
    """Frames that each graph was calibrated on."""
    frames: int
    """Frames that were run for it: more than `images` where states had to become steady first."""
    size_hw: tuple[int, int]
    """Size of the frames as the graphs saw them."""
    sha256: str
    """Over all these frames, in their order: the same frames give the same hash, whatever folder they came from."""
    method: str
    """How ranges follow from what was seen: `entropy`, `max` or `percentile`; `autocast` for FP16."""
    warm_up: int = 0
    """Steps before each frame that was counted; 0 for a stateless network."""
    stills_moved: bool = False
    """Whether stills were turned into video first, since the split has no video of its own."""
    also_scored: bool = False
    """Whether the accuracy table is scored on the same split, as the user asked."""

    def __post_init__(self) -> None:
        if not 0 < self.images <= self.frames:
            raise InputError(f"a calibration counts 1 to `frames` images | got {self.images} of {self.frames} frames")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise InputError(f"a calibration has the SHA-256 of its frames | got {self.sha256!r}")
        if self.warm_up < 0:
            raise InputError(f"warm_up must not be negative | got {self.warm_up}")

    @property
    def text(self) -> str:
        """One line for people."""
        steady = f" after {self.warm_up} steps each" if self.warm_up else ""
        stills = ", stills moved" if self.stills_moved else ""
        scored = ", where it is scored too" if self.also_scored else ""
        return (
            f"{self.method}, {self.images} images of {self.data_set} {self.split}{steady}{stills}{scored} "
            f"({self.sha256[:8]})"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        return {**vars(self), "size_hw": list(self.size_hw)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """Inverse of `as_dict`.

        Raises:
            InputError: a value is out of range.
            KeyError, TypeError, ValueError: a value is missing or of another kind.
        """
        height, width = values["size_hw"]
        return cls(**{**values, "size_hw": (int(height), int(width))})
