"""A dense graph and its channel masks -> three fixed-shape graphs with state: init, phase0, phase1 [C 2.3].

    graphs = build_phase_graphs(dense, {"backbone.layer1.0.conv1": ((0, 32), (32, 64)), ...}, form="concat")
    graphs.models["phase1"], graphs.states["phase1"].inputs, graphs.links

Step 0 after a reset runs `init`, step s >= 1 the phase s mod 2. A state holds only channels that its reader does not
compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import helper

from edgeseg.errors import InputError
from edgeseg.export.channel_flow import ChannelFlow, Mask
from edgeseg.export.graph_edit import fold_constants
from edgeseg.export.phase_builder import PhaseBuilder, StateKey
from edgeseg.export.rewrites.fold_batch_norm import fold_batch_norm
from edgeseg.export.rewrites.graph_index import GraphIndex, attributes
from edgeseg.export.rewrites.residual_sum import chain_residual_sums

Form = Literal["concat", "split"]
NEXT_ROLE = {"init": "phase1", "phase1": "phase0", "phase0": "phase1"}
"""Role of a step -> role of the step after it."""
SHAPE_OPERATORS = frozenset(("Constant", "ConstantOfShape", "Range", "Shape", "Size"))
"""Signs of a graph that computes its sizes as it runs; constant folding makes them known."""


@dataclass(frozen=True)
class StateTensor:
    """A state as a graph input or output."""

    name: str
    dtype: str
    """numpy's name, such as "float32"."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class RoleStates:
    """States that a role reads and writes; the network's own (`state_*` of the dense graph) are among them."""

    inputs: tuple[StateTensor, ...]
    outputs: tuple[StateTensor, ...]


@dataclass(frozen=True)
class StateLink:
    """Output `output` of the step with role `source` is input `input` of the next step, of role `target`."""

    source: str
    output: str
    target: str
    input: str


@dataclass(frozen=True)
class PhaseGraphs:
    """The deployed form of a masked network."""

    models: dict[str, onnx.ModelProto]
    """By role. A weight named `NAME[a:b]` is rows a to b of weight `NAME` of `init`: the same bytes."""
    states: dict[str, RoleStates]
    links: tuple[StateLink, ...]
    masked: tuple[str, ...]
    """The convolutions masked, as named by the caller."""
    refused: tuple[tuple[str, str], ...]
    """(convolution, reason) of each that is computed whole although a mask was asked for. If the trained network masks
    it, these graphs are not that network."""


def build_phase_graphs(dense: onnx.ModelProto, masked: Mapping[str, Mask], *, form: Form) -> PhaseGraphs:
    """Cut a dense graph into init, phase0 and phase1.

    Args:
        dense: fixed shapes, batch 1, opset 17 or later, standard operators. Inputs and outputs `state_X_in`,
            `state_X_out` are states of its own and stay as they are.
        masked: convolution -> output channels ((start0, stop0), (start1, stop1)) computed in phase 0 and 1, which
            together are all channels. A convolution is named by its module path, whole or from any dot on (its weight
            is `PATH.weight`, or its node `/PATH/Conv`), or by its node's name.
        form: how convolutions read maps that are part fresh, part state: `concat` joins them first; `split` convolves
            each and adds. Which is faster depends on device and threads.

    Raises:
        InputError: a mask is not as above, the network's own states do not pair, or the graph has control flow.
    """
    if form not in ("concat", "split"):
        raise InputError(f"unknown form of phase graphs | got {form!r}, expected concat or split")
    index = GraphIndex(prepare(dense))
    masks, refused = _locate(index, masked)
    flow = ChannelFlow(index, masks)
    phases = {"init": None, "phase0": 0, "phase1": 1}
    builders = {role: PhaseBuilder(flow, phase, form == "split") for role, phase in phases.items()}
    models = {role: _finish(builders[role], builders[NEXT_ROLE[role]], role) for role in builders}
    states = {role: _states_of(model) for role, model in models.items()}
    done = tuple(name for name in masked if name not in dict(refused))
    return PhaseGraphs(models, states, _links(states), done, tuple(refused))


