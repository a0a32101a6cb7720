import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.data.folder import FolderDataset
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.export.accuracy import EvaluationData, score_offsets
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.evaluation import evaluate
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.export.video_pass import fit_labels
from edgeseg.metrics.confusion import ConfusionMatrix
from edgeseg.metrics.latency_aware import AsymptoticScores


def mean_iou(pairs):
    matrix = ConfusionMatrix(3)
    for target, prediction in pairs:
        matrix.add(target, prediction)
    return matrix.scores().miou


def exported_accuracy(source, tmp_path, data, **grid):
    requests = plan_grid([source], Grid(sizes_hw=((48, 64),), **grid), sweep=False)
    bundle = export_bundle(requests, tmp_path / "a.edgeseg", data=data, options=ExportOptions(max_offset=3, threads=1))
    return requests[0].knobs, bundle.configurations[0].accuracy


def frames_and_labels(data):
    video = data.videos[0].video
    return [video.frame_rgb(index) for index in range(len(video))], [video.labels(index) for index in range(len(video))]


def test_table_is_that_of_a_direct_computation(make_source, tmp_path, video_data):
    source = make_source()
    knobs, accuracy = exported_accuracy(source, tmp_path, video_data, labels_strides=(2,))
    frames, labels = frames_and_labels(video_data)
    reference = source.reference(knobs)
    predictions = [reference.step(frame)[0].repeat(2, 0).repeat(2, 1) for frame in frames]
    expected = [mean_iou((labels[t + k], predictions[t]) for t in range(24 - k)) for k in range(4)]
    assert accuracy.miou == pytest.approx(expected, abs=1e-3)
    assert accuracy.miou[1] != accuracy.miou[0]
    assert (accuracy.data_set, accuracy.split, accuracy.fps, accuracy.frames, accuracy.size_hw) == (
        "squares", "val", 10.0, 24, (48, 64),
    )  # fmt: skip


def test_stateful_table_is_made_at_the_stride_of_the_delay_from_every_start(make_source, tmp_path, video_data):
    source = make_source(input_frames=2)
    knobs, accuracy = exported_accuracy(source, tmp_path, video_data)
    frames, labels = frames_and_labels(video_data)
    reference = source.reference(knobs)
    expected = []
    for k, starts in ((0, 2), (1, 2), (2, 2), (3, 3)):
        values = []
        for start in range(starts):
            reference.reset()
            indices = range(start, 24 - k, max(1, k))
            values.append(mean_iou([(labels[t + k], reference.step(frames[t])[0]) for t in indices]))
        expected.append(np.mean(values))
    assert accuracy.miou == pytest.approx(expected, abs=1e-3)


def test_classes_and_movable_classes_are_scored(make_source, tmp_path, video_data):
    _, accuracy = exported_accuracy(make_source(), tmp_path, video_data)
    assert len(accuracy.iou) == 3
    assert accuracy.movable_miou[0] == pytest.approx(accuracy.iou[1])


def test_passes_at_stride_one_are_run_once(video_data):
    runs = []

    class Predictor:
        def reset(self):
            self.fed = 0

        def __call__(self, frame_rgb):
            runs.append(self.fed)
            self.fed += 1
            return np.full((48, 64), self.fed % 3, np.uint8)

    score_offsets(Predictor(), video_data, size_hw=(48, 64), stateful=True, max_offset=1)
    assert len(runs) == 24 + 23


class CountedVideo(Video):
    """Four frames 8 x 8, each labelled; counts what is read."""

    name, fps, size_hw = "counted", 10.0, (8, 8)

    def __init__(self):
        self.frame_reads, self.label_reads = [], []

    def __len__(self):
        return 4

    def frame_rgb(self, index):
        self.frame_reads.append(index)
        return np.zeros((8, 8, 3), np.uint8)

    def labels(self, index):
        self.label_reads.append(index)
        return np.zeros((8, 8), np.uint8)


