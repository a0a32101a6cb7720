"""The ViT networks as wholes: the registry's contract, and graphs that engines can take."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch

from edgeseg.errors import InputError
from edgeseg.export.engine_lint import lint_graph
from edgeseg.export.graph_edit import with_outputs
from edgeseg.export.onnx_export import export_module
from edgeseg.export.wrapper import CameraToLabels, Preprocessing
from edgeseg.models.registry import NETWORKS, build_network
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, build_segmenter, build_segvit

SMALL = VitSize(dim=24, heads=3, layers=4)
HALF = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ANY_VIT = [name for name in NETWORKS if "swiftnet" not in name]


@pytest.mark.parametrize("name", ANY_VIT)
def test_network_keeps_the_registrys_contract(name: str) -> None:
    with torch.device("meta"):
        network = build_network(name, 5, size_hw=(64, 96)).eval()
        logits = network(torch.zeros(2, 3, 64, 96))
    assert logits.shape == (2, 5, 4, 6)
    assert (network.input_frames, network.logits_stride) == (1, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "cnn"}, r"unknown decoder 'cnn' \| known: linear, mask"),
        ({"width": 0.5}, r"network segmenter_ti has no option width \| known: decoder, size_hw"),
        ({"size_hw": (180, 240)}, "does not divide into patches"),
    ],
)
def test_wrong_option_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network("segmenter_ti", 5, **options)


def small_network(kind: str) -> VitSegmenter:
    torch.manual_seed(0)
    if kind in ("linear", "mask"):
        network = build_segmenter(5, SMALL, kind, (64, 64))
    else:
        network = build_segvit(5, SMALL, [2, 4], "binary", (64, 64))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("kind", ["linear", "mask", "segvit"])
@pytest.mark.parametrize("size_hw", [(64, 64), (48, 80)])
def test_graph_gives_the_networks_labels_without_any_shape_at_run_time(kind: str, size_hw: tuple[int, int]) -> None:
    module = CameraToLabels(small_network(kind), HALF, size_hw=size_hw)
    graph = export_module(module)
    operators = Counter(node.op_type for node in graph.graph.node)
    # Resize is the one from logits to labels: the position table of another grid is a constant.
    assert operators["Resize"] == 1
    assert not set(operators) & {"Shape", "ConstantOfShape", "Expand", "Where", "Gather"}
    assert lint_graph(graph) == []
    session = onnxruntime.InferenceSession(
        with_outputs(graph, ["logits"]).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    frame = np.random.default_rng(0).integers(0, 256, (1, *size_hw, 3), dtype=np.uint8)
    with torch.no_grad():
        labels, logits = (each.numpy() for each in module(torch.from_numpy(frame)))
    graph_labels, graph_logits = session.run(["labels", "logits"], {"image": frame})
    np.testing.assert_allclose(graph_logits, logits, atol=1e-4)
    assert np.mean(graph_labels == labels) >= 0.999


def test_attention_is_two_products_around_a_softmax_in_a_graph() -> None:
    graph = export_module(CameraToLabels(small_network("linear"), HALF, size_hw=(64, 64)))
    makers = {output: node for node in graph.graph.node for output in node.output}
    users = {name: node for node in graph.graph.node for name in node.input}
    softmaxes = [node for node in graph.graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == SMALL.layers
    for node in softmaxes:
        assert makers[node.input[0]].op_type == "MatMul"
        assert users[node.output[0]].op_type == "MatMul"
