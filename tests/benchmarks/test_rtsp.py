"""The benchmark of RTSP readers, at a size that tests can afford."""

import pytest

pytest.importorskip("av")

from benchmarks.rtsp import FPS, READERS, SIZE_HW, measure, number_in, numbered, rows_of


@pytest.mark.parametrize("number", [0, 1, 1365, 4095])
def test_a_picture_shows_its_number(number):
    assert numbered(number).shape == (*SIZE_HW, 3)
    assert number_in(numbered(number)) == number


def test_each_reader_is_measured_from_sending_to_the_decoded_picture():
    rows = rows_of(measure(rounds=1, pictures=5))
    assert [row["reader"] for row in rows] == list(READERS)
    assert {row["pictures"] for row in rows} == {5}
    # The end of a picture is known by the beginning of the next one.
    assert all(row["min_ms"] >= 1e3 / FPS for row in rows)
    assert rows[0]["over PyAV"] == 1.0
