"""One configuration on its way into a bundle: its graphs with their weights, and how they follow each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx

from edgeseg.accuracy import Accuracy
from edgeseg.bundle import Parity, StateLink
from edgeseg.calibration_record import Calibration
from edgeseg.config import Configuration


@dataclass(frozen=True)
class SavedPrograms:
    """Graphs in the form of another library, as they are saved."""

    content: Mapping[str, bytes]
    """Role -> content of its file."""
    parity: Parity | None = None


@dataclass(frozen=True)
class Variant:
    """Graphs of one configuration, weights inside, before they are written."""

    knobs: Configuration
    graphs: Mapping[str, onnx.ModelProto]
    """Role -> graph."""
    first: str
    """Role of the step after a reset."""
    then: tuple[str, ...]
    """Roles of the steps that follow, in turn."""
    links: tuple[StateLink, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    programs: Mapping[str, SavedPrograms] = field(default_factory=dict)
    """Form, such as `torch` -> programs of all roles."""
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        return self.knobs.name

    def role_at(self, step: int) -> str:
        """Role that runs at `step` steps after a reset."""
        return self.first if step == 0 else self.then[(step - 1) % len(self.then)]


class Reference(Protocol):
    """The network as its author runs it: what the exported graphs are held against."""

    def reset(self) -> None:
        """Forget all state."""

    def step(self, frame_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 `(H, W, 3)` RGB -> labels uint8 `(h, w)`, and logits float32 `(C, h', w')` where there are any."""
