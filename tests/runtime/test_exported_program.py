"""Programs are data: what is anything else is refused before torch sees it."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import ArtifactError
from edgeseg.export.torch_program import torch_program
from edgeseg.runtime.backends.exported_program import Call, Dtype, Ref, TensorSpec, read_program
from edgeseg.runtime.backends.torch_programs import OperatorProgram

WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = float32(x) + [1, 2], x int8 [2]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["number", "two"], ["y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.INT8, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([1, 2], np.float32), "two")],
    )
    path = tmp_path_factory.mktemp("program") / "a.pt2"
    path.write_bytes(torch_program(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))
    return path


def changed(path: Path, name: str, change: Callable[[Any], Any], to: Path) -> Path:
    """A copy of the archive whose JSON file `name` went through `change`."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(name):
                values = json.loads(content)
                change(values)
                content = json.dumps(values).encode()
            new.writestr(entry, content)
    return to


def first_node(values: Any) -> Any:
    return values["graph_module"]["graph"]["nodes"][0]


def test_program_is_read_as_the_graph_it_was_made_from(written):
    program = read_program(written)
    (x,), (y,) = program.inputs, program.outputs
    (weight,) = program.weights
    calls = [call for call in program.calls if not call.operator.startswith("aten._assert")]
    number = calls[0].results[0]
    assert calls == [
        Call("aten.to.dtype", (Ref(x), Dtype("float32")), {}, (number,)),
        Call("aten.add.Tensor", (Ref(number), Ref(weight)), {}, (y,)),
    ]
    assert (program.input_names, program.output_names) == (("x",), ("y",))
    assert program.weights[weight].tolist() == [1, 2]
    assert program.specs[x] == TensorSpec((2,), "int8")


def test_file_holds_nothing_pickled_and_no_trace_of_where_it_was_made(written, repository):
    with zipfile.ZipFile(written) as archive:
        sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in archive.infolist()}
        text = "".join(archive.read(entry).decode("latin-1") for entry in archive.infolist())
    assert sizes["data/sample_inputs/model.pt"] == 0
    assert str(repository) not in text
    assert "site-packages" not in text


def test_program_of_torch_itself_is_the_same(written):
    program = torch.export.load(written)
    assert program.module()(torch.tensor([3, 4], dtype=torch.int8))[0].tolist() == [4, 6]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (WEIGHTS, lambda v: v["config"]["constant0"].update(use_pickle=True), "pickled object, which is never loaded"),
        (WEIGHTS, lambda v: v["config"]["constant0"].update(path_name="../../other"), "not readable as a program"),
        (WEIGHTS, lambda v: v["config"]["constant0"]["tensor_meta"].update(dtype=13), "dtype that is not read here"),
        (
            WEIGHTS,
            lambda v: v["config"]["constant0"]["tensor_meta"].update(storage_offset={"as_int": 1}),
            "not stored row by row",
        ),
        ("models/model.json", lambda v: v["schema_version"].update(major=9), "schema 9, this edgeseg reads 8"),
        (
            "models/model.json",
            lambda v: first_node(v)["inputs"][0].update(arg={"as_custom_obj": {"name": "o", "class_fqn": "os"}}),
            "no plain value",
        ),
        (
            "models/model.json",
            lambda v: first_node(v)["inputs"][0].update(arg={"as_sym_int": {"as_name": "__import__('os')"}}),
            "no plain value",
        ),
        (
            "models/model.json",
            lambda v: v["graph_module"]["signature"]["input_specs"][0].update(custom_obj={}),
            "not readable as a program",
        ),
        ("extra/edgeseg.json", lambda v: v.update(inputs=[]), "names of inputs and outputs"),
    ],
)
def test_file_is_refused_when_it_is_not_plain_data(written, tmp_path, name, change, message):
    path = changed(written, name, change, tmp_path / "b.pt2")
    with pytest.raises(ArtifactError, match=message):
        read_program(path)


@pytest.mark.parametrize(
    "target",
    ["torch.ops.aten.from_file.default", "torch.ops.prim.Print.default", "os.system", "torch.ops.aten.add.__class__.x"],
)
def test_program_is_refused_when_it_names_another_operator(written, tmp_path, target):
    def rename(values):
        values["graph_module"]["graph"]["nodes"][-1].update(target=target)

    program = read_program(changed(written, "models/model.json", rename, tmp_path / "b.pt2"))
    with pytest.raises(ArtifactError, match="names the operator"):
        OperatorProgram(torch, program, torch.device("cpu"))


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_file_is_refused_when_it_is_cut(written, tmp_path, kept):
    content = written.read_bytes()
    path = tmp_path / "b.pt2"
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(ArtifactError, match="not readable as a program"):
        read_program(path)


def test_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ArtifactError, match="is missing"):
        read_program(tmp_path / "a.pt2")
