"""Gaps in the numbers of H.264's pictures, as an encoder writes them."""

from fractions import Fraction

import numpy as np
import pytest

from edgeseg.runtime.lost_pictures import LostPictures

av = pytest.importorskip("av")

SIZE_HW, PICTURES, KEY_EVERY = (48, 64), 40, 20
PLAIN = "repeat-headers=1"


def coded(parameters: str = PLAIN, pix_fmt: str = "yuv420p", size_hw=SIZE_HW) -> list[bytes]:
    """Access units in the order of decoding."""
    codec = av.CodecContext.create("libx264", "w")
    codec.height, codec.width = size_hw
    codec.pix_fmt, codec.time_base, codec.framerate = pix_fmt, Fraction(1, 25), Fraction(25)
    codec.options = {
        "preset": "fast",
        "g": str(KEY_EVERY),
        "x264-params": f"{parameters}:threads=1:annexb=1:scenecut=0:keyint={KEY_EVERY}",
    }
    random, units = np.random.default_rng(0), []
    for index in range(PICTURES):
        noise = random.integers(0, 255, (*size_hw, 3)).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
        frame.pts = index
        units += [bytes(packet) for packet in codec.encode(frame)]
    return units + [bytes(packet) for packet in codec.encode(None)]


def gaps(units: list[bytes], parameters: bytes = b"") -> list[int]:
    """Before which units pictures are missing."""
    lost = LostPictures(parameters)
    return [index for index, unit in enumerate(units) if lost.precede(unit)]


@pytest.mark.parametrize(
    "stream",
    [
        (f"{PLAIN}:bframes=0",),
        (f"{PLAIN}:bframes=3:b-pyramid=normal:ref=4",),
        (f"{PLAIN}:interlaced=1",),
        (f"{PLAIN}:cqm=jvt",),
        (f"{PLAIN}:intra-refresh=1:bframes=0",),
        (PLAIN, "yuv444p"),
    ],
    ids=["P", "B", "interlaced", "matrices", "no key frames", "4:4:4"],
)
def test_no_picture_is_missing_in_a_whole_stream(stream):
    assert gaps(coded(*stream)) == []


@pytest.mark.parametrize("lost", [range(5, 6), range(7, 10), range(3, 17)], ids=["one", "three", "fourteen"])
def test_missing_pictures_are_told_at_the_next_one(lost):
    units = coded(f"{PLAIN}:bframes=0")
    assert gaps([unit for index, unit in enumerate(units) if index not in lost]) == [lost.start]


def test_nothing_is_missed_before_a_key_frame():
    units = coded(f"{PLAIN}:bframes=0")
    assert gaps(units[: KEY_EVERY - 3] + units[KEY_EVERY:]) == []


def test_the_parameters_may_lie_beside_a_stream_that_is_joined():
    units = coded(f"{PLAIN}:bframes=0")
    joined = units[7:10] + units[11:]
    assert gaps(joined) == []
    assert gaps(joined, parameters=units[0]) == [3]


@pytest.mark.parametrize("content", [b"", b"\0\0\1", b"\0\0\1\x67", b"\0\0\1\x41\x9a", b"\0\0\1\x67\0\0\0\0\1\x41\0\0"])
def test_nothing_is_said_of_what_is_cut_off(content):
    units = coded(f"{PLAIN}:bframes=0")
    lost = LostPictures(content)
    assert [lost.precede(content), lost.precede(units[0]), lost.precede(content)] == [False, False, False]
