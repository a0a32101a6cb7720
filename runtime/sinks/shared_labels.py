"""The newest labels in shared memory, for another process on the same machine.

Layout, little-endian; the labels begin at byte 256:

| bytes | type | content |
| --- | --- | --- |
| 0-7 | bytes | `EDGESEG1` |
| 8-15 | uint64 | sequence: odd while the writer writes, else twice the number of results written; 0: none yet |
| 16-19 | uint32 | process id of the writer |
| 20-23 | uint32 | 1 while the writer runs, 0 when it has ended; it stays 1 after a `kill -9` |
| 24-31 | uint64 | bytes that there are for labels |
| 32-35 | uint32 | CRC-32 of bytes 40-255 and of the labels |
| 40-47 | uint64 | frame index |
| 48-71 | 3 float64 | captured at, published at, stands for: seconds of `time.monotonic`, one clock for all processes |
| 72-79 | 2 uint32 | height and width of the labels |
| 80-255 | bytes | name of the configuration, UTF-8, filled up with zeros |
| 256- | uint8 | labels, row by row |

How a reader finds a whole result while the writer goes on: `edgeseg.runtime.shared_record`.
"""

import mmap
import os
import shutil
import struct
import time
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.shared_record import RecordPlace, RecordReader, RecordWriter, TornRecord
from edgeseg.runtime.sinks.base import Sink

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

MAGIC = b"EDGESEG1"
HEADER_BYTES = 256
CAPACITY_BYTES = 16 << 20
"""Room for labels unless told otherwise; the system gives memory for what is used."""
_PLACE = RecordPlace(sequence_at=8, sum_at=32, head=slice(40, HEADER_BYTES))
_WRITER = 16
_WRITER_FORMAT, _RESULT_FORMAT = "<IIQ", "<QdddII176s"
_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class SharedResult:
    """What another process reads. Times in seconds of `time.monotonic`."""

    sequence: int
    """Number of the result, from 1: one that is read twice has the same."""
    frame_index: int
    captured_at: float
    published_at: float
    stands_for: float
    """The time that the labels show, as in `Result`."""
    configuration: str
    labels: np.ndarray
    """uint8 `(h, w)`, a copy that the reader owns."""

    @property
    def age_s(self) -> float:
        """How old the labels were when the loop published them; `time.monotonic() - captured_at` is their age now."""
        return self.published_at - self.captured_at


