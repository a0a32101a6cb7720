"""Token pruning: who leaves, on literal confidences and against a slow reference; graphs; cost beside the tables."""

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
from edgeseg.models.complexity import complexity
from edgeseg.models.pruning_heads import HeadPrediction, PruningHeads
from edgeseg.models.registry import build_network
from edgeseg.models.token_pruning import (
    CONTEXTS,
    DynamicPruning,
    DynamicPruningPass,
    PlannedPruning,
    PruningRule,
    heads_of,
    prune,
)
from edgeseg.models.token_reduction import TokenLayout
from edgeseg.models.vit import VIT_SIZES, VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, add_pruning_heads, build_segvit, build_setr
from edgeseg.token_plan import TokenPlan

SMALL = VitSize(dim=24, heads=3, layers=4)
CLASSES = 3


def pruning_network(decoder: str, heads: str, size: VitSize = SMALL, layers: tuple[int, ...] = (2, 3)) -> VitSegmenter:
    torch.manual_seed(0)
    if decoder == "atm":
        network = build_segvit(CLASSES, size, [size.layers], "binary", (64, 64))
    else:
        network = build_setr(CLASSES, size, (64, 64))
    add_pruning_heads(network, CLASSES, heads, layers)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Convolutions sum over many channels; less noise keeps their logits where trained ones are.
            parameter.add_((0.05 if ".conv" in name else 0.2) * torch.randn_like(parameter))
            if "class_embed" in name:
                parameter.zero_()
    return network.eval()


class LiteralHeads(PruningHeads):
    """Says of each token what its first two numbers are: class and confidence."""

    def __init__(self) -> None:
        super().__init__(CLASSES, SMALL, "fcn", (1, 2), 4, beside_atm=False)

    def forward(self, layer: int, tokens: Tensor, mask: Tensor | None = None) -> HeadPrediction:
        classes, confidence = tokens[..., 0].long(), tokens[..., 1]
        scores = torch.nn.functional.one_hot(classes, CLASSES) * confidence.unsqueeze(-1)
        return HeadPrediction(scores, confidence, torch.logit(confidence), classes, None)


def sequence(said: list[tuple[int, float]]) -> Tensor:
    """A class token and patches; the third number of a patch is its place."""
    rows = [(0.0, 0.0, -1.0), *((float(label), sure, float(place)) for place, (label, sure) in enumerate(said))]
    return torch.tensor([rows])


def went_on(reduction: DynamicPruning | PlannedPruning, said: list[tuple[int, float]]) -> list[int]:
    """Places of the patches that go on after layer 1, in order."""
    run = reduction.begin(TokenLayout((1, len(said)), 1, 4))
    tokens = run.after_layer(1, sequence(said))
    assert run.places is not None
    assert tokens[0, 1:, 2].tolist() == run.places[0].tolist()
    return sorted(run.places[0].tolist())


#       place: 0          1          2          3          4          5          6          7
SAID = [(0, 0.99), (0, 0.97), (0, 0.96), (0, 0.60), (1, 0.98), (1, 0.50), (2, 0.95), (2, 0.94)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PruningRule(0.95, "remove"), [3, 5, 7]),
        (PruningRule(0.95, "average"), [3, 5, 7]),
        (PruningRule(0.95, "top-k", k=1), [0, 3, 4, 5, 6, 7]),
        (PruningRule(0.95, "top-k", k=2), [0, 1, 3, 4, 5, 6, 7]),
        (PruningRule(0.95, "top-k", k=5), [0, 1, 2, 3, 4, 5, 6, 7]),
        (PruningRule(0.5, "remove", share=0.5), [3, 5, 6, 7]),
        (PruningRule(0.5, "remove", share=0.35), [1, 2, 3, 5, 6, 7]),
        (PruningRule(0.1, "remove"), [5]),
    ],
)
def test_dynamic_form_lets_the_easy_ones_leave(rule: PruningRule, expected: list[int]) -> None:
    reduction = DynamicPruning(LiteralHeads(), rule)
    if rule.context == "average":
        run = reduction.begin(TokenLayout((1, 8), 1, 4))
        run.after_layer(1, sequence(SAID))
        assert run.places[0].tolist() == expected
    else:
        assert went_on(reduction, SAID) == expected


