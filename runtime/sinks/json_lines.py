"""A line of JSON per result, whole lines only."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.sinks.base import Sink

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

SYNC_S = 1.0
"""So often the disk is told to keep the lines: a power cut costs those of the last second, a `kill -9` none."""


class JsonLines(Sink):
    """Writes `line_of(result)` per result to a file, or to an open text stream.

    A line is handed to the system whole, before the next result is taken, so that it stays when the process is killed.
    A line that the disk has no room for is taken back. A file that is there already is overwritten.

    Args:
        target: path, or a text stream such as `sys.stdout`, which is flushed and not closed.
        clock: seconds.
    """

    def __init__(
        self,
        target: Path | str | TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(target).expanduser() if isinstance(target, Path | str) else None
        self._stream = None if isinstance(target, Path | str) else target
        self._clock = clock
        self._descriptor: int | None = None
        self._size = 0
        self._synced_at_s = clock()
        self.name = "JSON lines" if self._path is None else str(self._path)

    def open(self) -> None:
        if self._path is None:
            return
        try:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written ({error.strerror}) | choose another place") from error

    def write(self, result: "Result") -> None:
        line = json.dumps(line_of(result)) + "\n"
        if self._stream is not None:
            self._stream.write(line)
            self._stream.flush()
        elif self._descriptor is not None:
            self._append(self._descriptor, line.encode())

    def close(self, error: BaseException | None = None) -> None:
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)

    def _append(self, descriptor: int, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError as error:
            os.ftruncate(descriptor, self._size)
            raise InputError(
                f"{self._path} cannot be written ({error.strerror}) | lines written before stay there: make room"
            ) from error
        self._size += len(line)
        if self._clock() - self._synced_at_s >= SYNC_S:
            _sync(descriptor)
            self._synced_at_s = self._clock()


def line_of(result: "Result") -> dict[str, Any]:
    """The JSON-ready form of a result without its arrays: times in seconds on the source's clock, rounded to µs.

    `pixels` counts the pixels of each label value; `shares` has the share of each class that occurs, of all pixels,
    where the classes are known.
    """
    counts = np.bincount(result.labels.ravel(), minlength=256)
    line: dict[str, Any] = {
        "frame_index": result.frame_index,
        "captured_at": round(result.captured_at, 6),
        "published_at": round(result.published_at, 6),
        "age_s": round(result.age_s, 6),
        "step_ms": round(result.step_ms, 3),
        "stands_for": round(result.stands_for, 6),
        "source_index": result.source_index,
        "source_age_s": round(result.published_at - result.source_at, 6),
        "moved_px": round(result.moved_px, 3),
        "invalid_share": None if result.invalid_share is None else round(result.invalid_share, 6),
        "fallback": result.fallback,
        "warp_ms": round(result.warp_ms, 3),
        "configuration": result.configuration,
        "pixels": {str(value): int(counts[value]) for value in np.flatnonzero(counts)},
    }
    if result.classes is not None:
        line["shares"] = {name: round(share, 6) for name, share in result.class_shares().items() if share}
    return line


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError:
        # A pipe or a device has nothing to keep.
        return
