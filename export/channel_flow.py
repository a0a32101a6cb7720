"""Channel-wise data flow: which channels of each feature map a phase computes, and where its maps are cut.

A masked convolution computes some channels of its output, the *fresh* ones; the rest is *stale*: as it was a step ago.
Operators that treat channels by themselves (activation, pooling, resize, sum of equally masked maps) keep a stale
channel stale; every other operator reads all channels and makes its whole output anew.

Maps joined by per-channel operators form a group with common cuts, so that a sum finds its operands cut alike.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping

import onnx

from edgeseg.export.rewrites.channel_operators import ChannelOperator, channel_operator
from edgeseg.export.rewrites.graph_index import GraphIndex, attributes

Range = tuple[int, int]
Mask = tuple[Range, Range]


class ChannelFlow:
    """Fresh channels and cuts of every feature map `[1, C, H, W]` of a graph.

    Args:
        index: the dense graph.
        masks: output tensor of each masked convolution -> channels computed in phase 0 and phase 1.
    """

    def __init__(self, index: GraphIndex, masks: Mapping[str, Mask]) -> None:
        self.index = index
        self.operators: dict[str, ChannelOperator] = {}
        self._fresh: dict[str, tuple[frozenset[int], frozenset[int]]] = {}
        self._parent: dict[str, str] = {}
        self._cuts: tuple[dict[str, set[int]], dict[str, set[int]]] = (defaultdict(set), defaultdict(set))
        for node in index.model.graph.node:
            self._visit(node, masks)
        self._collect_cuts()

    def channels(self, name: str) -> int:
        """C of feature map `name`."""
        channels = self.index.feature_channels(name)
        assert channels is not None
        return channels

    def is_stale(self, name: str, part: Range, phase: int) -> bool:
        """Whether the channels `part`, which no cut crosses, are what they were at the step before."""
        return name in self._fresh and part[0] not in self._fresh[name][phase]

    def parts(self, name: str, phase: int) -> list[Range]:
        """The ranges that `name` is cut into in `phase`, in channel order; each is fresh or stale throughout."""
        cuts = sorted({0, self.channels(name), *self._cuts[phase][self._root(name)]})
        return list(itertools.pairwise(cuts))

    def _visit(self, node: onnx.NodeProto, masks: Mapping[str, Mask]) -> None:
        output = node.output[0]
        channels = self.index.feature_channels(output)
        if channels is None:
            return
        if output in masks:
            self._fresh[output] = tuple(frozenset(range(*part)) for part in masks[output])  # type: ignore[assignment]
            return
        if is_channel_concat(node) and len([name for name in node.output if name]) == 1:
            self._fresh[output] = self._joined(node)
            return
        operator = channel_operator(self.index, node)
        if operator is None:
            return
        self.operators[output] = operator
        for position in operator.features:
            self._parent[self._root(output)] = self._root(node.input[position])
        if not operator.shared:
            sets = [self._fresh_of(node.input[position]) for position in operator.features]
            self._fresh[output] = (
                frozenset().union(*(fresh[0] for fresh in sets)),
                frozenset().union(*(fresh[1] for fresh in sets)),
            )

    def _joined(self, node: onnx.NodeProto) -> tuple[frozenset[int], frozenset[int]]:
        fresh: tuple[set[int], set[int]] = (set(), set())
        for name, (start, _) in zip(node.input, self.concat_ranges(node), strict=True):
            for phase in (0, 1):
                fresh[phase].update(start + channel for channel in self._fresh_of(name)[phase])
        return frozenset(fresh[0]), frozenset(fresh[1])

    def _fresh_of(self, name: str) -> tuple[frozenset[int], frozenset[int]]:
        everything = frozenset(range(self.index.shapes[name][1]))
        return self._fresh.get(name, (everything, everything))

    def concat_ranges(self, node: onnx.NodeProto) -> list[Range]:
        """Channels of the output that each input of a channel Concat fills."""
        ranges, start = [], 0
        for name in node.input:
            stop = start + self.index.shapes[name][1]
            ranges.append((start, stop))
            start = stop
        return ranges

    def _root(self, name: str) -> str:
        while name in self._parent and self._parent[name] != name:
            name = self._parent[name]
        return name

    def _collect_cuts(self) -> None:
        for name, fresh in self._fresh.items():
            for phase in (0, 1):
                edges = {c for c in fresh[phase] if c - 1 not in fresh[phase]}
                edges |= {c + 1 for c in fresh[phase] if c + 1 not in fresh[phase]}
                self._cuts[phase][self._root(name)] |= edges - {0, self.channels(name)}


def is_channel_concat(node: onnx.NodeProto) -> bool:
    """Whether `node` joins feature maps along the channel axis."""
    return node.op_type == "Concat" and attributes(node).get("axis") in (1, -3)
