"""The frames that a configuration is calibrated on: drawn evenly over the videos of a split, and hashed.

A stateless network takes single frames. One with states takes stretches of consecutive frames: some that its states
become steady on, then those that count, as many for each of its phases. Stills that are a second apart are no video:
there each is turned into a short one, as in training.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.data.frame_file import FrameFile
from edgeseg.data.open import open_dataset
from edgeseg.data.still_to_video import still_to_video
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.evaluation_data import EvaluationData

IMAGES = 64
"""Frames that each graph is calibrated on unless told otherwise."""
FEWEST_IMAGES = 8
"""Ranges of fewer frames say little about the next one."""
SPLIT = "train"
FILE_SPLIT = "frames"
"""What stands for the split of a .npy file."""
MASKED_WARM_UP = 8
"""Steps after which the states of a masked network are taken for steady: each layer's were renewed four times."""
SLOWEST_VIDEO_FPS = 2.0
"""Slower ones are stills, as in training."""
DEFAULT_FPS = 15.0
"""Frame rate of videos made of stills where no data to be scored tell one."""
_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames of one video, stepped through from a reset; the last `counted` of them count."""

    video: CachedVideo
    start: int
    warm_up: int
    counted: int

    @property
    def frames(self) -> range:
        """Indices of its frames."""
        return range(self.start, self.start + self.warm_up + self.counted)


@dataclass(frozen=True)
class CalibrationSource:
    """A split to calibrate on. It need not be labelled.

    Args:
        images: frames that each graph is to be calibrated on.
        fps: frame rate of videos that are made of stills.
        also_scored: whether the accuracy table is scored on the same split.
    """

    data_set: str
    split: str
    videos: tuple[CachedVideo, ...]
    images: int = IMAGES
    fps: float = DEFAULT_FPS
    also_scored: bool = False

    def __post_init__(self) -> None:
        if self.images < FEWEST_IMAGES:
            raise InputError(
                f"--calib-images is at least {FEWEST_IMAGES} | got {self.images}: ranges of fewer say little"
            )
        count = sum(len(entry.video) for entry in self.videos)
        if count < self.images:
            raise InputError(
                f"too few images to calibrate on | {self.data_set} {self.split} has {count}, --calib-images asks for "
                f"{self.images} | {self._longer(count)}"
            )

    def stretches(self, *, phases: int, warm_up: int) -> tuple[Stretch, ...]:
        """`images` counted frames for each of a network's `phases`, each frame counted once.

        Args:
            phases: steps in a period; 1 for all but masked networks.
            warm_up: steps before the first that counts; 0 for a stateless network.

        Raises:
            InputError: the videos are too few or too short.
        """
        if not warm_up:
            total = sum(len(entry.video) for entry in self.videos)
            return tuple(Stretch(*self._at(position), 0, 1) for position in _spread(total, self.images))
        if self.is_stills:
            return self._stills(phases, warm_up)
        for rounds in (2, 1):
            counted = rounds * phases
            blocks = [
                Stretch(entry, block * counted, warm_up, counted)
                for entry in self.videos
                for block in range(max(0, len(entry.video) - warm_up) // counted)
            ]
            if len(blocks) * rounds >= self.images:
                return tuple(blocks[index] for index in _spread(len(blocks), -(-self.images // rounds)))
        raise InputError(
            f"too little video to calibrate a network with states on | {self.data_set} {self.split} gives "
            f"{len(blocks)} images with {warm_up} frames before them, --calib-images asks for {self.images} | "
            f"{self._longer(len(blocks))}"
        )

    def _longer(self, there: int) -> str:
        """What helps where only `there` images are to be had."""
        ways = ["give longer video with --calib"]
        ways += ["another --calib-split"] if self.split != FILE_SPLIT else []
        ways += [f"--calib-images {there}"] if there >= FEWEST_IMAGES else []
        return " or ".join(filter(None, [", ".join(ways[:-1]), ways[-1]]))

    @property
    def is_stills(self) -> bool:
        """Whether the split has no video: frames too far apart for states to carry over."""
        return all(entry.video.fps < SLOWEST_VIDEO_FPS for entry in self.videos)

    def _stills(self, phases: int, warm_up: int) -> tuple[Stretch, ...]:
        """A stretch per still, each a drive of its own."""
        cache, length = self.videos[0].cache, warm_up + phases
        stretches = []
        for position in _spread(sum(len(entry.video) for entry in self.videos), self.images):
            entry, index = self._at(position)
            still = entry.video.frame_rgb(index)
            video = still_to_video(
                still,
                np.zeros(still.shape[:2], np.uint8),
                frames=length,
                fps=self.fps,
                seed=position,
                ignore_value=0,
                name=f"{entry.video.name}_{index}",
            )
            stretches.append(Stretch(CachedVideo(video, cache), 0, warm_up, phases))
        return tuple(stretches)

    def _at(self, position: int) -> tuple[CachedVideo, int]:
        """Video and frame at `position`, counted through all videos."""
        for entry in self.videos:
            if position < len(entry.video):
                return entry, position
            position -= len(entry.video)
        raise IndexError(position)


@dataclass(frozen=True)
class CalibrationFrames:
    """Stretches at the input size of a graph."""

    stretches: tuple[Stretch, ...]
    size_hw: tuple[int, int]

    def of(self, stretch: Stretch) -> Iterator[np.ndarray]:
        """The frames of a stretch, warm-up included, uint8 `(*size_hw, 3)` RGB.

        Raises:
            InputError: a frame is unreadable or of another kind than its video says.
        """
        for index in stretch.frames:
            frame = stretch.video.frame_rgb(index, self.size_hw)
            if frame.dtype != np.uint8 or frame.shape != (*self.size_hw, 3):
                raise InputError(
                    f"frame {index} of {stretch.video.video.name} cannot be calibrated on | got {frame.dtype} "
                    f"{frame.shape}, expected uint8 {(*self.size_hw, 3)}"
                )
            yield frame

    @property
    def count(self) -> int:
        return sum(len(stretch.frames) for stretch in self.stretches)

    def sha256(self) -> str:
        """Over all frames in their order, and where each stretch begins and counts."""
        digest = hashlib.sha256(f"{self.size_hw}".encode())
        for stretch in self.stretches:
            digest.update(f"{stretch.warm_up}+{stretch.counted}".encode())
            for frame in self.of(stretch):
                digest.update(frame.tobytes())
        return digest.hexdigest()


def open_calibration(
    spec: str | None,
    split: str | None,
    *,
    images: int = IMAGES,
    data: EvaluationData | None,
) -> CalibrationSource:
    """The split to calibrate on: of the data set `spec` (or frames in a .npy file), else of the one that is scored.

    Args:
        spec: data set as `open_dataset` takes it, or a .npy file of frames, uint8 `(N, H, W, 3)` RGB; None for that of
            `data`.
        split: None for `train`.
        data: what accuracy tables are made on.

    Raises:
        InputError: there is nothing to calibrate on, no such split, too few frames, or frames of another shape than
            those that are scored.
    """
    name, videos = _videos(spec, split, data)
    chosen = split or (FILE_SPLIT if _is_array(spec) else SPLIT)
    if data is not None:
        _check_shape(name, {video.size_hw for video in videos}, data)
    also_scored = data is not None and (name, chosen) == (data.dataset.name, data.split)
    if also_scored and split is None:
        raise InputError(
            f"{name} {chosen} is scored, so it is not calibrated on by default | choose another --calib-split, or name "
            "this one if it is meant"
        )
    cache = FrameCache(_CACHE_BYTES)
    return CalibrationSource(
        name,
        chosen,
        tuple(CachedVideo(video, cache) for video in videos),
        images,
        data.fps if data is not None else DEFAULT_FPS,
        also_scored,
    )


def _videos(spec: str | None, split: str | None, data: EvaluationData | None) -> tuple[str, Sequence[Video]]:
    if spec is not None and _is_array(spec):
        if split is not None:
            raise InputError(f"--calib {spec} is one file of frames, without splits | leave --calib-split {split} out")
        frames = FrameFile(Path(spec).expanduser(), DEFAULT_FPS)
        return frames.name, [frames]
    if spec is None and data is None:
        raise InputError("there is nothing to calibrate on | give video with --calib, such as --calib camvid")
    dataset = open_dataset(spec) if spec is not None else data.dataset if data else None
    assert dataset is not None
    if split is None and SPLIT not in dataset.splits:
        raise InputError(
            f"{dataset.name} has no split {SPLIT!r} to calibrate on | it has: {', '.join(dataset.splits)}: choose "
            "with --calib-split, or give other video with --calib"
        )
    return dataset.name, dataset.videos(split or SPLIT)


def _is_array(spec: str | None) -> bool:
    return spec is not None and spec.endswith(".npy")


def _check_shape(name: str, sizes_hw: set[tuple[int, int]], data: EvaluationData) -> None:
    """Raises:
    InputError: the network would see these frames squashed otherwise than those that it is scored on.
    """
    own = data.size_hw[1] / data.size_hw[0]
    for height, width in sorted(sizes_hw):
        if abs(width / height - own) > 0.1 * own:
            raise InputError(
                f"the frames of {name} have another shape than those of {data.dataset.name} | got {height}x{width}, "
                f"expected the proportions of {data.size_hw[0]}x{data.size_hw[1]}: at the network's input size they "
                "would be distorted otherwise | give video of the same camera with --calib"
            )


def _spread(total: int, count: int) -> list[int]:
    """`count` of `total` places, evenly, each at the middle of its part; all of them when there are no more."""
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]
