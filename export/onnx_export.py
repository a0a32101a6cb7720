"""The one place where PyTorch becomes ONNX: a fixed-shape graph of standard operators with readable names.

Names after the clean-up: a Conv node is called by its module's path in the network (`backbone.layer1.0.conv1`), other
nodes `<module path>.<operator>`; a tensor has the name of the node that makes it; weights are `<node>.weight`.
"""

import io
import logging
import warnings
from collections import Counter

import onnx
import torch
from onnx import ModelProto, helper
from torch import nn

from edgeseg.errors import InputError, first_line
from edgeseg.export.graph_edit import check_graph, drop_output, fold_constants, fold_input_scale, rename_tensors
from edgeseg.export.token_stages import recorded_stages
from edgeseg.export.wrapper import CameraToLabels

OPSET = 17
IMAGE, LABELS, LOGITS = "image", "labels", "logits"
FRAME_IN, FRAME_OUT = "state_frame_in", "state_frame_out"
"""State of a two-frame network: the frame before, as bytes."""


def export_module(module: CameraToLabels) -> ModelProto:
    """The graph of one step: `image` (and `state_frame_in`) -> `labels` (and `state_frame_out`).

    The tensor `logits` exists inside, and those that `token_stages` names where tokens stop early. Batch norms behind a
    convolution are folded into it, constants are folded, the checker has passed.

    Raises:
        InputError: the network cannot be traced, or labels of the asked stride cannot be had.
    """
    module = module.eval()
    height, width = module.size_hw
    inputs = tuple(torch.zeros(1, height, width, 3, dtype=torch.uint8) for _ in range(module.input_frames))
    names = [IMAGE, FRAME_IN][: module.input_frames]
    with recorded_stages(module) as inner:
        traced = _trace(module, inputs, names)
    rename_tensors(traced, dict(zip((entry.name for entry in traced.graph.output[2:]), inner, strict=True)))
    model = fold_constants(traced)
    for name in (LOGITS, *inner):
        drop_output(model, name)
    _name_by_module(model, module, {LOGITS, *inner})
    fold_input_scale(model)
    if module.input_frames == 2:
        _hand_on_frame(model)
    return check_graph(model)


def _trace(module: CameraToLabels, inputs: tuple[torch.Tensor, ...], names: list[str]) -> ModelProto:
    # The exporter that traces TorchScript names nodes by module and takes a tenth of the time of the other one.
    buffer = io.BytesIO()
    with warnings.catch_warnings(), _quiet_logger("torch.onnx"):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                inputs,
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=[LABELS, LOGITS],
                do_constant_folding=True,
            )
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the network cannot be exported to ONNX ({type(error).__name__}: {first_line(error)}) | "
                f"it must take a float image {(1, 3 * module.input_frames, *module.size_hw)} and have no control flow "
                "that depends on values | export it to ONNX yourself and pass the .onnx file"
            ) from error
    return onnx.load_from_string(buffer.getvalue())


class _quiet_logger:
    """Silences one logger within a block."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)


def _hand_on_frame(model: ModelProto) -> None:
    shape = [entry.dim_value for entry in model.graph.input[0].type.tensor_type.shape.dim]
    model.graph.node.append(helper.make_node("Identity", [IMAGE], [FRAME_OUT], name="frame_state"))
    model.graph.output.append(helper.make_tensor_value_info(FRAME_OUT, onnx.TensorProto.UINT8, shape))


def _name_by_module(model: ModelProto, module: nn.Module, inner: set[str]) -> None:
    """Give nodes, tensors and weights the names that the module's docstring promises; `inner` tensors have theirs."""
    kept = {entry.name for entry in (*model.graph.input, *model.graph.output)} | inner
    weights = {entry.name for entry in model.graph.initializer}
    users = Counter(name for node in model.graph.node for name in node.input)
    taken: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        path = _module_path(node, module)
        name = path if node.op_type == "Conv" and path else f"{path}.{node.op_type}".lstrip(".")
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"
        for index, output in enumerate(node.output):
            if output and output not in kept:
                renamed[output] = node.name if index == 0 else f"{node.name}.{index}"
        for index, entry in enumerate(node.input):
            if entry in weights and users[entry] == 1:
                part = (
                    {1: "weight", 2: "bias"}.get(index, f"input{index}") if node.op_type == "Conv" else f"input{index}"
                )
                renamed[entry] = f"{node.name}.{part}"
    rename_tensors(model, renamed)


def _module_path(node: onnx.NodeProto, module: nn.Module) -> str:
    """Path of the module that made `node`, relative to the network; empty for the wrapper's own nodes."""
    if node.op_type == "Conv" and node.input[1].startswith("network.") and node.input[1].endswith(".weight"):
        return _relative(node.input[1].removesuffix(".weight"))
    scope = node.output[0].split("/")[1:-1] if node.output[0].startswith("/") else node.name.split("/")[1:-1]
    path, container = "", ""
    for part in scope:
        # A module called inside a called container repeats the container's name: /layer1/layer1.0/conv1.
        for candidate in (part, part.removeprefix(f"{container}.")):
            full = f"{path}.{candidate}" if path else candidate
            if _has_module(module, full):
                path, container = full, part
                break
    return _relative(path)


def _relative(path: str) -> str:
    return path.removeprefix("network").removeprefix(".") if path.split(".")[0] == "network" else path


def _has_module(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True