@pytest.mark.parametrize(
    ("plan", "k", "expected"),
    [
        # Three of eight leave. k = 1 protects 0, 4 and 6: the most confident others are 1, 2 and 7.
        ("1:0.4", 1, [0, 3, 4, 5, 6]),
        # k = 2 protects all but 2 and 3, which leave, and then the most confident of the protected.
        ("1:0.4", 2, [1, 4, 5, 6, 7]),
        ("1:0.1", 5, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("1:0.8", 1, [4, 6]),
    ],
)
def test_fixed_shape_form_lets_the_planned_number_leave(plan: str, k: int, expected: list[int]) -> None:
    assert went_on(PlannedPruning(TokenPlan.parse(plan), LiteralHeads(), k), SAID) == expected


def slow_planned(said: list[tuple[int, float]], leaving: int, k: int) -> list[int]:
    """The definition, one token at a time."""
    protected: set[int] = set()
    for label in {label for label, _ in said}:
        of_class = sorted((place for place, each in enumerate(said) if each[0] == label), key=lambda p: -said[p][1])
        protected |= set(of_class[:k])
    order = sorted(range(len(said)), key=lambda place: (place in protected, -said[place][1]))
    return sorted(order[leaving:])


def test_fixed_shape_form_equals_the_definition_on_many_tokens() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        said = [(int(random.integers(CLASSES)), float(random.random(dtype=np.float32))) for _ in range(40)]
        reduction = PlannedPruning(TokenPlan.parse("1:0.3"), LiteralHeads(), 4)
        assert went_on(reduction, said) == slow_planned(said, 12, 4)


def test_averages_of_the_leaving_tokens_go_on_beside_the_others() -> None:
    run = DynamicPruning(LiteralHeads(), PruningRule(0.95, "average")).begin(TokenLayout((1, 8), 1, 4))
    tokens = run.after_layer(1, sequence(SAID))
    # Places 0, 1 and 2 leave as class 0, 4 as class 1, 6 as class 2.
    torch.testing.assert_close(tokens[0, 4:, 2], torch.tensor([1.0, 4.0, 6.0]))
    assert run.finish({4: tokens})[4][0, :, 2].tolist() == [3, 5, 7]


def test_those_who_left_keep_the_prediction_of_the_head_after_which_they_left() -> None:
    run = DynamicPruning(LiteralHeads(), PruningRule(0.95, "remove")).begin(TokenLayout((1, 4), 1, 4))
    tokens = run.after_layer(1, sequence([(0, 0.99), (1, 0.5), (2, 0.9), (1, 0.6)]))
    tokens[0, 2, 1] = 0.97
    run.after_layer(2, tokens)
    placed = run.place(torch.full((1, 2, CLASSES), 7.0))
    expected = [[0.99, 0, 0], [7, 7, 7], [0, 0, 0.97], [7, 7, 7]]
    torch.testing.assert_close(placed[0], torch.tensor(expected))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("decoder", "heads"), [("atm", "atm"), ("fcn", "fcn"), ("fcn", "atm"), ("atm", "fcn")])
def test_filled_batch_gives_what_each_image_gives_alone(decoder: str, heads: str, context: str) -> None:
    network = pruning_network(decoder, heads)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = images * torch.tensor([0.1, 1.0, 3.0]).reshape(3, 1, 1, 1)
    network.encoder.collect = (2,)
    threshold = float(heads_of(network)(2, network.encoder(images).tokens[0]).confidence.quantile(0.45))
    network.encoder.collect = (4,)
    network.reduction = DynamicPruning(heads_of(network), PruningRule(threshold, context, k=1))
    run = network.encoder(images, network.reduction).reduction
    assert isinstance(run, DynamicPruningPass)
    assert any(count.unique().numel() > 1 for count in run.counts.values())
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("decoder", "heads"), [("atm", "atm"), ("fcn", "fcn")])
def test_threshold_that_nobody_reaches_changes_nothing(decoder: str, heads: str) -> None:
    network = pruning_network(decoder, heads)
    images = torch.randn(1, 3, 64, 64)
    expected = network(images)
    network.reduction = DynamicPruning(heads_of(network), PruningRule(1.0))
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(("decoder", "heads"), [("atm", "atm"), ("fcn", "fcn"), ("fcn", "atm"), ("atm", "fcn")])
def test_training_outputs_have_every_head_and_gradients(decoder: str, heads: str) -> None:
    network = pruning_network(decoder, heads).train()
    network.reduction = DynamicPruning(heads_of(network), PruningRule(0.4, k=1))
    outputs = network.training_outputs(torch.randn(2, 3, 64, 64))
    atms = (decoder == "atm") + 2 * (heads == "atm")
    assert (len(outputs.masks), len(outputs.presence), len(outputs.auxiliary)) == (atms, atms, 2 * (heads == "fcn"))
    maps = (outputs.logits, *outputs.masks, *outputs.auxiliary)
    assert {each.shape for each in maps} == {(2, CLASSES, 4, 4)}
    sum(each.square().sum() for each in maps).backward()
    for part in (network.encoder.patch_embed, network.decoder, *heads_of(network).heads.values()):
        assert any(each.grad is not None and each.grad.any() for each in part.parameters())


