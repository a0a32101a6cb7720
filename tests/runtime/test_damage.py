"""After damage in a stream whose pictures are predicted from others, none is handed out that shows it."""

import threading

import numpy as np
import pytest

from edgeseg.runtime.capture import CaptureLost, CorruptPicture
from edgeseg.runtime.damage import KEY_WAIT_S, Damage
from edgeseg.runtime.stream_capture import StreamCapture
from support.rtsp_server import RtspServer

pytest.importorskip("av")

from support.h264 import Encoder, damaged, without_last_slice

SIZE_HW, PICTURES, KEY_EVERY = (64, 96), 120, 50


def filmed(encoder: Encoder) -> list[bytes]:
    """Access units of noise that becomes brighter and moves, so that every picture is another one."""
    noise = np.random.default_rng(0).integers(0, 24, (SIZE_HW[0], 4 * SIZE_HW[1], 3))
    window = np.arange(SIZE_HW[1])
    return [
        encoder.encode((20 + 1.5 * index + noise[:, 2 * index + window]).astype(np.uint8)) for index in range(PICTURES)
    ]


def received(access_units: list[bytes]) -> tuple[list[bytes], int]:
    """What a capture hands out of a stream by RTSP, and how many pictures it skips."""
    given, skipped = [], 0
    with RtspServer() as server:

        def film() -> None:
            server.wait_for_plays(1)
            for index, unit in enumerate(access_units):
                server.send(unit, 3600 * index)
            server.cut()

        filming = threading.Thread(target=film)
        filming.start()
        capture = StreamCapture(server.url, name="camera", open_s=10, read_s=10)
        while True:
            try:
                given.append(capture.read()[1].tobytes())
            except CorruptPicture:
                skipped += 1
            except CaptureLost:
                break
        capture.close()
        filming.join()
    return given, skipped


@pytest.fixture(scope="module")
def intact():
    units = filmed(Encoder(SIZE_HW, key_every=KEY_EVERY, slices=4))
    given, skipped = received(units)
    assert (len(given), skipped) == (PICTURES, 0)
    assert len(set(given)) == PICTURES
    return units, given


@pytest.mark.parametrize("index", [60, KEY_EVERY], ids=["predicted", "key frame"])
def test_no_picture_up_to_the_next_key_frame_is_handed_out_when_a_slice_is_missing(intact, index):
    units, pictures = intact
    given, skipped = received([*units[:index], without_last_slice(units[index]), *units[index + 1 :]])
    assert given == pictures[:index] + pictures[2 * KEY_EVERY :]
    assert skipped == 2 * KEY_EVERY - index


def test_no_picture_up_to_the_next_key_frame_is_handed_out_when_one_is_missing(intact):
    units, pictures = intact
    given, skipped = received([*units[:60], *units[61:]])
    assert given == pictures[:60] + pictures[2 * KEY_EVERY :]
    assert skipped == 39


def test_no_picture_up_to_the_next_key_frame_is_handed_out_when_bits_are_wrong():
    units = filmed(Encoder(SIZE_HW, key_every=KEY_EVERY))
    pictures, _ = received(units)
    given, skipped = received([*units[:60], damaged(units[60]), *units[61:]])
    assert given == pictures[:60] + pictures[2 * KEY_EVERY :]
    assert skipped == 40


def used(damage: Damage, count: int, *, key: int | None = None, begin_s: float = 0.0) -> list[int]:
    """Which of so many whole pictures, a tenth of a second apart, are used."""
    times = [begin_s + 0.1 * index for index in range(count)]
    return [
        index
        for index, at_s in enumerate(times)
        if damage.problem_of(is_key=index == key, is_damaged=False, shown_s=at_s) is None
    ]


def test_pictures_are_skipped_up_to_the_next_key_frame_after_one_that_cannot_be_decoded():
    damage = Damage("camera", is_predicted=True)
    assert used(damage, 3) == [0, 1, 2]
    damage.note()
    assert used(damage, 6, key=4) == [4, 5]


def test_only_the_damaged_picture_is_skipped_when_none_is_predicted():
    damage = Damage("camera", is_predicted=False)
    assert damage.problem_of(is_key=True, is_damaged=True, shown_s=0.0) is not None
    assert used(damage, 3) == [0, 1, 2]


def test_a_damaged_key_frame_ends_nothing():
    damage = Damage("camera", is_predicted=True)
    damage.note()
    assert damage.problem_of(is_key=True, is_damaged=True, shown_s=0.0) is not None
    assert used(damage, 3) == []


def test_pictures_are_used_again_after_some_seconds_when_no_key_frame_comes(caplog):
    damage = Damage("camera", is_predicted=True)
    damage.note()
    assert used(damage, 80)[0] == pytest.approx(10 * KEY_WAIT_S + 1, abs=1)
    assert "no key frame came within 5 s" in caplog.text


def test_more_damage_makes_the_wait_no_longer():
    damage = Damage("camera", is_predicted=True)
    skipped = [
        damage.problem_of(is_key=False, is_damaged=index % 10 == 0, shown_s=0.1 * index) is not None
        for index in range(100)
    ]
    assert all(skipped[:50])
    # From then on nobody waits for key frames that do not come.
    assert [index for index in range(52, 100) if skipped[index]] == [60, 70, 80, 90]


def test_key_frames_are_waited_for_again_when_one_has_come():
    damage = Damage("camera", is_predicted=True)
    damage.note()
    used(damage, 80)
    used(damage, 1, key=0, begin_s=8.0)
    damage.note()
    assert used(damage, 5, key=3, begin_s=8.1) == [3, 4]
