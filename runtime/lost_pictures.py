"""Pictures of H.264 that never came, told by the numbers in the next one: FFmpeg fills the gap and says nothing.

Each reference picture has the number after that of the one before, `frame_num` (ITU-T H.264, 7.4.3). It begins the
header of each slice; how many bits it has is in the sequence parameter set (7.3.2.1.1), in the stream or in what the
server says of it.
"""

import re
from dataclasses import dataclass

SLICE, KEY_SLICE, PARAMETERS = 1, 5, 7
"""Kinds of NAL units."""
SEARCHED_BYTES = 4096
"""Of a picture: parameter sets and notes come before its first slice."""
HEADER_BYTES = 16
"""The number of a picture lies within so many of a slice."""
_BEGIN = re.compile(rb"\x00\x00\x01(?=.)", re.DOTALL)
_WITH_CHROMA = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
"""Profiles whose parameter sets describe the colours."""


class LostPictures:
    """Follows the numbers of the pictures of a stream, one connection long.

    Args:
        parameters: parameter sets that the container has beside the stream, in Annex B form; others are not understood.
    """

    def __init__(self, parameters: bytes = b"") -> None:
        self._numbering: _Numbering | None = None
        self._before: int | None = None
        self._read(parameters)

    def precede(self, picture: bytes) -> bool:
        """Whether reference pictures are missing between this one and the one before.

        False also where that cannot be known, and before a key frame, which needs none.

        Args:
            picture: in Annex B form; its first `SEARCHED_BYTES` do.
        """
        unit = self._read(picture)
        if unit is None or self._numbering is None or self._numbering.has_gaps:
            return False
        bits = _Bits(unit[1:])
        try:
            for _ in range(3):
                bits.unsigned()
            bits.skip(2 * self._numbering.has_planes)
            number = bits.take(self._numbering.bits)
        except IndexError:
            return False
        before, is_reference = self._before, unit[0] >> 5 & 3
        if is_reference:
            self._before = number
        if before is None or unit[0] & 31 == KEY_SLICE:
            return False
        return number not in (before, (before + 1) % (1 << self._numbering.bits))

    def _read(self, content: bytes) -> bytes | None:
        """Take parameter sets, and return the beginning of the first slice."""
        for found in _BEGIN.finditer(content):
            kind = content[found.end()] & 31
            if kind == PARAMETERS:
                self._numbering = _numbering(_unescaped(content[found.end() + 1 : found.end() + 512]))
            elif kind in (SLICE, KEY_SLICE):
                return _unescaped(content[found.end() : found.end() + HEADER_BYTES])
        return None


@dataclass(frozen=True)
class _Numbering:
    bits: int
    has_gaps: bool
    """Numbers may be left out: whoever serves the stream takes whole layers away."""
    has_planes: bool
    """Each colour is coded as a picture of its own."""


class _Bits:
    """Reads bits, and codes of Golomb; an IndexError where there are none left."""

    def __init__(self, content: bytes) -> None:
        self._value, self._left = int.from_bytes(content, "big"), 8 * len(content)

    def take(self, count: int) -> int:
        self.skip(count)
        return self._value >> self._left & (1 << count) - 1

    def skip(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise IndexError("no bits left")

    def unsigned(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _numbering(parameters: bytes) -> _Numbering | None:
    """What a sequence parameter set says of the pictures' numbers; None where it is cut off."""
    bits = _Bits(parameters)
    try:
        profile = bits.take(8)
        bits.skip(16)
        bits.unsigned()
        has_planes = profile in _WITH_CHROMA and _skip_chroma(bits)
        number_bits = bits.unsigned() + 4
        _skip_order(bits)
        bits.unsigned()
        return _Numbering(number_bits, bool(bits.take(1)), has_planes)
    except IndexError:
        return None


def _skip_chroma(bits: _Bits) -> bool:
    """Skip what describes the colours; whether each is a picture of its own."""
    chroma = bits.unsigned()
    has_planes = chroma == 3 and bool(bits.take(1))
    bits.unsigned()
    bits.unsigned()
    bits.skip(1)
    if bits.take(1):
        for index in range(12 if chroma == 3 else 8):
            if bits.take(1):
                _skip_scaling(bits, 16 if index < 6 else 64)
    return has_planes


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = scale = 8
    for _ in range(size):
        if scale:
            scale = (last + bits.signed()) % 256
        last = scale or last


def _skip_order(bits: _Bits) -> None:
    """Skip what says in which order pictures are shown."""
    kind = bits.unsigned()
    if kind == 0:
        bits.unsigned()
    elif kind == 1:
        bits.skip(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()


def _unescaped(content: bytes) -> bytes:
    """Without the bytes that keep a unit's content from looking like the beginning of another."""
    return content.replace(b"\0\0\3", b"\0\0")