class SharedLabelsSink(Sink):
    """Writes the newest result into shared memory that `SharedLabels.open(name)` reads.

    The memory is readable by this user's processes only. It is removed when the sink is closed; readers that have it
    open keep the last labels, and see that the writer has ended.

    Args:
        name: of the memory, a file name; that of a writer that was killed is taken over.
        capacity_bytes: pixels of the largest label map.
    """

    def __init__(self, name: str, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        _check_name(name)
        self.name = f"shared memory {name}"
        self._memory_name, self._capacity = name, capacity_bytes
        self._record = RecordWriter(_PLACE)

    def open(self) -> None:
        size = HEADER_BYTES + self._capacity
        if _FOLDER.is_dir() and shutil.disk_usage(_FOLDER).free < size:
            # Memory that is not there would end the process with SIGBUS when it is written.
            raise InputError(f"{self.name} needs {size} bytes | {_FOLDER} has not as much free: make it larger")
        try:
            self._memory = SharedMemory(self._memory_name, create=True, size=size)
        except FileExistsError:
            self._remove_a_dead_writers()
            self._memory = SharedMemory(self._memory_name, create=True, size=size)
        except OSError as error:
            raise InputError(f"{self.name} cannot be made ({error.strerror}) | choose another name") from error
        buffer = self._buffer()
        struct.pack_into(_WRITER_FORMAT, buffer, _WRITER, os.getpid(), 1, self._capacity)
        struct.pack_into("<Q", buffer, _PLACE.sequence_at, 0)
        buffer[: len(MAGIC)] = MAGIC

    def write(self, result: "Result") -> None:
        labels, buffer = np.ascontiguousarray(result.labels), self._buffer()
        if labels.nbytes > self._capacity:
            raise InputError(
                f"{self.name} has no room for labels of {labels.shape} | got {labels.nbytes} bytes, expected at most "
                f"{self._capacity}: choose a smaller size"
            )
        head = struct.pack(
            _RESULT_FORMAT,
            result.frame_index,
            result.captured_at,
            result.published_at,
            result.stands_for,
            *labels.shape,
            result.configuration.encode()[:176],
        )
        self._record.write(buffer, head, labels.reshape(-1).data, HEADER_BYTES)

    def close(self, error: BaseException | None = None) -> None:
        struct.pack_into(_WRITER_FORMAT, self._buffer(), _WRITER, os.getpid(), 0, self._capacity)
        self._memory.close()
        self._memory.unlink()

    def _buffer(self) -> memoryview:
        buffer = self._memory.buf
        if buffer is None:
            raise InputError(f"{self.name} is closed | write before that")
        return buffer

    def _remove_a_dead_writers(self) -> None:
        try:
            with SharedLabels.open(self._memory_name) as left:
                writer = left.writer_pid
        except InputError as error:
            raise InputError(f"{self.name} is another program's | choose another name") from error
        if Path("/proc", str(writer)).exists():
            raise InputError(f"{self.name} is written by process {writer} | choose another name, or end that one")
        (_FOLDER / self._memory_name).unlink(missing_ok=True)


class SharedLabels:
    """Reads what a `SharedLabelsSink` writes, without holding it up.

    with SharedLabels.open("street") as shared:
        result = shared.wait_newer(0, timeout_s=1.0)
    """

    def __init__(self, name: str, memory: mmap.mmap) -> None:
        self._name, self._memory = name, memory
        self._record = RecordReader(memory, _PLACE, _labels_of)

    @classmethod
    def open(cls, name: str) -> "SharedLabels":
        """Open the memory of that name, read-only.

        Raises:
            InputError: there is none, or it is another program's.
        """
        _check_name(name)
        try:
            # SharedMemory would open it for writing, and before Python 3.13 remove it when the reader ends.
            descriptor = os.open(_FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(
                f"no shared memory {name} ({error.strerror}) | is it running: edgeseg run ... --shared-memory {name}?"
            ) from error
        try:
            if os.fstat(descriptor).st_size < HEADER_BYTES:
                raise InputError(f"shared memory {name} is another program's | got no {MAGIC.decode()} at its begin")
            memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        if memory[: len(MAGIC)] != MAGIC:
            memory.close()
            raise InputError(f"shared memory {name} is another program's | got no {MAGIC.decode()} at its begin")
        return cls(name, memory)

    def read(self) -> SharedResult | None:
        """The newest result; None when there is none yet.

        Raises:
            InputError: the writer was killed while it wrote; what is there is torn.
        """
        try:
            record = self._record.read()
        except TornRecord as error:
            raise InputError(
                f"shared memory {self._name} is torn | its writer was killed in the middle: start it again"
            ) from error
        if record is None:
            return None
        index, captured_at, published_at, stands_for, height, width, name = struct.unpack(_RESULT_FORMAT, record.head)
        labels = np.frombuffer(bytearray(record.payload), np.uint8).reshape(height, width)
        configuration = name.rstrip(b"\0").decode(errors="replace")
        return SharedResult(record.number, index, captured_at, published_at, stands_for, configuration, labels)

    def wait_newer(self, sequence: int, *, timeout_s: float) -> SharedResult | None:
        """The newest result when it is newer than `sequence`, waiting for it; None after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while self._record.number <= sequence:
            if time.monotonic() >= deadline:
                return None
            time.sleep(1e-3)
        return self.read()

    @property
    def writer_pid(self) -> int:
        """Process id of the writer."""
        return int(struct.unpack_from(_WRITER_FORMAT, self._memory, _WRITER)[0])

    @property
    def has_ended(self) -> bool:
        """Whether the writer has closed the memory, or was killed."""
        _, is_running, _ = struct.unpack_from(_WRITER_FORMAT, self._memory, _WRITER)
        return not is_running or not Path("/proc", str(self.writer_pid)).exists()

    def close(self) -> None:
        """Give the memory back; what was read stays."""
        self._memory.close()

    def __enter__(self) -> "SharedLabels":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _labels_of(head: bytes) -> slice:
    height, width = struct.unpack_from("<II", head, 32)
    return slice(HEADER_BYTES, HEADER_BYTES + height * width)


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name or len(name) > 200:
        raise InputError(f"the name of shared memory is a file name without a folder | got {name!r}")
