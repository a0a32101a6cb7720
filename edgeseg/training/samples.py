"""Training samples: a short sequence of frames and the labels that the network has to give after the last of them.

Everything random about batch b comes from (seed, b) alone, so a training that resumes at batch b sees what it would
have seen.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgeseg.classes import ClassSet
from edgeseg.data.still_to_video import still_to_video
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError
from edgeseg.training.augment import draw_augmentation
from edgeseg.training.recipe import Recipe

_SLOWEST_VIDEO_FPS = 2.0
"""Videos at a lower rate are stills: nothing in one frame is where the next one shows it."""
_HISTOGRAM_FRAMES = 200


@dataclass(frozen=True)
class Batch:
    """Samples of equal size."""

    frames: Tensor
    """uint8 `(B, frames, 3, H, W)`, RGB, 0-255, oldest first."""
    labels: Tensor
    """uint8 `(B, H, W)`."""


class SampleSource:
    """The samples of a data set's training split, and batches of them in a seeded order."""

    def __init__(self, dataset: Dataset, recipe: Recipe, input_frames: int) -> None:
        """List the samples; no frame is read.

        Raises:
            InputError: the split is missing, or no video is long enough for the recipe's sequence.
        """
        self.classes: ClassSet = dataset.classes
        self.recipe = recipe
        sequence = recipe.sequence
        self.frame_count = sequence.length + input_frames - 1
        """Frames per sample."""
        self.span = (self.frame_count - 1) * sequence.frame_stride + sequence.target_offset
        """Frames from a sample's first one to its labels."""
        self._videos = list(dataset.videos(recipe.data.train_split))
        self._locks = [threading.Lock() for _ in self._videos]
        first_label = 0 if recipe.data.stills else self.span
        self.samples = [
            (number, index)
            for number, video in enumerate(self._videos)
            for index in video.labelled_indices()
            if index >= first_label
        ]
        self._check(dataset)

    def _check(self, dataset: Dataset) -> None:
        split = self.recipe.data.train_split
        if not self.samples:
            raise InputError(
                f"{dataset.name}, split {split}: no video is long enough | a sample spans {self.span + 1} frames "
                "(sequence.length, frame_stride, target_offset) | shorten it, or set data.stills = true"
            )
        slowest = min(video.fps for video in self._videos)
        if self.span > 0 and not self.recipe.data.stills and slowest < _SLOWEST_VIDEO_FPS:
            raise InputError(
                f"{dataset.name}, split {split}: frames come at {slowest:g} per second, they are stills, and a sample "
                f"spans {self.span + 1} frames | set data.stills = true to make videos of them"
            )

    def batch(self, number: int) -> Batch:
        """Batch `number` of the whole training, the same whenever it is asked for."""
        recipe = self.recipe
        frames, labels = [], []
        for position in range(number * recipe.optimiser.batch, (number + 1) * recipe.optimiser.batch):
            epoch, place = divmod(position, len(self.samples))
            order = np.random.default_rng((recipe.run.seed, 0, epoch)).permutation(len(self.samples))
            random = np.random.default_rng((recipe.run.seed, 1, position))
            video_number, label_index = self.samples[order[place]]
            sample_frames, sample_labels = self._sample(video_number, label_index, random)
            frames.append(sample_frames)
            labels.append(sample_labels)
        stacked = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3)
        return Batch(stacked, torch.from_numpy(np.stack(labels)))

    def _sample(self, number: int, index: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Frames uint8 `(n, H, W, 3)` and labels uint8 `(H, W)` of one sample, augmented."""
        drive_seed = int(random.integers(2**31))
        # Readers keep caches: one thread at a time in a video.
        with self._locks[number]:
            frames, labels = self._read(self._videos[number], index, drive_seed)
        augmentation = draw_augmentation(
            random, self.recipe.augment, labels.shape, self.recipe.data.size_hw, self.recipe.crop_hw
        )
        ignore_value = self.classes.ignore_value
        return np.stack([augmentation.frame(frame) for frame in frames]), augmentation.labels(labels, ignore_value)

    def _read(self, video: Video, index: int, drive_seed: int) -> tuple[list[np.ndarray], np.ndarray]:
        if self.recipe.data.stills and self.span > 0:
            video = still_to_video(
                video.frame_rgb(index),
                video.labels(index),
                frames=self.span + 1,
                fps=self.recipe.data.fps,
                seed=drive_seed,
                ignore_value=self.classes.ignore_value,
                # The last input is the still as it is: validation shows no enlarged frames either.
                still_index=self.span - self.recipe.sequence.target_offset,
            )
            index = self.span
        stride = self.recipe.sequence.frame_stride
        first = index - self.span
        return [video.frame_rgb(first + stride * n) for n in range(self.frame_count)], video.labels(index)

    def class_shares(self) -> np.ndarray:
        """float64 `(classes,)`: each class's share of the labelled pixels, from at most 200 frames spread evenly."""
        counts = np.zeros(256, np.int64)
        for place in np.linspace(0, len(self.samples) - 1, min(_HISTOGRAM_FRAMES, len(self.samples))).astype(int):
            number, index = self.samples[place]
            with self._locks[number]:
                labels = self._videos[number].labels(index)
            counts += np.bincount(labels.ravel(), minlength=256)
        counted = counts[: len(self.classes)].astype(np.float64)
        return counted / max(counted.sum(), 1)


def class_weights(kind: str, shares: np.ndarray) -> np.ndarray | None:
    """float32 `(classes,)` weights from the classes' shares of the pixels; None for `none`.

    `log`: 1 / ln(1.02 + share) (Paszke et al., 2016). `median`: median share / share (Eigen and Fergus, 2015), at
    most 50;
    an absent class weighs 1.
    """
    if kind == "none":
        return None
    if kind == "log":
        return (1 / np.log(1.02 + shares)).astype(np.float32)
    present = shares > 0
    weights = np.ones(len(shares))
    weights[present] = np.median(shares[present]) / shares[present]
    return np.minimum(weights, 50).astype(np.float32)


@contextmanager
def prefetched(source: SampleSource, numbers: range, threads: int) -> Iterator[Iterator[Batch]]:
    """Batches `numbers` of `source`, in that order, made ahead by `threads` threads; the threads end with the block."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="edgeseg-samples")

    def batches() -> Iterator[Batch]:
        waiting: list[Future[Batch]] = [pool.submit(source.batch, number) for number in numbers[: threads + 1]]
        for number in range(numbers.start + threads + 1, numbers.stop + threads + 1):
            if number < numbers.stop:
                waiting.append(pool.submit(source.batch, number))
            yield waiting.pop(0).result()
            if not waiting:
                return

    try:
        yield batches()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def network_inputs(
    frames: Tensor, input_frames: int, mean: tuple[float, ...], std: tuple[float, ...], colour_order: str
) -> list[Tensor]:
    """What the network sees one after the other: float32 `(B, 3 * input_frames, H, W)`, normalised, older frame first.

    Args:
        frames: uint8 `(B, frames, 3, H, W)`, RGB, 0-255.
        mean: of frames scaled to 0-1, per colour in `colour_order`, as `std`.
        colour_order: `RGB` or `BGR`, what the network takes.
    """
    shape = (1, 1, 3, 1, 1)
    if colour_order == "BGR":
        frames = frames.flip(2)
    scaled = (frames.float() / 255 - torch.tensor(mean, device=frames.device).view(shape)) / torch.tensor(
        std, device=frames.device
    ).view(shape)
    last = frames.shape[1] - input_frames + 1
    return [
        scaled[:, n : n + input_frames].flatten(1, 2).contiguous(memory_format=torch.channels_last) for n in range(last)
    ]
