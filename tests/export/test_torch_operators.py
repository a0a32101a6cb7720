"""Every operator of the table: a graph of it alone, as a program, gives what ONNX Runtime gives."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import InputError
from edgeseg.export.torch_operators import OPERATORS
from edgeseg.export.torch_program import torch_program
from edgeseg.runtime.backends.exported_program import read_program
from edgeseg.runtime.backends.torch_programs import OperatorProgram

MAP = np.round(np.random.default_rng(0).normal(size=(1, 4, 6, 8)), 2).astype(np.float32)
OTHER = np.round(np.random.default_rng(1).normal(size=(1, 4, 6, 8)), 2).astype(np.float32)
ROWS = MAP[0, 0]
POSITIVE = np.abs(MAP) + 0.1
INT = np.int64


def kernel(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, INT)


def make(operator: str, inputs: dict[str, np.ndarray], constants: dict[str, np.ndarray], order: list[str],
         outputs: int = 1, opset: int = 17, **attributes: Any) -> onnx.ModelProto:  # fmt: skip
    """A graph of one node with the checker's inferred output types."""
    names = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(operator, order, names, name="the_node", **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "graph", values, [helper.make_empty_tensor_value_info(name) for name in names])
    graph.initializer.extend(stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def case(operator: str, *inputs: np.ndarray | None, constants: dict[int, np.ndarray] | None = None, **options: Any):
    """Inputs by position; those of `constants` are known ahead, None is left out."""
    fixed = constants or {}
    count = max([len(inputs), *(position + 1 for position in fixed)])
    feeds = {f"x{index}": value for index, value in enumerate(inputs) if value is not None}
    known = {f"x{index}": value for index, value in fixed.items()}
    order = [f"x{index}" if f"x{index}" in feeds or f"x{index}" in known else "" for index in range(count)]
    return pytest.param(operator, feeds, known, order, options, id=f"{operator} {options or ''}".strip())


BOOLS = MAP > 0
CASES = [
    *(case(name, MAP, OTHER) for name in ("Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
                                          "Max", "Min", "Mul", "Sub", "Sum")),
    *(case(name, MAP) for name in ("Erf", "Exp", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity",
                                   "LeakyRelu", "LogSoftmax", "Neg", "Relu", "Sigmoid", "Softmax", "Tanh")),
    *(case(name, POSITIVE) for name in ("Log", "Sqrt")),
    *(case(name, BOOLS, OTHER > 0) for name in ("And", "Or")),
    case("Not", BOOLS),
    case("Pow", POSITIVE, OTHER),
    case("Where", BOOLS, MAP, OTHER),
    case("Max", MAP, OTHER, POSITIVE),
    case("Div", np.array([7, -7], INT), np.array([2, 2], INT)),
    case("Gelu", MAP, opset=20),
    case("Gelu", MAP, opset=20, approximate="tanh"),
    case("ArgMax", MAP, axis=1, keepdims=0),
    case("ArgMax", MAP, axis=-1),
    case("AveragePool", MAP, kernel_shape=[2, 2], strides=[2, 2]),
    case("AveragePool", MAP, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", MAP, kernel_shape=[3, 3], pads=[0, 0, 1, 1], count_include_pad=1),
    case("MaxPool", MAP, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", MAP, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    case("BatchNormalization", MAP, constants={1: kernel(4), 2: kernel(4), 3: kernel(4), 4: np.abs(kernel(4)) + 1}),
    case("Cast", MAP * 50, to=TensorProto.INT64),
    case("Clip", MAP, constants={1: np.float32(-0.5), 2: np.float32(0.5)}),
    case("Clip", MAP, None, constants={2: np.float32(0.5)}),
    case("Concat", MAP, OTHER, axis=1),
    case("Conv", MAP, constants={1: kernel(5, 4, 3, 3), 2: kernel(5)}, pads=[1, 1, 1, 1], strides=[2, 2]),
    case("Conv", MAP, constants={1: kernel(4, 1, 3, 3)}, pads=[0, 0, 1, 1], group=4),
    case("Conv", MAP, constants={1: kernel(5, 4, 3, 3)}, pads=[2, 2, 2, 2], dilations=[2, 2]),
    case("ConvTranspose", MAP, constants={1: kernel(4, 3, 4, 4), 2: kernel(3)}, pads=[1, 1, 1, 1], strides=[2, 2]),
    case("QuantizeLinear", MAP, constants={1: np.float32(0.02), 2: np.int8(0)}),
    case("QuantizeLinear", MAP, constants={1: np.float32(0.02), 2: np.uint8(128)}),
    case("QuantizeLinear", MAP, constants={1: np.abs(kernel(4)), 2: np.zeros(4, np.int8)}, axis=1),
    case("DequantizeLinear", (MAP * 40).astype(np.int8), constants={1: np.abs(kernel(4)), 2: np.zeros(4, np.int8)}),
    case("DequantizeLinear", (MAP * 9 + 99).astype(np.uint8), constants={1: np.float32(0.1), 2: np.uint8(99)}),
    case("Expand", MAP[:, :, :1], constants={1: ints(1, 4, 6, 1)}),
    case("Flatten", MAP, axis=2),
    case("Gather", MAP, constants={1: np.array(2, INT)}, axis=1),
    case("Gather", MAP, constants={1: ints(2, 0)}, axis=3),
    case("Gather", ROWS, ints(2, 0, 5).reshape(1, 3), axis=0),
    case("GatherElements", ROWS, np.array([[0, 1], [2, 7]], INT), axis=1),
    case("Gemm", ROWS, constants={1: kernel(5, 8), 2: kernel(5)}, transB=1),
    case("Gemm", ROWS, constants={1: kernel(6, 5), 2: kernel(5)}, transA=1, alpha=0.5, beta=2.0),
    case("MatMul", MAP, constants={1: kernel(8, 3)}),
    case("LayerNormalization", MAP, constants={1: kernel(8), 2: kernel(8)}, axis=-1, epsilon=1e-3),
    case("LayerNormalization", MAP, constants={1: kernel(6, 8)}, axis=2),
    case("Pad", MAP, constants={1: ints(0, 0, 1, 2, 0, 0, 3, 4), 2: np.float32(7)}),
    *(case(name, MAP, axes=[1, -1], keepdims=0) for name in ("ReduceMax", "ReduceMean", "ReduceMin")),
    case("ReduceSum", MAP, constants={1: ints(1)}),
    case("ReduceSum", MAP, keepdims=0),
    case("ReduceMax", MAP, constants={1: ints(2)}, opset=18),
    case("Reshape", MAP, constants={1: ints(0, -1, 16)}),
    case("Resize", MAP, constants={2: np.array([1, 1, 2, 2], np.float32)}, mode="linear"),
    case("Resize", MAP, constants={3: ints(1, 4, 9, 5)}, mode="linear"),
    case("Resize", MAP, constants={3: ints(1, 4, 12, 16)}, mode="linear",
         coordinate_transformation_mode="align_corners"),
    case("Resize", MAP, constants={3: ints(1, 4, 12, 16)}, mode="nearest", nearest_mode="floor",
         coordinate_transformation_mode="asymmetric"),
    case("ScatterElements", ROWS, ints(1, 2).reshape(1, 2), np.array([[7, 8]], np.float32), axis=0),
    case("Slice", MAP, constants={1: ints(1, -3), 2: ints(3, 99), 3: ints(1, 3)}),
    case("Slice", MAP, constants={1: ints(0), 2: ints(6), 3: ints(2), 4: ints(2)}),
    case("Split", MAP, constants={1: ints(1, 3)}, axis=1, outputs=2),
    case("Split", MAP, axis=3, outputs=2),
    case("Squeeze", MAP, constants={1: ints(0)}),
    case("TopK", ROWS, constants={1: ints(3)}, axis=1, outputs=2),
    case("Transpose", MAP, perm=[0, 2, 3, 1]),
    case("Transpose", ROWS),
    case("Unsqueeze", ROWS, constants={1: ints(0, 3)}),
]  # fmt: skip


def test_every_operator_of_the_table_is_tested():
    assert {entry.values[0] for entry in CASES} == set(OPERATORS)


@pytest.mark.parametrize(("operator", "feeds", "constants", "order", "options"), CASES)
def test_operator_gives_what_onnx_runtime_gives(tmp_path: Path, operator, feeds, constants, order, options):
    model = make(operator, feeds, constants, order, **options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    path = tmp_path / "a.pt2"
    path.write_bytes(torch_program(model))
    program = OperatorProgram(torch, read_program(path), torch.device("cpu"))
    made = program({name: torch.from_numpy(value) for name, value in feeds.items()})
    assert list(made) == [entry.name for entry in model.graph.output]
    for got, wanted in zip(made.values(), expected, strict=True):
        assert got.numpy().dtype == wanted.dtype
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("built", "message"),
    [
        (make("Sin", {"x": MAP}, {}, ["x"]), r"node the_node \(Sin\) .* not among those that are"),
        (
            make("Resize", {"x": MAP}, {"s": ints(1, 4, 12, 16)}, ["x", "", "", "s"], mode="cubic"),
            r"node the_node \(Resize\) .* mode cubic, half_pixel",
        ),
        (
            make("Resize", {"x": MAP}, {"s": np.array([1, 1, 1.6, 1.6], np.float32)}, ["x", "", "s"], mode="linear"),
            "its scale is not that of the sizes",
        ),
        (make("Conv", {"x": MAP}, {"w": kernel(4, 4, 3, 3)}, ["x", "w"], auto_pad="SAME_UPPER"), "auto_pad SAME_UPPER"),
        (
            make("Slice", {"x": MAP, "s": ints(1)}, {"e": ints(3), "a": ints(1)}, ["x", "s", "e", "a"]),
            "input 1 is not a constant",
        ),
        (
            make("Slice", {"x": MAP}, {"s": ints(5), "e": ints(0), "a": ints(2), "t": ints(-1)}, [*"xseat"]),
            "it goes backwards",
        ),
        (make("ArgMax", {"x": MAP}, {}, ["x"], select_last_index=1), "it takes the last of equals"),
    ],
)
def test_operator_is_refused_by_name_when_it_has_no_form(built, message):
    with pytest.raises(InputError, match=message):
        torch_program(built)


def test_what_depends_on_constants_alone_is_computed_ahead(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Neg", ["c"], ["minus"]), helper.make_node("Add", ["x", "minus"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([1, 2], np.float32), "c")],
    )
    (tmp_path / "a.pt2").write_bytes(
        torch_program(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    )
    program = read_program(tmp_path / "a.pt2")
    assert [call.operator for call in program.calls] == ["aten.add.Tensor"]
    assert [value.tolist() for value in program.weights.values()] == [[-1, -2]]
