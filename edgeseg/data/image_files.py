"""Images and label maps in files: the one place where they are found, checked and decoded.

OpenCV decodes a cut-off JPEG to a grey lower half, returns nothing for a damaged PNG without saying why, and turns the
indices of a palette PNG into colours. So the container is checked here first, and label maps come out as the numbers
that were stored.
"""

import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
LABEL_SUFFIXES = (".png",)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY, _PNG_PALETTE = 0, 3
_PNG_COLOUR_TYPES = {2: "RGB", 4: "grey with alpha", 6: "RGBA"}
_JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_JPEG_START_OF_SCAN = 0xDA
_JPEG_FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """Files of `folder` (not of its subfolders) with one of `suffixes`, sorted by name; empty when there is no such
    folder.

    Raises:
        InputError: two files differ only in their endings, so that it is not clear which one is meant.
    """
    if not folder.is_dir():
        return []
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )
    for first, second in pairwise(files):
        if first.stem == second.stem:
            raise InputError(f"{folder}: {first.name} and {second.name} are the same frame | remove one of them")
    return files


def read_frame_rgb(path: Path, size_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image file as uint8 `(H, W, 3)` RGB, 0-255; 16-bit images are reduced to 8 bit, grey ones repeated.

    Pixels stay where they are stored: a camera's orientation tag is not applied, since label maps have none.

    Raises:
        InputError: the file is missing, cut off, damaged, not an image, or not of `size_hw`.
    """
    content = _read_checked(path)
    frame_bgr = _decode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, path)
    if size_hw is not None and frame_bgr.shape[:2] != tuple(size_hw):
        raise InputError(f"{path}: frame of another size | got {frame_bgr.shape[:2]}, expected {tuple(size_hw)}")
    return cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)


def read_label_map(path: Path) -> np.ndarray:
    """Decode a label PNG as uint8 `(H, W)`: the stored numbers, also of palette files and of 1, 2 or 4 bits a pixel.

    Raises:
        InputError: the file is missing, cut off, damaged, not a PNG, or holds colours or 16-bit numbers.
    """
    content = _read_checked(path)
    if not content.startswith(_PNG_SIGNATURE):
        raise InputError(f"{path}: label map is not a PNG | a lossy format would change labels: store them as PNG")
    bits, colour_type = content[24], content[25]
    if colour_type not in (_PNG_GREY, _PNG_PALETTE):
        raise InputError(
            f"{path}: label map holds colours | got {_PNG_COLOUR_TYPES.get(colour_type, 'unknown')} pixels, "
            "expected one class number per pixel | save the class numbers as a grey or palette PNG"
        )
    if bits > 8:
        raise InputError(f"{path}: label map is not 8 bit | got {bits} bits a pixel, expected 8 or fewer")
    if colour_type == _PNG_PALETTE:
        content = _palette_as_grey(content)
    stored = _decode(content, cv2.IMREAD_GRAYSCALE, path)
    # Decoders stretch 1, 2 and 4 bits to 0-255 by a whole factor.
    return stored if bits == 8 else stored // np.uint8(255 // (2**bits - 1))


def read_size_hw(path: Path) -> tuple[int, int]:
    """Height and width in pixels from the header of a PNG or JPEG file, without decoding it.

    Raises:
        InputError: the file is missing, or has no readable header.
    """
    content = _read_bytes(path)
    if content.startswith(_PNG_SIGNATURE) and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return height, width
    for marker, start in _jpeg_segments(content):
        if marker in _JPEG_FRAME_HEADERS and start + 9 <= len(content):
            height, width = struct.unpack(">HH", content[start + 5 : start + 9])
            return height, width
    raise InputError(f"{path}: not a readable PNG or JPEG image | the header is damaged: copy the file again")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read | {error.strerror or error}") from error


def _read_checked(path: Path) -> bytes:
    """Content of an image file whose end is there and whose checksums, where the format has them, are right."""
    content = _read_bytes(path)
    if content.startswith(_PNG_SIGNATURE):
        fault = _png_fault(content)
    elif content.startswith(b"\xff\xd8"):
        fault = None if _jpeg_is_complete(content) else "it ends before the image does"
    else:
        fault = "it is empty" if not content else "it is neither PNG nor JPEG"
    if fault:
        raise InputError(f"{path}: image cannot be read | {fault} ({len(content)} bytes) | copy the file again")
    return content


def _decode(content: bytes, flags: int, path: Path) -> np.ndarray:
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path}: image cannot be decoded | {error.err or error}") from error
    if decoded is None:
        raise InputError(f"{path}: image cannot be decoded | its content is damaged | copy the file again")
    return decoded


def _png_fault(content: bytes) -> str | None:
    """What is wrong with the chunks of a PNG file, or None."""
    position = len(_PNG_SIGNATURE)
    if content[12:16] != b"IHDR":
        return "its header is damaged"
    while position + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        end = position + 12 + length
        if end > len(content):
            break
        (checksum,) = struct.unpack(">I", content[end - 4 : end])
        if zlib.crc32(memoryview(content)[position + 4 : end - 4]) != checksum:
            return f"the checksum at byte {position} is wrong"
        if kind == b"IEND":
            return None
        position = end
    return "it ends before the image does"


def _palette_as_grey(content: bytes) -> bytes:
    """A palette PNG with its header changed to grey: what decoders then give is the index of each pixel."""
    header = content[12:25] + bytes([_PNG_GREY]) + content[26:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + _without_palette(content[33:])


def _without_palette(chunks: bytes) -> bytes:
    """`chunks` of a PNG without the palette and its transparency, which a grey image must not have."""
    kept, position = [], 0
    while position + 8 <= len(chunks):
        length, kind = struct.unpack(">I4s", chunks[position : position + 8])
        end = position + 12 + length
        if kind not in (b"PLTE", b"tRNS", b"bKGD", b"hIST", b"sPLT"):
            kept.append(chunks[position:end])
        position = end
    return b"".join(kept)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG file with the offsets of their segments, up to the start of the pixels."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF or marker in _JPEG_WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        yield marker, position
        if marker == _JPEG_START_OF_SCAN:
            return
        position += 2 + struct.unpack(">H", content[position + 2 : position + 4])[0]


def _jpeg_is_complete(content: bytes) -> bool:
    # Within the pixels 0xFF is always followed by 0x00 or a restart marker, so the first end marker there is the
    # image's.
    scans = [start for marker, start in _jpeg_segments(content) if marker == _JPEG_START_OF_SCAN]
    return bool(scans) and content.find(b"\xff\xd9", scans[0]) >= 0
