import json

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.device_profile import DeviceProfile, LatencyProfile

PLAIN, PHASES = "plain_32x48", "phases_32x48_rho0-concat"


@pytest.fixture
def profile(bundle, tmp_path):
    """plain takes 140 ms and phases 40 ms: at 15 frames/s three frames and one."""
    entries = (LatencyProfile(PLAIN, "d", (140.0,) * 5, 5), LatencyProfile(PHASES, "d", (40.0,) * 5, 5))
    made = DeviceProfile(
        "cpu",
        {"cpu": "made"},
        bundle.name,
        bundle.digest,
        15.0,
        True,
        None,
        1,
        entries,
        "2026-01-01",
        "edgeseg profile",
    )
    made.save(tmp_path / "p.json")
    return tmp_path / "p.json"


def run(*arguments):
    return CliRunner().invoke(main, ["pick", *map(str, arguments)])


def test_pick_names_the_best_and_why(bundle, profile):
    result = run(bundle.root, "--profile", profile, "--fps", 15)
    assert result.exit_code == 0, result.output
    assert f">  {PHASES}" in result.stdout
    assert f"pick: {PHASES} has the best predicted sLAmIoU at 15 frames/s, 0.500" in result.stdout


def test_pick_says_that_it_interpolates_when_the_rate_is_another(bundle, profile):
    assert "interpolated" in run(bundle.root, "--profile", profile, "--fps", 25).stdout


def test_pick_respects_limits(bundle, profile):
    result = run(bundle.root, "--profile", profile, "--fps", 15, "--min-miou", 0.58, "--json")
    assert json.loads(result.stdout)["configuration"] == PLAIN


def test_pick_exits_with_2_and_names_the_closest_when_nothing_fits(bundle, profile):
    result = run(bundle.root, "--profile", profile, "--fps", 15, "--max-latency-ms", 30)
    assert result.exit_code == 2
    assert f"the closest is {PHASES}" in result.stderr


def test_pick_exits_with_2_when_the_profile_is_of_another_bundle(own_bundle, profile):
    result = run(own_bundle.root, "--profile", profile, "--fps", 15)
    assert result.exit_code == 2
    assert "measured with another bundle" in result.stderr


def test_pick_exits_with_2_when_there_is_no_profile(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(bundle.root, "--fps", 15)
    assert result.exit_code == 2
    assert "no device profile" in result.stderr


def test_pick_draws_a_plot_when_asked(bundle, profile, tmp_path):
    pytest.importorskip("matplotlib")
    run(bundle.root, "--profile", profile, "--fps", 15, "--plot", tmp_path / "plot.svg")
    assert b"<svg" in (tmp_path / "plot.svg").read_bytes()


def test_pick_is_restricted_to_the_compensations_that_are_named(bundle, profile):
    plain = run(bundle.root, "--profile", profile, "--fps", 15, "--compensation", "none", "--json")
    assert {row["compensation"] for row in json.loads(plain.stdout)["rows"]} == {"none"}
    late = run(bundle.root, "--profile", profile, "--fps", 15, "--compensation", "late-warp")
    assert late.exit_code == 2
    assert "no accuracy table with late-warp_dis-ultrafast_d2: edgeseg profile --data makes it" in late.stderr


def test_pick_asks_for_the_profile_when_the_device_is_of_another_machine(bundle):
    result = run(bundle.root, "--device", "ssh://me@orin", "--fps", 15)
    assert result.exit_code == 2
    assert (
        "pick asks no other machine, got ssh://me@orin | name the profile that was brought here: --profile"
        in result.stderr
    )


def test_pick_reckons_with_the_schedule_that_was_asked_for(bundle, profile):
    result = run(bundle.root, "--profile", profile, "--fps", 15, "--schedule", "every-n-th:4", "--json")
    assert json.loads(result.stdout)["schedule"] == "every-n-th:4"
    assert run(bundle.root, "--profile", profile, "--fps", 15, "--schedule", "newest").exit_code == 2
