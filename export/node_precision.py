"""What a graph of lower precision is made of: which of its layers compute in it, and why the others do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from edgeseg.errors import ParityError

MINIMUM_SHARE = 0.95
"""Of the convolutions and matrix products: those in lower precision, and those that are not for a named reason."""


@dataclass(frozen=True)
class NodePrecision:
    """What became of one convolution or matrix product."""

    name: str
    """Of the node."""
    layer: str
    """The same in all graphs of a network, as `keep_high` takes it."""
    operator: str
    reduced: bool
    """Whether it computes in the lower precision."""
    reason: str | None = None
    """Why not; None where it does, or where nothing explains it."""


@dataclass(frozen=True)
class Quantized:
    """A graph of lower precision."""

    model: onnx.ModelProto
    nodes: tuple[NodePrecision, ...]
    """All convolutions and matrix products, in execution order."""
    ranges: Mapping[str, float] = field(default_factory=dict)
    """Largest magnitude represented of each tensor, from the calibration data; to be given again as `ranges`."""
    places: frozenset[tuple[int, int]] = frozenset()
    """INT8: which inputs of which nodes are read as int8, nodes by their position in the folded float graph."""

    @property
    def share(self) -> float:
        """Convolutions and matrix products of lower precision, of all."""
        return sum(node.reduced for node in self.nodes) / len(self.nodes) if self.nodes else 1.0

    @property
    def left(self) -> tuple[NodePrecision, ...]:
        """Those that stayed in high precision."""
        return tuple(node for node in self.nodes if not node.reduced)


def refuse_unexplained(nodes: Sequence[NodePrecision], precision: str) -> None:
    """Raises:
    ParityError: more than 5 % of `nodes` are not of lower precision and have no reason.
    """
    unexplained = [node for node in nodes if not node.reduced and node.reason is None]
    if len(nodes) - len(unexplained) < MINIMUM_SHARE * len(nodes):
        some = ", ".join(f"{node.name} ({node.operator})" for node in unexplained[:4])
        some += ", ..." if len(unexplained) > 4 else ""
        raise ParityError(
            f"too few layers are {precision}, and nothing says why | got {len(unexplained)} unexplained of "
            f"{len(nodes)} convolutions and matrix products: {some} | nothing was written"
        )
