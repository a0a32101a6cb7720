import json

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.device_profile import DeviceProfile, LatencyProfile

PLAIN, PHASES = "plain_32x48", "phases_32x48_rho0-concat"


@pytest.fixture
def profile(bundle, tmp_path):
    """At 15 frames/s plain is three frames late, phases one."""
    entries = (LatencyProfile(PLAIN, "d", (140.0,) * 5, 5), LatencyProfile(PHASES, "d", (40.0,) * 5, 5))
    made = DeviceProfile(
        "cpu", {}, bundle.name, bundle.digest, 15.0, True, None, 1, entries, "2026-01-01", "edgeseg profile"
    )
    made.save(tmp_path / "p.json")
    return tmp_path / "p.json"


def run(*arguments):
    return CliRunner().invoke(main, ["simulate", *map(str, arguments)])


def test_simulate_prints_a_row_per_candidate_and_schedule(bundle, profile):
    result = run(bundle.root, "--profile", profile, "--fps", 15)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if line.strip().startswith((PLAIN, PHASES))]
    assert len(lines) == 6
    assert lines[0][:4] == [PHASES, "latest-frame", "0.500", "15.0"]
    assert "shrinking-tail is better than latest-frame for" in result.stdout


def test_simulate_shows_the_rows_asked_for_and_says_how_many_more_there_are(bundle, profile):
    result = run(bundle.root, "--profile", profile, "--fps", 15, "--rows", 2, "--configuration", PLAIN)
    assert result.stdout.count(PLAIN + " ") == 2
    assert "1 rows more" in result.stdout
    assert PHASES not in result.stdout


def test_simulate_prints_json(bundle, profile):
    result = run(bundle.root, "--profile", profile, "--fps", 15, "--schedule", "fixed-rate:5, latest-frame", "--json")
    found = json.loads(result.stdout)
    assert {row["schedule"] for row in found["rows"]} == {"fixed-rate:5", "latest-frame"}
    assert found["fps"] == 15


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--schedule", "newest"], "unknown schedule 'newest'"),
        (["--configuration", "big"], "has no configuration 'big'"),
        (["--compensation", "sideways"], "sideways"),
    ],
)
def test_simulate_exits_with_2_when_an_option_is_wrong(bundle, profile, arguments, words):
    result = run(bundle.root, "--profile", profile, "--fps", 15, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
