import json

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.device_profile import DeviceProfile


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
    ],
)
def test_profile_exits_with_2_and_writes_nothing_when_an_option_is_wrong(run, bundle, tmp_path, arguments, words):
    result = run(bundle.root, "--fps", 15, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_profile_exits_with_2_when_there_is_no_bundle(run):
    result = run("nothing.edgeseg", "--fps", 15)
    assert result.exit_code == 2
    assert "no bundle at nothing.edgeseg" in result.stderr
