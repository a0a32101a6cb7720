"""Samples: which frames and labels belong together, and the same batches whenever they are asked for."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.classes import ClassSet
from edgeseg.data.open import open_dataset
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import parse_recipe
from edgeseg.training.samples import SampleSource, class_weights, network_inputs, prefetched


class NumberedVideo(Video):
    """Frame i is all i, and so is its label map."""

    def __init__(self, frames: int) -> None:
        self.name, self.fps, self.size_hw, self._frames = "numbered", 15.0, (8, 8), frames

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((8, 8, 3), index, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return np.full((8, 8), index, np.uint8)


class NumberedDataset(Dataset):
    name = "numbered"
    classes = ClassSet(tuple(f"class {n}" for n in range(20)), tuple((n, n, n) for n in range(20)))

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def videos(self, split: str) -> list[Video]:
        return [NumberedVideo(20)]


def recipe(**tables: dict) -> Recipe:
    plain = {"data": {"size_hw": [8, 8]}, "augment": {"flip": 0.0}, "optimiser": {"batch": 2}}
    return parse_recipe(
        {"name": "test", **{key: {**plain.get(key, {}), **tables.get(key, {})} for key in plain | tables}}
    )


@pytest.mark.parametrize(
    ("length", "input_frames", "stride", "offset", "expected"),
    [
        (1, 1, 1, 0, [0]),
        (1, 2, 1, 0, [-1, 0]),
        (3, 1, 1, 0, [-2, -1, 0]),
        (3, 1, 2, 0, [-4, -2, 0]),
        (1, 1, 1, 2, [-2]),
        (2, 2, 2, 3, [-7, -5, -3]),
    ],
)
def test_frames_lie_as_the_recipe_says_before_the_labels(
    length: int, input_frames: int, stride: int, offset: int, expected: list[int]
) -> None:
    sequence = {"length": length, "frame_stride": stride, "target_offset": offset}
    tables = {"sequence": sequence, "cwm": {}} if length > 1 else {"sequence": sequence}
    source = SampleSource(NumberedDataset(), recipe(**tables), input_frames)
    batch = source.batch(0)
    for frames, labels in zip(batch.frames, batch.labels, strict=True):
        assert (frames[:, 0, 0, 0].int() - int(labels[0, 0])).tolist() == expected


def test_every_sample_comes_once_per_epoch() -> None:
    source = SampleSource(NumberedDataset(), recipe(), 1)
    epochs = [
        [int(label) for n in range(start, start + 10) for label in source.batch(n).labels[:, 0, 0]] for start in (0, 10)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]


def test_batch_is_the_same_whenever_it_is_asked_for(square_root: Path) -> None:
    made = recipe(
        data={"size_hw": [24, 32]}, augment={"scale": [0.5, 2.0], "flip": 0.5, "brightness": 0.3, "blur": 0.5}
    )
    first, second = (SampleSource(open_dataset(square_root), made, 1) for _ in range(2))
    first.batch(0)
    torch.testing.assert_close(first.batch(3).frames, second.batch(3).frames, rtol=0, atol=0)
    torch.testing.assert_close(first.batch(3).labels, second.batch(3).labels, rtol=0, atol=0)


def test_another_seed_gives_other_batches(square_root: Path) -> None:
    batches = [SampleSource(open_dataset(square_root), recipe(run={"seed": seed}), 1).batch(0) for seed in (0, 1)]
    assert not torch.equal(batches[0].frames, batches[1].frames)


def test_prefetched_batches_come_in_order() -> None:
    source = SampleSource(NumberedDataset(), recipe(), 1)
    with prefetched(source, range(2, 9), threads=3) as batches:
        got = [batch.labels for batch in batches]
    assert len(got) == 7
    for number, labels in enumerate(got, start=2):
        assert torch.equal(labels, source.batch(number).labels)


def test_failure_while_reading_reaches_the_consumer(square_root: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(square_root, tmp_path / "broken")
    for path in (broken / "frames" / "train").rglob("*.png"):
        path.write_bytes(b"")
    source = SampleSource(open_dataset(broken), recipe(), 1)
    with pytest.raises(InputError), prefetched(source, range(4), threads=2) as batches:
        next(batches)


def test_sequence_longer_than_every_video_is_refused() -> None:
    with pytest.raises(InputError, match=r"no video is long enough \| a sample spans 21 frames"):
        SampleSource(NumberedDataset(), recipe(sequence={"target_offset": 20}), 1)


def test_sequence_over_stills_is_refused_unless_the_recipe_says_stills(stills_root: Path) -> None:
    dataset = open_dataset(stills_root)
    with pytest.raises(InputError, match="they are stills, and a sample spans 2 frames"):
        SampleSource(dataset, recipe(sequence={"target_offset": 1}), 1)
    driven = recipe(sequence={"target_offset": 1}, data={"size_hw": [32, 48], "stills": True})
    assert SampleSource(dataset, driven, 1).batch(0).frames.shape == (2, 1, 3, 32, 48)


def test_drive_into_a_still_moves_from_frame_to_frame(stills_root: Path) -> None:
    driven = recipe(sequence={"length": 4}, cwm={}, data={"size_hw": [32, 48], "stills": True})
    frames = SampleSource(open_dataset(stills_root), driven, 1).batch(0).frames
    assert frames.shape == (2, 4, 3, 32, 48)
    assert not torch.equal(frames[:, 0], frames[:, 3])


def test_class_weights_are_the_formulas() -> None:
    shares = np.array([0.5, 0.25, 0.25, 0.0])
    assert class_weights("none", shares) is None
    np.testing.assert_allclose(class_weights("log", shares), 1 / np.log(1.02 + shares), rtol=1e-6)
    np.testing.assert_allclose(class_weights("median", shares), [0.5, 1, 1, 1])


def test_class_shares_are_counted_over_the_split() -> None:
    np.testing.assert_allclose(SampleSource(NumberedDataset(), recipe(), 1).class_shares(), np.full(20, 1 / 20))


def test_network_inputs_join_frames_older_first_and_normalise() -> None:
    frames = torch.zeros(1, 3, 3, 1, 1, dtype=torch.uint8)
    frames[0, :, :, 0, 0] = torch.tensor([[0, 0, 0], [51, 51, 51], [255, 255, 255]])
    inputs = network_inputs(frames, 2, mean=(0.0, 0.0, 0.5), std=(1.0, 1.0, 0.5), colour_order="RGB")
    assert [each[0, :, 0, 0].tolist() for each in inputs] == [
        pytest.approx([0, 0, -1, 0.2, 0.2, -0.6]),
        pytest.approx([0.2, 0.2, -0.6, 1, 1, 1]),
    ]


def test_network_inputs_are_normalised_in_the_order_that_the_network_takes() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 1, 3, 1, 1)
    (blue_first,) = network_inputs(red, 1, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 0.5), colour_order="BGR")
    assert blue_first[0, :, 0, 0].tolist() == pytest.approx([-0.1, -0.2, 1.4])
