"""INT8 graphs: which layers, what is stored, what they compute, and what is refused."""

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import InputError, MissingPackageError, ParityError
from edgeseg.export import quantize
from edgeseg.export.graph_edit import check_graph
from edgeseg.export.node_precision import NodePrecision, refuse_unexplained
from edgeseg.export.onnx_export import export_module
from edgeseg.export.quantize import CALIBRATION_METHODS, Quantized, layer_weights, quantize_graph
from edgeseg.export.stateful import build_phase_graphs
from edgeseg.export.wrapper import CameraToLabels
from edgeseg.models.reductions import build_reduction
from edgeseg.token_plan import TokenPlan
from support import tiny_vit
from support.small_disk import small_disk
from support.tensorrt_rtx import why_not_built

from .quantised_networks import IMAGENET, images, weights, wide_graph

FEEDS = images()


@pytest.fixture(scope="module")
def wide() -> onnx.ModelProto:
    return wide_graph()


@pytest.fixture(scope="module")
def quantised(wide: onnx.ModelProto) -> Quantized:
    return quantize_graph(wide, FEEDS)


@pytest.fixture(scope="module")
def paused() -> onnx.ModelProto:
    """A ViT of 48 tokens; after layer 2 the surest 40 % stop."""
    network = tiny_vit.seeded(3)
    network.reduction = build_reduction(network, "pause", TokenPlan.parse("2:0.4"))
    module = CameraToLabels(network, IMAGENET, size_hw=(48, 64), labels_stride=1, input_frames=1)
    return export_module(module)


@pytest.fixture(scope="module")
def paused_int8(paused: onnx.ModelProto) -> Quantized:
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    return quantize_graph(paused, [{"image": image}])


