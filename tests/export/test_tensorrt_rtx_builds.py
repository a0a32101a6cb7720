"""Every kind of graph through the real TensorRT for RTX, and through the lint: what the one takes the other takes.

A build needs no GPU, and its log says which layers compute in INT8 and FP16.
"""

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgeseg.config import Configuration
from edgeseg.export.engine_lint import lint_graph
from edgeseg.export.foreign import Description, foreign_source
from edgeseg.export.graph_edit import halve_weights
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.sweep import Grid, parse_plans, plan_grid
from edgeseg.export.variant import Variant
from edgeseg.export.wrapper import Preprocessing
from edgeseg.models import token_selection, vit_segmenter
from edgeseg.models.reductions import add_auxiliary_decoder
from edgeseg.models.registry import build_network
from edgeseg.models.token_selection import TOPK_LIMIT
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import build_segmenter
from edgeseg.token_plan import TokenPlan
from support.quantised_graphs import half_graph, int8_graph
from support.tensorrt_rtx import build, rtx_target, why_not_built

from .conftest import CLASSES, IMAGENET

SIZE_HW = (48, 64)


@pytest.fixture(autouse=True)
def library() -> None:
    """Skips where it is not installed, before anything is exported."""
    rtx_target()


def vit_source(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    layers: int = 2,
    dim: int = 8,
    auxiliary: bool = False,
    **options: object,
) -> TorchSource:
    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "ti", VitSize(dim=dim, heads=2, layers=layers, mlp_ratio=1))
    torch.manual_seed(0)
    network = build_network(name, len(CLASSES), size_hw=list(SIZE_HW), **options)
    if auxiliary:
        add_auxiliary_decoder(network, len(CLASSES))
    facts = SourceFacts("vit", "vit.py", CLASSES, default_size_hw=SIZE_HW, logits_stride=16, takes_plans=True)
    return TorchSource(facts, network, IMAGENET)


@functools.cache
def swiftnet_source(name: str = "swiftnet_r18", colour_order: str = "RGB", width: float = 0.125) -> TorchSource:
    """One for all tests, because it keeps its last trace, from which all variants are cut."""
    torch.manual_seed(0)
    network = build_network(name, len(CLASSES), width=width)
    facts = SourceFacts("swiftnet", "swiftnet.py", CLASSES, input_frames=network.input_frames, logits_stride=4)
    return TorchSource(facts, network, Preprocessing(IMAGENET.mean, IMAGENET.std, colour_order))


def refusals(variant: Variant) -> dict[str, str]:
    """Role -> what the lint or the library says, of the graphs that are not built."""
    said = {role: linted(graph) or why_not_built(graph) for role, graph in variant.graphs.items()}
    return {role: words for role, words in said.items() if words}


def linted(graph: onnx.ModelProto) -> str:
    return "; ".join(map(str, lint_graph(graph)))


@pytest.mark.parametrize(
    ("rho", "form"), [(None, None), (0.25, "concat"), (0.0, "split")], ids=["dense", "concat", "split"]
)
def test_swiftnet_builds_in_every_role(rho: float | None, form: str | None) -> None:
    variant = swiftnet_source().variant(Configuration("swiftnet", SIZE_HW, rho=rho, cwm_form=form))
    assert set(variant.graphs) == ({"step"} if rho is None else {"init", "phase0", "phase1"})
    assert refusals(variant) == {}


