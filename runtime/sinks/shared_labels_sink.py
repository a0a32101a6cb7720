"""Writes the newest labels into shared memory; what is where in it: `edgeseg.runtime.sinks.shared_labels`."""

import fcntl
import mmap
import os
import shutil
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import InputError
from edgeseg.runtime.shared_record import RecordWriter
from edgeseg.runtime.sinks.base import Sink
from edgeseg.runtime.sinks.shared_labels import (
    FOLDER,
    HEADER_BYTES,
    MAGIC,
    NAME_BYTES,
    PLACE,
    RESULT_FORMAT,
    WRITER_AT,
    WRITER_FORMAT,
    SharedLabels,
    check_name,
)

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

CAPACITY_BYTES = 16 << 20
"""Room for labels unless told otherwise; the system gives memory for what is used."""
_ASKED_S = 0.2
"""A reader that asks whether the writer lives holds the lock for a moment: so long the next writer waits for it."""


class SharedLabelsSink(Sink):
    """Writes the newest result into shared memory that `SharedLabels.open(name)` reads.

    The memory is readable by this user's processes only. It is removed when the sink is closed; readers that have it
    open keep the last labels, and see that the writer has ended. After a `kill -9` it stays, until the next writer of
    that name makes it anew.

    Args:
        name: of the memory, a file name.
        capacity_bytes: pixels of the largest label map.
    """

    def __init__(self, name: str, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        check_name(name)
        self.name = f"shared memory {name}"
        self._memory_name, self._capacity = name, capacity_bytes
        self._record = RecordWriter(PLACE)

    def check(self) -> None:
        self._check_room()
        if (descriptor := self._dead_writers()) is not None:
            os.close(descriptor)

    def open(self) -> None:
        self._check_room()
        # Made whole under another name: no reader sees a part of it, and no writer one that is not locked.
        own = FOLDER / f".{self._memory_name}.{os.getpid()}"
        try:
            own.unlink(missing_ok=True)
            self._descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._make(own)
            except BaseException:
                os.close(self._descriptor)
                raise
        except FileExistsError as error:
            raise InputError(f"{self.name} was made by another process this moment | choose another name") from error
        except OSError as error:
            raise InputError(f"{self.name} cannot be made ({error.strerror}) | choose another name") from error
        finally:
            own.unlink(missing_ok=True)

    def write(self, result: "Result") -> None:
        labels = np.ascontiguousarray(result.labels)
        if labels.nbytes > self._capacity:
            raise InputError(
                f"{self.name} has no room for labels of {labels.shape} | got {labels.nbytes} bytes, expected at most "
                f"{self._capacity}: choose a smaller size"
            )
        head = struct.pack(
            RESULT_FORMAT,
            result.frame_index,
            result.captured_at,
            result.published_at,
            result.stands_for,
            *labels.shape,
            result.age_s,
            result.source_index,
            result.configuration.encode()[:NAME_BYTES],
        )
        self._record.write(self._memory, head, labels.reshape(-1).data, HEADER_BYTES)

    def close(self, error: BaseException | None = None) -> None:
        struct.pack_into(WRITER_FORMAT, self._memory, WRITER_AT, os.getpid(), 0, self._capacity)
        self._memory.close()
        # Somebody may have removed it, and another writer have made its own.
        if _is_place_of(self._descriptor, self._place):
            self._place.unlink()
        os.close(self._descriptor)

    @property
    def _place(self) -> Path:
        return FOLDER / self._memory_name

    def _check_room(self) -> None:
        size = HEADER_BYTES + self._capacity
        if not FOLDER.is_dir():
            raise InputError(f"{self.name} is a file of {FOLDER}, which is not here | leave --shared-memory out")
        if shutil.disk_usage(FOLDER).free < size:
            # Memory that is not there would end the process with SIGBUS when it is written.
            raise InputError(f"{self.name} needs {size} bytes | {FOLDER} has not as much free: make it larger")

    def _make(self, own: Path) -> None:
        """Fill the memory, and give it its name."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.ftruncate(self._descriptor, HEADER_BYTES + self._capacity)
        self._memory = mmap.mmap(self._descriptor, 0)
        struct.pack_into(WRITER_FORMAT, self._memory, WRITER_AT, os.getpid(), 1, self._capacity)
        self._memory[: len(MAGIC)] = MAGIC
        dead = self._dead_writers()
        if dead is None:
            os.link(own, self._place)
            return
        try:
            os.replace(own, self._place)
        finally:
            os.close(dead)

    def _dead_writers(self) -> int | None:
        """Memory that a writer left when it was killed, open and locked; None: there is none of that name.

        Raises:
            InputError: its writer lives, or it is another program's.
        """
        deadline = time.monotonic() + _ASKED_S
        while self._place.exists():
            try:
                left = SharedLabels.open(self._memory_name)
            except InputError as error:
                raise InputError(f"{self.name} is another program's | choose another name") from error
            with left:
                # Locked and still of that name: a third process may have taken it over meanwhile.
                descriptor = left.locked_descriptor(fcntl.LOCK_EX)
                if descriptor is not None and _is_place_of(descriptor, self._place):
                    return descriptor
                if descriptor is not None:
                    os.close(descriptor)
                if time.monotonic() >= deadline:
                    raise InputError(
                        f"{self.name} is written by process {left.writer_pid} | choose another name, or end that one"
                    )
            time.sleep(0.01)
        return None


def _is_place_of(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
