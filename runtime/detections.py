"""Label maps as detections: a box, a mask and a class per connected region, as `supervision` takes them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.optional import require


@dataclass(frozen=True)
class Detections:
    """`n` regions, the largest first. The fields are those of `supervision.Detections`:

    supervision.Detections(xyxy=found.xyxy, mask=found.mask, class_id=found.class_id, data=found.data)
    """

    xyxy: np.ndarray
    """float32 `(n, 4)`: left, top, right, bottom in pixels of the frame, right and bottom exclusive."""
    mask: np.ndarray
    """bool `(n, H, W)`."""
    class_id: np.ndarray
    """int64 `(n,)`: label values."""
    data: dict[str, np.ndarray]
    """`class_name`: str `(n,)`, where supervision's annotators look for it."""

    def __len__(self) -> int:
        return len(self.class_id)

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`.

        Raises:
            MissingPackageError: supervision is not installed.
        """
        supervision = require("supervision", extra="supervision")
        return supervision.Detections(xyxy=self.xyxy, mask=self.mask, class_id=self.class_id, data=self.data)


class _Region(NamedTuple):
    area_px: int
    value: int
    box: tuple[slice, slice]
    """Rows and columns."""
    mask: np.ndarray
    """bool, of the box."""

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        rows, columns = self.box
        return columns.start, rows.start, columns.stop, rows.stop


def detections(
    labels: np.ndarray, classes: ClassSet, *, of: tuple[str, ...] | None = None, min_area_px: int = 16
) -> Detections:
    """Connected regions (8 neighbours) of equal label.

    Two cars that touch in the picture are one region: semantic labels do not tell them apart.

    Args:
        labels: uint8 `(H, W)`.
        of: names of the classes that are looked for; None: those that move by themselves, `classes.movable`.
        min_area_px: smaller regions are left out.

    Raises:
        InputError: a class is unknown, or none is named and none is movable.
    """
    names = classes.movable if of is None else tuple(of)
    unknown = [name for name in names if name not in classes.names]
    if unknown:
        raise InputError(f"unknown class {unknown[0]!r} | known: {', '.join(classes.names)}")
    if not names:
        raise InputError("detections are of the classes that move, and none is marked as movable | name some")
    found: list[_Region] = []
    for name in names:
        value = classes.names.index(name)
        is_class = cv2.inRange(labels, value, value)
        # Everything is looked for within the box of what there is of it: most of a picture is not.
        left, top, width, height = cv2.boundingRect(is_class)
        if not width:
            continue
        within = is_class[top : top + height, left : left + width]
        count, regions, boxes, _ = cv2.connectedComponentsWithStats(within, connectivity=8)
        for region in range(1, count):
            column, row, columns, rows, area = (int(number) for number in boxes[region])
            if area >= min_area_px:
                mask = regions[row : row + rows, column : column + columns] == region
                box = slice(top + row, top + row + rows), slice(left + column, left + column + columns)
                found.append(_Region(area, value, box, mask))
    found.sort(key=lambda region: -region.area_px)
    masks = np.zeros((len(found), *labels.shape), bool)
    for whole, one in zip(masks, found, strict=True):
        whole[one.box] = one.mask
    class_id = np.array([region.value for region in found], np.int64)
    return Detections(
        xyxy=np.array([region.xyxy for region in found], np.float32).reshape(-1, 4),
        mask=masks,
        class_id=class_id,
        data={"class_name": np.array([classes.names[value] for value in class_id], dtype=str)},
    )
