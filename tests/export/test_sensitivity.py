"""A layer that INT8 spoils is found and kept in FP32, and no more layers than that."""

from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeseg.data.folder import FolderDataset
from edgeseg.errors import ParityError
from edgeseg.export import pipeline, precision_loss, quantize
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.calibration import SteadyState
from edgeseg.export.graph_runner import GraphRunner
from edgeseg.export.kept_layers import layer_name
from edgeseg.export.lower_precision import Lowering, PrecisionOptions
from edgeseg.export.parity import ParityVideo
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.sensitivity import RANKED_IMAGES, fewest_kept, quantised_layers, rank_layers
from edgeseg.export.sweep import Grid, plan_grid

from .conftest import CLASSES

pytest.importorskip("modelopt", reason="INT8 needs the extra quant")
SPOILT = "body.4"


class Fcn(nn.Module):
    """Stem, four convolutions, head. One channel that `spoilt` layers read is a thousand times what the others are, and
    weighs a thousandth: in float nothing changes, in INT8 the range of that channel rounds the others away."""

    logits_stride = 2

    def __init__(self, spoilt: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, padding=1), nn.ReLU())
        self.body = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())))
        self.head = nn.Conv2d(16, 3, 1)
        with torch.no_grad():
            # No class prevails, so that labels show rounding.
            self.head.bias -= self(torch.randn(1, 3, 48, 64)).mean((0, 2, 3))
            for number in spoilt:
                before = self.body[number - 2] if number else self.stem[0]
                before.weight[3] *= 1000
                before.bias[3] *= 1000
                self.body[number].weight[:, 3] /= 1000

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(image)))


class Told:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.stages, self.notes, self.steps = [], [], 0

    def stage(self, text: str, steps: int) -> None:
        self.stages.append(text)

    def advance(self) -> None:
        self.steps += 1

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def _own_parity_frames(monkeypatch, frames_rgb):
    monkeypatch.setattr(pipeline, "parity_video", lambda dataset, split: ParityVideo("noise", tuple(frames_rgb[:3])))


@pytest.fixture
def requests_of(make_source):
    """`requests_of(rho, *spoilt)`: the INT8 request of the network."""

    def make(rho="dense", spoilt=(4,), state_dtypes=("fp32",)):
        grid = Grid(
            labels_strides=(1,), sizes_hw=((48, 64),), rhos=(rho,), precisions=("int8",), state_dtypes=state_dtypes
        )
        return plan_grid([make_source(network=Fcn(spoilt).eval())], grid, sweep=True)

    return make


@pytest.fixture
def data(video_root, requests_of):
    """The video, labelled by the network itself: FP32 scores 1."""
    (request,) = requests_of()
    runner = GraphRunner(request.source.variant(request.knobs.exact))
    for file in sorted((video_root / "frames/val/a").iterdir()):
        labels = runner.step(cv2.imread(str(file))[..., ::-1])["labels"][0]
        cv2.imwrite(str(video_root / "labels/val/a" / file.name), labels)
    return EvaluationData.open(FolderDataset(video_root), "val")


@pytest.fixture
def export(data, squares, tmp_path):
    """`export(requests, max_drop, progress)` by `max`, which outliers spoil most."""

    def run(requests, max_drop=0.1, progress=None):
        precision = PrecisionOptions("max", max_drop)
        options = ExportOptions(max_offset=0, threads=1, compensations=(), precision=precision)
        return export_bundle(
            requests, tmp_path / "a.edgeseg", data=data, calibration=squares, options=options, progress=progress
        )

    return run


def int8_layers(bundle, entry, role):
    """Layers of a stored graph with int8 weights."""
    graph = onnx.load(str(bundle.path(entry.graphs[role].file)), load_external_data=False).graph
    read = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and "weight" in node.output[0]}
    return {layer_name(node).split(".weight")[0] for node in graph.node if read.intersection(node.input)}


def test_layer_that_int8_spoils_is_kept_and_no_other(export, requests_of):
    told = Told()
    bundle = export(requests_of(), progress=told)
    (entry,) = bundle.configurations
    assert entry.parity.miou_drop <= 0.1 < entry.notes["sensitivity"]["drop_before"]
    assert entry.notes["sensitivity"]["kept"] == [SPOILT]
    assert entry.notes["lower_precision"] == {
        "layers": 3,
        "of": 6,
        "kept_high": {"stem.0": "first layer", SPOILT: "kept: sensitive", "head": "last layer"},
    }
    assert any(f"1 of 4 layers stay in FP32, {SPOILT}: mIoU drop" in note for note in told.notes)
    assert "sensitivity of 4 layers of tiny_48x64_int8" in told.stages


