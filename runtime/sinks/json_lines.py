"""A line of JSON per result, whole lines only."""

import errno
import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from edgeseg.atomic import check_writable
from edgeseg.errors import InputError
from edgeseg.runtime.sinks.base import FileSink

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

SYNC_S = 1.0
"""So often the disk is told to keep the lines: a power cut costs those of the last second, a `kill -9` none."""
_TAIL_BYTES = 1 << 20
"""Where the last whole line is looked for, at the end of a file."""
_BEGINS = (b'{"run": ', b'{"frame_index": ', b"\0")
_log = logging.getLogger(__name__)


class JsonLines(FileSink):
    """Writes `line_of(result)` per result to a file, or to an open text stream, each with the `run` that it is of.

    A line is handed to the system whole, before the next result is taken, so that it stays when the process is killed.
    A line that the disk has no room for is taken back. Lines are appended to those of an earlier run; what a power cut
    left of a last one is taken away first. A file of something else is refused, and so is one that another process is
    writing. A pipe or a device gets the lines as it is.

    Args:
        target: path, whose folder is made when missing, or a text stream such as `sys.stdout`, which is flushed and not
            closed.
        overwrite: begin the file anew, whatever is in it.
        run: what tells the lines of this run from others in the file.  [default: the time in UTC]
        clock: seconds.
    """

    def __init__(
        self,
        target: Path | str | TextIO,
        *,
        overwrite: bool = False,
        run: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(target).expanduser() if isinstance(target, Path | str) else Path("-")
        self._stream = None if isinstance(target, Path | str) else target
        self._overwrite, self._clock = overwrite, clock
        self._run = run_name() if run is None else run
        self._descriptor: int | None = None
        self._synced_at_s = clock()
        self.name = "JSON lines" if self._stream is not None else str(self.path)

    @property
    def is_taken(self) -> bool:
        # Lines of several runs go into one file, and whatever else is there is refused under any name.
        return False

    def check(self) -> None:
        if self._stream is not None or (self.path.exists() and not self.path.is_file() and not self.path.is_dir()):
            return
        if not self.path.is_file():
            check_writable(self.path)
        elif not os.access(self.path, os.W_OK):
            raise self._refusal(os.strerror(errno.EACCES))
        elif not self._overwrite:
            whole_lines_bytes(self.path)

    def open(self) -> None:
        if self._stream is not None:
            return
        # A pipe that nobody reads would hold the opening up.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise InputError(f"{self.path} is a pipe that nobody reads | start its reader first") from error
            raise self._refusal(str(error.strerror)) from error
        try:
            os.set_blocking(descriptor, True)
            if _is_regular(descriptor):
                self._begin(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def write(self, result: "Result") -> None:
        line = json.dumps({"run": self._run, **line_of(result)}) + "\n"
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

    def _begin(self, descriptor: int) -> None:
        """Claim the file, and leave the whole lines in it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{self.path} is being written by another process | give another name") from error
        except OSError:
            # A file system without locks: there is nobody to ask.
            _log.debug("%s cannot be locked", self.path)
        kept = 0 if self._overwrite else whole_lines_bytes(self.path)
        size = os.fstat(descriptor).st_size
        if not self._overwrite and kept < size:
            _log.warning("%s ended in the middle of a line: its %d bytes are taken away", self.path, size - kept)
        os.ftruncate(descriptor, kept)

    def _append(self, descriptor: int, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except BrokenPipeError:
            # Whoever read the pipe has enough.
            raise
        except OSError as error:
            if _is_regular(descriptor):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}) | lines written before stay there: make room"
            ) from error
        if self._clock() - self._synced_at_s >= SYNC_S:
            _sync(descriptor)
            self._synced_at_s = self._clock()

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{self.path} cannot be written ({reason}) | choose another place")


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
        shares = zip(result.classes.names, counts / result.labels.size, strict=False)
        line["shares"] = {name: round(float(share), 6) for name, share in shares if share}
    return line


def run_name() -> str:
    """The time now in UTC, to the millisecond: two runs into one file have not the same."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def whole_lines_bytes(path: Path) -> int:
    """Length of a file of our lines up to the end of its last whole one: a power cut may leave a part, or zeros, after.

    Raises:
        InputError: it holds something else.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return 0
        first = file.readline(_TAIL_BYTES)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    if first.endswith(b"\n") and b"\0" not in first and not _is_ours(first):
        raise _something_else(path)
    whole = len(tail)
    while whole and not _is_ours(tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole]):
        whole = tail.rfind(b"\n", 0, whole - 1) + 1
    left = tail[whole:]
    is_only_this = not whole and (size > _TAIL_BYTES or not left.startswith(_BEGINS))
    if is_only_this or (b"\n" in left and b"\0" not in left):
        raise _something_else(path)
    return size - len(left)


def _something_else(path: Path) -> InputError:
    return InputError(
        f"{path} holds something else than lines of edgeseg run | --overwrite replaces it; or give another name"
    )


def _is_ours(line: bytes) -> bool:
    if not line.endswith(b"}\n"):
        return False
    with suppress(ValueError):
        values = json.loads(line)
        return isinstance(values, dict) and {"frame_index", "published_at"} <= values.keys()
    return False


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError:
        # A pipe or a device has nothing to keep.
        return
