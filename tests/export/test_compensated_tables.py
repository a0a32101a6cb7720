"""Accuracy tables of labels moved to the present, held against the loop's own way of moving them."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from edgeseg.bundle import Bundle
from edgeseg.classes import ClassSet
from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.export import accuracy as accuracy_module
from edgeseg.export import video_motion
from edgeseg.export.accuracy import EvaluationData, OffsetTables, add_compensated_tables, compensated_runs
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.evaluation import evaluate
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.export.video_motion import Flow, VideoMotion, moving
from edgeseg.export.video_pass import VideoPass, fit_labels
from edgeseg.manifest import MANIFEST
from edgeseg.metrics.confusion import ConfusionMatrix
from edgeseg.metrics.latency_aware import OffsetScores, start_phases
from edgeseg.runtime.compensation import Compensator

BOTH = Compensation()
MODES = [Compensation(mode) for mode in ("extrapolate", "late-warp", "late-warp+extrapolate")]
SIZE_HW, FPS, FRAMES, STEP = (64, 96), 10.0, 10, 3
CLASSES = ClassSet(("road", "car", "sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), movable=("car",))


class Pan(Video):
    """A textured scene of three classes in blocks that moves by `step` pixels per frame; red tells the class."""

    name, fps, size_hw = "pan", FPS, SIZE_HW

    def __init__(self, step=STEP, frames=FRAMES, unlabelled=(), size_hw=SIZE_HW, border=0):
        random = np.random.default_rng(0)
        self.size_hw, self._step, self._frames = size_hw, step, frames
        wide = size_hw[0], size_hw[1] + 200
        blocks = random.integers(0, 3, (wide[0] // 16 + 1, wide[1] // 16 + 1), dtype=np.uint8)
        self._classes = np.kron(blocks, np.ones((16, 16), np.uint8))[: wide[0], : wide[1]]
        texture = cv2.GaussianBlur(random.integers(0, 256, (*wide, 2), dtype=np.uint8), (0, 0), 2)
        self._scene = np.dstack([100 * self._classes, cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)])
        self._unlabelled, self._border = unlabelled, border

    def __len__(self):
        return self._frames

    def _at(self, scene, index):
        return np.ascontiguousarray(scene[:, self._step * index :][:, : self.size_hw[1]])

    def frame_rgb(self, index):
        return self._at(self._scene, index)

    def labels(self, index):
        labels = self._at(self._classes, index)
        inside = np.zeros(labels.shape, bool)
        edge = self._border
        inside[edge : labels.shape[0] - edge, edge : labels.shape[1] - edge] = True
        return np.where(inside, labels, 255).astype(np.uint8)

    def has_labels(self, index):
        return 0 <= index < self._frames and index not in self._unlabelled


class Cuts(Pan):
    """Stills: every frame shows another scene."""

    def frame_rgb(self, index):
        return np.random.default_rng(index).integers(0, 256, (*self.size_hw, 3), dtype=np.uint8)


class RedTells:
    """Right at half size where it is fed for the first time, and on every other step; else it sees roads only."""

    def __init__(self, *, stateful=False):
        self._stateful, self._steps = stateful, 0

    def reset(self):
        self._steps = 0

    def __call__(self, frame_rgb):
        labels = (frame_rgb[::2, ::2, 0] // 100).astype(np.uint8)
        self._steps += 1
        return np.zeros_like(labels) if self._stateful and self._steps % 2 == 0 else labels


def data_of(*videos):
    cache = FrameCache(1 << 26)
    dataset = SimpleNamespace(name="pans", classes=CLASSES)
    return EvaluationData(dataset, "val", tuple(CachedVideo(video, cache) for video in videos))


def tables_of(data, compensations, *, stateful=False, max_offset=3, target_offset=0):
    offsets = OffsetScores(3, max_offset=max_offset, stateful=stateful, moved_tables=len(compensations))
    for entry in data.videos:
        VideoPass(
            RedTells(stateful=stateful),
            entry,
            entry.video.size_hw,
            compensations=compensations,
            target_offset=target_offset,
        ).score(offsets)
    return OffsetTables(offsets, CLASSES.movable_indices, tuple(compensations))


def looped_matrix(video, compensation, k, start, *, stateful, target_offset=0):
    """Counts of one pass by the loop's own calls, with a compensator of its own for every frame."""
    matrix, predictor = ConfusionMatrix(3), RedTells(stateful=stateful)
    for index in range(start, len(video) - k, max(1, k) if stateful else 1):
        labels = predictor(video.frame_rgb(index))
        if not video.has_labels(index + k):
            continue
        if k > 0:
            compensator = Compensator(compensation)
            for newest in range(index + k):
                compensator.add_frame(newest, video.frame_rgb(newest), newest / FPS)
            stands_for_s = (index + target_offset) / FPS if target_offset else None
            compensator.add_labels(labels, index, stands_for_s)
            labels = compensator.labels_at((index + k) / FPS).labels
        matrix.add(video.labels(index + k), fit_labels(labels, SIZE_HW))
    return matrix


