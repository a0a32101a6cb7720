"""Random scale, crop, flip, colour and blur: drawn once per sample, applied alike to its frames and its labels."""

from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.training.recipe import AugmentRecipe

_PAD_RGB = (124, 116, 104)
"""Colour of what a crop shows outside the frame: the mean that normalisation subtracts."""


@dataclass(frozen=True)
class Augmentation:
    """One draw: which part of the frame is seen, where it lies in the output, and how its colours change."""

    output_hw: tuple[int, int]
    window: tuple[int, int, int, int]
    """Top, bottom, left, right of the part of the source frame that is seen, in its pixels."""
    place: tuple[int, int, int, int]
    """Top, bottom, left, right of where it lies in the output, in pixels; the rest is padding."""
    flip: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    blur_sigma: float = 0.0
    """Standard deviation in pixels; 0 for no blur."""

    def frame(self, frame_rgb: np.ndarray) -> np.ndarray:
        """uint8 `(H, W, 3)` RGB -> uint8 `(*output_hw, 3)` RGB."""
        seen = self._resized(frame_rgb, cv2.INTER_AREA, cv2.INTER_LINEAR)
        if self.blur_sigma > 0:
            seen = cv2.GaussianBlur(seen, (0, 0), self.blur_sigma)
        if self.saturation != 1:
            grey = cv2.cvtColor(cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            seen = cv2.addWeighted(seen, self.saturation, grey, 1 - self.saturation, 0)
        if self.brightness != 1 or self.contrast != 1:
            levels = ((np.arange(256) - 128) * self.contrast + 128) * self.brightness
            seen = cv2.LUT(seen, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
        output = np.empty((*self.output_hw, 3), np.uint8)
        output[:] = _PAD_RGB
        return self._placed(seen, output)

    def labels(self, labels: np.ndarray, ignore_value: int) -> np.ndarray:
        """uint8 `(H, W)` -> uint8 `output_hw`: the nearest label; `ignore_value` outside the frame."""
        seen = self._resized(labels, cv2.INTER_NEAREST_EXACT, cv2.INTER_NEAREST_EXACT)
        return self._placed(seen, np.full(self.output_hw, ignore_value, np.uint8))

    def _resized(self, image: np.ndarray, shrink: int, enlarge: int) -> np.ndarray:
        top, bottom, left, right = self.window
        place_top, place_bottom, place_left, place_right = self.place
        seen = image[top:bottom, left:right]
        size_wh = (place_right - place_left, place_bottom - place_top)
        smaller = size_wh[0] * size_wh[1] < seen.shape[0] * seen.shape[1]
        return cv2.resize(seen, size_wh, interpolation=shrink if smaller else enlarge)

    def _placed(self, seen: np.ndarray, output: np.ndarray) -> np.ndarray:
        top, bottom, left, right = self.place
        output[top:bottom, left:right] = seen
        return np.ascontiguousarray(output[:, ::-1]) if self.flip else output


def draw_augmentation(
    random: np.random.Generator,
    recipe: AugmentRecipe,
    frame_hw: tuple[int, int],
    size_hw: tuple[int, int],
    crop_hw: tuple[int, int],
) -> Augmentation:
    """Draw an augmentation for frames of `frame_hw` pixels.

    Args:
        size_hw: whole frames are brought to this size, times the drawn scale,
        crop_hw: then cut (or padded) to this one, at a random place.
    """
    scale = random.uniform(*recipe.scale)
    rows, top, bottom = _cut(random, frame_hw[0], round(size_hw[0] * scale), crop_hw[0])
    columns, left, right = _cut(random, frame_hw[1], round(size_hw[1] * scale), crop_hw[1])
    return Augmentation(
        output_hw=crop_hw,
        window=(*rows, *columns),
        place=(top, bottom, left, right),
        flip=random.random() < recipe.flip,
        brightness=random.uniform(1 - recipe.brightness, 1 + recipe.brightness),
        contrast=random.uniform(1 - recipe.contrast, 1 + recipe.contrast),
        saturation=random.uniform(1 - recipe.saturation, 1 + recipe.saturation),
        blur_sigma=random.uniform(0.3, 1.2) if random.random() < recipe.blur else 0.0,
    )


def fit(frame_hw: tuple[int, int], size_hw: tuple[int, int]) -> Augmentation:
    """No change but the size: what validation sees."""
    height, width = size_hw
    return Augmentation(size_hw, (0, frame_hw[0], 0, frame_hw[1]), (0, height, 0, width))


def _cut(random: np.random.Generator, length: int, scaled: int, crop: int) -> tuple[tuple[int, int], int, int]:
    """Along one axis: source range seen, and start and stop of its place in the crop."""
    seen = min(crop, scaled)
    offset = int(random.integers(0, scaled - seen + 1))
    start = min(round(offset / scaled * length), length - 1)
    stop = max(round((offset + seen) / scaled * length), start + 1)
    place = int(random.integers(0, crop - seen + 1))
    return (start, stop), place, place + seen
