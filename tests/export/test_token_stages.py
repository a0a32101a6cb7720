"""Looking into graphs whose tokens stop: what their tensors say is what the network did."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.bundle import Bundle
from edgeseg.config import Configuration
from edgeseg.errors import InputError
from edgeseg.export.bundle_writer import read_variant
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.sweep import Grid, parse_plans, plan_grid
from edgeseg.export.token_stages import token_stages
from edgeseg.models import vit_segmenter
from edgeseg.models.reductions import add_auxiliary_decoder, build_reduction
from edgeseg.models.registry import build_network
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.token_plan import TokenPlan
from support.pictures import FRAME_RGB

from .conftest import CLASSES, IMAGENET

SIZE_HW = (64, 80)
PLAN = TokenPlan.parse("1:0.4,2:0.4")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> TorchSource:
    """A ViT of three layers over 4 x 5 patches that can pause, exit early and prune."""
    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "b", VitSize(dim=24, heads=3, layers=3))
    torch.manual_seed(0)
    network = build_network("setr_naive_b", len(CLASSES), size_hw=list(SIZE_HW), prune_heads="fcn", prune_layers=[1, 2])
    add_auxiliary_decoder(network, len(CLASSES))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    facts = SourceFacts("vit", "vit.py", CLASSES, default_size_hw=SIZE_HW, logits_stride=16, takes_plans=True)
    return TorchSource(facts, network, IMAGENET)


def knobs(method: str | None, plan: TokenPlan | None = PLAN) -> Configuration:
    return Configuration("vit", SIZE_HW, method=method, plan=plan)


def normalised() -> torch.Tensor:
    mean, std = (np.array(each, np.float32) for each in (IMAGENET.mean, IMAGENET.std))
    image = (FRAME_RGB.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize("method", ["pause", "early-exit", "prune"])
def test_stages_of_the_graph_are_those_of_the_network(method: str, source: TorchSource) -> None:
    network = source._network
    assert isinstance(network, VitSegmenter)
    seen = token_stages(source.variant(knobs(method)), FRAME_RGB, CLASSES)
    with torch.inference_mode():
        passed = network.encoder(normalised(), build_reduction(network, method, PLAN)).reduction
    running = np.arange(20)
    for stop, stage in zip(seen.stops, passed.stages, strict=True):
        kept, scores, measure = (each[0].numpy() for each in (stage.kept, stage.scores, stage.measure))
        assert stop.layer == stage.layer
        assert set(np.flatnonzero(stop.ran)) == set(running)
        assert set(np.flatnonzero(stop.went_on)) == set(running[kept])
        np.testing.assert_array_equal(stop.labels.ravel()[running], scores.argmax(axis=1))
        expected = 1 / (1 + np.exp(measure)) if method == "prune" else measure
        np.testing.assert_allclose(stop.doubt.ravel()[running], expected, atol=1e-3)
        assert np.isnan(stop.doubt).sum() == 20 - len(running)
        running = running[kept]


@pytest.mark.parametrize("method", ["pause", "early-exit", "prune"])
def test_counts_are_those_of_the_plan_and_the_surest_stop(method: str, source: TorchSource) -> None:
    seen = token_stages(source.variant(knobs(method)), FRAME_RGB, CLASSES)
    assert seen.counts == PLAN.counts(20, 3)
    assert (seen.layers, seen.labels.shape) == (3, SIZE_HW)
    if method != "prune":
        for stop in seen.stops:
            assert stop.doubt[stop.ran & ~stop.went_on].max() <= stop.doubt[stop.went_on].min()


@pytest.mark.parametrize("method", ["pause", "early-exit", "prune"])
def test_tensors_that_are_looked_at_are_computed_anyway(method: str, source: TorchSource) -> None:
    graph = source.variant(knobs(method)).graphs["step"].graph
    read = {name for node in graph.node for name in node.input}
    named = {name for node in graph.node for name in node.output if name.startswith("tokens_after_")}
    assert len(named) == 6
    assert named <= read
    assert [entry.name for entry in graph.output] == ["labels"]


def test_bundle_shows_what_its_checkpoint_shows(source: TorchSource, tmp_path: Path) -> None:
    requests = plan_grid([source], Grid(plans=parse_plans([str(PLAN)])), sweep=False)
    export_bundle(requests, tmp_path / "a.edgeseg", data=None, options=ExportOptions(threads=1))
    bundle = Bundle.open(tmp_path / "a.edgeseg")
    of_bundle = token_stages(read_variant(bundle, bundle.configurations[0]), FRAME_RGB, CLASSES)
    of_checkpoint = token_stages(source.variant(knobs("pause")), FRAME_RGB, CLASSES)
    np.testing.assert_array_equal(of_bundle.stopped_at, of_checkpoint.stopped_at)
    np.testing.assert_array_equal(of_bundle.labels, of_checkpoint.labels)


def test_the_network_is_as_before_when_its_graph_was_made(source: TorchSource) -> None:
    before = source._network.reduction
    source.variant(knobs("pause"))
    assert source._network.reduction is before


@pytest.mark.parametrize(
    ("method", "plan", "words"),
    [(None, None, "all tokens go through all layers"), ("pause-random", PLAN, "places are drawn by lot")],
)
def test_graph_without_anything_to_see_is_refused(
    method: str | None, plan: TokenPlan | None, words: str, source: TorchSource
) -> None:
    with pytest.raises(InputError, match=words):
        token_stages(source.variant(knobs(method, plan)), FRAME_RGB, CLASSES)


def test_graph_of_an_older_edgeseg_is_refused_with_what_to_do(source: TorchSource) -> None:
    variant = source.variant(knobs("pause"))
    for node in variant.graphs["step"].graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("tokens_after_", "t") for name in names]
    with pytest.raises(InputError, match=r"older edgeseg made it \| export it again"):
        token_stages(variant, FRAME_RGB, CLASSES)
