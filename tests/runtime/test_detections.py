import sys

import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError, MissingPackageError
from edgeseg.runtime.detections import detections

CLASSES = ClassSet(("road", "car", "person"), ((9, 9, 9), (255, 0, 0), (0, 255, 0)), movable=("car", "person"))
LABELS = np.array(
    [
        [0, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0, 2],
        [0, 0, 0, 1, 0, 2],
        [2, 0, 0, 0, 0, 2],
        [0, 0, 0, 0, 0, 0],
    ],
    np.uint8,
)


def test_connected_regions_have_boxes_masks_and_classes_largest_first():
    found = detections(LABELS, CLASSES, min_area_px=1)
    # The car's pixel at the corner belongs to it.
    assert found.xyxy.tolist() == [[1, 0, 4, 3], [5, 1, 6, 4], [0, 3, 1, 4]]
    assert found.class_id.tolist() == [1, 2, 2]
    assert found.data["class_name"].tolist() == ["car", "person", "person"]
    assert [int(mask.sum()) for mask in found.mask] == [5, 3, 1]
    assert (found.mask[0] == (LABELS == 1)).all()


def test_a_mask_leaves_out_other_regions_within_its_box():
    ring = np.ones((5, 5), np.uint8)
    ring[1:4, 1:4] = 0
    ring[2, 2] = 1
    around, within = detections(ring, CLASSES, min_area_px=1).mask
    assert (around.sum(), within.sum()) == (16, 1)
    assert not around[2, 2]


def test_the_arrays_are_what_supervision_checks():
    found = detections(LABELS, CLASSES, min_area_px=1)
    assert (found.xyxy.shape, found.xyxy.dtype) == ((3, 4), np.float32)
    assert (found.mask.shape, found.mask.dtype) == ((3, 5, 6), bool)
    assert (found.class_id.shape, found.class_id.dtype) == ((3,), np.int64)


def test_the_arrays_have_their_shapes_when_nothing_is_found():
    found = detections(np.zeros((5, 6), np.uint8), CLASSES)
    assert (len(found), found.xyxy.shape, found.mask.shape, found.class_id.shape) == (0, (0, 4), (0, 5, 6), (0,))
    assert found.data["class_name"].shape == (0,)


def test_small_regions_and_other_classes_are_left_out():
    assert detections(LABELS, CLASSES, min_area_px=3).class_id.tolist() == [1, 2]
    assert detections(LABELS, CLASSES, of=("person",), min_area_px=1).class_id.tolist() == [2, 2]


def test_a_class_that_is_unknown_is_refused():
    with pytest.raises(InputError, match=r"unknown class 'tram' \| known: road, car, person"):
        detections(LABELS, CLASSES, of=("tram",))
    with pytest.raises(InputError, match="none is marked as movable"):
        detections(LABELS, ClassSet(("road",), ((9, 9, 9),)))


def test_supervision_takes_them():
    supervision = pytest.importorskip("supervision")
    found = detections(LABELS, CLASSES, min_area_px=1)
    taken = found.to_supervision()
    assert isinstance(taken, supervision.Detections)
    assert len(taken) == 3
    assert taken.area.tolist() == [5, 3, 1]
    assert taken[taken.class_id == 1].xyxy.tolist() == [[1, 0, 4, 3]]


def test_supervision_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'edgeseg\[supervision\]'"):
        detections(LABELS, CLASSES).to_supervision()
