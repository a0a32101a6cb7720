"""An ONNX file of somebody else's as a source: wrapped from bytes to bytes like our own networks."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from edgeseg.config import Configuration
from edgeseg.errors import InputError, first_line
from edgeseg.export.graph_edit import check_graph, drop_output, fold_constants, fold_input_scale
from edgeseg.export.onnx_export import IMAGE, LABELS, LOGITS
from edgeseg.export.onnx_file import ModelFace, OutputForm, at_size, load_model, output_form, read_face
from edgeseg.export.source import Source, SourceFacts
from edgeseg.export.variant import Reference, Variant
from edgeseg.export.wrapper import Preprocessing, labels_size

_Step = tuple[str, list[str], dict[str, Any]]
"""Operator, its constants, its attributes."""
_FLOAT_INPUTS: dict[int, type[np.floating]] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


class OnnxSource(Source):
    """A network in an ONNX file.

    Args:
        preprocessing: what the network expects; for one that takes bytes, only its colour order counts.
        layout: `NCHW` or `NHWC`; None to read it from the file.
        output: name of the output to use; None for the only one.

    Raises:
        InputError: the file is not an ONNX model with one image input and logits or labels out.
    """

    def __init__(
        self,
        facts: SourceFacts,
        path: Path,
        preprocessing: Preprocessing,
        *,
        layout: str | None = None,
        output: str | None = None,
    ) -> None:
        self._path = path
        self._model = load_model(path)
        self.face = read_face(self._model, path, layout, output)
        self.facts = facts
        self._preprocessing = preprocessing

    def variant(self, knobs: Configuration) -> Variant:
        if knobs.rho is not None:
            raise InputError(
                f"--rho {knobs.rho:g} needs a torch module, and {self._path} is an ONNX file | "
                "give package.module:factory instead"
            )
        for side, fixed, wanted in zip(("height", "width"), self.face.fixed_hw, knobs.size_hw, strict=True):
            if fixed is not None and fixed != wanted:
                raise InputError(
                    f"{self._path} has a fixed input {side} of {fixed}, but --size asks for {wanted} | "
                    "leave --size out, or export the file with free sizes"
                )
        return Variant(knobs, {"step": self._wrapped(knobs)}, "step", ("step",))

    def reference(self, knobs: Configuration) -> Reference:
        return OnnxReference(self._path, self.face, self._preprocessing, knobs, len(self.facts.classes))

    def _wrapped(self, knobs: Configuration) -> ModelProto:
        model = at_size(self._model, self.face, knobs.size_hw, self._path)
        shape = [side.dim_value for side in model.graph.output[0].type.tensor_type.shape.dim]
        form = output_form(shape, self.face, len(self.facts.classes), self._path)
        labels_hw = _labels_hw(form, knobs)
        # A prefix keeps the file's names apart from ours.
        model = compose.add_prefix(model, "network.")
        graph = model.graph
        image = f"network.{self.face.input}"
        # What a network of bytes casts itself need not be bytes again.
        casts = all(node.op_type == "Cast" for node in graph.node if image in node.input)
        takes_numbers = casts and self.face.element not in _FLOAT_INPUTS
        nodes = [
            *_head(image, self.face, self._preprocessing, takes_numbers=takes_numbers),
            *graph.node,
            *_tail(f"network.{self.face.output}", form, labels_hw),
        ]
        graph.initializer.extend(_constants(self.face, self._preprocessing, [1, len(self.facts.classes), *labels_hw]))
        for repeated in (graph.node, graph.input, graph.output, graph.value_info):
            del repeated[:]
        graph.node.extend(nodes)
        graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, *knobs.size_hw, 3]))
        graph.output.append(helper.make_tensor_value_info(LABELS, TensorProto.UINT8, [1, *labels_hw]))
        graph.name = "network"
        if form.layout is not None:
            # An output while constants are folded, so that its name survives.
            logits_shape = [1, len(self.facts.classes), *form.size_hw]
            graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, logits_shape))
        model = fold_constants(model)
        drop_output(model, LOGITS)
        fold_input_scale(model)
        return check_graph(model)


class OnnxReference:
    """The file as its author runs it: ONNX Runtime, the image normalised in numpy, logits up-sampled by torch."""

    def __init__(
        self, path: Path, face: ModelFace, preprocessing: Preprocessing, knobs: Configuration, class_count: int
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises its own classes
            raise InputError(f"{path} cannot be run by ONNX Runtime ({first_line(error)})") from error
        self._path, self._face, self._knobs = path, face, knobs
        self._preprocessing, self._class_count = preprocessing, class_count

    def reset(self) -> None:
        """A single ONNX file has no state."""

    def step(self, frame_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        output = self._session.run([self._face.output], {self._face.input: self._image(frame_rgb)})[0]
        form = output_form(output.shape, self._face, self._class_count, self._path)
        if form.layout is None:
            return output.reshape(form.size_hw).astype(np.uint8), None
        logits = torch.from_numpy(output.astype(np.float32))
        if form.layout == "NHWC":
            logits = logits.permute(0, 3, 1, 2)
        full = F.interpolate(logits, size=_labels_hw(form, self._knobs), mode="bilinear", align_corners=False)
        return full.argmax(dim=1)[0].to(torch.uint8).numpy(), logits[0].numpy()

    def _image(self, frame_rgb: np.ndarray) -> np.ndarray:
        image = frame_rgb if self._preprocessing.colour_order == "RGB" else frame_rgb[..., ::-1]
        if self._face.element in _FLOAT_INPUTS:
            mean, std = (np.array(each, np.float32) for each in (self._preprocessing.mean, self._preprocessing.std))
            image = ((image.astype(np.float32) / 255 - mean) / std).astype(_FLOAT_INPUTS[self._face.element])
        return np.ascontiguousarray(image[None].transpose(0, 3, 1, 2) if self._face.layout == "NCHW" else image[None])


def _labels_hw(form: OutputForm, knobs: Configuration) -> tuple[int, int]:
    """Size of the label map; labels that the network gives itself stay as they are."""
    size_hw = labels_size(knobs.size_hw, form.size_hw, knobs.labels_stride)
    if form.layout is None and size_hw != form.size_hw:
        raise InputError(
            f"--labels-stride {knobs.labels_stride} does not fit: the network gives labels of "
            f"{form.size_hw[0]}x{form.size_hw[1]} itself | use {round(knobs.size_hw[0] / form.size_hw[0])}"
        )
    return size_hw


def _head(target: str, face: ModelFace, preprocessing: Preprocessing, *, takes_numbers: bool) -> list[NodeProto]:
    """Bytes `[1, H, W, 3]` RGB -> the network's input `target`, as floats where it `takes_numbers` of any type."""
    moves: list[_Step] = []
    if preprocessing.colour_order == "BGR":
        moves.append(("Gather", ["head.bgr"], {"axis": 3}))
    if face.layout == "NCHW":
        moves.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    # First of all a Cast: it is the only thing that TensorRT does with bytes.
    steps: list[_Step] = [("Cast", [], {"to": TensorProto.FLOAT}), *moves]
    if face.element in _FLOAT_INPUTS:
        steps += [("Sub", ["head.shift"], {}), ("Mul", ["head.scale"], {})]
    if face.element != TensorProto.FLOAT and not takes_numbers:
        steps.append(("Cast", [], {"to": face.element}))
    nodes, current = [], IMAGE
    for index, (kind, inputs, attributes) in enumerate(steps):
        output = target if index == len(steps) - 1 else f"head.{kind}_{index}"
        nodes.append(helper.make_node(kind, [current, *inputs], [output], name=f"head.{kind}_{index}", **attributes))
        current = output
    return nodes


