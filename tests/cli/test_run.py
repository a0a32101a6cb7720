import json
import logging
import os
import re
import shutil
from datetime import datetime

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.errors import InputError
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.sinks import SharedLabels

PLAIN = ("--source", "street", "--configuration", "plain_32x48")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((32, 48, 3), (0, 0, 200), np.uint8))
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["run", *map(str, arguments), "--threads", "1"])


def test_run_prints_a_summary_and_writes_video_and_lines(bundle, images, tmp_path):
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48",
        "--save", tmp_path / "v.mp4", "--json-lines", tmp_path / "lines.jsonl",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "configuration  plain_32x48" in result.stdout
    assert "results        6 in" in result.stdout
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    rows = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [row["pixels"] for row in rows] == [{"0": 32 * 48}] * 6


def test_run_prints_only_lines_when_they_go_to_standard_output(bundle, images):
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48", "--json-lines", "-"
    )
    assert len([json.loads(line) for line in result.stdout.splitlines()]) == 6
    assert "results        6" in result.stderr


def test_run_measures_and_picks_when_there_is_no_profile(bundle, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(bundle.root, "--source", images, "--fps", 30, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["configuration"] in {entry.name for entry in bundle.configurations}


def test_run_says_what_the_pick_promised_and_that_it_had_to_measure(bundle, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(bundle.root, "--source", images, "--fps", 30, "--frames", 1)
    assert ", picked: predicted sLAmIoU 0." in result.stdout
    assert "at 30 frames/s" in result.stdout


def test_run_tells_what_compensation_did(bundle, images, tmp_path):
    arguments = (
        bundle.root, "--source", images, "--fps", 30, "--configuration", "plain_32x48",
        "--compensation", "late-warp_dis-ultrafast_d1", "--check-consistency",
    )  # fmt: skip
    result = run(*arguments, "--json-lines", tmp_path / "lines.jsonl")
    assert result.exit_code == 0, result.output
    assert "compensation   late-warp_dis-ultrafast_d1, at the camera's rate" in result.stdout
    assert "warp           p50" in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert all(row["source_index"] <= row["frame_index"] for row in rows)
    assert all(row["stands_for"] == row["captured_at"] for row in rows if row["fallback"] is None)
    summary = json.loads(run(*arguments, "--json").stdout)
    assert summary["compensation"]["name"] == "late-warp_dis-ultrafast_d1"


def test_run_marks_invalid_pixels_when_told_to(bundle, images):
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--configuration", "plain_32x48", "--json",
        "--compensation", "late-warp", "--mark-invalid", "--rate", "network",
    )  # fmt: skip
    summary = json.loads(result.stdout)["compensation"]
    assert (summary["name"], summary["rate"]) == ("late-warp_dis-ultrafast_d2_marked", "network")


def test_run_stops_after_the_frames_asked_for(bundle, images):
    result = run(
        bundle.root, "--source", images, "--fps", 10, "--configuration", "plain_32x48", "--frames", 2, "--json"
    )
    assert json.loads(result.stdout)["results"] <= 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "nothing.mp4", "--configuration", "plain_32x48"], "no video file"),
        (["--source", "street", "--configuration", "big"], "has no configuration 'big'"),
        (["--source", "street", "--configuration", "plain_32x48", "--profile", "p.json"], "contradict each other"),
        (["--source", "street", "--configuration", "plain_32x48", "--device", "npu"], "unknown device"),
        ([*PLAIN, "--palette"], "name their folder: --save-labels"),
        ([*PLAIN, "--save-size", "9x9"], "name its file: --save"),
        ([*PLAIN, "--segment", "60", "--json-lines", "-"], "--segment is about files | name one"),
        ([*PLAIN, "--overwrite"], "--overwrite is about files | name one"),
        ([*PLAIN, "--save", "drive-%A.mp4"], "in names of files %Y"),
        ([*PLAIN, "--save-labels", "/proc/labels"], "/proc/labels cannot be written"),
        ([*PLAIN, "--shared-memory", "a/b"], "a file name without a folder"),
        ([*PLAIN, "--schedule", "newest"], "unknown schedule 'newest'"),
        ([*PLAIN, "--schedule", "shrinking-tail", "--no-pace"], "contradict each other"),
        ([*PLAIN, "--adaptive"], "--adaptive and --configuration contradict each other"),
        (["--source", "street", "--adaptive", "--no-pace"], "--adaptive and --no-pace contradict each other"),
        (["--source", "street", "--configuration", "plain_32x48", "--json", "--json-lines", "-"], "both write"),
        (["--source", "street", "--profile", "missing.json"], "no device profile"),
        (
            [*PLAIN, "--rate", "camera"],
            "labels at the camera's rate are moved labels, and the compensation is none | give one",
        ),
        ([*PLAIN, "--check-consistency"], "share of invalid pixels are moved labels"),
        ([*PLAIN, "--mark-invalid"], "name how: --compensation"),
        ([*PLAIN, "--compensation", "forwards"], "unknown compensation 'forwards'"),
        ([*PLAIN, "--compensation", "late-warp_best_d2"], "unknown compensation 'late-warp_best_d2'"),
        ([*PLAIN, "--compensation", "all"], "moves labels in one way"),
    ],
)
def test_run_exits_with_2_when_an_option_is_wrong(bundle, arguments, words):
    result = run(bundle.root, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_run_leaves_video_and_summary_up_to_where_the_source_broke(bundle, images, tmp_path, as_json):
    for index in range(6, 40):
        shutil.copy(images / "0.png", images / f"{index:02d}.png")
    path = images / "38.png"
    path.write_bytes(path.read_bytes()[:-16])
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48",
        "--save", tmp_path / "out" / "v.mp4", *as_json,
    )  # fmt: skip
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "of 40" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v.mp4"]
    assert cv2.VideoCapture(str(tmp_path / "out" / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 36
    if as_json:
        values = json.loads(result.stdout)
        assert values["results"] == 36
        assert line == f"edgeseg: {values['error']}"
    else:
        assert "results        36 in" in result.stdout


def test_run_writes_label_files_with_the_colours_of_the_classes(bundle, images, tmp_path):
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48",
        "--save-labels", tmp_path / "labels", "--palette",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "labels").iterdir())
    assert names == [f"{index:08d}.png" for index in range(6)]
    assert cv2.imread(str(tmp_path / "labels" / names[0]))[0, 0].tolist() == [0, 0, 255]


