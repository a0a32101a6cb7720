"""Label maps as PNG files."""

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.atomic import atomic_file, check_writable
from edgeseg.classes import ClassSet
from edgeseg.runtime.sinks.base import FileSink

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

_GREY, _PALETTE = 0, 3
_ZLIB_LEVEL = 3


class LabelImages(FileSink):
    """Writes `FOLDER/00000042.png` for the labels of frame 42, whole or not at all, and safe from a power cut.

    The pixels are the label values. Labels of a frame that are published again, as moved ones can be, replace the file.
    A folder that holds the labels of another run is refused: the two could not be told apart.

    Args:
        folder: made when missing; other files in it stay.
        palette: the classes whose colours a viewer shows instead of near-black grey; the values stay the labels (read
            them with a library that keeps palettes apart, such as Pillow: OpenCV gives the colours).
        overwrite: remove another run's labels first.
    """

    def __init__(self, folder: Path | str, *, palette: ClassSet | None = None, overwrite: bool = False) -> None:
        self.path, self._palette, self._overwrite = Path(folder).expanduser(), palette, overwrite
        self.name = str(folder)

    @property
    def is_taken(self) -> bool:
        return not self._overwrite and self.path.is_dir() and any(self._label_files())

    def check(self) -> None:
        self.refuse_taken()
        check_writable(self.path / "00000000.png", shown=self.path)

    def open(self) -> None:
        self.check()
        if self._overwrite and self.path.is_dir():
            for path in self._label_files():
                path.unlink()

    def write(self, result: "Result") -> None:
        with atomic_file(self.path / f"{result.frame_index:08d}.png") as temporary:
            temporary.write_bytes(label_png(result.labels, self._palette))

    def close(self, error: BaseException | None = None) -> None:
        return None

    def _label_files(self) -> Iterator[Path]:
        return (path for path in self.path.iterdir() if re.fullmatch(r"\d{8,}\.png", path.name))


def label_png(labels: np.ndarray, palette: ClassSet | None = None) -> bytes:
    """A PNG file of uint8 `(h, w)` labels, 8 bits per pixel: grey, or with a palette (OpenCV writes none of these)."""
    height, width = labels.shape
    # Each row begins with the number of its filter; 2 stores what differs from the row above, little in label maps.
    rows = np.empty((height, 1 + width), np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = labels[0]
    np.subtract(labels[1:], labels[:-1], out=rows[1:, 1:])
    colour_type = _GREY if palette is None else _PALETTE
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))]
    if palette is not None:
        chunks.append(_chunk(b"PLTE", palette.palette_rgb.tobytes()))
    chunks += [_chunk(b"IDAT", zlib.compress(rows.tobytes(), _ZLIB_LEVEL)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