def _tail(output: str, form: OutputForm, labels_hw: tuple[int, int]) -> list[NodeProto]:
    """The network's output -> `labels`, by way of `logits` where it gives them."""
    if form.layout is None:
        return [
            helper.make_node("Reshape", [output, "tail.labels_shape"], ["tail.Reshape"], name="tail.Reshape"),
            helper.make_node("Cast", ["tail.Reshape"], [LABELS], name="tail.labels", to=TensorProto.UINT8),
        ]
    nodes, current = [], output
    if form.layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [current], ["tail.NCHW"], name="tail.NCHW", perm=[0, 3, 1, 2]))
        current = "tail.NCHW"
    nodes.append(helper.make_node("Cast", [current], [LOGITS], name="tail.logits", to=TensorProto.FLOAT))
    current = LOGITS
    if form.size_hw != labels_hw:
        inputs = [current, "", "", "tail.logits_shape"]
        options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        nodes.append(helper.make_node("Resize", inputs, ["tail.Resize"], name="tail.Resize", **options))
        current = "tail.Resize"
    nodes.append(helper.make_node("ArgMax", [current], ["tail.ArgMax"], name="tail.ArgMax", axis=1, keepdims=0))
    nodes.append(helper.make_node("Cast", ["tail.ArgMax"], [LABELS], name="tail.labels", to=TensorProto.UINT8))
    return nodes


def _constants(face: ModelFace, preprocessing: Preprocessing, logits_shape: list[int]) -> list[TensorProto]:
    """What `_head` and `_tail` refer to; those that no node reads are dropped by constant folding."""
    shape = (1, 3, 1, 1) if face.layout == "NCHW" else (1, 1, 1, 3)
    arrays: dict[str, np.ndarray] = {
        "head.bgr": np.array([2, 1, 0], np.int64),
        "head.shift": np.array(preprocessing.shift, np.float32).reshape(shape),
        "head.scale": np.array(preprocessing.scale, np.float32).reshape(shape),
        "tail.logits_shape": np.array(logits_shape, np.int64),
        "tail.labels_shape": np.array([1, *logits_shape[2:]], np.int64),
    }
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]
