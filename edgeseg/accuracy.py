"""Accuracy tables as a bundle keeps them: mIoU over the delay, as labels come and moved to the present."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import AccuracyTable


@dataclass(frozen=True)
class CompensatedAccuracy:
    """The accuracy table of a configuration whose labels are moved to the present."""

    compensation: Compensation
    miou: tuple[float, ...]
    """mIoU at k = 0..K: labels of frame t - k, moved with the frames up to t - 1, against the labels of frame t."""
    movable_miou: tuple[float | None, ...]
    """Moving-object mIoU at k = 0..K; None where no movable class occurs."""

    def __post_init__(self) -> None:
        if not self.compensation.moves:
            raise InputError("a compensated accuracy table needs a compensation that moves labels")
        if len(AccuracyTable(self.miou).miou) != len(self.movable_miou):
            raise InputError(f"the accuracy tables of {self.compensation.name} differ in length")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        return {
            "compensation": self.compensation.as_dict(),
            "miou": list(self.miou),
            "movable_miou": list(self.movable_miou),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CompensatedAccuracy":
        """Inverse of `as_dict`; errors as of `Accuracy.from_dict`."""
        return cls(
            compensation=Compensation.from_dict(values["compensation"]),
            miou=tuple(values["miou"]),
            movable_miou=tuple(values["movable_miou"]),
        )


@dataclass(frozen=True)
class Accuracy:
    """The accuracy table and how it was made."""

    data_set: str
    split: str
    fps: float
    """Frame rate of the scored videos: entry k is k / fps seconds late."""
    frames: int
    size_hw: tuple[int, int]
    """Size at which labels were compared, that of the data set's label maps."""
    miou: tuple[float, ...]
    """mIoU at k = 0..K."""
    movable_miou: tuple[float | None, ...]
    """Moving-object mIoU at k = 0..K; None where no movable class occurs."""
    iou: tuple[float | None, ...]
    """Per-class IoU at k = 0; None for a class that does not occur."""
    compensated: tuple[CompensatedAccuracy, ...] = ()
    """The same with the labels moved to the present, one per compensation."""

    @property
    def table(self) -> AccuracyTable:
        return AccuracyTable(self.miou)

    @property
    def compensations(self) -> tuple[Compensation, ...]:
        """What there are tables for; `UNCOMPENSATED` is the first."""
        return (UNCOMPENSATED, *(entry.compensation for entry in self.compensated))

    def table_of(self, compensation: Compensation) -> AccuracyTable | None:
        """mIoU over k with this compensation; None where that was not scored."""
        if not compensation.moves:
            return self.table
        return next(
            (AccuracyTable(entry.miou) for entry in self.compensated if entry.compensation == compensation), None
        )

    @property
    def best_compensated(self) -> CompensatedAccuracy | None:
        """The table whose entries at k = 1..K are the highest on average; None where nothing was moved."""
        return max(self.compensated, key=lambda entry: sum(entry.miou[1:]), default=None)

    def with_compensated(self, added: Sequence[CompensatedAccuracy]) -> "Accuracy":
        """The same with more tables; one of a compensation that there is already replaces it."""
        tables = {entry.compensation: entry for entry in (*self.compensated, *added)}
        return replace(self, compensated=tuple(tables.values()))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {**plain, "compensated": [entry.as_dict() for entry in self.compensated]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Accuracy":
        """Inverse of `as_dict`.

        Raises:
            InputError: a table or a compensation is out of range.
            KeyError, TypeError, ValueError: a value is missing or of another kind.
        """
        height, width = values["size_hw"]
        accuracy = cls(
            **{
                **values,
                "size_hw": (int(height), int(width)),
                "miou": tuple(values["miou"]),
                "movable_miou": tuple(values["movable_miou"]),
                "iou": tuple(values["iou"]),
                # Bundles of format 1.0 have none.
                "compensated": tuple(CompensatedAccuracy.from_dict(entry) for entry in values.get("compensated", ())),
            }
        )
        AccuracyTable(accuracy.miou)
        if not accuracy.fps > 0:
            raise InputError(f"an accuracy table needs a positive frame rate | got {accuracy.fps}")
        return accuracy
