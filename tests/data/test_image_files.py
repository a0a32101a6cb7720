"""Reading images and label maps: the numbers that were stored, or an error that names the file."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data.image_files import image_files, read_frame_rgb, read_label_map, read_size_hw
from edgeseg.errors import InputError

LABELS = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 0, 0]], np.uint8)


def save_palette_png(path: Path, indices: np.ndarray, bits: int) -> None:
    """A PNG whose pixels are indices into colours, as annotation tools write it."""
    height, width = indices.shape
    rows = b""
    for row in indices:
        unpacked = np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]
        rows += b"\x00" + np.packbits(unpacked.ravel()).tobytes()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)),
        (b"PLTE", bytes(range(100, 112))),
        (b"tRNS", b"\x00"),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def save(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def noise_bgr() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def test_frame_is_rgb_when_file_holds_a_red_image(tmp_path: Path) -> None:
    red_bgr = np.zeros((2, 3, 3), np.uint8)
    red_bgr[..., 2] = 200
    assert read_frame_rgb(save(tmp_path / "red.png", red_bgr))[0, 0].tolist() == [200, 0, 0]


def test_labels_are_the_stored_numbers_when_png_is_grey(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_label_map(save(tmp_path / "a.png", LABELS)), LABELS)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_labels_are_the_indices_when_png_has_a_palette(tmp_path: Path, bits: int) -> None:
    save_palette_png(tmp_path / "a.png", LABELS, bits)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), LABELS)


def test_labels_are_refused_when_png_holds_colours(tmp_path: Path, noise_bgr: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"a\.png: label map holds colours"):
        read_label_map(save(tmp_path / "a.png", noise_bgr))


def test_labels_are_refused_when_png_has_16_bits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 16 bits a pixel"):
        read_label_map(save(tmp_path / "a.png", LABELS.astype(np.uint16)))


def test_labels_are_refused_when_file_is_a_jpeg(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a PNG"):
        read_label_map(save(tmp_path / "a.jpg", LABELS))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_frame_is_refused_when_file_is_cut_off(
    tmp_path: Path, noise_bgr: np.ndarray, suffix: str, share: float
) -> None:
    path = save(tmp_path / f"cut{suffix}", noise_bgr)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"cut\.(png|jpg): image cannot be read"):
        read_frame_rgb(path)


def test_frame_is_refused_when_a_byte_of_the_png_is_changed(tmp_path: Path, noise_bgr: np.ndarray) -> None:
    path = save(tmp_path / "a.png", noise_bgr)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="checksum"):
        read_frame_rgb(path)


def test_frame_is_refused_when_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: cannot be read"):
        read_frame_rgb(tmp_path / "gone.png")


def test_frame_is_refused_when_size_differs(tmp_path: Path, noise_bgr: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"got \(24, 40\), expected \(24, 41\)"):
        read_frame_rgb(save(tmp_path / "a.png", noise_bgr), (24, 41))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_size_is_read_from_the_header_when_pixels_are_cut_off(
    tmp_path: Path, noise_bgr: np.ndarray, suffix: str
) -> None:
    path = save(tmp_path / f"a{suffix}", noise_bgr)
    path.write_bytes(path.read_bytes()[:700])
    assert read_size_hw(path) == (24, 40)


def test_size_is_refused_when_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(InputError, match="not a readable PNG or JPEG"):
        read_size_hw(tmp_path / "a.jpg")


def test_image_files_are_sorted_and_without_others_when_folder_is_mixed(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.JPG"]


def test_image_files_are_refused_when_one_frame_has_two_files(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="are the same frame"):
        image_files(tmp_path)
