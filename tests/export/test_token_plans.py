"""Token plans as configurations: one network, many graphs of fixed shape, all with its labels."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper

from edgeseg.bundle import Bundle
from edgeseg.config import Configuration
from edgeseg.errors import InputError
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.checkpoint_source import checkpoint_source
from edgeseg.export.engine_lint import lint_graph
from edgeseg.export.graph_runner import GraphRunner
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.sweep import Grid, parse_plans, plan_grid
from edgeseg.models import vit_segmenter
from edgeseg.models.reductions import add_auxiliary_decoder
from edgeseg.models.token_selection import TOPK_LIMIT
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, build_segmenter
from edgeseg.token_plan import PUBLISHED_PLANS, TokenPlan
from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

from .conftest import CLASSES, IMAGENET, tiny_fcn

SIZE_HW = (64, 80)
SMALL = VitSize(dim=24, heads=3, layers=8)
PLANS = ("3:0.2", "3:0.4", "5:0.8", "3:0.4,5:0.4", "3:0.4,5:0.4,7:0.4")


def network(size: VitSize = SMALL, size_hw: tuple[int, int] = SIZE_HW) -> VitSegmenter:
    torch.manual_seed(0)
    made = build_segmenter(len(CLASSES), size, "linear", size_hw)
    add_auxiliary_decoder(made, len(CLASSES))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def source(vit: VitSegmenter, size_hw: tuple[int, int] = SIZE_HW) -> TorchSource:
    facts = SourceFacts("vit", "vit.py", CLASSES, default_size_hw=size_hw, logits_stride=16, takes_plans=True)
    return TorchSource(facts, vit, IMAGENET)


def grid(*plans: str, methods: tuple[str, ...] = (), size_hw: tuple[int, int] = SIZE_HW) -> Grid:
    return Grid((size_hw,), labels_strides=(16,), methods=methods, plans=parse_plans(plans))


def graphs_of(bundle: Bundle) -> list[ModelProto]:
    return [onnx.load(bundle.root / graph.file) for entry in bundle.configurations for graph in entry.graphs.values()]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The whole network, and plans of each kind in the source's table 3.1, of one network."""
    out = tmp_path_factory.mktemp("plans") / "vit.edgeseg"
    requests = plan_grid([source(network())], grid("none", *PLANS), sweep=True)
    return export_bundle(requests, out, data=None, options=ExportOptions(threads=1))


def test_published_asks_for_all_plans_of_the_table() -> None:
    requests = plan_grid([source(network())], grid("none", "published"), sweep=True)
    assert [request.knobs.plan for request in requests] == [None, *PUBLISHED_PLANS]
    assert len(PUBLISHED_PLANS) == 13
    assert set(parse_plans(PLANS)) <= set(PUBLISHED_PLANS)


def test_published_plans_have_the_networks_labels(published: Bundle) -> None:
    assert len(published.configurations) == 1 + len(PLANS)
    assert min(entry.parity.label_agreement for entry in published.configurations) >= 0.999


def test_graphs_cost_what_their_tokens_cost_and_share_their_weights(published: Bundle) -> None:
    macs = {str(entry.knobs.plan): entry.graphs["step"].macs for entry in published.configurations}
    assert macs["None"] > macs["3:0.2"] > macs["3:0.4"] > macs["3:0.4,5:0.4"] > macs["3:0.4,5:0.4,7:0.4"]
    one_network = sum(each.numel() for each in network().parameters()) * 4
    assert (published.root / "weights.bin").stat().st_size < 1.1 * one_network


def test_graphs_keep_the_contract_of_engines_with_fixed_shapes_throughout(published: Bundle) -> None:
    assert [str(finding) for model in graphs_of(published) for finding in lint_graph(model)] == []


def test_manifest_says_how_many_tokens_go_on_and_how_they_were_ranked(published: Bundle) -> None:
    (entry,) = [each for each in published.configurations if str(each.knobs.plan) == "3:0.4,5:0.4"]
    assert entry.name == "vit_64x80_pause3-0.4_5-0.4_s16"
    assert entry.notes["tokens"] == 20
    assert entry.notes["tokens_after_layer"] == {"3": 12, "5": 8}
    assert entry.notes["ranking_after_layer"] == {"3": "highest", "5": "highest"}


@pytest.mark.parametrize("method", ["early-exit", "pause-random"])
def test_other_methods_are_exported_with_equal_labels(method: str, tmp_path: Path) -> None:
    requests = plan_grid([source(network())], grid("3:0.4,5:0.4,7:0.4", methods=(method,)), sweep=False)
    bundle = export_bundle(requests, tmp_path / "a.edgeseg", data=None, options=ExportOptions(threads=1))
    (entry,) = bundle.configurations
    assert entry.parity.label_agreement >= 0.999
    assert method in entry.name


