"""What the manifest promises of the graphs of a configuration, held against what a library says of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeseg.bundle import BundleConfiguration
from edgeseg.errors import ArtifactError
from edgeseg.runtime.state import Slot, StatePlan, StepPlan

IMAGE, LABELS = "image", "labels"


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph, in a library's words."""

    shape: tuple
    """Lengths; a graph that breaks the contract may have names or -1 among them."""
    type: str
    """Its type, as the library names it."""
    dtype: np.dtype | None
    """The same for numpy; None for a type that the runtime does not know."""

    @property
    def is_fixed(self) -> bool:
        """Whether its type is known and its shape needs nothing else to be known."""
        return self.dtype is not None and all(isinstance(length, int) and length > 0 for length in self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of one of a fixed shape."""
        assert self.dtype is not None
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.type if self.dtype is None else self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class GraphTensors:
    """Inputs and outputs of one graph, by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


class GraphContract:
    """The buffers that a configuration's steps need, all checks passed.

    Args:
        configuration: roles, sequence and links.
        graphs: role -> tensors of its graph.

    Raises:
        ArtifactError: a graph does not have the inputs and outputs that the manifest promises.
    """

    def __init__(self, configuration: BundleConfiguration, graphs: Mapping[str, GraphTensors]) -> None:
        self._configuration, self._graphs = configuration, graphs
        self.plan = StatePlan(configuration)
        self.image_shape = self._common(IMAGE, "inputs")
        """`(1, H, W, 3)`, uint8."""
        self.labels_shape = self._common(LABELS, "outputs")
        """`(1, h, w)`, uint8."""
        if len(self.image_shape) != 4 or self.image_shape[0] != 1 or self.image_shape[3] != 3:
            raise self._error(f"input {IMAGE} has shape {list(self.image_shape)}, expected [1, H, W, 3]")
        if len(self.labels_shape) != 3 or self.labels_shape[0] != 1:
            raise self._error(f"output {LABELS} has shape {list(self.labels_shape)}, expected [1, h, w]")
        self.slots: dict[Slot, Tensor] = {}
        """State buffer -> what it holds."""
        for plan in self.plan.distinct:
            self._add_slots(plan)

    def unread(self, plan: StepPlan) -> dict[str, Tensor]:
        """Outputs of a step's graph that neither the caller nor the next step reads."""
        read = {LABELS, *(name for name, _ in plan.writes)}
        return {
            name: self._tensor(plan.role, name, "outputs") for name in self._graphs[plan.role].outputs.keys() - read
        }

    def _common(self, name: str, side: str) -> tuple[int, ...]:
        """Shape of `image` or `labels`, which is the same in every graph."""
        shapes = set()
        for role in self._graphs:
            tensor = self._tensor(role, name, side)
            if tensor.dtype != np.uint8:
                raise self._error(f"{name} of {role} is {tensor.dtype}, expected uint8")
            shapes.add(tensor.shape)
        if len(shapes) != 1:
            raise self._error(f"{name} differs between the graphs: {sorted(map(list, shapes))}")
        return shapes.pop()

    def _add_slots(self, plan: StepPlan) -> None:
        needed = self._graphs[plan.role].inputs.keys() - {IMAGE}
        given = {name for name, _ in plan.reads}
        if needed != given:
            raise self._error(
                f"graph {plan.role} needs the inputs {', '.join(sorted(needed)) or 'none'}, "
                f"its links feed {', '.join(sorted(given)) or 'none'}"
            )
        for side, pairs in (("inputs", plan.reads), ("outputs", plan.writes)):
            for name, slot in pairs:
                tensor = self._tensor(plan.role, name, side)
                linked = self.slots.setdefault(slot, tensor)
                if (tensor.shape, tensor.dtype) != (linked.shape, linked.dtype):
                    raise self._error(f"{name} of {plan.role} is {tensor}, but the state it is linked with is {linked}")

    def _tensor(self, role: str, name: str, side: str) -> Tensor:
        """One tensor of a graph; `side` is `inputs` or `outputs`."""
        known: Mapping[str, Tensor] = getattr(self._graphs[role], side)
        if name not in known:
            raise self._error(f"graph {role} has no {name} among its {side}: {', '.join(known)}")
        if not known[name].is_fixed:
            raise self._error(
                f"{name} of {role} is {known[name].type} {list(known[name].shape)}, expected a fixed shape"
            )
        return known[name]

    def _error(self, what: str) -> ArtifactError:
        return ArtifactError(f"{self._configuration.name}: {what} | export the bundle again")