def test_run_refuses_an_earlier_video_before_it_measures_and_keeps_it(bundle, images, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeseg.runtime.session_loading.load", lambda *_, **__: pytest.fail("loaded"))
    (tmp_path / "v.mp4").write_bytes(b"earlier")
    result = run(bundle.root, "--source", images, "--fps", 30, "--save", tmp_path / "v.mp4")
    assert result.exit_code == 2
    assert "v.mp4 exists | --overwrite replaces it" in result.stderr
    assert (tmp_path / "v.mp4").read_bytes() == b"earlier"


@pytest.mark.parametrize("spelling", ["{folder}/a drive.mp4", "file://{folder}/a%20drive.mp4", "@{folder}/address"])
@pytest.mark.parametrize("option", ["--save", "--json-lines"])
def test_run_refuses_to_replace_its_source_however_that_is_spelled(bundle, tmp_path, spelling, option):
    video = tmp_path / "a drive.mp4"
    video.write_bytes(b"the only recording")
    (tmp_path / "address").write_text(f"file://{tmp_path}/a%20drive.mp4\n")
    result = run(bundle.root, "--source", spelling.format(folder=tmp_path), option, video, "--overwrite")
    assert result.exit_code == 2
    assert f"--source and {option} are the same file" in result.stderr
    assert video.read_bytes() == b"the only recording"


def test_run_refuses_to_replace_the_file_with_the_address(bundle, tmp_path):
    (tmp_path / "address").write_text("street\n")
    result = run(bundle.root, "--source", f"@{tmp_path}/address", "--json-lines", tmp_path / "address", "--overwrite")
    assert result.exit_code == 2
    assert "--source and --json-lines are the same file" in result.stderr


@pytest.mark.parametrize("option", [("--mark-invalid",), ("--check-consistency",), ("--rate", "camera")])
@pytest.mark.parametrize("unmoved", [("--compensation", "none"), ("--configuration", "plain_32x48")])
def test_run_refuses_options_of_moved_labels_before_it_measures(bundle, monkeypatch, option, unmoved):
    monkeypatch.setattr("edgeseg.runtime.session_loading.load", lambda *_, **__: pytest.fail("loaded"))
    result = run(bundle.root, "--source", "street", *unmoved, *option)
    assert result.exit_code == 2
    assert "moved labels" in result.stderr


def test_run_that_is_started_again_and_again_destroys_nothing(bundle, images, tmp_path):
    arguments = (
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48",
        "--save", tmp_path / "drive-%Y.mp4", "--json-lines", tmp_path / "lines.jsonl",
        "--save-labels", tmp_path / "labels-%Y",
    )  # fmt: skip
    for _ in range(3):
        assert run(*arguments).exit_code == 0
    year = f"{datetime.now():%Y}"
    for number in ("", "-2", "-3"):
        assert cv2.VideoCapture(str(tmp_path / f"drive-{year}{number}.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 6
        assert len(list((tmp_path / f"labels-{year}{number}").iterdir())) == 6
    rows = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [row["frame_index"] for row in rows] == 3 * list(range(6))
    assert len({row["run"] for row in rows}) == 3


def test_run_begins_new_files_after_so_many_seconds_of_the_source(bundle, images, tmp_path):
    result = run(
        bundle.root, "--source", images, "--fps", 3, "--no-pace", "--configuration", "plain_32x48",
        "--json-lines", tmp_path / "lines.jsonl", "--save-labels", tmp_path / "labels", "--segment", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    folders = sorted(path for path in tmp_path.iterdir() if path.name.startswith("labels-"))
    assert [len(list(folder.iterdir())) for folder in folders] == [3, 3]
    lines = sorted(tmp_path.glob("lines-*.jsonl"))
    assert sum(len(path.read_text().splitlines()) for path in lines) == 6


def test_run_replaces_earlier_files_when_told_to(bundle, images, tmp_path):
    for name in ("v.mp4", "lines"):
        (tmp_path / name).write_bytes(b"earlier")
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48",
        "--save", tmp_path / "v.mp4", "--save-size", "16x24", "--json-lines", tmp_path / "lines", "--overwrite",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert [capture.get(key) for key in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)] == [16, 24]
    assert len((tmp_path / "lines").read_text().splitlines()) == 6


def test_run_keeps_the_newest_labels_in_shared_memory_and_removes_it(bundle, images):
    name = f"edgeseg-test-run-{os.getpid()}"
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48",
        "--shared-memory", name, "--json",
    )  # fmt: skip
    assert json.loads(result.stdout)["sinks"] == [{"name": f"shared memory {name}", "written": 6, "dropped": 0}]
    with pytest.raises(InputError, match="no shared memory"):
        SharedLabels.open(name)


def test_run_logs_its_summary_as_json(bundle, images):
    result = run(
        bundle.root, "--source", "street:32x48@15", "--configuration", "plain_32x48",
        "--seconds", 1, "--summary-every", 0.2, "--log-json",
    )  # fmt: skip
    records = [json.loads(line) for line in result.stderr.splitlines()]
    told = [record for record in records if "summary" in record]
    assert len(told) >= 2
    assert told[-1]["summary"]["configuration"] == "plain_32x48"
    assert {"time", "level", "logger", "message"} <= told[-1].keys()


def test_warnings_of_a_run_have_their_time_where_no_terminal_shows_them(bundle, images, monkeypatch):
    def warned(*arguments, **options):
        logging.getLogger("edgeseg.test").warning("something is wrong")
        return load(*arguments, **options)

    monkeypatch.setattr("edgeseg.runtime.session_loading.load", warned)
    result = run(bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48", "--json")
    (line,) = result.stderr.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} something is wrong", line)


def test_run_keeps_to_the_schedule(bundle, images):
    result = run(
        bundle.root, "--source", images, "--fps", 30, "--no-pace", "--configuration", "plain_32x48",
        "--schedule", "every-n-th:3", "--json",
    )  # fmt: skip
    summary = json.loads(result.stdout)
    assert (summary["results"], summary["schedule"]) == (2, "every-n-th:3")


def test_run_is_watched_and_adapts_when_told_to(bundle, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(bundle.root, "--source", images, "--fps", 30, "--adaptive", "--step-limit-s", 60, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["session_events"] == {}
