import time
from pathlib import Path

import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks.file_names import at_time, has_time, numbered, with_time

NOON_S = time.mktime((2026, 3, 9, 12, 4, 5, 0, 0, -1))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("drive.mp4", "drive.mp4"),
        ("drive-%Y%m%dT%H%M%S.mp4", "drive-20260309T120405.mp4"),
        ("%y/%j/%H.jsonl", "26/068/12.jsonl"),
        ("100%%.mp4", "100%.mp4"),
        ("%%Y.mp4", "%Y.mp4"),
    ],
)
def test_fields_of_names_stand_for_the_time(name, path):
    assert at_time(name, NOON_S) == Path(path)


@pytest.mark.parametrize("name", ["a%20b.mp4", "100%", "%A.mp4", "%s.mp4"])
def test_other_fields_are_refused(name):
    with pytest.raises(InputError, match="a percent sign is written %%"):
        at_time(name, NOON_S)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("out/drive.mp4", "out/drive-%Y%m%dT%H%M%S.mp4"),
        ("labels", "labels-%Y%m%dT%H%M%S"),
        ("50%%.mp4", "50%%-%Y%m%dT%H%M%S.mp4"),
        ("%Y/drive.mp4", "%Y/drive.mp4"),
    ],
)
def test_the_time_is_put_before_the_ending_of_a_name_without(name, expected):
    assert with_time(name) == expected
    assert has_time(expected)


def test_numbers_come_before_the_ending():
    assert numbered(Path("a/drive.x.mp4"), 2) == Path("a/drive.x-2.mp4")
