import io
import json

import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks import JsonLines
from support.small_disk import small_disk


def test_a_line_tells_ages_and_the_share_of_each_class(made, tmp_path):
    result = made(4)
    result.labels[:8] = 0
    with JsonLines(tmp_path / "lines") as sink:
        sink.write(result)
    row = json.loads((tmp_path / "lines").read_text())
    assert (row["frame_index"], row["age_s"], row["configuration"]) == (4, 0.05, "plain_32x48")
    assert row["pixels"] == {"0": 8 * 48, "1": 24 * 48}
    assert row["shares"] == {"red": 0.25, "green": 0.75}


def test_a_line_is_in_the_file_before_the_next_result_is_taken(made, tmp_path):
    with JsonLines(tmp_path / "lines") as sink:
        for index in range(3):
            sink.write(made(index))
            rows = (tmp_path / "lines").read_text()
            assert rows.endswith("}\n")
            assert json.loads(rows.splitlines()[-1])["frame_index"] == index


def test_an_older_file_is_overwritten(made, tmp_path):
    (tmp_path / "lines").write_text("old\n" * 1000)
    with JsonLines(tmp_path / "lines") as sink:
        sink.write(made(0))
    assert len((tmp_path / "lines").read_text().splitlines()) == 1


def test_a_stream_is_flushed_and_stays_open(made):
    stream = io.StringIO()
    with JsonLines(stream) as sink:
        sink.write(made(7))
    assert json.loads(stream.getvalue())["frame_index"] == 7


def test_only_whole_lines_are_there_when_the_disk_is_full(made, tmp_path):
    with (
        small_disk(tmp_path, 16384),
        pytest.raises(InputError, match="No space left"),
        JsonLines(tmp_path / "lines") as sink,
    ):
        try:
            for index in range(1000):
                sink.write(made(index))
        finally:
            text = (tmp_path / "lines").read_text()
            assert text.endswith("}\n")
            rows = [json.loads(line) for line in text.splitlines()]
            assert [row["frame_index"] for row in rows] == list(range(len(rows)))
            assert len(rows) >= 10


def test_a_folder_is_refused_before_the_loop_begins(tmp_path):
    with pytest.raises(InputError, match="Is a directory"):
        JsonLines(tmp_path).open()