def test_each_frame_is_read_once_when_there_are_several_sizes():
    video = CountedVideo()
    entry = CachedVideo(video, FrameCache(10_000))
    for size_hw in ((8, 8), (4, 4), (6, 6)):
        for index in (1, 0, 3, 2):
            assert entry.labels(index).shape == (8, 8)
            assert entry.frame_rgb(index, size_hw).shape == (*size_hw, 3)
    assert sorted(video.frame_reads) == sorted(video.label_reads) == [0, 1, 2, 3]


def test_frames_beyond_the_cache_are_read_again():
    video = CountedVideo()
    entry = CachedVideo(video, FrameCache(8 * 8 * 3))
    for index in (0, 1, 0, 1):
        entry.frame_rgb(index, (8, 8))
    assert video.frame_reads == [0, 1, 1]


@pytest.mark.parametrize(("limit", "expected"), [(10_000, [3]), (2 * 4 * 8 * 8 * 4, [2, 1]), (1, [1, 1, 1])])
def test_videos_are_batched_so_that_their_frames_stay_in_memory(limit, expected):
    cache = FrameCache(limit)
    data = EvaluationData(None, "val", tuple(CachedVideo(CountedVideo(), cache) for _ in range(3)))
    assert [len(batch) for batch in data.batches([(8, 8)])] == expected


def test_weights_that_were_trained_on_the_split_before_are_refused(video_data):
    trained_on = {"dataset": "other", "splits": ["val"], "before": [{"dataset": "squares", "splits": ["val"]}]}
    with pytest.raises(InputError, match="net was trained on squares val"):
        video_data.check_network(video_data.dataset.classes, trained_on, "net")


def test_trained_split_is_refused(make_source, tmp_path, video_data):
    source = make_source(trained_on={"dataset": "squares", "splits": ["val"]})
    with pytest.raises(
        InputError, match=r"tiny\.py was trained on squares val, so it is not scored there .*--split train"
    ):
        exported_accuracy(source, tmp_path, video_data)
    assert not (tmp_path / "a.edgeseg").exists()


def test_other_classes_are_refused(make_source, video_data):
    other = ClassSet(("road", "boat"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(InputError, match=r"other classes than squares .*got 2 .*expected 3 .*lacks car, sky"):
        video_data.check_network(other, {}, "boats")


def test_split_without_labels_is_refused(video_root):
    for path in (video_root / "labels" / "train" / "b").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="squares train has no labelled frames"):
        EvaluationData.open(FolderDataset(video_root), "train")


def test_table_longer_than_the_video_is_refused(make_source, video_root):
    data = EvaluationData.open(FolderDataset(video_root), "train")

    class Sky:
        def reset(self):
            pass

        def __call__(self, frame_rgb):
            return np.full((48, 64), 2, np.uint8)

    with pytest.raises(InputError, match="no frame has labels 2 frames later"):
        score_offsets(Sky(), data, size_hw=(48, 64), stateful=False, max_offset=2).miou  # noqa: B018


def test_small_labels_are_enlarged_to_the_nearest():
    np.testing.assert_array_equal(fit_labels(np.array([[1, 2]], np.uint8), (2, 4)), [[1, 1, 2, 2], [1, 1, 2, 2]])


def test_evaluation_adds_trimap_and_asymptotic_scores(make_source, video_data):
    source = make_source(input_frames=2)
    (request,) = plan_grid([source], Grid(sizes_hw=((48, 64),)), sweep=False)
    reference = source.reference(request.knobs)

    class Predictor:
        reset = staticmethod(reference.reset)

        def __call__(self, frame_rgb):
            return reference.step(frame_rgb)[0]

    result = evaluate(
        "tiny", Predictor(), video_data, size_hw=(48, 64), stateful=True, max_offset=1, radii_px=(0.0, 100.0)
    )
    frames, labels = frames_and_labels(video_data)
    expected = AsymptoticScores(3)
    expected.add_video(lambda index: reference.step(frames[index])[0], reference.reset, labels.__getitem__, 24)
    assert result.asymptotic_miou == pytest.approx(expected.miou)
    reference.reset()
    assert result.trimap_miou[100.0] == pytest.approx(
        mean_iou((label, reference.step(frame)[0]) for frame, label in zip(frames, labels, strict=True))
    )
    assert result.trimap_miou[0.0] != result.trimap_miou[100.0]
