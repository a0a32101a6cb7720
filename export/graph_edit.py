"""Small edits of ONNX graphs, each in place unless it says otherwise."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import InputError, first_line

IR_VERSION = 8
"""Written into every graph: what ONNX Runtime 1.12 and TensorRT 8.5 onwards read."""


def fold_constants(model: ModelProto) -> ModelProto:
    """A copy without anything that can be computed ahead: shapes, constants, identities, unused nodes."""
    from onnxscript import optimizer

    folded = optimizer.optimize(model, onnx_shape_inference=True)
    assert isinstance(folded, ModelProto)
    return folded


def check_graph(model: ModelProto) -> ModelProto:
    """A copy with inferred shapes that the ONNX checker has passed: standard operators only, all shapes fixed.

    Raises:
        InputError: it did not pass.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "edgeseg", "", ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    foreign = sorted({node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise InputError(f"the graph has operators outside the ONNX standard | got {', '.join(foreign)}")
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"the ONNX checker refuses the graph ({first_line(error)})") from error
    for entry in (*model.graph.input, *model.graph.output):
        if not all(side.dim_value > 0 for side in entry.type.tensor_type.shape.dim):
            raise InputError(
                f"{entry.name} has no fixed shape | got {shape_text(entry)}: the network's sizes depend on values"
            )
    return model


def shape_text(entry: onnx.ValueInfoProto) -> str:
    """`1x3xHx64`-like text of a value's shape."""
    sides = entry.type.tensor_type.shape.dim
    return "x".join(str(side.dim_value) if side.dim_value else (side.dim_param or "?") for side in sides)


def drop_output(model: ModelProto, name: str) -> None:
    """Make the output `name` an inner tensor."""
    kept = [entry for entry in model.graph.output if entry.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def with_outputs(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """A copy that also gives the inner tensors `names`; names that it does not have are left out."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    present = {entry.name for entry in model.graph.output}
    made = {output for node in model.graph.node for output in node.output}
    types = {entry.name: entry for entry in model.graph.value_info}
    for name in names:
        if name in made and name in types and name not in present:
            model.graph.output.append(types[name])
            present.add(name)
    return model


def rename_tensors(model: ModelProto, renamed: Mapping[str, str]) -> None:
    """Rename tensors, weights included."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = renamed.get(name, name)
    for entry in (*model.graph.initializer, *model.graph.input, *model.graph.output, *model.graph.value_info):
        entry.name = renamed.get(entry.name, entry.name)


def tie_input(model: ModelProto, name: str, to: str) -> ModelProto:
    """A copy without the input `name`: whatever read it reads the input `to` instead."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    kept = [entry for entry in model.graph.input if entry.name != name]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for node in model.graph.node:
        for index, entry in enumerate(node.input):
            if entry == name:
                node.input[index] = to
    return model


def fold_input_scale(model: ModelProto) -> None:
    """Mul(x, per-channel constant) -> Conv becomes Conv with scaled weights, for the Mul of the image's normalisation.

    Exact, padding included: zero times the factor is zero. Does nothing where the Mul feeds something else.
    """
    weights = {entry.name: entry for entry in model.graph.initializer}
    users = Counter(name for node in model.graph.node for name in node.input)
    makers = {output: node for node in model.graph.node for output in node.output}
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        scale = makers.get(conv.input[0])
        if scale is None or scale.op_type != "Mul" or users[scale.output[0]] != 1 or conv.input[1] not in weights:
            continue
        factor, kernel = weights.get(scale.input[1]), weights[conv.input[1]]
        if factor is None or users[kernel.name] != 1:
            continue
        factors, kernels = numpy_helper.to_array(factor), numpy_helper.to_array(kernel)
        if factors.shape != (1, kernels.shape[1], 1, 1):
            continue
        kernel.CopyFrom(numpy_helper.from_array((kernels * factors).astype(np.float32), kernel.name))
        conv.input[0] = scale.input[0]
        model.graph.node.remove(scale)
    remove_unused_weights(model)


def remove_unused_weights(model: ModelProto) -> None:
    """Drop initialisers that no node reads."""
    used = {name for node in model.graph.node for name in node.input} | {entry.name for entry in model.graph.output}
    kept = [entry for entry in model.graph.initializer if entry.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def halve_weights(model: ModelProto, minimum_elements: int = 256) -> ModelProto:
    """A copy whose float32 weights of at least `minimum_elements` are stored as float16 and cast back.

    Arithmetic stays float32; runtimes fold the casts when they load the graph. Half the bytes on disk.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    casts: list[NodeProto] = []
    for entry in model.graph.initializer:
        if entry.data_type != TensorProto.FLOAT or int(np.prod(entry.dims)) < minimum_elements:
            continue
        name = entry.name
        half = numpy_helper.to_array(entry).astype(np.float16)
        if not np.isfinite(half).all():
            continue
        entry.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [entry.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
