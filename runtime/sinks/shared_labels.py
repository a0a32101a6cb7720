"""The newest labels in shared memory, for another process on the same machine.

Layout, little-endian; the labels begin at byte 256:

| bytes | type | content |
| --- | --- | --- |
| 0-7 | bytes | `EDGESEG1` |
| 8-15 | uint64 | sequence: odd while the writer writes, else twice the number of results written; 0: none yet |
| 16-19 | uint32 | process id of the writer |
| 20-23 | uint32 | 1 while the writer runs, 0 when it has ended; after a `kill -9` it stays 1, without the lock |
| 24-31 | uint64 | bytes that there are for labels |
| 32-35 | uint32 | CRC-32 of bytes 40-255 and of the labels |
| 40-47 | uint64 | frame index |
| 48-71 | 3 float64 | captured at, published at, stands for: seconds of `time.monotonic`, one clock for all processes |
| 72-79 | 2 uint32 | height and width of the labels |
| 80-87 | float64 | age of the labels when they were published, in seconds |
| 88-95 | uint64 | index of the frame that the labels were computed from |
| 96-255 | bytes | name of the configuration, UTF-8, filled up with zeros |
| 256- | uint8 | labels, row by row |

The writer holds an exclusive `flock` on the memory, by which everybody sees that it lives, also from another container.

How a reader finds a whole result while the writer goes on: `edgeseg.runtime.shared_record`.
"""

import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.shared_record import RecordPlace, RecordReader, TornRecord

MAGIC = b"EDGESEG1"
HEADER_BYTES = 256
PLACE = RecordPlace(sequence_at=8, sum_at=32, head=slice(40, HEADER_BYTES))
WRITER_AT = 16
WRITER_FORMAT, RESULT_FORMAT = "<IIQ", "<QdddIIdQ160s"
NAME_BYTES = 160
FOLDER = Path("/dev/shm")
"""Where Linux keeps shared memory."""


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
    age_s: float
    """How old the labels were when the loop published them, as in `Result`; `age_s + time.monotonic() - published_at`
    is their age now."""
    source_index: int
    """The frame that the labels were computed from; where this stands still, the network gives no new ones."""
    configuration: str
    labels: np.ndarray
    """uint8 `(h, w)`, a copy that the reader owns."""


class SharedLabels:
    """Reads what a `SharedLabelsSink` writes, without holding it up.

    with SharedLabels.open("street") as shared:
        result = shared.wait_newer(0, timeout_s=1.0)
    """

    def __init__(self, name: str, memory: mmap.mmap, descriptor: int) -> None:
        self._name, self._memory, self._descriptor = name, memory, descriptor
        self._record = RecordReader(memory, PLACE, _labels_of)

    @classmethod
    def open(cls, name: str) -> "SharedLabels":
        """Open the memory of that name, read-only.

        Raises:
            InputError: there is none, or it is another program's.
        """
        check_name(name)
        try:
            # SharedMemory would open it for writing, and before Python 3.13 remove it when the reader ends.
            descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(
                f"no shared memory {name} ({error.strerror}) | is it running: edgeseg run ... --shared-memory {name}?"
            ) from error
        try:
            if os.fstat(descriptor).st_size < HEADER_BYTES:
                raise InputError(f"shared memory {name} is another program's | got no {MAGIC.decode()} at its begin")
            memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
            if memory[: len(MAGIC)] != MAGIC:
                memory.close()
                raise InputError(f"shared memory {name} is another program's | got no {MAGIC.decode()} at its begin")
        except BaseException:
            os.close(descriptor)
            raise
        return cls(name, memory, descriptor)

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
        index, captured_at, published_at, stands_for, height, width, age_s, source_index, name = struct.unpack(
            RESULT_FORMAT, record.head
        )
        labels = np.frombuffer(bytearray(record.payload), np.uint8).reshape(height, width)
        configuration = name.rstrip(b"\0").decode(errors="replace")
        return SharedResult(
            record.number, index, captured_at, published_at, stands_for, age_s, source_index, configuration, labels
        )

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
        return int(struct.unpack_from(WRITER_FORMAT, self._memory, WRITER_AT)[0])

    @property
    def has_ended(self) -> bool:
        """Whether the writer has closed the memory, or was killed."""
        _, is_running, _ = struct.unpack_from(WRITER_FORMAT, self._memory, WRITER_AT)
        if not is_running:
            return True
        descriptor = self.locked_descriptor(fcntl.LOCK_SH)
        if descriptor is None:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
        return True

    def locked_descriptor(self, kind: int) -> int | None:
        """The memory, open and locked, for the caller to close; None while its writer lives, who has the lock.

        Args:
            kind: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.
        """
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Give the memory back; what was read stays."""
        self._memory.close()
        os.close(self._descriptor)

    def __enter__(self) -> "SharedLabels":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _labels_of(head: bytes) -> slice:
    height, width = struct.unpack_from("<II", head, 32)
    return slice(HEADER_BYTES, HEADER_BYTES + height * width)


def check_name(name: str) -> None:
    """Raise InputError unless `name` can be that of shared memory."""
    if not name or name.startswith(".") or "/" in name or len(name) > 200:
        raise InputError(f"the name of shared memory is a file name without a folder | got {name!r}")