def prepare(dense: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `dense` with constants and batch norms folded and control flow refused.

    Raises:
        InputError: the graph has control flow.
    """
    computes_shapes = any(node.op_type in SHAPE_OPERATORS for node in dense.graph.node)
    model = fold_constants(dense) if dense.functions or computes_shapes else dense
    for node in model.graph.node:
        if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
            raise InputError(
                f"graph cannot be cut into phases | {node.name} ({node.op_type}) is control flow | export without it"
            )
    return fold_batch_norm(model)[0]


def _locate(index: GraphIndex, masked: Mapping[str, Mask]) -> tuple[dict[str, Mask], list[tuple[str, str]]]:
    """Masks by output tensor, and the convolutions that cannot be masked."""
    masks: dict[str, Mask] = {}
    refused: list[tuple[str, str]] = []
    convolutions = [node for node in index.model.graph.node if node.op_type == "Conv"]
    for key, mask in masked.items():
        found = [node for node in convolutions if key in _names(node)]
        # A name may leave out the modules around the network, unless it is somebody's whole name.
        found = found or [node for node in convolutions if any(name.endswith(f".{key}") for name in _names(node))]
        reason = _why_not(index, found)
        if reason is not None:
            refused.append((key, reason))
            continue
        _check_mask(key, mask, index.shapes[found[0].output[0]][1])
        masks[found[0].output[0]] = mask
    return masks, refused


def _names(node: onnx.NodeProto) -> set[str]:
    """What a convolution is called: its node, the module of its weight, the module in its node's name."""
    return {node.name, node.input[1].removesuffix(".weight"), _torchscript_path(node.name)}


def _torchscript_path(node_name: str) -> str:
    """`network.layer1.0.conv1` of /network/layer1/layer1.0/conv1/Conv, as torch's TorchScript exporter names nodes."""
    path: list[str] = []
    for scope in node_name.strip("/").split("/")[:-1]:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)


def _why_not(index: GraphIndex, found: list[onnx.NodeProto]) -> str | None:
    if not found:
        return "the graph has no convolution of that name"
    if len(found) > 1:
        return (
            f"{len(found)} convolutions of the graph have that name: called more than once, or the name is not precise"
        )
    node = found[0]
    if len(index.consumers[node.input[1]]) > 1:
        return "its weight is used more than once: in one step it would be masked twice"
    if attributes(node).get("group", 1) != 1:
        return f"it has {attributes(node)['group']} groups"
    if any(name not in index.constants for name in node.input[1:] if name):
        return "its weight or bias is computed in the graph"
    if index.feature_channels(node.input[0]) is None or index.feature_channels(node.output[0]) is None:
        return f"its input or output is not a map [1, C, H, W] of fixed shape: {index.shapes.get(node.output[0])}"
    return None


def _check_mask(key: str, mask: Mask, channels: int) -> None:
    fits = all(0 <= start < stop <= channels for start, stop in mask)
    if not fits or set(range(*mask[0])) | set(range(*mask[1])) != set(range(channels)):
        raise InputError(
            f"mask of convolution {key} does not fit | got {mask}, "
            f"expected two ranges that together are channels 0 to {channels}"
        )


def _finish(builder: PhaseBuilder, reader: PhaseBuilder, role: str) -> onnx.ModelProto:
    """The model of `builder`, writing the states that `reader`, the step after it, reads."""
    graph, index = builder.index.model.graph, builder.index
    targets = {name: builder.channels(*key) for key, name in reader.states.items()}
    renamed: dict[str, str] = {}
    produced = {name for node in builder.writer.nodes for name in node.output} - index.output_names
    for name, made in targets.items():
        output = f"{name.removesuffix('_in')}_out"
        if made in produced and made not in renamed:
            renamed[made] = output
        else:
            builder.writer.add("Identity", [made], output)
    for node in builder.writer.nodes:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    builder.writer.nodes = chain_residual_sums(builder.writer.nodes, index.output_names | set(renamed.values()))
    inputs = [_value_info(index, key, name) for key, name in builder.states.items()]
    outputs = [_value_info(index, key, f"{name.removesuffix('_in')}_out") for key, name in reader.states.items()]
    model = builder.writer.model(index.model, role, [*graph.input, *inputs], [*graph.output, *outputs])
    onnx.checker.check_model(model, full_check=True)
    return model


def _value_info(index: GraphIndex, key: StateKey, as_name: str) -> onnx.ValueInfoProto:
    name, part = key
    _, _, height, width = index.shapes[name]
    return helper.make_tensor_value_info(as_name, index.dtypes[name], [1, part[1] - part[0], height, width])


def _states_of(model: onnx.ModelProto) -> RoleStates:
    return RoleStates(
        tuple(_state_tensor(value) for value in model.graph.input if _is_state(value.name)),
        tuple(_state_tensor(value) for value in model.graph.output if _is_state(value.name)),
    )


def _is_state(name: str) -> bool:
    return name.startswith("state_")


def _state_tensor(value: onnx.ValueInfoProto) -> StateTensor:
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return StateTensor(value.name, dtype, tuple(dim.dim_value for dim in tensor.shape.dim))


def _links(states: Mapping[str, RoleStates]) -> tuple[StateLink, ...]:
    links = []
    for source, target in NEXT_ROLE.items():
        shapes = {state.name: state for state in states[source].outputs}
        for state in states[target].inputs:
            output = f"{state.name.removesuffix('_in')}_out"
            if output not in shapes or (shapes[output].shape, shapes[output].dtype) != (state.shape, state.dtype):
                raise InputError(
                    f"state {state.name} of {target} has no matching output {output} in {source} | "
                    "name the states of the dense graph state_X_in and state_X_out, of equal shape and type"
                )
            links.append(StateLink(source, output, target, state.name))
    return tuple(links)
