"""Reading an ONNX file of somebody else's: what goes in, what comes out, and a copy at a fixed size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto, helper, version_converter

from edgeseg.errors import InputError, first_line
from edgeseg.export.graph_edit import fold_constants, shape_text
from edgeseg.export.onnx_export import OPSET

NEWEST_OPSET = 20
LAYOUTS = ("NCHW", "NHWC")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class ModelFace:
    """The one input and the one output of an ONNX file that matter."""

    input: str
    element: int
    """`TensorProto` type of the input: FLOAT, FLOAT16 or UINT8."""
    layout: str
    """One of `LAYOUTS`."""
    fixed_hw: tuple[int | None, int | None]
    """Height and width where the file fixes them."""
    output: str
    gives_labels: bool
    """Whether the output holds class numbers instead of logits."""

    @property
    def takes_bytes(self) -> bool:
        """Whether the network normalises the image by itself."""
        return self.element == TensorProto.UINT8


@dataclass(frozen=True)
class OutputForm:
    """Shape of the output at one input size."""

    layout: str | None
    """One of `LAYOUTS` for logits; None for labels."""
    size_hw: tuple[int, int]


def load_model(path: Path) -> ModelProto:
    """Read an ONNX file, and bring it to an opset between 17 and 20.

    Raises:
        InputError: no such file, not ONNX, or its opset cannot be converted.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file | expected an ONNX file")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, the checker and missing weight files each raise their own
        raise InputError(f"{path} is not a valid ONNX file ({first_line(error)}) | export it again") from error
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    target = min(max(opset, OPSET), NEWEST_OPSET)
    if opset == target:
        return model
    try:
        return version_converter.convert_version(model, target)
    except Exception as error:  # the converter raises RuntimeError and its own classes
        raise InputError(
            f"{path} has opset {opset}, and cannot be converted to {target} ({first_line(error)}) | export it with "
            f"opset {OPSET} to {NEWEST_OPSET}"
        ) from error


def read_face(model: ModelProto, path: Path, layout: str | None, output: str | None) -> ModelFace:
    """Find the image input and the output, and what they hold.

    Raises:
        InputError: there are several, or their types or shapes are not those of an image and of logits or labels.
    """
    weights = {entry.name for entry in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise InputError(f"{path} must have one input, the image | got {len(inputs)}: {names}")
    image = inputs[0]
    element = image.type.tensor_type.elem_type
    sides = [side.dim_value or None for side in image.type.tensor_type.shape.dim]
    if len(sides) != 4 or element not in (*_FLOATS, TensorProto.UINT8):
        raise InputError(
            f"{path}: input {image.name} is no image | got {TensorProto.DataType.Name(element)} {shape_text(image)}, "
            "expected float or uint8 of shape 1x3xHxW or 1xHxWx3"
        )
    if layout is None:
        candidates = [name for name, axis in (("NCHW", 1), ("NHWC", 3)) if sides[axis] == 3]
        if len(candidates) != 1:
            raise InputError(
                f"{path}: the layout of input {image.name} is not clear from its shape {shape_text(image)} | "
                "add --input-layout NCHW or NHWC"
            )
        layout = candidates[0]
    if layout not in LAYOUTS:
        raise InputError(f"unknown --input-layout {layout!r} | known: {', '.join(LAYOUTS)}")
    channels = sides[1 if layout == "NCHW" else 3]
    if channels not in (3, None):
        raise InputError(f"{path}: input {image.name} has {channels} channels in layout {layout} | expected 3 colours")
    height, width = (sides[2], sides[3]) if layout == "NCHW" else (sides[1], sides[2])
    chosen = _choose_output(model, path, output)
    gives_labels = chosen.type.tensor_type.elem_type not in _FLOATS
    return ModelFace(image.name, element, layout, (height, width), chosen.name, gives_labels)


def _choose_output(model: ModelProto, path: Path, output: str | None) -> onnx.ValueInfoProto:
    entries = {entry.name: entry for entry in model.graph.output}
    if output is not None and output not in entries:
        raise InputError(f"--output {output!r}: {path} has no such output | it has: {', '.join(entries)}")
    if output is None and len(entries) > 1:
        raise InputError(f"{path} has {len(entries)} outputs: {', '.join(entries)} | add --output NAME")
    return entries[output] if output is not None else next(iter(entries.values()))


def at_size(model: ModelProto, face: ModelFace, size_hw: tuple[int, int], path: Path) -> ModelProto:
    """A copy with a fixed input shape and inferred shapes."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    shape = [1, 3, *size_hw] if face.layout == "NCHW" else [1, *size_hw, 3]
    for entry in model.graph.input:
        if entry.name == face.input:
            entry.CopyFrom(helper.make_tensor_value_info(face.input, face.element, shape))
    del model.graph.value_info[:]
    kept = [entry for entry in model.graph.output if entry.name == face.output]
    del model.graph.output[:]
    for entry in kept:
        entry.type.tensor_type.ClearField("shape")
    model.graph.output.extend(kept)
    try:
        model = onnx.shape_inference.infer_shapes(
            fold_constants(model), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:  # InferenceError, and RuntimeError from the optimiser
        raise InputError(
            f"{path} does not work at {size_hw[0]}x{size_hw[1]} ({first_line(error)}) | give another --size"
        ) from error
    shape_of_output = model.graph.output[0].type.tensor_type.shape.dim
    if not shape_of_output or not all(side.dim_value > 0 for side in shape_of_output):
        raise InputError(
            f"{path}: the size of {face.output} does not follow from the input's | "
            f"got {shape_text(model.graph.output[0])}"
        )
    return model


def output_form(shape: Sequence[int], face: ModelFace, class_count: int, path: Path) -> OutputForm:
    """What an output of `shape` holds.

    Raises:
        InputError: neither one channel per class nor one label per pixel.
    """
    got = "x".join(map(str, shape))
    if face.gives_labels:
        spatial = shape[1:] if len(shape) == 3 else shape[2:] if len(shape) == 4 and shape[1] == 1 else shape[1:3]
        if len(shape) not in (3, 4) or len(spatial) != 2 or spatial[0] * spatial[1] != math.prod(shape):
            raise InputError(f"{path}: output {face.output} holds no labels | got shape {got}, expected 1xhxw")
        return OutputForm(None, (spatial[0], spatial[1]))
    if len(shape) == 4 and shape[0] == 1 and shape[1] == class_count:
        return OutputForm("NCHW", (shape[2], shape[3]))
    if len(shape) == 4 and shape[0] == 1 and shape[3] == class_count:
        return OutputForm("NHWC", (shape[1], shape[2]))
    raise InputError(
        f"{path}: output {face.output} does not have one channel per class | got {got} for {class_count} classes, "
        f"expected 1x{class_count}xhxw | check --classes, or choose another --output"
    )
