"""Procedural dash-cam video: any frame rate, any size, exact labels for every frame, reproducible to the bit."""

import threading
from collections.abc import Sequence

import numpy as np

from edgeseg.classes import CAMVID
from edgeseg.data.street.camera import Camera
from edgeseg.data.street.plots import Plots, Scene
from edgeseg.data.street.raster import VIEW_M, Painter
from edgeseg.data.street.style import Style
from edgeseg.data.street.traffic import Traffic
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError

MIN_SIDE_PX, MAX_SIDE_PX = 32, 4096
MAX_DRIVE_S = 24 * 3600.0
SPLIT_SEEDS = {"train": 1_000_000, "val": 2_000_000, "test": 3_000_000}
"""First seed of each split; a split may hold a million videos, so that splits never share one."""
_CACHE_FRAMES = 2


class _World:
    """One street at one size: everything that frames share. Built when the first frame is asked for."""

    def __init__(self, seed: int, size_hw: tuple[int, int]) -> None:
        style = Style.from_seed(seed)
        haze = np.array(style.sky_horizon) * np.array(style.light)
        self._camera = Camera(seed, style, size_hw)
        self._plots = Plots(seed, style, haze)
        self._traffic = Traffic(seed, style, self._camera.ego, haze)
        self._painter = Painter(seed, style, size_hw, haze)

    def render(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Frame and label map at `time_s`."""
        pose = self._camera.pose(time_s)
        plots = self._plots.between(pose.along_m, pose.along_m + VIEW_M)
        people = self._traffic.people(time_s, pose.along_m).scene()
        cars = self._traffic.cars(time_s, pose.along_m) + [car for plot in plots for car in plot.cars]
        canvas = self._painter.paint(pose, Scene.joined([*(plot.scene for plot in plots), people]), cars)
        return self._painter.develop(canvas, time_s), np.ascontiguousarray(canvas[..., 3])


class StreetVideo(Video):
    """A drive along a generated street: frame i shows it at i / fps seconds.

    The scene is a pure function of seed and time: the same seed at 15 and 30 fps agrees at common times, and every
    frame can be asked for on its own. Classes are `edgeseg.classes.CAMVID`; every pixel of every frame is labelled.
    """

    def __init__(self, seed: int, frames: int, fps: float = 15.0, size_hw: tuple[int, int] = (360, 480)) -> None:
        """Prepare the street of `seed` (0 to 2^63 - 1): `frames` frames at `fps`, `size_hw` pixels (32 to 4096 a side).

        Raises:
            InputError: an argument is of another type or out of its range.
        """
        if not _is_whole(seed) or not 0 <= seed < 2**63:
            raise InputError(
                f"street: the seed is not usable | got {seed!r}, expected a whole number from 0 to 2^63 - 1"
            )
        if not _is_whole(frames) or frames < 1:
            raise InputError(f"street: too few frames | got {frames!r}, expected a whole number of at least 1")
        self.fps = _check_fps(fps)
        if frames / self.fps > MAX_DRIVE_S:
            raise InputError(
                f"street: the drive is too long | got {frames} frames at {self.fps:g} fps, expected at most 24 hours"
            )
        self.size_hw = _check_size(size_hw)
        self.name = f"street-{seed}"
        self._frames = int(frames)
        self._seed = int(seed)
        self._world: _World | None = None
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["StreetVideo"], tuple[int, int, float, tuple[int, int]]]:
        """Copies and other processes build the street anew: what it is follows from its arguments."""
        return StreetVideo, (self._seed, self._frames, self.fps, self.size_hw)

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 `(H, W, 3)` RGB; the caller may change it.

        Raises:
            InputError: there is no such frame.
        """
        return self._rendered(index)[0].copy()

    def labels(self, index: int) -> np.ndarray:
        """Label map of frame `index` as uint8 `(H, W)`, values 0 to 10; the caller may change it.

        Raises:
            InputError: there is no such frame.
        """
        return self._rendered(index)[1].copy()

    def _rendered(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rendered = self._cache.get(index)
        if rendered is None:
            rendered = self.render(index)
            with self._lock:
                while len(self._cache) >= _CACHE_FRAMES:
                    del self._cache[next(iter(self._cache))]
                self._cache[index] = rendered
        return rendered

    def render(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame and label map of `index` in one pass, uint8 `(H, W, 3)` RGB and uint8 `(H, W)`, not kept.

        Raises:
            InputError: there is no such frame.
        """
        if not _is_whole(index) or not 0 <= index < self._frames:
            raise InputError(f"{self.name} has no frame {index!r} | expected 0 to {self._frames - 1}")
        with self._lock:
            if self._world is None:
                self._world = _World(self._seed, self.size_hw)
            return self._world.render(int(index) / self.fps)


class StreetDataset(Dataset):
    """Streets in three splits, made from seed ranges that never meet."""

    name = "street"
    classes = CAMVID

    def __init__(
        self,
        size_hw: tuple[int, int] = (360, 480),
        fps: float = 15.0,
        videos: tuple[int, int, int] = (48, 6, 6),
        frames: tuple[int, int, int] = (45, 60, 60),
    ) -> None:
        """`videos` and `frames`: number of videos, and frames of each, in train, val and test.

        Raises:
            InputError: an argument is out of its range.
        """
        self.size_hw, self.fps = _check_size(size_hw), _check_fps(fps)
        for name, counts, limit in (("videos", videos, 1_000_000), ("frames", frames, 2**31)):
            if len(counts) != len(SPLIT_SEEDS) or not all(_is_whole(count) and 1 <= count <= limit for count in counts):
                raise InputError(
                    f"street: {name} is not usable | got {counts!r}, "
                    f"expected whole numbers of at least 1 for {', '.join(SPLIT_SEEDS)}"
                )
        self._videos = dict(zip(SPLIT_SEEDS, videos, strict=True))
        self._frames = dict(zip(SPLIT_SEEDS, frames, strict=True))
        self._made: dict[str, Sequence[Video]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """train, val and test."""
        return tuple(SPLIT_SEEDS)

    def videos(self, split: str) -> Sequence[Video]:
        """The streets of `split`, always the same objects.

        Raises:
            InputError: the split does not exist.
        """
        self._check_split(split)
        if split not in self._made:
            first = SPLIT_SEEDS[split]
            self._made[split] = [
                StreetVideo(first + number, self._frames[split], self.fps, self.size_hw)
                for number in range(self._videos[split])
            ]
        return self._made[split]


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_fps(fps: float) -> float:
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0.1 <= fps <= 1000:
        raise InputError(f"street: the frame rate is not usable | got {fps!r}, expected 0.1 to 1000 frames per second")
    return float(fps)


def _check_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    sides = tuple(size_hw) if isinstance(size_hw, (tuple, list)) else ()
    if len(sides) != 2 or not all(_is_whole(side) and MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in sides):
        raise InputError(
            f"street: size_hw is not usable | got {size_hw!r}, "
            f"expected (height, width) in whole pixels from {MIN_SIDE_PX} to {MAX_SIDE_PX}"
        )
    return int(sides[0]), int(sides[1])
