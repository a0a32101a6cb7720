import io
import json
import os
from datetime import datetime, timezone

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


def written(path, *results, **options):
    with JsonLines(path, **options) as sink:
        for result in results:
            sink.write(result)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_of_two_runs_are_told_apart_in_one_file(made, tmp_path):
    written(tmp_path / "lines", made(0), made(1), run="first")
    written(tmp_path / "lines", made(0), run="second")
    rows = [(row["run"], row["frame_index"]) for row in rows_of(tmp_path / "lines")]
    assert rows == [("first", 0), ("first", 1), ("second", 0)]


def test_the_run_is_named_by_its_time_in_utc_unless_told(made, tmp_path):
    before = datetime.now(timezone.utc)
    written(tmp_path / "lines", made(0))
    began = datetime.fromisoformat(rows_of(tmp_path / "lines")[0]["run"].replace("Z", "+00:00"))
    assert abs((began - before).total_seconds()) < 60


def test_a_file_of_our_lines_is_begun_anew_when_told_to(made, tmp_path):
    written(tmp_path / "lines", made(0), made(1))
    written(tmp_path / "lines", made(7), overwrite=True)
    assert [row["frame_index"] for row in rows_of(tmp_path / "lines")] == [7]


@pytest.mark.parametrize("rest", [b'{"run": "a", "fra', b"\0" * 4096, b'{"run": \0\0\0\n\0\0'])
@pytest.mark.parametrize("whole", [0, 3])
def test_what_a_power_cut_left_is_taken_away_with_a_warning(made, tmp_path, caplog, whole, rest):
    path = tmp_path / "lines"
    written(path, *(made(index) for index in range(whole)))
    with path.open("ab") as file:
        file.write(rest)
    JsonLines(path).check()
    written(path, made(9))
    assert [row["frame_index"] for row in rows_of(path)] == [*range(whole), 9]
    assert f"its {len(rest)} bytes are taken away" in caplog.text


@pytest.mark.parametrize("content", ["old\n" * 1000, "{}\n", "[1]\n", "no line", '{"frame_index": 1}\n' * 100_000])
def test_a_file_of_something_else_is_refused_and_stays(tmp_path, content):
    path = tmp_path / "lines"
    path.write_text(content)
    for refusing in (JsonLines(path).check, JsonLines(path).open):
        with pytest.raises(InputError, match="something else than lines of edgeseg run"):
            refusing()
    assert path.read_text() == content


def test_lines_that_somebody_else_appended_are_not_taken_away(made, tmp_path):
    written(tmp_path / "lines", made(0))
    with (tmp_path / "lines").open("a") as file:
        file.write("a note\n")
    with pytest.raises(InputError, match="something else"):
        JsonLines(tmp_path / "lines").open()


def test_two_runs_do_not_write_one_file_at_the_same_time(made, tmp_path):
    with JsonLines(tmp_path / "lines"), pytest.raises(InputError, match="being written by another process"):
        JsonLines(tmp_path / "lines").open()


def test_folders_that_are_missing_are_made_by_opening_and_not_by_checking(made, tmp_path):
    JsonLines(tmp_path / "deep" / "deeper" / "lines").check()
    assert list(tmp_path.iterdir()) == []
    written(tmp_path / "deep" / "deeper" / "lines", made(0))
    assert len(rows_of(tmp_path / "deep" / "deeper" / "lines")) == 1


def test_a_pipe_gets_the_lines_until_its_reader_leaves(made, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with JsonLines(tmp_path / "pipe") as sink:
        sink.write(made(3))
        assert json.loads(os.read(reader, 65536))["frame_index"] == 3
        os.close(reader)
        # As at `edgeseg run ... --json-lines - | head`, which the command line takes for the end.
        with pytest.raises(BrokenPipeError):
            sink.write(made(4))


def test_a_pipe_that_nobody_reads_is_refused_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    JsonLines(tmp_path / "pipe").check()
    with pytest.raises(InputError, match="a pipe that nobody reads"):
        JsonLines(tmp_path / "pipe").open()


def test_devices_are_written(made):
    written("/dev/null", made(0))
    with pytest.raises(InputError, match="No space left on device"):
        written("/dev/full", made(0))


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