def test_network_of_two_frames_builds_when_its_colours_are_swapped() -> None:
    source = swiftnet_source("swiftnet_r18_x", "BGR")
    assert refusals(source.variant(Configuration("swiftnet", SIZE_HW, input_frames=2, labels_stride=4))) == {}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("segmenter_ti", {"decoder": "linear"}),
        ("segmenter_ti", {"decoder": "mask"}),
        ("segvit_ti", {"cascade": [1, 2]}),
        ("segvit_ti", {"cascade": [2], "presence": "classes"}),
        ("segvit_ti", {"cascade": [2], "shrink": "qd", "shrink_layer": 1}),
        ("segvit_ti", {"shrink": "eqd", "shrink_layer": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_transformer_builds(name: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    variant = vit_source(name, monkeypatch, **options).variant(Configuration("vit", SIZE_HW))
    assert refusals(variant) == {}


@pytest.mark.parametrize(
    ("method", "decoder"), [("pause", "mask"), ("pause-random", "linear"), ("early-exit", "linear")]
)
def test_paused_transformer_builds(method: str, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = vit_source("segmenter_ti", monkeypatch, layers=3, auxiliary=True, decoder=decoder)
    knobs = Configuration("vit", SIZE_HW, labels_stride=16, method=method, plan=TokenPlan.parse("1:0.4,2:0.4"))
    assert refusals(source.variant(knobs)) == {}


@pytest.mark.parametrize("heads", ["atm", "fcn"])
def test_pruned_transformer_builds(heads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = vit_source("segvit_ti", monkeypatch, prune_heads=heads, prune_layers=[1])
    knobs = Configuration("vit", SIZE_HW, labels_stride=16, method="prune", plan=TokenPlan.parse("1:0.4"))
    assert refusals(source.variant(knobs)) == {}


def large_grid(size_hw: tuple[int, int], plan: str) -> Variant:
    """A paused transformer over more tokens than TopK takes."""
    network = build_segmenter(len(CLASSES), VitSize(dim=8, heads=1, layers=2, mlp_ratio=1), "linear", size_hw)
    add_auxiliary_decoder(network, len(CLASSES))
    facts = SourceFacts("vit", "vit.py", CLASSES, logits_stride=16, takes_plans=True)
    knobs = Configuration("vit", size_hw, labels_stride=16, method="pause", plan=TokenPlan.parse(plan))
    return TorchSource(facts, network, IMAGENET).variant(knobs)


@pytest.mark.parametrize(
    ("size_hw", "plan", "way"), [((1024, 1056), "1:0.05", "lowest"), ((1536, 1408), "1:0.49", "in bites")]
)
def test_pause_among_more_tokens_than_topk_takes_builds(size_hw: tuple[int, int], plan: str, way: str) -> None:
    variant = large_grid(size_hw, plan)
    assert variant.notes["ranking_after_layer"] == {"1": way}
    assert refusals(variant) == {}


def test_topk_beyond_the_limit_does_not_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for the two tests above."""
    monkeypatch.setattr(token_selection, "TOPK_LIMIT", 10**6)
    graph = large_grid((1024, 1056), "1:0.05").graphs["step"]
    assert "K is 4013" in linted(graph)
    assert "TopK" in str(why_not_built(graph))
    assert TOPK_LIMIT == 3840


def test_files_of_a_bundle_build_with_their_weights_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = vit_source("segmenter_ti", monkeypatch, auxiliary=True, decoder="linear")
    grid = Grid(plans=parse_plans(["none", "1:0.5"]), labels_strides=(1,), sizes_hw=(SIZE_HW,))
    requests = plan_grid([source], grid, sweep=True)
    bundle = export_bundle(requests, tmp_path / "vit.edgeseg", data=None, options=ExportOptions(threads=1))
    files = [bundle.root / graph.file for entry in bundle.configurations for graph in entry.graphs.values()]
    assert len(files) == 2
    assert [why_not_built(path) for path in files] == [None, None]
    assert min(entry.parity.label_agreement for entry in bundle.configurations) >= 0.999


def test_graph_with_half_precision_weights_builds() -> None:
    graph = swiftnet_source().variant(Configuration("swiftnet", SIZE_HW)).graphs["step"]
    halved = halve_weights(graph)
    assert halved.ByteSize() < 0.6 * graph.ByteSize()
    assert why_not_built(halved) is None


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (int8_graph(), {"conv0": "fp32", "conv1": "int8", "conv2": "int8"}),
        (half_graph(), {"conv0": "fp16", "conv1": "fp16", "conv2": "fp16"}),
    ],
    ids=["int8", "fp16"],
)
def test_report_of_layers_says_which_compute_in_what(graph: onnx.ModelProto, expected: dict[str, str]) -> None:
    layers = [layer for layer in build(graph).layers if layer.is_product]
    assert {node: layer.arithmetic for layer in layers for node in layer.nodes if node in expected} == expected


def random_feeds(graph: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    """One value of each input: a noisy image, states as after a ReLU."""
    random, feeds = np.random.default_rng(0), {}
    for entry in graph.graph.input:
        shape = [side.dim_value for side in entry.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        feeds[entry.name] = (random.random(shape) * (255 if dtype == np.uint8 else 1)).astype(dtype)
    return [feeds]


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("masked", "int8"), ("paused", "int8"), ("pruned", "int8"), ("masked", "fp16"), ("exited", "fp16")],
)
def test_lower_precision_builds_and_computes_in_it(kind: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("modelopt", reason="quantisation needs the extra quant")
    from edgeseg.export import half_precision, quantize

    lower = quantize.quantize_graph if precision == "int8" else half_precision.half_graph
    variant = variant_of(kind, monkeypatch)
    if kind == "masked":
        assert set(variant.graphs) == {"init", "phase0", "phase1"}
    for role, graph in variant.graphs.items():
        made = lower(graph, random_feeds(graph))
        assert linted(made.model) == "", role
        products = [layer for layer in build(made.model).layers if layer.is_product]
        found = {node: layer.arithmetic for layer in products for node in layer.nodes}
        # A product for queries, keys and values is one product for each, named by its columns.
        found |= {node.rpartition("[")[0]: kept for node, kept in found.items() if ".qkv." in node}
        wanted = {each.name for each in made.nodes if each.reduced}
        assert {node: found.get(node) for node in wanted if found.get(node) != precision} == {}, role


def variant_of(kind: str, monkeypatch: pytest.MonkeyPatch) -> Variant:
    """A tiny network with layers of at least 16 channels, which INT8 asks for."""
    if kind == "masked":
        return swiftnet_source(width=0.25).variant(Configuration("swiftnet", SIZE_HW, rho=0.0, cwm_form="concat"))
    if kind == "pruned":
        source, method = vit_source("segvit_ti", monkeypatch, dim=32, prune_heads="atm", prune_layers=[1]), "prune"
    else:
        source = vit_source("segmenter_ti", monkeypatch, dim=32, auxiliary=True, decoder="linear")
        method = "pause" if kind == "paused" else "early-exit"
    plan = TokenPlan.parse("1:0.4")
    return source.variant(Configuration("vit", SIZE_HW, labels_stride=16, method=method, plan=plan))


def test_operator_that_the_library_lacks_is_named_with_its_node() -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Det", ["x"], ["y"], name="head.det"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [2, 3, 3])
    number = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(nodes, "graph", [image], [number])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = str(why_not_built(model))
    assert "node head.det Det: it is not supported" in said
    assert "run this configuration on device cpu" in said


def foreign_file(path: Path, element: int) -> Path:
    """A network of somebody's own that takes NCHW of any element type."""
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["numbers", "weight"], ["y"], kernel_shape=[1, 1]),
    ]
    weight = onnx.numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "weight")
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", element, [1, 3, *SIZE_HW])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, *SIZE_HW])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_onnx_file_of_somebodys_builds_when_colours_are_swapped(element: int, tmp_path: Path) -> None:
    path = foreign_file(tmp_path / "own.onnx", element)
    source = foreign_source(str(path), Description(colour_order="BGR"), data_classes=CLASSES)
    assert refusals(source.variant(Configuration("own", SIZE_HW))) == {}
