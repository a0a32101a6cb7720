"""Confusion matrix and the scores read from it (1-definitions, Metrics)."""

from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.errors import InputError

_EXACT_FLOAT32 = 2**24
"""Counts up to this are exact in float32, OpenCV's type for histograms."""


class ConfusionMatrix:
    """Counts of (label, prediction) pairs, summed over as many frames as `add` was given.

    `counts[g, p]` is int64 `(C, C)`: pixels with label `g` and prediction `p`.
    """

    def __init__(self, class_count: int) -> None:
        if class_count < 1:
            raise InputError(f"a confusion matrix needs at least one class | got {class_count}")
        self.counts = np.zeros((class_count, class_count), np.int64)

    @property
    def class_count(self) -> int:
        return len(self.counts)

    def add(self, labels: np.ndarray, prediction: np.ndarray) -> None:
        """Count one frame: two integer arrays of one shape. Labels outside `[0, C)` are ignored.

        Raises:
            InputError: the shapes differ, or a counted pixel is predicted as a class outside `[0, C)`.
        """
        if labels.shape != prediction.shape:
            raise InputError(f"labels and prediction differ in shape | got {labels.shape} and {prediction.shape}")
        count = self.class_count
        if labels.dtype == prediction.dtype == np.uint8 and labels.size <= _EXACT_FLOAT32:
            # A fifteenth of the time of masking first.
            flat = [np.ascontiguousarray(each).reshape(-1) for each in (labels, prediction)]
            table = cv2.calcHist(flat, [0, 1], None, [count, 256], [0, count, 0, 256]).astype(np.int64)
            outside = table[:, count:].sum(0)
            if outside.any():
                self._refuse(int(np.flatnonzero(outside)[0]) + count, int(outside.sum()))
            self.counts += table[:, :count]
            return
        counted = (labels >= 0) & (labels < count)
        label_values = labels[counted].astype(np.int64)
        predicted_values = prediction[counted].astype(np.int64)
        if predicted_values.size and not 0 <= predicted_values.min() <= predicted_values.max() < count:
            wrong = predicted_values[(predicted_values < 0) | (predicted_values >= count)]
            self._refuse(int(wrong[0]), wrong.size)
        pairs = np.bincount(label_values * count + predicted_values, minlength=count * count)
        self.counts += pairs.reshape(count, count)

    def _refuse(self, value: int, pixels: int) -> None:
        raise InputError(f"prediction holds class {value} on {pixels} pixels | expected 0 to {self.class_count - 1}")

    def add_all_wrong(self, labels: np.ndarray) -> None:
        """Count a frame for which there is no prediction: every labelled pixel as a miss of its class.

        A pixel of class c goes to class c + 1 (mod C), so that the frame counts fully against the scores.
        """
        values = labels[(labels >= 0) & (labels < self.class_count)].astype(np.int64)
        per_class = np.bincount(values, minlength=self.class_count)
        for label, pixels in enumerate(per_class):
            self.counts[label, (label + 1) % self.class_count] += pixels

    def scores(self) -> "Scores":
        """The scores of everything counted so far."""
        return Scores(self.counts.copy())


@dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix, each in [0, 1]; nan where nothing was counted."""

    counts: np.ndarray
    """int64 `(C, C)`, label by prediction."""

    @property
    def iou(self) -> np.ndarray:
        """float64 `(C,)`: TP / (TP + FP + FN); nan for a class in neither labels nor predictions."""
        true_positive = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - np.diag(self.counts)
        return np.divide(true_positive, union, out=np.full(len(union), np.nan), where=union > 0)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes whose union is not empty."""
        return self.miou_of(range(len(self.counts)))

    def miou_of(self, classes: "range | tuple[int, ...]") -> float:
        """Mean IoU over `classes` only (the movable ones, say) [C 4.D.2]; nan when none of them occurs."""
        iou = self.iou[list(classes)]
        present = iou[~np.isnan(iou)]
        return float(present.mean()) if present.size else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of counted pixels that are right."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the labelled classes of the share of their pixels that are right."""
        labelled = self.counts.sum(1)
        present = labelled > 0
        return float((np.diag(self.counts)[present] / labelled[present]).mean()) if present.any() else float("nan")

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighted by each class's share of the labelled pixels."""
        labelled = self.counts.sum(1)
        total = labelled.sum()
        return float(np.nansum(self.iou * labelled) / total) if total else float("nan")
