"""Writes one graph of a masked network: the dense graph, node by node, on the channel parts that its phase computes."""

from collections.abc import Sequence

import onnx

from edgeseg.export.channel_flow import ChannelFlow, Range, is_channel_concat
from edgeseg.export.rewrites.channel_operators import emit_channels
from edgeseg.export.rewrites.graph_index import attributes
from edgeseg.export.rewrites.graph_writer import GraphWriter
from edgeseg.export.rewrites.join_channels import join_channels, slice_channels
from edgeseg.export.rewrites.mask_convolution import emit_convolution

SPLIT_PARTS = 4
"""Most parts that one convolution is split over; beyond, many small convolutions cost more than one Concat."""

StateKey = tuple[str, Range]
"""Feature map of the dense graph and the channels of it that a state holds."""


class PhaseBuilder:
    """Builds the nodes of one role.

    Stale channels enter as states where an operator first needs them (after the per-channel tail of their convolution),
    not where they were computed.

    Args:
        phase: 0, 1, or None for `init`, which computes all channels.
        split: whether convolutions read fresh and stale channels separately instead of joined.

    Attributes:
        states: states that this role reads -> name of the graph input.
    """

    def __init__(self, flow: ChannelFlow, phase: int | None, split: bool) -> None:
        self.flow = flow
        self.index = flow.index
        self.phase = phase
        self.split = split
        self.writer = GraphWriter()
        self.states: dict[StateKey, str] = {}
        self._made: dict[StateKey, str] = {}
        for node in self.index.model.graph.node:
            if node.output[0] not in self.index.constants:
                self._visit(node)
        for name in (value.name for value in self.index.model.graph.output):
            made = self.tensor(name)
            if made != name:
                self.writer.add("Identity", [made], name)

    def channels(self, name: str, part: Range) -> str:
        """The tensor with channels `part` of feature map `name`, written from its parts where there is none yet."""
        if (name, part) not in self._made:
            pieces = [
                self._piece(name, cut, part) for cut in self._parts(name) if cut[0] < part[1] and part[0] < cut[1]
            ]
            self._made[name, part] = join_channels(self.writer, pieces, self._part_name(name, part))
        return self._made[name, part]

    def tensor(self, name: str) -> str:
        """The whole of tensor `name` of the dense graph."""
        if name in self.index.constants:
            return self.writer.constant(name, self.index.constants[name])
        channels = self.index.feature_channels(name)
        return name if channels is None else self.channels(name, (0, channels))

    def _parts(self, name: str) -> list[Range]:
        return [(0, self.flow.channels(name))] if self.phase is None else self.flow.parts(name, self.phase)

    def _is_stale(self, name: str, part: Range) -> bool:
        return self.phase is not None and self.flow.is_stale(name, part, self.phase)

    def _part_name(self, name: str, part: Range) -> str:
        return name if part == (0, self.flow.channels(name)) else f"{name}[{part[0]}:{part[1]}]"

    def _piece(self, name: str, cut: Range, part: Range) -> str:
        """What `part` and `cut`, one of the parts of `name`, have in common."""
        if (name, cut) not in self._made:
            if self._is_stale(name, cut):
                self._made[name, cut] = self.states[name, cut] = f"state_cwm{len(self.states)}_in"
            else:
                self._made[name, cut] = self._slice(name, name, cut, (0, self.flow.channels(name)))
        common = (max(cut[0], part[0]), min(cut[1], part[1]))
        if common != cut and (name, common) not in self._made:
            self._made[name, common] = self._slice(name, self._made[name, cut], common, cut)
        return self._made[name, common]

    def _slice(self, name: str, tensor: str, part: Range, held: Range) -> str:
        """Channels `part` out of `tensor`, which holds the channels `held` of feature map `name`."""
        if part == held:
            return tensor
        offset = held[0]
        return slice_channels(self.writer, tensor, part[0] - offset, part[1] - offset, self._part_name(name, part))

    def _visit(self, node: onnx.NodeProto) -> None:
        output = node.output[0]
        operator = self.flow.operators.get(output)
        if operator is not None:
            for part in self._fresh_parts(output):
                inputs = {position: self.channels(node.input[position], part) for position in operator.features}
                inputs.update({position: self.tensor(node.input[position]) for position in operator.shared})
                made = self._part_name(output, part)
                emit_channels(self.writer, self.index, node, inputs, part, made)
                self._made[output, part] = made
        elif self._is_plain_convolution(node):
            for part in self._fresh_parts(output):
                made = self._part_name(output, part)
                emit_convolution(self.writer, self.index, node, self._convolution_inputs(node.input[0]), part, made)
                self._made[output, part] = made
        elif is_channel_concat(node) and self._are_features([*node.input, output]):
            for part in self._fresh_parts(output):
                self._made[output, part] = self._concat(node, part)
        else:
            self.writer.add_copy(node, [self.tensor(name) if name else "" for name in node.input], node.output)

    def _fresh_parts(self, name: str) -> list[Range]:
        return [part for part in self._parts(name) if not self._is_stale(name, part)]

    def _are_features(self, names: Sequence[str]) -> bool:
        return all(self.index.feature_channels(name) is not None for name in names)

    def _is_plain_convolution(self, node: onnx.NodeProto) -> bool:
        return (
            node.op_type == "Conv"
            and attributes(node).get("group", 1) == 1
            and all(name in self.index.constants for name in node.input[1:] if name)
            and self._are_features([node.input[0], node.output[0]])
        )

    def _convolution_inputs(self, name: str) -> list[tuple[Range, str]]:
        parts = self._parts(name)
        if not self.split or len(parts) > SPLIT_PARTS:
            parts = [(0, self.flow.channels(name))]
        return [(part, self.channels(name, part)) for part in parts]

    def _concat(self, node: onnx.NodeProto, part: Range) -> str:
        """Channels `part` of a Concat along the channels, from those of its inputs that lie there."""
        pieces = []
        for name, (start, stop) in zip(node.input, self.flow.concat_ranges(node), strict=True):
            first, last = max(start, part[0]), min(stop, part[1])
            if first < last:
                pieces.append(self.channels(name, (first - start, last - start)))
        return join_channels(self.writer, pieces, self._part_name(node.output[0], part))
