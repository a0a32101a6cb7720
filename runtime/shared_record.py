"""One writer's newest record in memory that several processes have mapped: readers never hold the writer up.

A record is a head of a fixed size at a fixed place, and a payload whose place the head tells. Before it the writer
makes a sequence number odd, and after it even again. A reader reads the sequence, copies, and reads the sequence again:
when it was odd, or has changed, or the sum does not fit, it reads again. The sum is needed where a processor lets
stores overtake each other, as ARM does.
"""

import mmap
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

_TRIES = 1000
"""A copy takes a fraction of the time between two records: one of so many falls between."""


class TornRecord(Exception):
    """No whole record was found: its writer was stopped or killed in the middle."""


@dataclass(frozen=True)
class RecordPlace:
    """Where a record lies in its memory, in bytes. Numbers are little-endian."""

    sequence_at: int
    """uint64: odd while the writer writes, else twice the number of records written; 0: none yet."""
    sum_at: int
    """uint32: CRC-32 of the head and of the payload."""
    head: slice


class Record(NamedTuple):
    """A whole one, copied."""

    number: int
    """From 1: one that is read twice has the same."""
    head: bytes
    payload: bytes


class RecordWriter:
    """The one writer of a record."""

    def __init__(self, place: RecordPlace) -> None:
        self._place = place
        self._sequence = 0

    def write(
        self,
        buffer: memoryview | mmap.mmap,
        head: bytes,
        payload: memoryview | bytes = b"",
        payload_at: int = 0,
    ) -> None:
        """Replace the record; `payload` is contiguous, of bytes."""
        place = self._place
        struct.pack_into("<Q", buffer, place.sequence_at, self._sequence + 1)
        struct.pack_into("<I", buffer, place.sum_at, zlib.crc32(payload, zlib.crc32(head)))
        buffer[place.head] = head
        buffer[payload_at : payload_at + len(payload)] = payload
        self._sequence += 2
        struct.pack_into("<Q", buffer, place.sequence_at, self._sequence)


class RecordReader:
    """One of any number of readers.

    Args:
        payload_of: where the payload lies that belongs to a head.
    """

    def __init__(self, memory: mmap.mmap, place: RecordPlace, payload_of: Callable[[bytes], slice]) -> None:
        self._memory, self._place, self._payload_of = memory, place, payload_of

    @property
    def number(self) -> int:
        """Of the newest record that is whole; 0: none yet."""
        return self._sequence() // 2

    def read(self) -> Record | None:
        """The newest record; None when there is none yet.

        Raises:
            TornRecord: the writer was stopped while it wrote.
        """
        for _ in range(_TRIES):
            before = self._sequence()
            if before == 0:
                return None
            if before % 2 == 0 and (record := self._copied(before)) is not None:
                return record
            time.sleep(1e-4)
        raise TornRecord

    def _sequence(self) -> int:
        return int(struct.unpack_from("<Q", self._memory, self._place.sequence_at)[0])

    def _copied(self, sequence: int) -> Record | None:
        """The record of that sequence; None when the writer came between."""
        head = self._memory[self._place.head]
        (expected,) = struct.unpack_from("<I", self._memory, self._place.sum_at)
        payload = self._memory[self._payload_of(head)]
        if self._sequence() != sequence or zlib.crc32(payload, zlib.crc32(head)) != expected:
            return None
        return Record(sequence // 2, head, payload)
