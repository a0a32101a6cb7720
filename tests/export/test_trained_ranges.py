"""INT8 graphs of networks that were trained for it: the rounding is that of the training, at the same places."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgeseg.calibration_record import Calibration
from edgeseg.config import Configuration
from edgeseg.errors import InputError, ParityError
from edgeseg.export.evaluation import evaluate_checkpoint
from edgeseg.export.evaluation_data import EvaluationData
from edgeseg.export.graph_runner import GraphRunner
from edgeseg.export.lower_precision import Lowering, PrecisionOptions
from edgeseg.export.node_precision import Quantized
from edgeseg.export.onnx_export import LOGITS
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.trained_ranges import quantize_as_trained
from edgeseg.export.variant import Variant
from edgeseg.models.registry import build_network
from edgeseg.token_plan import TokenPlan
from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint
from edgeseg.training.quantisers import Quantisers, plan_layers
from edgeseg.training.trained_int8 import TrainedInt8
from support import tiny_vit
from support.tensorrt_rtx import build

from .conftest import CLASSES, IMAGENET

pytest.importorskip("modelopt", reason="needs the extra quant")

SIZE_HW = (48, 64)
SEEN = Calibration("noise", "train", 8, 8, SIZE_HW, "0" * 64, "max")
MASKED = ("backbone.layer1.0.conv1", "backbone.layer1.0.conv2", "backbone.layer1.1.conv1")


def swiftnet() -> nn.Module:
    """Quarter width, with batch norms that are not at their start values."""
    torch.manual_seed(0)
    network = build_network("swiftnet_r18", 3, width=0.25)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, -1.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network.eval()


def calibrated(make: Callable[[], nn.Module]) -> TrainedInt8:
    """Ranges of the network that `make` makes on noise, by the largest magnitude."""
    network, random = make(), torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, *SIZE_HW, generator=random)
    plan = plan_layers(network, images[:1])
    ranges = Quantisers(network, plan.quantised).calibrate("max", lambda: network(images))
    return TrainedInt8(ranges, plan.left_float, SEEN, "a test")


def int8(variant: Variant, trained: TrainedInt8) -> Variant:
    return Lowering(variant, None, PrecisionOptions(), trained).variant(replace(variant.knobs, precision="int8"))


@pytest.fixture(scope="module")
def trained() -> TrainedInt8:
    return calibrated(swiftnet)


@pytest.fixture(scope="module")
def source(trained: TrainedInt8) -> TorchSource:
    """Of the module, because it keeps its last trace, from which all variants of one size are cut."""
    facts = SourceFacts("tiny", "tiny.py", CLASSES, default_size_hw=SIZE_HW, logits_stride=4, int8=trained)
    return TorchSource(facts, swiftnet(), IMAGENET, masked=MASKED)


@pytest.fixture(scope="module")
def dense(source: TorchSource) -> Variant:
    return source.variant(Configuration("tiny", SIZE_HW))


@pytest.fixture(scope="module")
def graph(dense: Variant, trained: TrainedInt8) -> Quantized:
    return quantize_as_trained(dense.graphs["step"], trained.ranges)


def agree(source: TorchSource, variant: Variant, frames: list[np.ndarray]) -> None:
    """`variant` computes what the network does with the training's rounding, and not what it does without.

    In a network of random weights the last bit of a sum, which decides some roundings, grows on the way.
    """
    exact, rounded = source.reference(replace(variant.knobs, precision="fp32")), source.reference(variant.knobs)
    runner = GraphRunner(variant, [LOGITS])
    for frame in frames:
        (_, expected), (_, float_logits) = rounded.step(frame), exact.step(frame)
        assert expected is not None
        assert float_logits is not None
        got, loss = runner.step(frame)[LOGITS][0], np.abs(expected - float_logits).mean()
        assert np.abs(got - expected).mean() < 0.5 * loss


def test_graph_computes_the_rounding_of_the_training(
    source: TorchSource, dense: Variant, trained: TrainedInt8, frames_rgb: list[np.ndarray]
) -> None:
    agree(source, int8(dense, trained), frames_rgb[:3])


@pytest.mark.parametrize("form", ["concat", "split"])
def test_masked_graphs_compute_the_rounding_of_the_training_in_all_phases(
    source: TorchSource, trained: TrainedInt8, frames_rgb: list[np.ndarray], form: str
) -> None:
    variant = source.variant(Configuration("tiny", SIZE_HW, rho=0.0, cwm_form=form))
    agree(source, int8(variant, trained), frames_rgb[:5])


def test_paused_vit_computes_the_rounding_of_the_training(
    make_source: Callable[..., TorchSource], frames_rgb: list[np.ndarray]
) -> None:
    trained = calibrated(lambda: tiny_vit.seeded(3))
    source = make_source(network=tiny_vit.seeded(3), int8=trained, logits_stride=8, takes_plans=True)
    knobs = Configuration("tiny", SIZE_HW, method="pause", plan=TokenPlan.parse("2:0.4"))
    variant = int8(source.variant(knobs), trained)
    # A token whose turn it is to pause may be another one after a rounding: few frames, no such token.
    agree(source, variant, frames_rgb[:1])
    layers = variant.notes["lower_precision"]
    assert layers["layers"] == len(trained.ranges) == 6 * 4
    assert layers["kept_high"]["encoder.MatMul"] == "decides which tokens pause"


def test_only_layers_with_a_range_are_int8_and_the_others_have_a_reason(graph: Quantized, trained: TrainedInt8) -> None:
    assert {node.layer for node in graph.nodes if node.reduced} == set(trained.ranges)
    reasons = {node.layer: node.reason for node in graph.left}
    assert reasons["backbone.conv1"] == "first layer"
    assert reasons["head.conv"] == "last layer"
    assert reasons["spp.levels.0.conv"] == "trained in float"


def test_integers_are_those_of_the_training_though_batch_norms_are_folded(graph: Quantized) -> None:
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.model.graph.initializer}
    network = swiftnet()
    conv, norm = network.backbone.layer1[0].conv1.weight.detach().numpy(), network.backbone.layer1[0].bn1
    scales = np.abs(conv).max(axis=(1, 2, 3), keepdims=True) / 127
    signs = np.sign(norm.weight.detach().numpy())[:, None, None, None]
    got = stored["backbone.layer1.0.conv1.weight.int8"]
    assert got.dtype == np.int8
    # A weight right between two integers may go either way.
    assert np.mean(got == np.rint(conv / scales) * signs) > 0.99


def test_scales_are_the_ranges_and_zero_points_zero(graph: Quantized, trained: TrainedInt8) -> None:
    stored = {entry.name: numpy_helper.to_array(entry) for entry in graph.model.graph.initializer}
    nodes = {node.name: node for node in graph.model.graph.node}
    quantise = next(
        node
        for node in graph.model.graph.node
        if node.op_type == "QuantizeLinear"
        and nodes["backbone.layer2.0.conv2"].input[0] == node.output[0].replace(".int8", ".from_int8")
    )
    assert stored[quantise.input[1]] == np.float32(trained.ranges["backbone.layer2.0.conv2"] / 127)
    assert stored[quantise.input[2]] == 0


def test_graphs_of_a_masked_network_share_their_integers(source: TorchSource, trained: TrainedInt8) -> None:
    variant = int8(source.variant(Configuration("tiny", SIZE_HW, rho=0.0, cwm_form="concat")), trained)
    stored = {
        role: {entry.name: numpy_helper.to_array(entry) for entry in graph.graph.initializer}
        for role, graph in variant.graphs.items()
    }
    whole = stored["init"][f"{MASKED[1]}.weight.int8"]
    parts = [stored[role][f"{MASKED[1]}.weight[{part}].int8"] for role, part in (("phase0", "0:8"), ("phase1", "8:16"))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_layer_asked_for_stays_in_float(dense: Variant, trained: TrainedInt8) -> None:
    made = quantize_as_trained(dense.graphs["step"], trained.ranges, keep_high=["upsample.0.blend.conv"])
    assert {node.layer: node.reason for node in made.left}["upsample.0.blend.conv"] == "kept: sensitive"
    with pytest.raises(InputError, match="no layer 'nowhere'"):
        quantize_as_trained(dense.graphs["step"], trained.ranges, keep_high=["nowhere"])


def test_graph_without_a_layer_that_was_trained_is_refused(dense: Variant, trained: TrainedInt8) -> None:
    with pytest.raises(ParityError, match=r"lacks layers .* elsewhere\.conv"):
        quantize_as_trained(dense.graphs["step"], {**trained.ranges, "elsewhere.conv": 1.0})


def test_manifest_says_what_the_ranges_are_from(dense: Variant, trained: TrainedInt8) -> None:
    assert int8(dense, trained).calibration == SEEN


def test_checkpoint_is_scored_with_the_rounding_that_it_was_trained_with(
    trained: TrainedInt8, video_data: EvaluationData, tmp_path: Path
) -> None:
    def scored(int8: TrainedInt8 | None) -> float:
        facts = {"dataset": "another", "splits": ["train"], "size_hw": list(SIZE_HW)}
        meta = CheckpointMeta("swiftnet_r18", {"width": 0.25}, CLASSES, trained_on=facts, int8=int8)
        save_checkpoint(tmp_path / "net.safetensors", swiftnet(), meta)
        path = tmp_path / "net.safetensors"
        return evaluate_checkpoint(path, video_data, size_hw=None, max_offset=0, radii_px=()).pixel_accuracy

    narrow = replace(trained, ranges=dict.fromkeys(trained.ranges, 1e-6))
    assert scored(narrow) != scored(None)


def test_tensorrt_computes_the_trained_layers_in_int8(graph: Quantized, trained: TrainedInt8) -> None:
    products = [layer for layer in build(graph.model).layers if layer.is_product]
    found = {node: layer.arithmetic for layer in products for node in layer.nodes}
    assert {found[name] for name in trained.ranges if name in found} == {"int8"}
    assert found["backbone.conv1"] == "fp32"
