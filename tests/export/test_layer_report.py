"""Layers of an engine, as the inspector of each version and the log of a build write them."""

import json

import pytest

from edgeseg.export.layer_report import (
    Layer,
    count_by_arithmetic,
    layers_of_inspector,
    layers_of_log,
    report_text,
)

TENSOR = "{ Name: t, Dimensions: [1,8,4,4], Strides: [128,1,32,8], Datatype: %s, Format: (NHWC) Channel major format }"


def line(name: str, kind: str, inputs: list[str], constants: list[str], outputs: list[str], nodes: list[str]) -> str:
    """One layer, in the words of TensorRT for RTX 1.7."""
    sides = [
        f"[ {', '.join(TENSOR % each for each in side)}]" if side else "[]" for side in (inputs, constants, outputs)
    ]
    metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: {sides[0]}, Constants: {sides[1]}, Outputs: {sides[2]}, "
        f"TacticName: x_0xab, StreamId: 0, Metadata: {metadata}"
    )


LOG = "\n".join(
    [
        "Layers:",
        line("__myl_Cast_0", "kgen", ["UInt8"], [], ["Float"], ["cast"]),
        line("conv[0:4]_1", "correlation", ["Int8", "Float"], ["Int8", "Float"], ["Float"], ["conv[0:4]", "relu[0:4]"]),
        "Name: __mye5112_2, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, "
        "EventId: 1, Metadata: ",
        line("proj_3", "gemm", ["Half"], ["Half"], ["Half"], ["proj"]),
        line("__myl_CastMulFc_4", "runtime_fusion", ["Int8", "Float"], [], ["Float"], ["qkv"]),
        line("_gemm_mha_v2_5", "kgen", ["Int8", "Int8"], [], ["Int8"], ["attention"]),
        line("__myl_Topk_6", "kgen", ["Float"], [], ["Int32"], ["argmax"]),
        line("__myl_Conc_7", "kgen", ["Int8"], [], ["Int8"], ["join"]),
        "",
        "I/O Tensors:",
        " Name: image, IOMode: Input, DataType: UInt8, Dimensions: [1,4,4,3], Location: Device",
    ]
)


def test_log_gives_each_layer_with_its_arithmetic_and_nodes() -> None:
    layers = layers_of_log(LOG)
    assert [(layer.kind, layer.arithmetic, layer.nodes) for layer in layers] == [
        ("kgen", "fp32", ("cast",)),
        ("correlation", "int8", ("conv[0:4]", "relu[0:4]")),
        ("gemm", "fp16", ("proj",)),
        ("runtime_fusion", "fp32", ("qkv",)),
        ("kgen", "int8", ("attention",)),
        ("kgen", "fp32", ("argmax",)),
        ("kgen", "int8", ("join",)),
    ]
    assert layers[1] == Layer(
        "conv[0:4]_1", "correlation", "int8", ("int8", "fp32"), ("fp32",), ("conv[0:4]", "relu[0:4]")
    )


def test_products_are_counted_by_what_they_multiply_in() -> None:
    assert count_by_arithmetic(layers_of_log(LOG)) == {"int8": 2, "fp16": 1, "fp32": 1}


@pytest.mark.parametrize("text", ["", "Layers:\n", "Engine generation completed in 0.5 seconds."])
def test_log_without_a_list_gives_no_layers(text: str) -> None:
    assert layers_of_log(text) == []


@pytest.mark.parametrize(
    ("key", "kind"), [("Format/Datatype", "Row major linear INT8 format"), ("Datatype", "Int8")], ids=["10", "11"]
)
def test_inspector_of_either_version_gives_the_same(key: str, kind: str) -> None:
    tensor = {"Name": "t", "Dimensions": [1, 8, 4, 4], key: kind}
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor],
        "Outputs": [tensor],
        "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: relu]",
    }
    found = layers_of_inspector(json.dumps({"Layers": [layer, "only a name"], "Bindings": ["image"]}))
    assert found == [Layer("conv", "CaskConvolution", "int8", ("int8",), ("int8",), ("conv", "relu"))]


def test_inspector_may_write_control_characters_as_they_are() -> None:
    text = '{"Layers": [{"Name": "c", "LayerType": "conv", "Metadata": "[ONNX Layer: a]\x1e[ONNX Layer: b]"}]}'
    assert [layer.nodes for layer in layers_of_inspector(text)] == [("a", "b")]


@pytest.mark.parametrize("text", ["", '{"Layers": [', "[]", "null"])
def test_inspector_that_gives_no_json_gives_no_layers(text: str) -> None:
    assert layers_of_inspector(text) == []


def test_layer_is_read_back_from_its_dict() -> None:
    layer = layers_of_log(LOG)[1]
    assert Layer.from_dict(json.loads(json.dumps(layer.as_dict()))) == layer


def test_table_has_a_line_for_each_layer_in_columns() -> None:
    heading, *lines = report_text(layers_of_log(LOG)).splitlines()
    assert len(lines) == 7
    column = heading.index("computes in")
    assert [each[column:].split()[0] for each in lines] == ["fp32", "int8", "fp16", "fp32", "int8", "fp32", "int8"]
