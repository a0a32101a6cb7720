"""Shrunk: QD, QU and EQD on small numbers, in batches, in graphs, and their cost beside the source's table."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.export.engine_lint import lint_graph
from edgeseg.export.onnx_export import export_module
from edgeseg.export.wrapper import CameraToLabels, Preprocessing
from edgeseg.models.complexity import named_complexity
from edgeseg.models.reductions import build_reduction
from edgeseg.models.registry import build_network
from edgeseg.models.shrunk import SHRINKS, EdgeHead, QueryUpsampling, Shrinking, Shrunk, ShrunkPass
from edgeseg.models.token_reduction import TokenLayout
from edgeseg.models.vit import Attention, VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, build_segvit
from edgeseg.token_plan import TokenPlan

SMALL = VitSize(dim=24, heads=3, layers=4)
PREFIX = 1


def shrunk_network(shrink: str, layer: int = 2, size: VitSize = SMALL) -> VitSegmenter:
    torch.manual_seed(7)
    network = build_segvit(5, size, [size.layers], "binary", (64, 64), Shrinking(shrink, layer))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


def numbered(rows: int, columns: int) -> Tensor:
    """Class token -1, then patches 0, 1, 2, ... as tokens of width 24."""
    return torch.arange(-1.0, rows * columns).reshape(1, -1, 1).expand(1, -1, SMALL.dim)


def passed(shrink: str, rows: int, columns: int, layer: int = 0, **options: float) -> tuple[Shrunk, ShrunkPass]:
    shrunk = Shrunk(SMALL, (rows, columns), Shrinking(shrink, layer, **options), layers=4)
    return shrunk, shrunk.begin(TokenLayout((rows, columns), PREFIX, 4))


@pytest.mark.parametrize(
    ("grid", "kept"), [((4, 4), [-1, 0, 2, 8, 10]), ((3, 5), [-1, 0, 2, 4, 10, 12, 14]), ((1, 2), [-1, 0])]
)
def test_queries_are_the_upper_left_of_every_2x2(grid: tuple[int, int], kept: list[int]) -> None:
    tokens = numbered(*grid)
    layer_input = passed("qd", *grid)[1].before_layer(1, tokens)
    assert layer_input.queries[0, :, 0].tolist() == kept
    assert layer_input.context is tokens


def test_only_the_layer_behind_the_chosen_one_down_samples() -> None:
    _, run = passed("qd", 4, 4, layer=2)
    tokens = numbered(4, 4)
    assert [run.before_layer(layer, tokens).queries.shape[1] for layer in (1, 2, 3)] == [17, 17, 5]


def test_down_sampled_layer_equals_rows_of_the_whole_layer() -> None:
    network = shrunk_network("qd")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    network.encoder.collect = (3,)
    shrunk = network.encoder(images, network.reduction).tokens[0]
    whole = network.encoder(images).tokens[0]
    torch.testing.assert_close(shrunk, whole.reshape(2, 4, 4, 24)[:, ::2, ::2].reshape(2, 4, 24))


def test_cascade_reads_the_subset_of_layers_before_the_down_sampling() -> None:
    network = build_segvit(5, SMALL, [1, 4], "binary", (64, 64), Shrinking("qd", 2))
    lengths = [tokens.shape[1] for tokens in network.encoder(torch.zeros(1, 3, 64, 64), network.reduction).tokens]
    assert lengths == [4, 4]


def test_coarse_predictions_are_placed_bilinearly() -> None:
    _, run = passed("qd", 2, 4)
    placed = run.place(torch.tensor([[[0.0], [4.0]]]))
    assert placed.flatten().tolist() == [0, 1, 3, 4, 0, 1, 3, 4]


def test_edge_tokens_are_the_most_edge_like_beside_the_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk, run = passed("eqd", 2, 4, edge_share=0.25)
    probability = [0.9, 0.1, 0.9, 0.6, 0.2, 0.8, 0.3, 0.4]
    say_edges(monkeypatch, [probability])
    shrunk.eval()
    queries = run.before_layer(1, numbered(2, 4)).queries
    # 0 and 2 are the subset; of 8 patches 2 more stay: 5 (0.8) and 3 (0.6).
    assert queries[0, :3, 0].tolist() == [-1, 0, 2]
    assert sorted(queries[0, 3:, 0].tolist()) == [3, 5]


def test_in_training_every_token_above_the_threshold_stays_and_shorter_images_are_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shrunk, run = passed("eqd", 2, 4)
    high, low = 0.71, 0.69
    say_edges(monkeypatch, [[low, high, low, high, low, low, low, high], [high, low, high, low, low, high, low, low]])
    shrunk.train()
    queries = run.before_layer(1, numbered(2, 4).expand(2, -1, -1)).queries
    mask = run.before_layer(2, queries).key_mask
    assert mask is not None
    real = [row[flags].tolist() for row, flags in zip(queries[..., 0], mask, strict=True)]
    assert [real[0][:3], sorted(real[0][3:])] == [[-1, 0, 2], [1, 3, 7]]
    assert real[1] == [-1, 0, 2, 5]


def say_edges(monkeypatch: pytest.MonkeyPatch, probability: list[list[float]]) -> None:
    """Let the edge head say these probabilities of an edge."""
    edge = torch.tensor(probability)
    logits = torch.stack((torch.zeros_like(edge), torch.logit(edge)), dim=-1)
    monkeypatch.setattr(EdgeHead, "forward", lambda self, patches: logits)


def test_filled_batch_gives_what_each_image_gives_alone() -> None:
    network = shrunk_network("eqd", layer=1).train()
    assert isinstance(network.reduction, Shrunk)
    with torch.no_grad():
        network.reduction.edge_head.fc3.bias.add_(torch.tensor([0.0, 5.0]))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = images * torch.tensor([0.1, 1.0, 3.0]).reshape(3, 1, 1, 1)
    together = network(images)
    mask = network.encoder(images, network.reduction).reduction._key_mask
    assert mask is not None
    assert not mask.all()
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(together, alone)


def test_upsampling_equals_a_decoder_of_the_framework_with_the_same_weights() -> None:
    network = shrunk_network("qd+qu")
    upsampling = network.reduction.upsampling
    memories = [torch.randn(2, count, 24, generator=torch.Generator().manual_seed(count)) for count in (16, 4)]
    queries = upsampling.queries.expand(2, -1, -1)
    for projection, norm, layers, memory in zip(
        upsampling.input_proj, upsampling.proj_norm, upsampling.stages, memories, strict=True
    ):
        for layer in layers:
            other = torch.nn.TransformerDecoderLayer(12, 3, 48, 0.0, "gelu", batch_first=True)
            copy_attention(layer.self_attn, other.self_attn)
            copy_attention(layer.cross_attn, other.multihead_attn)
            for mine, theirs in (
                (layer.norm1, other.norm1),
                (layer.norm2, other.norm2),
                (layer.norm3, other.norm3),
                (layer.mlp.fc1, other.linear1),
                (layer.mlp.fc2, other.linear2),
            ):
                theirs.load_state_dict(mine.state_dict())
            queries = other(queries, norm(projection(memory)))
    torch.testing.assert_close(upsampling(memories, (None, None), (4, 4)), queries, rtol=1e-4, atol=1e-5)


def copy_attention(mine: Attention, theirs: torch.nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = mine.qkv.weight.data, mine.qkv.bias.data
    theirs.out_proj.load_state_dict(mine.proj.state_dict())


@pytest.mark.parametrize("shrink", SHRINKS)
def test_every_part_gets_a_gradient(shrink: str) -> None:
    network = shrunk_network(shrink).train()
    outputs = network.training_outputs(torch.randn(2, 3, 64, 64))
    assert all(masks.shape == (2, 5, 4, 4) for masks in outputs.masks)
    total = sum(each.square().sum() for each in (*outputs.masks, *outputs.presence))
    if outputs.edges is not None:
        assert outputs.edges.shape == (2, 2, 4, 4)
        total = total + outputs.edges.square().sum()
    total.backward()
    without = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]
    # A shift of all keys changes no softmax, so their bias has none, or nothing but rounding.
    assert [name for name in without if ".k.bias" not in name and "norm3" not in name and "linear" not in name] == []


@pytest.mark.parametrize(("shrink", "size_hw"), [("qd", (48, 80)), ("qd+qu", (48, 80)), ("eqd", (48, 80))])
def test_graph_gives_the_networks_labels_with_fixed_shapes(
    shrink: str, size_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QueryUpsampling.__init__, "__defaults__", (2, 1))
    check_graph_equals_network(shrunk_network(shrink, size=VitSize(24, 3, layers=2), layer=1), size_hw)


def check_graph_equals_network(network: VitSegmenter, size_hw: tuple[int, int]) -> None:
    with torch.no_grad():
        # Every class is as present as the others, so that the masks decide.
        network.decoder.class_embed.weight.zero_()
        network.decoder.class_embed.bias.zero_()
    module = CameraToLabels(network, Preprocessing((0.5,) * 3, (0.5,) * 3), size_hw=size_hw)
    graph = export_module(module)
    operators = Counter(node.op_type for node in graph.graph.node)
    assert not set(operators) & {"Shape", "ConstantOfShape", "Expand", "Where", "Range"}
    assert lint_graph(graph) == []
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    frame = np.random.default_rng(0).integers(0, 256, (1, *size_hw, 3), dtype=np.uint8)
    with torch.no_grad():
        labels = module(torch.from_numpy(frame))[0].numpy()
    assert np.mean(session.run(None, {"image": frame})[0] == labels) >= 0.999
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shrink": "half"}, r"unknown shrink 'half' \| known: qd, qd\+qu, eqd"),
        ({"shrink": "qd", "shrink_layer": 12}, "shrink_layer out of range | got 12, expected 0 to 11"),
        ({"shrink": "eqd", "edge_share": 0.8}, "edge_share out of range"),
        ({"shrink": "qd+qu", "cascade": [6, 12]}, r"cascade \[6, 12\] contradicts shrink"),
        ({"shrink": "qd", "prune_heads": "atm"}, "contradicts prune_heads"),
    ],
)
def test_wrong_option_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network("segvit_ti", 5, size_hw=(64, 64), **options)


def test_plan_for_a_shrunk_network_is_refused() -> None:
    with pytest.raises(InputError, match="takes no plan"):
        build_reduction(shrunk_network("qd"), "pause", TokenPlan.parse("1:0.5"))


# What the table counts for the product of classes and masks at full size, which is element-wise here.
PRODUCT = 150 * 150 * 512 * 512 / 1e9


@pytest.mark.parametrize(("options", "table"), [({"shrink": "qd", "cascade": [12]}, 74.1), ({"shrink": "qd+qu"}, 97.1)])
def test_gmacs_are_those_of_the_sources_table(options: dict, table: float) -> None:
    cost = named_complexity("segvit_b", 150, (512, 512), options)
    assert cost.table_macs / 1e9 + PRODUCT == pytest.approx(table, rel=0.02)
