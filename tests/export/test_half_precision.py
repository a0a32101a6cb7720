"""FP16 graphs and states: what is float16, what is not and why."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from edgeseg.errors import InputError
from edgeseg.export.half_precision import half_graph, half_states
from edgeseg.export.node_precision import Quantized
from edgeseg.export.onnx_export import export_module
from edgeseg.export.quantize import quantize_graph
from edgeseg.export.rewrites.graph_index import GraphIndex
from edgeseg.export.stateful import PhaseGraphs, build_phase_graphs
from edgeseg.export.wrapper import CameraToLabels
from edgeseg.models.reductions import build_reduction
from edgeseg.token_plan import TokenPlan
from support import tiny_vit
from support.tensorrt_rtx import why_not_built

from .quantised_networks import IMAGENET, images, weights, wide_graph

FEEDS = images()
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


@pytest.fixture(scope="module")
def wide() -> onnx.ModelProto:
    return wide_graph()


@pytest.fixture(scope="module")
def half(wide: onnx.ModelProto) -> Quantized:
    return half_graph(wide, FEEDS)


@pytest.fixture(scope="module")
def phases(wide: onnx.ModelProto) -> PhaseGraphs:
    return build_phase_graphs(wide, dict.fromkeys(("first", "second", "third"), ((0, 8), (8, 16))), form="concat")


def scaled(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """A copy with one weight multiplied."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for entry in model.graph.initializer:
        if entry.name == name:
            entry.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(entry) * np.float32(factor), name))
    return model


def types(model: onnx.ModelProto) -> dict[str, int]:
    return {entry.name: entry.type.tensor_type.elem_type for entry in (*model.graph.input, *model.graph.output)}


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def phase_feeds(phases: PhaseGraphs, role: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return FEEDS[0] | {state.name: random.random(state.shape, np.float32) for state in phases.states[role].inputs}


def test_all_layers_and_weights_are_float16_and_the_file_half(wide: onnx.ModelProto, half: Quantized) -> None:
    assert half.share == 1
    assert {value.dtype for name, value in weights(half.model).items() if name.endswith("weight")} == {np.dtype("f2")}
    assert half.model.ByteSize() < 0.55 * wide.ByteSize()


def test_image_and_labels_stay_bytes_and_the_image_is_normalised_in_float32(half: Quantized) -> None:
    assert types(half.model) == {"image": TensorProto.UINT8, "labels": TensorProto.UINT8}
    subtraction = next(node for node in half.model.graph.node if node.op_type == "Sub")
    assert GraphIndex(half.model).dtypes[subtraction.output[0]] == FLOAT


def test_labels_are_those_of_the_float32_graph(wide: onnx.ModelProto, half: Quantized) -> None:
    for feed in images(seed=1):
        expected = run(wide, feed)["labels"]
        assert len(np.unique(expected)) > 1
        assert (run(half.model, feed)["labels"] == expected).mean() > 0.995


def test_layers_whose_values_float16_cannot_hold_stay_float32(wide: onnx.ModelProto) -> None:
    large = scaled(wide, "first.weight", 1e5)
    half = half_graph(large, FEEDS)
    assert {(node.layer, node.reason) for node in half.left} >= {("first", "values beyond float16")}
    assert "stem" not in {node.layer for node in half.left}
    for feed in FEEDS:
        assert (run(half.model, feed)["labels"] == run(large, feed)["labels"]).mean() > 0.99


def test_a_layer_stays_float32_when_it_is_asked_for(wide: onnx.ModelProto) -> None:
    half = half_graph(wide, FEEDS, keep_high=["second", "head"])
    assert {(node.layer, node.reason) for node in half.left} == {
        ("second", "kept: sensitive"),
        ("head", "last layer"),
    }
    assert weights(half.model)["second.weight"].dtype == np.float32


def test_norms_and_what_decides_which_tokens_pause_stay_float32() -> None:
    network = tiny_vit.seeded(3)
    network.reduction = build_reduction(network, "pause", TokenPlan.parse("2:0.4"))
    module = CameraToLabels(network, IMAGENET, size_hw=(48, 64), labels_stride=1, input_frames=1)
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    half = half_graph(export_module(module), [{"image": image}])
    assert [node.reason for node in half.left] == ["decides which tokens pause"]
    dtypes = GraphIndex(half.model).dtypes
    computed = {node.op_type: dtypes[node.output[0]] for node in half.model.graph.node}
    assert {computed[name] for name in ("LayerNormalization", "LogSoftmax", "ReduceSum", "TopK")} == {FLOAT}
    assert computed["Erf"] == HALF


def test_states_keep_their_type_unless_asked(phases: PhaseGraphs) -> None:
    half = half_graph(phases.models["phase0"], [phase_feeds(phases, "phase0")])
    assert types(half.model) == types(phases.models["phase0"])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_float16_states_hold_what_float32_states_held(precision: str, phases: PhaseGraphs) -> None:
    feed = phase_feeds(phases, "phase0")
    model = phases.models["phase0"]
    if precision != "fp32":
        model = (half_graph if precision == "fp16" else quantize_graph)(model, [feed]).model
    stored = half_states(model, [feed])
    states = {name: dtype for name, dtype in types(stored).items() if name.startswith("state_")}
    assert len(states) >= 4
    assert set(states.values()) == {HALF}
    expected = run(model, feed)
    got = run(
        stored, {name: value.astype("f2") if name.startswith("state_") else value for name, value in feed.items()}
    )
    assert (got["labels"] == expected["labels"]).mean() > 0.98
    for name in states.keys() & got.keys():
        np.testing.assert_allclose(got[name], expected[name], rtol=0.02, atol=0.03)


def test_float16_states_of_a_float16_graph_are_not_cast(phases: PhaseGraphs) -> None:
    half = half_graph(phases.models["phase0"], [phase_feeds(phases, "phase0")]).model
    casts = [node for node in half_states(half).graph.node if node.op_type == "Cast"]
    assert {name for node in casts for name in node.input if name.startswith("state_")} == set()
    assert len(casts) == sum(node.op_type == "Cast" for node in half.graph.node) - len(
        [name for name in types(half) if name.startswith("state_")]
    )


def test_states_that_float16_cannot_hold_are_refused(phases: PhaseGraphs) -> None:
    feed = phase_feeds(phases, "phase0")
    name = next(name for name in feed if name.startswith("state_"))
    feed[name] = feed[name] * 1e5
    with pytest.raises(InputError, match=rf"{name} cannot be stored as float16 \| it reaches 1e\+05"):
        half_states(phases.models["phase0"], [feed])


def test_tensorrt_builds_float16_graphs_with_float16_states(phases: PhaseGraphs) -> None:
    half = half_graph(phases.models["phase1"], [phase_feeds(phases, "phase1")])
    assert why_not_built(half_states(half.model)) is None