def test_network_that_was_never_trained_to_pause_is_exported_with_places_drawn_by_lot(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = build_segmenter(len(CLASSES), SMALL, "linear", SIZE_HW).eval()
    requests = plan_grid([source(plain)], grid("3:0.4", methods=("pause-random",)), sweep=False)
    bundle = export_bundle(requests, tmp_path / "a.edgeseg", data=None, options=ExportOptions(threads=1))
    assert bundle.configurations[0].parity.label_agreement >= 0.999


def test_graph_of_a_large_input_stays_within_the_limit_of_topk() -> None:
    size_hw = (1024, 1056)
    vit = source(network(VitSize(dim=8, heads=1, layers=2, mlp_ratio=1), size_hw), size_hw)
    knobs = Configuration("vit", size_hw, labels_stride=16, method="pause", plan=TokenPlan.parse("1:0.05"))
    variant = vit.variant(knobs)
    assert variant.notes["tokens_after_layer"] == {"1": 4013}
    assert variant.notes["ranking_after_layer"] == {"1": "lowest"}
    constants = {entry.name: numpy_helper.to_array(entry) for entry in variant.graphs["step"].graph.initializer}
    tops = [node for node in variant.graphs["step"].graph.node if node.op_type == "TopK"]
    assert [int(constants[node.input[1]].reshape(-1)[0]) for node in tops] == [211]
    assert TOPK_LIMIT < 4013
    frame_rgb = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    expected, _ = vit.reference(knobs).step(frame_rgb)
    labels = GraphRunner(variant).step(frame_rgb)["labels"][0]
    assert (labels == expected).mean() >= 0.999


def test_checkpoint_with_an_auxiliary_decoder_is_scored_with_a_plan(
    tmp_path: Path, video_data: EvaluationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "ti", SMALL)
    options = {"decoder": "linear", "size_hw": [48, 64]}
    meta = CheckpointMeta("segmenter_ti", options, CLASSES, auxiliary={"layers": []}, trained_on={"size_hw": [48, 64]})
    save_checkpoint(tmp_path / "vit.safetensors", network(size_hw=(48, 64)), meta)
    vit, plans = checkpoint_source(tmp_path / "vit.safetensors"), grid("none", "3:0.6", size_hw=(48, 64))
    requests = plan_grid([vit], plans, sweep=True)
    bundle = export_bundle(
        requests, tmp_path / "a.edgeseg", data=video_data, options=ExportOptions(max_offset=1, threads=1)
    )
    assert [len(entry.accuracy.miou) for entry in bundle.configurations] == [2, 2]


def test_imported_weights_are_exported_at_the_size_that_their_network_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "ti", SMALL)
    imported = build_segmenter(len(CLASSES), SMALL, "linear", (48, 64))
    meta = CheckpointMeta("segmenter_ti", {"decoder": "linear", "size_hw": [48, 64]}, CLASSES)
    save_checkpoint(tmp_path / "vit.safetensors", imported, meta)
    assert checkpoint_source(tmp_path / "vit.safetensors").facts.default_size_hw == (48, 64)


@pytest.mark.parametrize(
    ("plans", "methods", "message"),
    [
        (("8:0.4",), (), "got 8, expected 1 to 7"),
        (("3:0.4", "3:0.4"), (), "--plan names a value twice"),
        (("3:0.4",), ("paws",), "unknown --method 'paws'"),
        ((), ("pause",), "--method pause without a plan"),
        (("none",), ("pause",), "--method pause without a plan"),
        (("3:1",), (), "no token would be left"),
    ],
)
def test_plan_that_does_not_fit_is_refused_and_nothing_written(
    plans: tuple[str, ...], methods: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        export_bundle(
            plan_grid([source(network())], grid(*plans, methods=methods), sweep=True),
            tmp_path / "a.edgeseg",
            data=None,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("3:0.04", "plan 3:0.04 stops none of 20 tokens after layer 3"),
        ("3:0.9,5:0.4", "plan 3:0.9,5:0.4 stops none of 2 tokens after layer 5"),
        ("8:0.4", "got 8, expected 1 to 7"),
        (",".join(f"{layer}:{0.1 + layer * 1e-16}" for layer in range(1, 8)), "a configuration's name is too long"),
    ],
)
def test_plan_that_cannot_be_had_at_a_size_is_refused_before_any_graph_is_made(plan: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_grid([source(network())], grid("none", plan), sweep=True)


def test_plan_is_judged_by_the_tokens_of_the_size_that_is_exported() -> None:
    vit = source(network())
    larger = plan_grid([vit], grid("3:0.04", size_hw=(128, 160)), sweep=False)
    assert [request.knobs.name for request in larger] == ["vit_128x160_pause3-0.04_s16"]


def test_plan_of_many_digits_is_the_plan_of_the_graph_and_of_the_bundle(tmp_path: Path) -> None:
    requests = plan_grid([source(network())], grid("3:0.9999996"), sweep=False)
    bundle = export_bundle(requests, tmp_path / "a.edgeseg", data=None, options=ExportOptions(threads=1))
    (entry,) = bundle.configurations
    assert entry.knobs.plan == TokenPlan(((3, 0.9999996),))
    assert entry.notes["tokens_after_layer"] == {"3": 1}


def test_plan_for_a_network_without_tokens_is_refused() -> None:
    facts = SourceFacts("fcn", "fcn.py", CLASSES, default_size_hw=(48, 64))
    with pytest.raises(InputError, match=r"--plan is for networks on a plain ViT, and fcn\.py has no tokens"):
        plan_grid([TorchSource(facts, tiny_fcn(), IMAGENET)], Grid(plans=parse_plans(["3:0.4"])), sweep=False)


def test_sizes_of_a_sweep_divide_into_patches() -> None:
    facts = SourceFacts(
        "vit", "vit.py", CLASSES, default_size_hw=(192, 256), logits_stride=16, takes_plans=True, size_multiple=16
    )
    requests = plan_grid([TorchSource(facts, network(), IMAGENET)], Grid(labels_strides=(1,)), sweep=True)
    assert [request.knobs.size_hw for request in requests] == [(192, 256), (144, 192), (96, 128)]
