"""Trimap mIoU: only the pixels near a label boundary count [Z 3.3]."""

import cv2
import numpy as np

from edgeseg.errors import InputError


def boundary_band(labels: np.ndarray, radius_px: float) -> np.ndarray:
    """bool `(H, W)`: pixels within `radius_px` (Euclidean, between pixel centres) of a label boundary.

    Both pixels of a pair of 4-neighbours with different labels lie on the boundary, at distance 0.
    """
    if radius_px < 0:
        raise InputError(f"the trimap radius must not be negative | got {radius_px}")
    edge = np.zeros(labels.shape, bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    if not edge.any():
        return edge
    distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance <= radius_px + 1e-4


def trimap_labels(labels: np.ndarray, radius_px: float, ignore_value: int) -> np.ndarray:
    """`labels` with every pixel outside the band replaced by `ignore_value`, ready for a confusion matrix."""
    return np.where(boundary_band(labels, radius_px), labels, np.asarray(ignore_value, labels.dtype))