def test_kept_layer_of_a_masked_network_is_float_in_all_its_phases(export, requests_of):
    bundle = export(requests_of(0.25), 0.3)
    (entry,) = bundle.configurations
    assert entry.notes["sensitivity"]["kept"] == [SPOILT]
    for role in ("init", "phase0", "phase1"):
        layers = int8_layers(bundle, entry, role)
        assert "body.2" in " ".join(layers)
        assert SPOILT not in " ".join(layers)


def test_costs_rank_the_spoilt_layers_first(requests_of, squares):
    (request,) = requests_of(spoilt=(2, 6))
    lowering, steady = lowered(request, squares)
    ranking = rank_layers(lowering.base, lowering.calibrated, steady, len(CLASSES))
    assert set(ranking.worst(2)) == {"body.2", "body.6"}
    costs = list(ranking.costs.values())
    assert costs == sorted(costs, reverse=True)
    assert costs[1] > 5 * costs[2] >= 0
    assert ranking.images == 8


def test_ranking_is_the_same_every_time(requests_of, squares):
    (request,) = requests_of(0.25)
    rankings = []
    for _ in range(2):
        lowering, steady = lowered(request, squares)
        rankings.append(rank_layers(lowering.base, lowering.calibrated, steady, len(CLASSES)))
    assert list(rankings[0].costs.items()) == list(rankings[1].costs.items())
    assert rankings[0].images == RANKED_IMAGES
    names = quantised_layers(lowering.base, lowering.calibrated)
    assert [name for name in names if name.startswith("body.") and name[-1].isdigit()] == [
        f"body.{n}" for n in (0, 2, 4, 6)
    ]


def test_calibrated_ranges_are_used_again(export, requests_of, monkeypatch):
    measured = []
    measure = quantize.activation_ranges
    monkeypatch.setattr(quantize, "activation_ranges", lambda *args: measured.append(args[1]) or measure(*args))
    export(requests_of())
    assert len(measured) == 1


def test_states_in_fp16_share_the_ranking_of_those_in_fp32(export, requests_of):
    told = Told()
    bundle = export(requests_of(0.25, state_dtypes=("fp32", "fp16")), 0.3, told)
    assert [entry.notes["sensitivity"]["kept"] for entry in bundle.configurations] == [[SPOILT], [SPOILT]]
    assert len([text for text in told.stages if text.startswith("sensitivity")]) == 1


def test_small_loss_asks_for_no_ranking(export, requests_of):
    told = Told()
    (entry,) = export(requests_of(), 1.0, told).configurations
    assert "sensitivity" not in entry.notes
    assert not any(text.startswith("sensitivity") for text in told.stages)


def test_loss_that_half_the_layers_do_not_cure_is_refused(export, requests_of, tmp_path):
    with pytest.raises(
        ParityError, match=r"loses too much accuracy .*; with the 2 worst of 4 layers in FP32 it is still 0\.\d+ below"
    ):
        export(requests_of(spoilt=(2, 4, 6)))
    assert not (tmp_path / "a.edgeseg").exists()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_loss_of_what_has_no_calibrated_int8_graph_is_refused_without_ranking(
    precision, data, requests_of, monkeypatch
):
    (request,) = requests_of()
    base = request.source.variant(request.knobs.exact)
    # FP16 graphs, and INT8 ones with the ranges of training.
    lowering = Lowering(base, None, PrecisionOptions(max_drop=0.05))
    monkeypatch.setattr(lowering, "variant", lambda knobs: replace(base, knobs=knobs))
    scores = {"fp32": 0.9, precision: 0.8}
    monkeypatch.setattr(precision_loss.DropMeter, "miou", lambda self, variant: scores[variant.knobs.precision])
    lower = precision_loss.LowerVariants(lowering, data, 1, Told())
    with pytest.raises(ParityError, match=r"0\.1000 below .* and --max-drop is 0\.05 \| allow more"):
        lower.made(replace(request.knobs, precision=precision))


@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 13])
def test_fewest_kept_finds_the_number_in_few_questions(needed):
    asked = []
    assert fewest_kept(13, lambda count: asked.append(count) or count >= needed) == needed
    assert len(set(asked)) == len(asked) <= 2 * np.ceil(np.log2(needed)) + 1


def test_fewest_kept_gives_up_at_the_most_that_may_be_kept():
    asked = []
    assert fewest_kept(5, lambda count: bool(asked.append(count))) is None
    assert asked == [1, 2, 4, 5]


def lowered(request, calibration):
    """INT8 graphs and what they were calibrated on."""
    base = request.source.variant(request.knobs.exact)
    steady = SteadyState(base, calibration)
    lowering = Lowering(base, steady, PrecisionOptions("max"))
    lowering.variant(request.knobs)
    return lowering, steady
