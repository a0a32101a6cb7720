"""Tuning on a real tiny ViT: scores and graphs are real; where times must not decide, a formula gives the latency."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.config import DEFAULT_COMPENSATIONS, UNCOMPENSATED, Compensation, Configuration
from edgeseg.data.folder import FolderDataset
from edgeseg.errors import InputError
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.tuning import (
    CheckpointBench,
    Measuring,
    ReferencePredictor,
    checked_layers,
    plannable_layers,
    requests_for,
    usable_compensations,
    worth_having,
)
from edgeseg.runtime.plan_grid import PlanGrid
from edgeseg.runtime.plan_objective import Objective
from edgeseg.runtime.plan_search import search_plans
from edgeseg.token_plan import TokenPlan
from support.tiny_vit import NAME, seeded

from .conftest import CLASSES, IMAGENET, SIZE_HW

KNOBS = Configuration(NAME, SIZE_HW)


def vit_source() -> TorchSource:
    facts = SourceFacts(NAME, "vit.py", CLASSES, default_size_hw=SIZE_HW, logits_stride=8, takes_plans=True)
    return TorchSource(facts, seeded(len(CLASSES)), IMAGENET)


@pytest.fixture
def distilled(video_root: Path) -> EvaluationData:
    """A scene that moves by a patch a frame, with the whole network's own predictions as labels: it scores 1 without
    delay, and a delay costs it most."""
    predict = ReferencePredictor(vit_source(), KNOBS)
    blobs = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    scene = cv2.resize(np.tile(blobs, (1, 2, 1)), (128, 48), interpolation=cv2.INTER_NEAREST)
    for index in range(24):
        frame = np.ascontiguousarray(np.roll(scene, 8 * index, axis=1)[:, :64])
        cv2.imwrite(str(video_root / f"frames/val/a/{index:03d}.png"), frame[..., ::-1])
        cv2.imwrite(str(video_root / f"labels/val/a/{index:03d}.png"), predict(frame))
    return EvaluationData.open(FolderDataset(video_root), "val")


def bench_on(data: EvaluationData, **options: object) -> CheckpointBench:
    measuring = Measuring(fps=10.0, samples=5, threads=1)
    return CheckpointBench(vit_source(), KNOBS, "pause", data, measuring, max_offset=3, **options)  # type: ignore[arg-type]


class InjectedLatency(CheckpointBench):
    """Real scores; the latency is a formula of the tokens, so that every run measures the same."""

    def latencies_s(self, plan: TokenPlan | None) -> np.ndarray:
        shares = self.source.token_stack(SIZE_HW).per_layer(plan) / 48
        cuts = 0 if plan is None else len(plan.cuts)
        return 0.13 * (0.1 + 0.7 * shares.mean() + 0.2 * (shares**2).mean() + 0.01 * cuts) * np.array([1, 1.02, 0.99])


@pytest.fixture
def injected(distilled: EvaluationData) -> InjectedLatency:
    return InjectedLatency(vit_source(), KNOBS, "pause", distilled, Measuring(10.0), max_offset=3)


def test_guided_search_finds_the_best_plan_of_a_real_network_with_a_fifth_of_the_measurements(injected):
    grid = PlanGrid((1, 2, 4), (0.2, 0.4, 0.6), 2, injected.source.token_stack(SIZE_HW))
    everything = search_plans("exhaustive", grid, injected, Objective(10.0, 10.0))
    found = search_plans("guided", grid, injected, Objective(10.0, 10.0))
    assert everything.best.plan is not None
    assert everything.best.lamiou > everything.trials[0].lamiou * 1.01
    assert found.best.lamiou >= 0.995 * everything.best.lamiou
    assert len(found.trials) <= len(grid) / 5


def test_the_whole_network_scores_one_on_its_own_labels_and_a_paused_one_less(injected):
    whole, paused = injected.tables(None), injected.tables(TokenPlan.parse("1:0.6"))
    assert whole.shape == (1, 4)
    assert whole[0, 0] == 1.0
    assert paused[0, 0] < 1.0


def test_a_part_of_the_frames_ranks_plans(distilled):
    few, all_frames = bench_on(distilled, rank_frames=6), bench_on(distilled, rank_frames=1000)
    plan = TokenPlan.parse("1:0.6")
    assert few.tables(plan).tolist() != all_frames.tables(plan).tolist()


def test_the_default_number_of_frames_reaches_the_last_delay_in_each_of_many_videos(distilled):
    many = replace(distilled, videos=distilled.videos * 60)
    assert bench_on(many).frames_per_video == 4
    with pytest.raises(InputError, match="--rank-frames leaves too few frames to score labels 3 frames late"):
        bench_on(many, rank_frames=120)


def test_moved_labels_have_tables_of_their_own(distilled):
    bench = bench_on(distilled, compensations=(Compensation(),))
    tables = bench.tables(None)
    assert tables.shape == (2, 4)
    assert tables[0, 0] == tables[1, 0]
    assert tables[0, 1:].tolist() != tables[1, 1:].tolist()
    assert len(bench.added_s()) == 2
    assert bench.added_s()[0] == 0.0


def test_compensations_are_those_of_an_export_that_frames_are_large_enough_for():
    assert usable_compensations((48, 64)) == DEFAULT_COMPENSATIONS
    assert usable_compensations((8, 8)) == (UNCOMPENSATED,)


def test_measured_latencies_have_the_drift_of_the_machine_taken_out(distilled, monkeypatch):
    bench = bench_on(distilled)
    plan = TokenPlan.parse("2:0.5")
    # The clock ticks once per look: a step is one tick, whatever the machine does.
    ticks = iter(range(10**9))
    rates = iter([0.001, 0.002])

    def clock_of(rate: float):
        return lambda: next(ticks) * rate

    for expected, cuts in ((0.001, None), (0.001, plan)):
        object.__setattr__(bench.measuring, "clock", clock_of(next(rates)))
        assert bench.latencies_s(cuts) == pytest.approx(expected)


def test_what_is_worth_having_holds_the_front_the_best_and_the_whole_network(injected):
    grid = PlanGrid((1, 2), (0.2, 0.6), 1, injected.source.token_stack(SIZE_HW))
    result = search_plans("exhaustive", grid, injected, Objective(10.0, 10.0))
    chosen = worth_having(result)
    plans = [trial.plan for trial in chosen]
    assert None in plans
    assert result.best.plan in plans
    assert [trial.median_s for trial in chosen] == sorted(trial.median_s for trial in chosen)
    front = [trial for trial in chosen if trial.plan not in (None, result.best.plan)]
    assert [trial.miou for trial in front] == sorted(trial.miou for trial in front)
    assert requests_for(injected, chosen)[0].knobs == KNOBS


def test_a_convolutional_network_is_told_where_its_choices_are_made(make_source):
    with pytest.raises(InputError, match=r"plain ViT \| got tiny.py, a tiny \| .* edgeseg export --sweep"):
        plannable_layers(make_source(), Configuration("tiny", SIZE_HW), "pause")


def test_a_network_without_an_auxiliary_decoder_is_refused_for_what_it_lacks():
    network = seeded(len(CLASSES))
    del network.auxiliary
    facts = SourceFacts(NAME, "vit.py", CLASSES, default_size_hw=SIZE_HW, takes_plans=True)
    with pytest.raises(InputError, match=r"--method pause does not fit vit.py \| .*no auxiliary decoder"):
        plannable_layers(TorchSource(facts, network, IMAGENET), KNOBS, "pause")


def test_layers_are_those_that_the_network_has():
    able = plannable_layers(vit_source(), KNOBS, "early-exit")
    assert able == (1, 2, 3, 4, 5)
    assert checked_layers(None, able, "vit.py") == (3, 5)
    assert checked_layers(None, (6, 8), "vit.py") == (6, 8)
    with pytest.raises(InputError, match=r"--layers: layer out of range \| got 6, .* after 1, 2, 3, 4, 5"):
        checked_layers([2, 6], able, "vit.py")
