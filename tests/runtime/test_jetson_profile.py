"""What a profile that was measured on a board holds, and what becomes of one whose board cut its clocks."""

import dataclasses
import logging

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.device_profile import DeviceProfile
from edgeseg.runtime import device, profiler
from edgeseg.runtime.device import default_profile_path, device_facts
from edgeseg.runtime.jetson.board_facts import board_facts
from edgeseg.runtime.jetson.board_monitor import BoardMonitor
from edgeseg.runtime.pick import pick
from edgeseg.runtime.profiler import profile_bundle
from edgeseg.runtime.session_loading import load
from support.jetson_root import write, write_board, write_tegrastats

LINE = "RAM 2845/7486MB CPU [9%@1510,5%@729] GR3D_FREQ 0%@[305] cpu@60C VDD_IN 5000mW/5000mW"
REASON = "gpu-throttle-alert was on"


@pytest.fixture
def board(tmp_path, monkeypatch):
    """This machine is a Jetson, as far as the profiler can see."""
    root = write_board(tmp_path / "root")
    command = [str(write_tegrastats(tmp_path / "tegrastats", [LINE]))]
    monkeypatch.setattr(profiler, "watched_board", lambda: BoardMonitor(root=root, command=command))
    monkeypatch.setattr(device, "board_facts", lambda: board_facts(root, lambda command: "NV Power Mode: 15W\n0\n"))
    monkeypatch.chdir(tmp_path)
    return root


def measured(bundle, **options):
    return profile_bundle(bundle, fps=15, exhaustive=True, samples=options.pop("samples", 5), threads=1, **options)


def test_a_profile_tells_power_mode_clocks_heat_and_power(bundle, board):
    facts = measured(bundle).facts
    assert facts["power_mode"] == {"name": "15W", "number": 0}
    assert facts["clocks"]["GPU"]["max_mhz"] == 612
    assert facts["after"]["clocks"]["GPU"]["max_mhz"] == 612
    assert facts["board"]["hottest_c"] == 60.0
    assert facts["board"]["mean_power_mw"] == 5000


def test_a_profile_tells_the_energy_of_a_step_where_it_was_measured_long_enough(graphs, board, tmp_path):
    slow = graphs.stateless(
        "slow", size_hw=(240, 320), graph=graphs.brightest_channel((240, 320), extra_convolutions=9)
    )
    entry = measured(graphs.write_bundle(tmp_path / "slow.edgeseg", [slow]), samples=60).entry("slow_240x320")
    assert entry.energy_mj == pytest.approx(5000 * entry.latencies_s.mean(), rel=1e-3)


def test_a_profile_of_a_cool_board_is_valid(bundle, board):
    assert measured(bundle).invalid_reason is None


@pytest.fixture
def hot(bundle, board):
    """A profile that was measured while the board cut its clocks."""
    write(board / "sys/class/thermal/cooling_device2/cur_state", 1)
    return measured(bundle, samples=200)


def test_a_profile_of_a_board_that_cut_its_clocks_says_so_also_from_its_file(hot, tmp_path):
    assert hot.invalid_reason == REASON
    hot.save(tmp_path / "p.json")
    assert DeviceProfile.load(tmp_path / "p.json") == hot


def test_a_profile_of_an_older_format_is_not_invalid(hot, tmp_path):
    path = tmp_path / "p.json"
    hot.save(path)
    text = (
        path.read_text()
        .replace(f',\n "invalid_reason": "{REASON}"', "")
        .replace(f' "invalid_reason": "{REASON}",\n', "")
    )
    assert "invalid_reason" not in text
    path.write_text(text)
    assert DeviceProfile.load(path).invalid_reason is None


def test_a_pick_from_it_warns_before_all_other_notes(bundle, hot):
    note = pick(bundle, hot, 30.0).notes[0]
    assert note.startswith("INVALID PROFILE")
    assert REASON in note


def test_no_note_warns_of_a_valid_one(bundle, hot):
    valid = dataclasses.replace(hot, invalid_reason=None)
    assert not any("INVALID" in note for note in pick(bundle, valid, 30.0).notes)


def test_the_stored_one_is_left_aside_and_measured_anew(bundle, hot, board, caplog):
    hot.save(default_profile_path("cpu"))
    write(board / "sys/class/thermal/cooling_device2/cur_state", 0)
    with caplog.at_level(logging.WARNING), load(bundle, fps=15, threads=1) as session:
        assert not any("INVALID" in note for note in session.pick.notes)
    assert f"is invalid, the board cut its clocks meanwhile ({REASON}): measuring" in caplog.text


def test_one_that_is_given_is_used_with_a_warning(bundle, hot, caplog):
    with caplog.at_level(logging.WARNING), load(bundle, fps=15, threads=1, profile=hot) as session:
        assert session.pick.notes[0].startswith("INVALID PROFILE")
    assert f"the profile is invalid ({REASON})" in caplog.text


def test_profile_stores_it_and_warns(bundle, board):
    write(board / "sys/class/thermal/cooling_device2/cur_state", 1)
    arguments = ["profile", str(bundle.root), "--fps", "15", "--samples", "200", "--exhaustive", "--threads", "1",
                 "--out", "p.json"]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    assert "INVALID PROFILE" in result.output
    assert DeviceProfile.load("p.json").invalid_reason == REASON


def test_info_tells_what_the_board_did(hot, tmp_path):
    hot.save(tmp_path / "p.json")
    text = " ".join(CliRunner().invoke(main, ["info", str(tmp_path / "p.json")]).output.split())
    assert "power mode 15W, at most 60 C, 5.0 W in the mean" in text
    assert f"INVALID its clocks were cut: {REASON}" in text


def test_another_machine_has_no_facts_of_a_board(bundle):
    assert not {"power_mode", "clocks", "over_current_events"} & set(device_facts())
    profile = measured(bundle)
    assert "board" not in profile.facts
    assert profile.invalid_reason is None
