import json
import time

import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks import JsonLines, LabelImages, Segments
from edgeseg.runtime.sinks.base import time_of
from edgeseg.runtime.sinks.segments import file_sink

CAPTURED = time_of(paced=True, fps=10)
NOON_S = time.mktime((2026, 3, 9, 12, 0, 0, 0, 0, -1))


class Noon:
    """A clock that a test sets, at noon."""

    def __init__(self):
        self.now_s = NOON_S

    def __call__(self):
        return self.now_s


def indices(path):
    return [json.loads(line)["frame_index"] for line in path.read_text().splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def lines(folder, clock, segment_s=None, name="l-%H%M%S"):
    return Segments(str(folder / name), JsonLines, time_of=CAPTURED, segment_s=segment_s, wall_clock=clock)


def test_a_new_file_begins_when_a_segment_has_its_length(made, tmp_path):
    clock = Noon()
    with lines(tmp_path, clock, segment_s=1.0) as sink:
        for index in range(25):
            clock.now_s = NOON_S + index / 10
            sink.write(made(index))
    assert names(tmp_path) == ["l-120000", "l-120001", "l-120002"]
    assert [len(indices(tmp_path / name)) for name in names(tmp_path)] == [10, 10, 5]
    assert sink.path == tmp_path / "l-120002"


def test_a_segment_begins_with_its_first_result_and_not_with_the_wait_for_it(made, tmp_path):
    with lines(tmp_path, Noon(), segment_s=1.0) as sink:
        sink.write(made(700))
        sink.write(made(709))
    assert names(tmp_path) == ["l-120000"]


def test_lines_of_one_name_go_on_in_one_file(made, tmp_path):
    with lines(tmp_path, Noon(), segment_s=1.0, name="l-%Y") as sink:
        for index in range(25):
            sink.write(made(index))
    assert indices(tmp_path / "l-2026") == list(range(25))


def test_a_name_that_is_taken_gets_a_number(made, tmp_path):
    for _ in range(3):
        with Segments(str(tmp_path / "l-%Y"), LabelImages, time_of=CAPTURED, wall_clock=Noon()) as sink:
            sink.write(made(0))
    assert names(tmp_path) == ["l-2026", "l-2026-2", "l-2026-3"]


def test_frames_that_wait_to_be_computed_have_the_time_of_their_numbers(made, tmp_path):
    clock, by_number = Noon(), time_of(paced=False, fps=5)
    with Segments(str(tmp_path / "l-%H%M%S"), JsonLines, time_of=by_number, segment_s=2, wall_clock=clock) as sink:
        for index in range(20):
            clock.now_s = NOON_S + index
            sink.write(made(index))
    assert [len(indices(tmp_path / name)) for name in names(tmp_path)] == [10, 10]


def test_checking_refuses_what_opening_would_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is no folder"):
        lines(tmp_path / "file", Noon()).check()
    lines(tmp_path / "new", Noon()).check()
    assert names(tmp_path) == ["file"]


def test_a_plain_name_is_one_file_and_one_with_the_time_or_a_length_is_segments(tmp_path):
    def made_of(name, segment_s=None):
        return file_sink(str(tmp_path / name), lambda path, overwrite: JsonLines(path), time_of=CAPTURED,
                         segment_s=segment_s)  # fmt: skip

    assert made_of("50%%.jsonl").name == str(tmp_path / "50%.jsonl")
    assert made_of("%Y.jsonl").name == str(tmp_path / "%Y.jsonl")
    assert made_of("l.jsonl", 60.0).name == str(tmp_path / "l-%Y%m%dT%H%M%S.jsonl")


def test_only_a_plain_name_is_overwritten(tmp_path):
    told = []

    def make(path, overwrite):
        told.append(overwrite)
        return JsonLines(path)

    file_sink(str(tmp_path / "plain"), make, time_of=CAPTURED, overwrite=True)
    file_sink(str(tmp_path / "%Y"), make, time_of=CAPTURED, overwrite=True)
    assert told == [True, False]