@pytest.mark.parametrize(("decoder", "heads"), [("atm", "atm"), ("fcn", "fcn"), ("atm", "fcn")])
def test_graph_gives_the_networks_labels_with_fixed_shapes(decoder: str, heads: str) -> None:
    network = pruning_network(decoder, heads, VitSize(24, 3, layers=3), layers=(1, 2))
    network.reduction = prune(network, TokenPlan.parse("1:0.4,2:0.3"))
    module = CameraToLabels(network, Preprocessing((0.5,) * 3, (0.5,) * 3), size_hw=(64, 96))
    graph = export_module(module)
    operators = Counter(node.op_type for node in graph.graph.node)
    assert not set(operators) & {"Shape", "ConstantOfShape", "Where", "Range"}
    assert lint_graph(graph) == []
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for seed in range(3):
        frame = np.random.default_rng(seed).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
        with torch.no_grad():
            labels = module(torch.from_numpy(frame))[0].numpy()
        assert np.mean(session.run(None, {"image": frame})[0] == labels) >= 0.999
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune_heads": "cnn"}, r"unknown prune_heads 'cnn' \| known: atm, fcn"),
        ({"prune_heads": "atm", "prune_layers": [6, 12]}, "prune_layers out of range"),
        ({"prune_heads": "atm", "prune_layers": [8, 6]}, "prune_layers is a rising list"),
        ({"prune_heads": "atm", "cascade": [6, 12]}, r"cascade \[6, 12\] contradicts prune_heads"),
    ],
)
def test_wrong_option_is_refused(options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        build_network("segvit_ti", 5, size_hw=(64, 64), **options)


def test_plan_without_a_head_is_refused() -> None:
    network = pruning_network("fcn", "fcn")
    with pytest.raises(InputError, match=r"no pruning head after layer 1 \| this network has them after 2, 3"):
        prune(network, TokenPlan.parse("1:0.5"))
    with pytest.raises(InputError, match="has no pruning heads"):
        prune(build_setr(CLASSES, SMALL, (64, 64)), TokenPlan.parse("2:0.5"))


@pytest.mark.parametrize(
    "values", [{"threshold": 0}, {"threshold": 1.1}, {"context": "mean"}, {"k": 0}, {"share": 1.0}]
)
def test_rule_out_of_range_is_refused(values: dict) -> None:
    with pytest.raises(InputError):
        PruningRule(**{"threshold": 0.9, **values})


def test_unpruned_network_with_heads_costs_what_the_table_says() -> None:
    with torch.device("meta"):
        network = build_network("segvit_b", 150, cascade=[12], prune_heads="atm")
    assert complexity(network, (512, 512)).table_macs / 1e9 == pytest.approx(109.9, rel=0.02)


def test_cost_follows_the_tokens_of_the_plan() -> None:
    with torch.device("meta"):
        network = build_network("segvit_b", 150, cascade=[12], prune_heads="atm")
        whole = complexity(network, (512, 512)).macs
        network.reduction = prune(network, TokenPlan.parse("6:0.5"))
        pruned = complexity(network, (512, 512)).macs
        atm = complexity_of_head(network, 1024)
    dim, gone = VIT_SIZES["b"].dim, 512
    layer = 12 * gone * dim * dim + 2 * (1025**2 - (1025 - gone) ** 2) * dim
    # What else is saved is the decoder's keys and values, well below a hundredth.
    assert whole - pruned == pytest.approx(6 * layer - atm, rel=0.03)


def complexity_of_head(network: VitSegmenter, tokens: int) -> int:
    """MACs of the head after layer 6 on so many tokens: projection, keys, values, two products, the class tokens."""
    dim, classes = network.encoder.size.dim // 2, 150
    return tokens * (2 * dim * dim + 2 * dim * dim) + 2 * classes * tokens * dim + 10 * classes * dim * dim