def labels_of(model: onnx.ModelProto, feeds: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.stack([session.run(["labels"], feed)[0] for feed in feeds])


def faces(model: onnx.ModelProto) -> list[tuple[str, int]]:
    return [(entry.name, entry.type.tensor_type.elem_type) for entry in (*model.graph.input, *model.graph.output)]


def test_layers_between_the_first_and_the_last_are_int8(quantised: Quantized) -> None:
    states = [(node.layer, node.reduced, node.reason) for node in quantised.nodes]
    assert states == [
        ("stem", False, "first layer"),
        ("first", True, None),
        ("second", True, None),
        ("third", True, None),
        ("head", False, "last layer"),
    ]
    assert quantised.share == 3 / 5
    assert [node.layer for node in quantised.left] == ["stem", "head"]


def test_weights_of_int8_layers_are_stored_as_int8_per_channel_and_nowhere_as_float(quantised: Quantized) -> None:
    stored = weights(quantised.model)
    assert stored["first.weight.int8"].dtype == np.int8
    assert stored["first.weight.scale"].shape == (16,)
    assert "first.weight" not in stored
    assert stored["stem.weight"].dtype == np.float32


def test_int8_weights_are_within_half_a_step_of_the_float_ones(wide: onnx.ModelProto, quantised: Quantized) -> None:
    stored = weights(quantised.model)
    scale = stored["second.weight.scale"].reshape(-1, 1, 1, 1)
    difference = np.abs(stored["second.weight.int8"] * scale - weights(wide)["second.weight"])
    assert (difference <= 0.5001 * scale).all()
    assert np.abs(stored["second.weight.int8"]).max(axis=(1, 2, 3)).tolist() == [127] * 16


def test_all_zero_points_are_zero(quantised: Quantized) -> None:
    stored = weights(quantised.model)
    pairs = [
        node
        for node in quantised.model.graph.node
        if node.op_type.endswith("quantizeLinear") or "Quant" in node.op_type
    ]
    assert len(pairs) >= 9
    assert all(not stored[node.input[2]].any() and stored[node.input[2]].dtype == np.int8 for node in pairs)


@pytest.mark.parametrize("method", CALIBRATION_METHODS)
def test_labels_are_those_of_the_float_graph(method: str, wide: onnx.ModelProto) -> None:
    others = images(seed=1)
    expected = labels_of(wide, others)
    got = labels_of(quantize_graph(wide, FEEDS, method=method).model, others)
    assert len(np.unique(expected)) > 1
    assert (got == expected).mean() > 0.97


def test_graph_keeps_its_face_opset_and_standard_operators(wide: onnx.ModelProto, quantised: Quantized) -> None:
    assert faces(quantised.model) == faces(wide)
    assert [(entry.domain, entry.version) for entry in quantised.model.opset_import] == [("", 17)]
    check_graph(quantised.model)


def test_file_is_less_than_three_tenths_when_convolutions_make_up_the_network() -> None:
    model = wide_graph(width=96)
    small = quantize_graph(model, FEEDS[:1]).model
    assert small.ByteSize() < 0.3 * model.ByteSize()


def test_two_calls_give_the_same_bytes(wide: onnx.ModelProto, quantised: Quantized) -> None:
    again = quantize_graph(wide, FEEDS)
    assert again.model.SerializeToString(deterministic=True) == quantised.model.SerializeToString(deterministic=True)


def test_known_ranges_are_used_in_place_of_the_images(wide: onnx.ModelProto, quantised: Quantized) -> None:
    black = [{"image": np.zeros_like(FEEDS[0]["image"])}]
    again = quantize_graph(wide, black, ranges=quantised.ranges)
    assert again.model.SerializeToString(deterministic=True) == quantised.model.SerializeToString(deterministic=True)
    assert quantize_graph(wide, black).ranges != quantised.ranges


def test_only_missing_ranges_are_calibrated(wide: onnx.ModelProto, quantised: Quantized) -> None:
    name = next(iter(quantised.ranges))
    known = {key: 1.0 for key in quantised.ranges if key != name}
    ranges = quantize_graph(wide, FEEDS, ranges=known).ranges
    assert ranges == known | {name: quantised.ranges[name]}


def test_a_layer_stays_float_when_it_is_asked_for(wide: onnx.ModelProto) -> None:
    result = quantize_graph(wide, FEEDS, keep_high=["second"])
    assert [(node.layer, node.reason) for node in result.left] == [
        ("stem", "first layer"),
        ("second", "kept: sensitive"),
        ("head", "last layer"),
    ]
    reads = next(node for node in result.model.graph.node if node.name == "second").input
    assert not any("int8" in name for name in reads)


def test_a_layer_that_the_graph_does_not_have_is_refused(wide: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="no layer 'secnod'"):
        quantize_graph(wide, FEEDS, keep_high=["secnod"])


@pytest.mark.parametrize("form", ["concat", "split"])
def test_graphs_of_a_masked_network_share_their_int8_weights(form: str) -> None:
    masks = dict.fromkeys(("first", "second", "third"), ((0, 32), (16, 48)))
    graphs = build_phase_graphs(wide_graph(width=48), masks, form=form)  # type: ignore[arg-type]
    whole = layer_weights(graphs.models["init"])
    first = quantize_graph(graphs.models["init"], FEEDS[:1], whole_weights=whole)
    states = {
        state.name: np.random.default_rng(0).random(state.shape, np.float32) for state in graphs.states["phase1"].inputs
    }
    phase = quantize_graph(graphs.models["phase1"], [FEEDS[0] | states], whole_weights=whole)
    dense, parts = weights(first.model), weights(phase.model)
    checked = 0
    for name, part in parts.items():
        match = re.fullmatch(r"(\w+\.weight)(\[(\d+):(\d+)\])?(\[:,(\d+):(\d+)\])?\.int8", name)
        if match is None or match[1].startswith(("stem", "head")):
            continue
        rows = slice(int(match[3]), int(match[4])) if match[2] else slice(None)
        columns = slice(int(match[6]), int(match[7])) if match[5] else slice(None)
        np.testing.assert_array_equal(part, dense[f"{match[1]}.int8"][rows, columns])
        checked += 1
    assert checked >= 3
    assert {node.reason for node in phase.left} == {"first layer", "last layer"}


def test_a_layer_is_kept_in_all_graphs_of_a_masked_network_by_one_name(wide: onnx.ModelProto) -> None:
    graphs = build_phase_graphs(wide, {"first": ((0, 8), (8, 16)), "second": ((0, 8), (8, 16))}, form="concat")
    states = {state.name: np.ones(state.shape, np.float32) for state in graphs.states["phase1"].inputs}
    kept = quantize_graph(graphs.models["phase1"], [FEEDS[0] | states], keep_high=["second"])
    assert ("second", "kept: sensitive") in [(node.layer, node.reason) for node in kept.left]


def test_what_decides_which_tokens_pause_stays_float(paused_int8: Quantized) -> None:
    graph = paused_int8.model.graph
    deciding = [node.name for node in paused_int8.left if node.reason == "decides which tokens pause"]
    assert len(deciding) == 1
    makers = {name: node for node in graph.node for name in node.output}
    waiting = [node.input[0] for node in graph.node if node.op_type == "TopK"]
    passed = set()
    while waiting:
        node = makers[waiting.pop()]
        passed.add(node.op_type)
        if node.name not in deciding:
            waiting += [name for name in node.input if name in makers]
    assert "MatMul" in passed
    assert "DequantizeLinear" not in passed


def test_attention_of_few_channels_is_left_with_that_reason(paused_int8: Quantized) -> None:
    reasons = {node.reason for node in paused_int8.left if ".attn." in node.name}
    assert reasons == {"fewer than 16 rows or columns"}
    assert all(node.reduced for node in paused_int8.nodes if ".mlp." in node.name)


def test_a_weight_that_can_be_computed_ahead_is_folded_and_int8(wide: onnx.ModelProto) -> None:
    model = onnx.ModelProto.FromString(wide.SerializeToString())
    position = next(index for index, node in enumerate(model.graph.node) if node.name == "second")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
    model.graph.node.insert(position, helper.make_node("Mul", ["second.weight", "two"], ["doubled"], name="double"))
    model.graph.node[position + 1].input[1] = "doubled"
    result = quantize_graph(model, FEEDS)
    assert [node.reduced for node in result.nodes] == [False, True, True, True, False]


def test_a_weight_that_depends_on_the_image_is_left_with_that_reason(wide: onnx.ModelProto) -> None:
    model = onnx.ModelProto.FromString(wide.SerializeToString())
    position = next(index for index, node in enumerate(model.graph.node) if node.name == "second")
    source = model.graph.node[position].input[0]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 3], np.int64), "axes"))
    for node in (
        helper.make_node("ReduceMean", [source], ["mean"], name="mean", axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["second.weight", "mean"], ["scaled"], name="scaled"),
    ):
        model.graph.node.insert(position, node)
        position += 1
    model.graph.node[position].input[1] = "scaled"
    result = quantize_graph(model, FEEDS)
    assert ("second", "its weight is computed in the graph") in [(node.layer, node.reason) for node in result.left]