@pytest.mark.parametrize("stateful", [False, True])
def test_tables_are_those_of_the_loops_own_way(stateful):
    video = Pan(frames=8, unlabelled=(3, 5))
    tables = tables_of(data_of(video), MODES, stateful=stateful)
    for entry in tables.compensated:
        for k in range(4):
            starts = start_phases(k, stateful=stateful)
            scores = [
                looped_matrix(video, entry.compensation, k, start, stateful=stateful).scores() for start in starts
            ]
            assert entry.miou[k] == pytest.approx(np.nanmean([each.miou for each in scores])), (entry.compensation, k)
            assert entry.movable_miou[k] == pytest.approx(np.nanmean([each.miou_of((1,)) for each in scores]))


def test_labels_that_stand_for_a_later_time_are_moved_from_there():
    video = Pan(frames=7)
    (entry,) = tables_of(data_of(video), [BOTH], max_offset=2, target_offset=1).compensated
    expected = [looped_matrix(video, BOTH, k, 0, stateful=False, target_offset=1).scores().miou for k in range(3)]
    assert entry.miou == pytest.approx(expected)
    # These labels show their own frame, so that moving them one frame period less is too little.
    assert entry.miou[2] < tables_of(data_of(video), [BOTH], max_offset=2).compensated[0].miou[2]


def test_moved_labels_are_right_in_the_interior_where_late_ones_are_not():
    # Labels of the first frame, which knows no motion, would meet those of frames 1 and 2.
    tables = tables_of(data_of(Pan(step=4, unlabelled=(1, 2), border=16)), [BOTH], max_offset=2)
    assert tables.miou[0] == 1
    assert tables.miou[2] < 0.6
    assert tables.compensated[0].miou == (1, 1, 1)


def test_tables_as_labels_come_do_not_depend_on_compensations():
    alone, beside = tables_of(data_of(Pan()), []), tables_of(data_of(Pan()), MODES)
    assert alone.miou == beside.miou
    assert alone.movable_miou == beside.movable_miou
    assert len({entry.miou for entry in beside.compensated}) == 3


@pytest.mark.parametrize(
    "video", [Cuts(), Pan(size_hw=(24, 30)), Pan(step=0, frames=4)], ids=["cuts", "small", "still"]
)
def test_labels_stay_as_they_are_where_no_motion_is_known(video):
    tables = tables_of(data_of(video), MODES)
    assert [entry.miou for entry in tables.compensated] == [tables.miou] * 3


def test_each_pair_of_frames_is_matched_once_for_all_networks_modes_and_delays(monkeypatch):
    matched = []

    class Watched(Compensator):
        def add_frame(self, index, frame_rgb, captured_at_s):
            matched.append(index)
            super().add_frame(index, frame_rgb, captured_at_s)

    monkeypatch.setattr(video_motion, "Compensator", Watched)
    data = data_of(Pan())
    for stateful in (False, True):
        tables_of(data, MODES, stateful=stateful)
    assert matched == list(range(FRAMES - 1))


def test_modes_in_turn_give_what_each_gives_alone():
    video = Pan()
    flow = Flow.of(BOTH)
    labels = video.labels(2)

    def motion():
        return VideoMotion(flow, video.frame_rgb, frame_count=FRAMES, fps=FPS, nbytes=0)

    shared = motion()
    for k in (3, 1, 2):
        for mode in MODES:
            np.testing.assert_array_equal(shared.moved(labels, 2, k, mode), motion().moved(labels, 2, k, mode))


