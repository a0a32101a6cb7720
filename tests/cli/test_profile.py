import json
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeseg.accuracy import CompensatedAccuracy
from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile
from edgeseg.shipped import bundle_path
from support.small_disk import small_disk

DEFAULT, LATE = Compensation(), Compensation(mode="late-warp")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["profile", *map(str, arguments), "--threads", "1"])


def test_profile_prints_a_table_and_writes_profile_and_plot(run, bundle, tmp_path):
    pytest.importorskip("matplotlib")
    result = run(bundle.root, "--fps", 15, "--samples", 5, "--out", "out/p.json")
    assert result.exit_code == 0, result.output
    assert "LAmIoU" in result.stdout
    assert "pick: " in result.stdout
    assert DeviceProfile.load(tmp_path / "out" / "p.json").bundle_digest == bundle.digest
    assert (tmp_path / "out" / "p.png").read_bytes().startswith(b"\x89PNG")


def test_profile_is_stored_under_the_device_when_no_file_is_named(run, bundle, tmp_path):
    assert run(bundle.root, "--fps", 15, "--samples", 5).exit_code == 0
    (stored,) = (tmp_path / "profiles").glob("*-cpu.json")
    assert DeviceProfile.load(stored).threads == 1


def test_profile_says_so_when_it_replaces_the_profile_of_another_bundle(run, bundle, own_bundle):
    first = run(bundle.root, "--fps", 15, "--samples", 1)
    again = run(bundle.root, "--fps", 15, "--samples", 1)
    other = run(own_bundle.root, "--fps", 15, "--samples", 1)
    assert "replaced" not in first.stderr + again.stderr
    assert "held a profile of bundle tiny" in other.stderr


def test_profile_says_so_when_compensations_of_the_stored_profile_are_left_out_now(run, graphs, tmp_path):
    entry = graphs.stateless("plain", size_hw=(48, 64), graph=graphs.brightest_channel((48, 64)))
    entry.accuracy = entry.accuracy.with_compensated([CompensatedAccuracy(LATE, (0.6, 0.55), (None, None))])
    made = graphs.write_bundle(tmp_path / "movable.edgeseg", [entry])
    arguments = (made.root, "--fps", 15, "--samples", 1, "--exhaustive")
    both, again, without = run(*arguments), run(*arguments), run(*arguments, "--compensation", "none")
    assert "replaced" not in both.stderr + again.stderr
    assert f"with compensation {LATE.name}, which is replaced: --out keeps both" in without.stderr


