"""Augmentation: exact on readable arrays, and the same for frames and labels."""

import numpy as np
import pytest

from edgeseg.training.augment import Augmentation, draw_augmentation, fit
from edgeseg.training.recipe import AugmentRecipe

IGNORE = 255


def test_flip_mirrors_frame_and_labels() -> None:
    labels = np.array([[0, 1, 2]], np.uint8)
    frame = np.repeat(labels[..., None], 3, 2)
    mirrored = Augmentation((1, 3), (0, 1, 0, 3), (0, 1, 0, 3), flip=True)
    assert mirrored.labels(labels, IGNORE).tolist() == [[2, 1, 0]]
    assert mirrored.frame(frame)[..., 0].tolist() == [[2, 1, 0]]


def test_window_is_cut_from_the_frame() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert Augmentation((2, 2), (1, 3, 2, 4), (0, 2, 0, 2)).labels(labels, IGNORE).tolist() == [[6, 7], [10, 11]]


def test_labels_outside_the_frame_are_ignored_and_the_frame_is_padded_with_the_mean() -> None:
    padded = Augmentation((1, 3), (0, 1, 0, 1), (0, 1, 1, 2))
    assert padded.labels(np.zeros((1, 1), np.uint8), IGNORE).tolist() == [[IGNORE, 0, IGNORE]]
    assert padded.frame(np.zeros((1, 1, 3), np.uint8))[0, :, 0].tolist() == [124, 0, 124]


def test_labels_are_never_blended_when_resized() -> None:
    labels = np.array([[0, 10], [10, 0]], np.uint8)
    assert set(fit((2, 2), (7, 5)).labels(labels, IGNORE).ravel()) == {0, 10}


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"brightness": 0.5}, 50), ({"brightness": 4.0}, 255), ({"contrast": 2.0}, 72), ({"saturation": 0.0}, 100)],
)
def test_grey_pixel_of_100_changes_as_stated(change: dict[str, float], expected: int) -> None:
    frame = np.full((2, 2, 3), 100, np.uint8)
    changed = Augmentation((2, 2), (0, 2, 0, 2), (0, 2, 0, 2), **change).frame(frame)
    assert np.unique(changed).tolist() == [expected]


def test_saturation_zero_makes_colours_grey() -> None:
    frame = np.full((2, 2, 3), (200, 10, 60), np.uint8)
    grey = Augmentation((2, 2), (0, 2, 0, 2), (0, 2, 0, 2), saturation=0.0).frame(frame)
    assert len(np.unique(grey)) == 1


def test_blur_smooths_an_edge() -> None:
    frame = np.zeros((5, 8, 3), np.uint8)
    frame[:, 4:] = 200
    blurred = Augmentation((5, 8), (0, 5, 0, 8), (0, 5, 0, 8), blur_sigma=1.0).frame(frame)
    assert 0 < blurred[2, 3, 0] < blurred[2, 4, 0] < 200


RECIPE = AugmentRecipe(scale=(0.5, 2.0), flip=0.5, brightness=0.3, contrast=0.2, saturation=0.3, blur=0.5)


@pytest.mark.parametrize("seed", range(30))
def test_every_draw_fits_its_frame_and_crop(seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn = draw_augmentation(random, RECIPE, (37, 53), (32, 48), (24, 64))
    assert drawn.frame(np.zeros((37, 53, 3), np.uint8)).shape == (24, 64, 3)
    labels = drawn.labels(np.zeros((37, 53), np.uint8), IGNORE)
    assert labels.shape == (24, 64)
    assert (labels == 0).any()


@pytest.mark.parametrize("seed", range(10))
def test_frame_and_labels_show_the_same_part(seed: int) -> None:
    labels = np.zeros((64, 96), np.uint8)
    labels[20:50, 30:70] = 1
    frame = np.repeat(labels[..., None] * np.uint8(200), 3, 2)
    recipe = AugmentRecipe(scale=(0.5, 2.0), flip=0.5)
    drawn = draw_augmentation(np.random.default_rng(seed), recipe, (64, 96), (64, 96), (48, 64))
    seen = drawn.labels(labels, IGNORE)
    counted = seen != IGNORE
    wrong = (drawn.frame(frame)[..., 0] > 100) != (seen == 1)
    assert wrong[counted].mean() < 0.06


def test_same_seed_draws_the_same() -> None:
    first, second = (
        draw_augmentation(np.random.default_rng(5), RECIPE, (64, 96), (64, 96), (48, 64)) for _ in range(2)
    )
    assert first == second
