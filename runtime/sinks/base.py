"""What takes results one after another."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result


class Sink(ABC):
    """Takes results on one thread; a context manager that is entered before the first and left after the last.

    Entering opens what it writes to, so that a wrong path is told before the camera runs.
    """

    name: str
    """What it writes, for messages and the summary: a path, or a name."""
    path: Path | None = None
    """The file or folder that it writes; None: neither."""

    @abstractmethod
    def write(self, result: "Result") -> None:
        """Write one result.

        Raises:
            InputError: it cannot be written, as on a full disk. What was written before stays readable.
        """

    @abstractmethod
    def close(self, error: BaseException | None = None) -> None:
        """End what was written, once. `error`: what broke the run off, be it of the sink or of another part."""

    def check(self) -> None:
        """Refuse what `open` would refuse, before work that would be for nothing. Leaves nothing behind.

        Raises:
            InputError: the place cannot be written, or holds what was recorded earlier.
        """
        return None

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


class FileSink(Sink):
    """One that makes a file, or a folder of files, and never destroys or mixes up what is there unless told to."""

    path: Path

    @property
    @abstractmethod
    def is_taken(self) -> bool:
        """Whether an earlier recording is there, which `open` refuses."""

    def refuse_taken(self) -> None:
        """Raise InputError where an earlier recording is there."""
        if self.is_taken:
            raise InputError(
                f"{self.path} exists | --overwrite replaces it; a name with the time never meets another: "
                f"{self.path.stem}-%Y%m%dT%H%M%S{self.path.suffix}"
            )


def time_of(*, paced: bool, fps: float) -> "Callable[[Result], float]":
    """What gives a result its time in a recording, in seconds: that of its capture.

    Frames that wait until they are computed, those of a source that is not paced, are timed by their numbers.
    """
    return (lambda result: result.captured_at) if paced else (lambda result: result.frame_index / fps)


@dataclass(frozen=True)
class SinkSummary:
    """What became of the results that a sink was given."""

    name: str
    written: int
    dropped: int
    """Results that it was too slow for, or that were left when the run was broken off."""