def test_narrow_layers_are_left_with_that_reason() -> None:
    result = quantize_graph(wide_graph(width=12), FEEDS)
    assert {node.reason for node in result.left} == {"first layer", "fewer than 16 channels", "last layer"}
    assert result.share == 0


def test_a_graph_that_stays_float_for_no_reason_is_refused(
    wide: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "int8_places", lambda *_: set())
    with pytest.raises(ParityError, match=r"3 unexplained of 5 .*first \(Conv\), second \(Conv\), third \(Conv\)"):
        quantize_graph(wide, FEEDS)


def test_five_in_a_hundred_may_stay_float_for_no_reason() -> None:
    nodes = [NodePrecision(str(number), str(number), "Conv", number >= 5) for number in range(100)]
    refuse_unexplained(nodes, "INT8")
    with pytest.raises(ParityError, match="5 unexplained of 99"):
        refuse_unexplained(nodes[:-1], "INT8")


@pytest.mark.parametrize("library", ["lief", "onnx_graphsurgeon", "pynvml"])
def test_a_missing_library_is_named_with_its_extra(
    library: str, wide: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingPackageError, match=rf"{library} cannot be imported.*pip install 'edgeseg\[quant\]'"):
        quantize_graph(wide, FEEDS)


def test_full_disk_of_temporary_files_is_named_and_left_clean(
    wide: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path, 8 << 10) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(InputError, match=rf"{disk} is full \(No space .* TMPDIR$"):
            quantize_graph(wide, FEEDS[:1])
        assert os.listdir(disk) == []


def test_nothing_is_printed_and_no_file_left(
    wide: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    quantize_graph(wide, FEEDS[:1])
    assert os.listdir(tmp_path) == []
    assert tempfile.tempdir == str(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_modelopt_fails_on_is_an_error_and_leaves_no_file(
    wide: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("modelopt.onnx.quantization.int8.quantize_static", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match=r"ModelOpt cannot quantise the graph \(ZeroDivisionError"):
        quantize_graph(wide, FEEDS[:1])
    assert os.listdir(tmp_path) == []


def test_tensorrt_builds_an_int8_graph(quantised: Quantized) -> None:
    assert why_not_built(quantised.model) is None


def test_types_of_states_stay_as_they_are(wide: onnx.ModelProto) -> None:
    graphs = build_phase_graphs(wide, {"first": ((0, 8), (8, 16))}, form="concat")
    states = {state.name: np.ones(state.shape, np.float32) for state in graphs.states["phase0"].inputs}
    result = quantize_graph(graphs.models["phase0"], [FEEDS[0] | states])
    assert dict(faces(result.model))["state_cwm0_in"] == TensorProto.FLOAT
    assert faces(result.model) == faces(graphs.models["phase0"])


torch.set_num_threads(1)
