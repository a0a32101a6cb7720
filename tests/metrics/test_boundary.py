import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.metrics.boundary import boundary_band, trimap_labels

HALVES = np.repeat([[0, 0, 0, 1, 1, 1]], 6, axis=0).astype(np.uint8)


@pytest.mark.parametrize(("radius", "columns"), [(0, [2, 3]), (1, [1, 2, 3, 4]), (1.5, [1, 2, 3, 4]), (2, range(6))])
def test_band_holds_the_columns_within_the_radius_of_a_straight_boundary(radius, columns):
    assert np.flatnonzero(boundary_band(HALVES, radius)[3]).tolist() == list(columns)


def test_band_is_euclidean_around_a_corner():
    labels = np.zeros((9, 9), np.uint8)
    labels[4, 4] = 1
    band = boundary_band(labels, 1)
    assert band[4, 6]
    assert band[3, 5]
    assert not band[2, 6]


def test_band_is_empty_when_there_is_one_class():
    assert not boundary_band(np.zeros((4, 4), np.uint8), 3).any()


def test_trimap_keeps_labels_in_the_band_and_ignores_the_rest():
    assert trimap_labels(HALVES, 0, 255)[0].tolist() == [255, 255, 0, 1, 255, 255]


def test_negative_radius_is_refused():
    with pytest.raises(InputError, match="must not be negative"):
        boundary_band(HALVES, -1)