def test_motion_counts_against_the_memory_of_the_frames():
    entry = CachedVideo(Pan(), FrameCache(1))
    flow = Flow.of(Compensation(divisor=1))
    assert entry.bytes_at([], [flow, flow]) - entry.bytes_at([]) == FRAMES * (64 // 4) * (96 // 4) * 8
    assert entry.motion(flow) is not entry.motion(flow)
    assert (kept := CachedVideo(Pan(), FrameCache(1 << 20))).motion(flow) is kept.motion(flow)


def test_compensation_that_leaves_pixels_without_a_label_is_not_scored():
    with pytest.raises(InputError, match="counts every pixel"):
        moving([Compensation(mark_invalid=True)])


def test_moving_leaves_out_what_does_not_move_and_what_comes_twice():
    assert moving([UNCOMPENSATED, BOTH, BOTH]) == (BOTH,)


def test_evaluation_scores_moved_labels_too():
    result = evaluate(
        "red", RedTells(), data_of(Pan()), size_hw=SIZE_HW, stateful=False, max_offset=2, compensations=[BOTH]
    )
    assert result.compensated == tables_of(data_of(Pan()), [BOTH], max_offset=2).compensated
    assert result.as_dict()["compensated"][0]["compensation"]["mode"] == "late-warp+extrapolate"


@pytest.fixture
def exported(make_source, tmp_path, video_data):
    """`exported(*compensations)`: a bundle of the tiny network, scored on the video of squares."""

    def export(*compensations, data=video_data, **facts):
        source = make_source(**facts)
        # As it is built it sees one class everywhere, and nothing would be seen to move.
        image = torch.from_numpy(video_data.videos[0].video.frame_rgb(0)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            logits = source._network(image.repeat(1, facts.get("input_frames", 1), 1, 1))
            source._network.head.bias -= logits.mean((0, 2, 3))
        requests = plan_grid([source], Grid(labels_strides=(1, 2)), sweep=True)
        options = ExportOptions(max_offset=3, threads=1, compensations=compensations)
        return export_bundle(requests, tmp_path / "a.edgeseg", data=data, options=options)

    return export


def test_export_scores_the_compensations_that_it_is_told(exported):
    bundle = exported(UNCOMPENSATED, BOTH)
    for entry in bundle.configurations:
        assert entry.accuracy.compensations == (UNCOMPENSATED, BOTH)
        (moved,) = entry.accuracy.compensated
        assert moved.miou[0] == entry.accuracy.miou[0]
        assert moved.miou != entry.accuracy.miou


@pytest.mark.parametrize("input_frames", [1, 2])
def test_added_tables_are_those_of_the_export(exported, video_data, input_frames):
    expected = exported(UNCOMPENSATED, BOTH, input_frames=input_frames)
    before = exported(UNCOMPENSATED, input_frames=input_frames)
    runs = []
    added = add_compensated_tables(before, video_data, [BOTH], threads=1, on_frame=lambda: runs.append(1))
    assert [entry.accuracy for entry in added.configurations] == [entry.accuracy for entry in expected.configurations]
    assert Bundle.open(before.root) == added
    assert added.digest == before.digest
    added.verify()
    assert 0 < len(runs) <= 1.3 * compensated_runs(before, video_data, [BOTH])


def test_only_what_is_missing_is_scored(exported, video_data, monkeypatch):
    before = exported(UNCOMPENSATED, BOTH)
    added = add_compensated_tables(before, video_data, [BOTH, Compensation("late-warp")], threads=1)
    assert added.configurations[0].accuracy.compensations == (UNCOMPENSATED, BOTH, Compensation("late-warp"))
    assert compensated_runs(added, video_data, [BOTH]) == 0
    monkeypatch.setattr(accuracy_module, "Session", None)
    assert add_compensated_tables(added, video_data, [BOTH]) is added


def with_accuracy(bundle, **changes):
    """The bundle as if its first configuration's table had been made otherwise."""
    first = bundle.configurations[0]
    changed = replace(first, accuracy=replace(first.accuracy, **changes))
    return replace(bundle, configurations=(changed, *bundle.configurations[1:]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_set": "camvid"}, "got squares val, 24 labelled frames of 48x64 at 10 frames/s, expected camvid val"),
        ({"split": "test"}, "expected squares test"),
        ({"fps": 15.0}, "at 15 frames/s"),
        ({"frames": 23}, "23 labelled frames"),
        ({"size_hw": (48, 66)}, "of 48x66"),
    ],
)
def test_other_data_are_refused(exported, video_data, changes, said):
    bundle = with_accuracy(exported(UNCOMPENSATED), **changes)
    with pytest.raises(InputError, match=said):
        add_compensated_tables(bundle, video_data, [BOTH])


def test_data_that_were_changed_are_refused(exported, video_data):
    bundle = exported(UNCOMPENSATED)
    miou = bundle.configurations[0].accuracy.miou
    with pytest.raises(InputError, match="was changed since"):
        add_compensated_tables(with_accuracy(bundle, miou=(miou[0] + 0.02, *miou[1:])), video_data, [BOTH], threads=1)


def test_bundle_without_accuracy_tables_is_refused(exported, video_data):
    with pytest.raises(InputError, match="has no accuracy tables to add to"):
        add_compensated_tables(exported(data=None), video_data, [BOTH])


def test_old_manifest_stays_when_adding_is_interrupted(exported, video_data, monkeypatch):
    bundle = exported(UNCOMPENSATED)
    manifest = (bundle.root / MANIFEST).read_bytes()
    files = sorted(path.name for path in bundle.root.iterdir())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add_compensated_tables(bundle, video_data, [BOTH], threads=1)
    assert (bundle.root / MANIFEST).read_bytes() == manifest
    assert sorted(path.name for path in bundle.root.iterdir()) == files
