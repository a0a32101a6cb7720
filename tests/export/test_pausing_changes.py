"""Tokens that INT8 stops elsewhere are counted, noted, and warned of."""

from dataclasses import replace

import numpy as np
import pytest

from edgeseg.config import Configuration
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.calibration import SteadyState
from edgeseg.export.calibration_frames import CalibrationSource
from edgeseg.export.lower_precision import Lowering, PrecisionOptions
from edgeseg.export.pausing_changes import MOST_CHANGED, changed_stops
from edgeseg.export.precision_loss import LowerVariants
from edgeseg.export.progress import NoProgress
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.token_stages import token_stages
from edgeseg.token_plan import TokenPlan
from support.tiny_vit import seeded

from .conftest import CLASSES, IMAGENET, SIZE_HW

PLAN = TokenPlan.parse("2:0.4,4:0.4")


class Structured:
    """A video of 8 frames whose patches differ in colour by far: neighbours in the ranking lie apart."""

    name, fps, size_hw = "patches", 10.0, SIZE_HW

    def __len__(self) -> int:
        return 8

    def frame_rgb(self, index: int) -> np.ndarray:
        patches = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        return patches.repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def base():
    """FP32 graph of a tiny ViT whose tokens pause."""
    facts = SourceFacts("vit", "vit.py", CLASSES, default_size_hw=SIZE_HW, logits_stride=8, takes_plans=True)
    knobs = Configuration("vit", SIZE_HW, method="pause", plan=PLAN)
    return TorchSource(facts, seeded(len(CLASSES)).eval(), IMAGENET).variant(knobs)


@pytest.fixture(scope="module")
def other(base):
    """The same with other weights in the encoder: other tokens stop."""
    graph = type(base.graphs["step"]).FromString(base.graphs["step"].SerializeToString())
    for entry in graph.graph.initializer:
        if entry.name.startswith("encoder.blocks.0.") and entry.dims and len(entry.dims) == 2:
            values = np.frombuffer(entry.raw_data, np.float32)
            noise = np.random.default_rng(0).normal(0, 0.1, values.shape)
            entry.raw_data = (values + noise).astype(np.float32).tobytes()
    return replace(base, graphs={"step": graph})


@pytest.fixture
def steady(base):
    videos = (CachedVideo(Structured(), FrameCache(1 << 20)),)
    return SteadyState(base, CalibrationSource("patches", "train", videos, 8))


def test_same_graph_stops_the_same_tokens(base, steady):
    assert changed_stops(base, base, steady.feeds("step")) == {"share": 0.0, "images": 8}


def test_share_counts_each_token_that_stops_after_another_layer_once(base, other, steady):
    feeds = steady.feeds("step")[:2]

    def stopped_after(variant, frame_rgb):
        stops = token_stages(variant, frame_rgb, CLASSES).stops
        return sum(np.where(stop.ran & ~stop.went_on, stop.layer, 0) for stop in stops)

    differ = [stopped_after(base, feed["image"][0]) != stopped_after(other, feed["image"][0]) for feed in feeds]
    expected = float(np.mean(differ))
    assert 0.05 < expected < 1
    assert changed_stops(base, other, feeds) == {"share": pytest.approx(expected), "images": 2}


def test_graph_without_stages_has_nothing_to_count(base, steady):
    graph = type(base.graphs["step"]).FromString(base.graphs["step"].SerializeToString())
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("tokens_after_", "stage_") for name in names]
    assert changed_stops(replace(base, graphs={"step": graph}), base, steady.feeds("step")) is None


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_stops_at_most_two_percent_elsewhere(base, steady, precision):
    pytest.importorskip("modelopt", reason="INT8 and FP16 need the extra quant")
    lowering = Lowering(base, steady, PrecisionOptions())
    variant, _ = LowerVariants(lowering, None, 1, NoProgress()).made(replace(base.knobs, precision=precision))
    assert variant.notes["changed_stops"]["images"] == 8
    assert variant.notes["changed_stops"]["share"] <= MOST_CHANGED


def test_user_is_warned_of_more_than_two_percent(base, other, steady, monkeypatch):
    told = []
    progress = NoProgress()
    monkeypatch.setattr(progress, "note", told.append)
    lowering = Lowering(base, steady, PrecisionOptions())
    knobs = replace(base.knobs, precision="int8")
    monkeypatch.setattr(lowering, "variant", lambda knobs: replace(other, knobs=knobs))
    variant, _ = LowerVariants(lowering, None, 1, progress).made(knobs)
    assert variant.notes["changed_stops"]["share"] > MOST_CHANGED == 0.02
    assert [note.split(" | ")[0].split(": ", 1)[1][-60:] for note in told] == [
        "the tokens stop elsewhere than in FP32, expected at most 2 %"
    ]
