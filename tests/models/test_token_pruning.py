"""Token pruning by a plan: who leaves, on literal confidences and against a slow reference; graphs; cost."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch

from edgeseg.errors import InputError
from edgeseg.export.engine_lint import lint_graph
from edgeseg.export.onnx_export import export_module
from edgeseg.export.wrapper import CameraToLabels, Preprocessing
from edgeseg.models.complexity import complexity
from edgeseg.models.reductions import add_auxiliary_decoder, build_reduction
from edgeseg.models.registry import build_network
from edgeseg.models.token_pruning import PlannedPruning, prune
from edgeseg.models.vit import VIT_SIZES, VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, build_segvit, build_setr
from edgeseg.token_plan import TokenPlan
from support.pruning import CLASSES, SAID, SMALL, LiteralHeads, pruning_network, went_on


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


def test_way_that_a_network_was_trained_for_is_named_when_another_is_asked_for() -> None:
    pruning, pausing = pruning_network("atm", "fcn"), build_segvit(CLASSES, SMALL, [4], "binary", (64, 64))
    add_auxiliary_decoder(pausing, CLASSES)
    with pytest.raises(InputError, match=r"no auxiliary decoder.* \| .*after layers 2, 3 can: use --method prune"):
        build_reduction(pruning, "pause", TokenPlan.parse("2:0.4"))
    with pytest.raises(InputError, match=r"no pruning heads.* \| .*: use --method pause"):
        build_reduction(pausing, "prune", TokenPlan.parse("2:0.4"))


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