def test_the_profile_is_named_as_in_the_commands_that_read_it(run, bundle, tmp_path):
    result = run(bundle.root, "--fps", 15, "--samples", 5, "--profile", "p.json", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["profile"] == "p.json"


def test_json_is_all_that_is_printed_when_asked_for(run, bundle):
    result = run(bundle.root, "--fps", 15, "--samples", 5, "--exhaustive", "--frame-size", "64x96", "--json")
    values = json.loads(result.stdout)
    assert {row["name"] for row in values["rows"]} == {entry.name for entry in bundle.configurations}
    assert DeviceProfile.load(values["profile"]).frame_size_hw == (64, 96)


def test_profile_goes_on_without_a_plot_when_matplotlib_is_missing(run, bundle, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = run(bundle.root, "--fps", 15, "--samples", 5, "--out", "p.json")
    assert result.exit_code == 0
    assert "plot left out" in result.stderr
    assert "pip install 'edgeseg[plot]'" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--frame-size", "64"], "HEIGHTxWIDTH"),
        (["--frame-size", "0x64"], "HEIGHTxWIDTH"),
        (["--video", "nothing.mp4"], "no video file"),
        (["--remote-command", "~/edgeseg"], "--remote-command is for a device of another machine"),
        (["--ssh-option", "Port=22"], "--ssh-option is for a device of another machine"),
        (["--device", "ssh://-x"], "is written ssh://"),
    ],
)
def test_profile_exits_with_2_and_writes_nothing_when_an_option_is_wrong(run, bundle, tmp_path, arguments, words):
    result = run(bundle.root, "--fps", 15, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_images_is_a_video_at_the_cameras_frame_rate(run, bundle, video):
    result = run(bundle.root, "--fps", 15, "--samples", 5, "--video", video / "frames" / "val" / "a", "--json")
    assert result.exit_code == 0, result.output


def test_profile_exits_with_2_when_there_is_no_bundle(run):
    result = run("nothing.edgeseg", "--fps", 15)
    assert result.exit_code == 2
    assert "no bundle at nothing.edgeseg" in result.stderr


def test_a_bundle_gains_the_compensations_that_are_asked_for_without_a_new_export(run, scored):
    bundle, data = scored
    names = f"none,{DEFAULT.mode},{LATE.mode}"
    result = run(
        bundle.root, "--fps", 10, "--samples", 5, "--exhaustive", "--compensation", names, "--data", data, "--json"
    )
    assert result.exit_code == 0, result.output
    grown = Bundle.open(bundle.root)
    assert set(grown.configurations[0].accuracy.compensations[1:]) == {DEFAULT, LATE}
    assert {row["compensation"] for row in json.loads(result.stdout)["rows"]} == {"none", DEFAULT.name, LATE.name}
    # From now on it needs no data, and by default what there are tables for is measured.
    again = run(bundle.root, "--fps", 10, "--samples", 5, "--exhaustive", "--json")
    assert len(json.loads(again.stdout)["rows"]) == 3


def test_the_table_tells_how_labels_are_moved(run, scored):
    bundle, data = scored
    result = run(bundle.root, "--fps", 10, "--samples", 5, "--compensation", "late-warp", "--data", data)
    assert "late uf/2 = late-warp_dis-ultrafast_d2" in result.stdout
    assert "taken to be of 48 x 64: --frame-size HxW measures with others" in result.stdout


def test_the_flow_is_that_of_the_scored_videos_frames_unless_others_are_given(run, scored):
    bundle, data = scored
    size_hw = bundle.configurations[0].accuracy.size_hw

    def measured(*arguments):
        result = run(bundle.root, "--fps", 10, "--samples", 2, *arguments, "--json")
        return DeviceProfile.load(json.loads(result.stdout)["profile"]).frame_size_hw

    assert measured("--compensation", "none") is None
    assert measured("--compensation", "late-warp", "--data", data) == size_hw
    assert measured("--frame-size", "64x96") == (64, 96)
    assert measured("--video", "street:60x80") == (60, 80)


def test_data_that_are_not_needed_are_said_to_be_left_unread(run, scored):
    bundle, data = scored
    arguments = (bundle.root, "--fps", 10, "--samples", 2, "--compensation", "late-warp", "--data", data)
    assert "was not read" not in run(*arguments).stderr
    assert "has all of these tables, --data was not read" in run(*arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compensation", "late-warp"], "tiny has no accuracy table for late-warp_dis-ultrafast_d2 | add --data"),
        (
            ["--compensation", "all"],
            "dis-ultrafast_d2 and 5 more | add --data with the labelled video that its tables were made on",
        ),
        (["--compensation", "later-warp"], "unknown compensation 'later-warp'"),
        (["--data", "somewhere"], "--data is for scoring compensations | name them"),
        (["--split", "val"], "--split is a split of --data | give both"),
        (["--compensation", "late-warp", "--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_profile_exits_with_2_before_it_measures_when_there_is_nothing_to_score_with(
    run, bundle, tmp_path, arguments, words
):
    result = run(bundle.root, "--fps", 15, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_tables_are_added_to_what_ships_with_edgeseg(run, scored):
    before = Path(Bundle.open(bundle_path("shipped:street")).root / "manifest.json").read_bytes()
    result = run("shipped:street", "--fps", 15, "--compensation", "extrapolate", "--data", scored[1])
    assert result.exit_code == 2
    assert "is part of edgeseg" in result.stderr
    assert Path(bundle_path("shipped:street") / "manifest.json").read_bytes() == before


def test_a_bundle_that_cannot_be_written_to_is_refused_before_it_is_scored(run, scored, monkeypatch):
    make_file = tempfile.mkstemp

    def read_only(**options):
        if Path(options["dir"]) == scored[0].root:
            raise PermissionError(13, "Permission denied")
        return make_file(**options)

    monkeypatch.setattr(tempfile, "mkstemp", read_only)
    result = run(scored[0].root, "--fps", 15, "--compensation", "late-warp", "--data", scored[1])
    assert result.exit_code == 2
    assert "accuracy tables cannot be added to" in result.stderr
    assert "copy the bundle and profile the copy" in result.stderr


def test_a_bundle_on_a_full_disk_is_refused_before_it_is_scored(run, scored, monkeypatch, tmp_path):
    from edgeseg.export import accuracy

    monkeypatch.setattr(accuracy, "add_compensated_tables", lambda *_, **__: pytest.fail("scored"))
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        copied = shutil.copytree(scored[0].root, disk / "a.edgeseg")
        before = sorted(copied.iterdir())
        result = run(copied, "--fps", 15, "--compensation", "late-warp", "--data", scored[1])
        assert sorted(copied.iterdir()) == before
    assert result.exit_code == 2, result.output
    assert "accuracy tables cannot be added to" in result.stderr
    assert "bytes are free there, up to 100000 are needed" in result.stderr
    assert "make room there" in result.stderr
