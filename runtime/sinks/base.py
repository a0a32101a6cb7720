"""What takes results one after another."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result


class Sink(ABC):
    """Takes results on one thread; a context manager that is entered before the first and left after the last.

    Entering opens what it writes to, so that a wrong path is told before the camera runs.
    """

    name: str
    """What it writes, for messages and the summary: a path, or a name."""

    @abstractmethod
    def write(self, result: "Result") -> None:
        """Write one result.

        Raises:
            InputError: it cannot be written, as on a full disk. What was written before stays readable.
        """

    @abstractmethod
    def close(self, error: BaseException | None = None) -> None:
        """End what was written, once. `error`: what broke the run off, be it of the sink or of another part."""

    def open(self) -> None:
        """Make ready for the first result.

        Raises:
            InputError: the place cannot be written.
        """
        return None

    def __enter__(self) -> "Sink":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)


@dataclass(frozen=True)
class SinkSummary:
    """What became of the results that a sink was given."""

    name: str
    written: int
    dropped: int
    """Results that it was too slow for, or that were left when the run was broken off."""
