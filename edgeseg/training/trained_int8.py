"""What quantisation-aware training leaves in a checkpoint, beside the weights of the float network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeseg.calibration_record import Calibration
from edgeseg.errors import InputError


@dataclass(frozen=True)
class TrainedInt8:
    """The rounding that a network was trained with."""

    ranges: Mapping[str, float]
    """Module path of each quantised layer -> largest magnitude that its input is rounded to."""
    left_float: Mapping[str, str]
    """Module path of each layer that computes in float -> why."""
    calibration: Calibration
    """On which frames the ranges were found, as training saw them."""
    library: str
    """Name and version of what quantised."""

    def __post_init__(self) -> None:
        for name, value in self.ranges.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise InputError(f"range of {name} is a positive number | got {value!r}")

    @property
    def text(self) -> str:
        """One line for people."""
        layers = len(self.ranges)
        return f"{layers} of {layers + len(self.left_float)} layers trained in INT8, {self.calibration.text}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        return {
            "ranges": dict(self.ranges),
            "left_float": dict(self.left_float),
            "calibration": self.calibration.as_dict(),
            "library": self.library,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainedInt8":
        """Inverse of `as_dict`.

        Raises:
            InputError: a value is out of range.
            KeyError, TypeError, ValueError: a value is missing or of another kind.
        """
        return cls(
            dict(values["ranges"]),
            dict(values["left_float"]),
            Calibration.from_dict(values["calibration"]),
            values["library"],
        )
