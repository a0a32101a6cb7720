"""The demo, small: real export, profile, pick and loop on the simulator."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.config import DEFAULT_COMPENSATIONS

SMALL = ("--data", "street:64x96@15", "--seconds", "1")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, str]:
    """JSON, folder and progress text of one small demo."""
    pytest.importorskip("torch", reason="the demo exports with torch")
    folder = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(main, ["demo", *SMALL, "--out", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), folder, result.stderr


def test_demo_makes_bundle_profile_plot_and_video(demo):
    _, folder, _ = demo
    assert (folder / "street.edgeseg" / "manifest.json").is_file()
    assert (folder / "profile.json").is_file()
    assert (folder / "plot.png").stat().st_size > 5_000
    assert (folder / "overlay.mp4").stat().st_size > 1_000


def test_demo_measures_every_configuration_at_three_sizes_and_two_strides(demo):
    values, _, _ = demo
    rows = values["pick"]["rows"]
    assert {row["name"].removeprefix("swiftnet_r18_").split("_")[0] for row in rows} == {"64x96", "48x72", "32x48"}
    assert len({row["configuration"] for row in rows}) == 6
    assert len({row["compensation"] for row in rows}) == len(DEFAULT_COMPENSATIONS)


def test_demo_runs_what_it_picked_and_scores_it(demo):
    values, _, _ = demo
    assert values["run"]["configuration"] == values["pick"]["configuration"]
    assert (values["run"]["compensation"] is not None) == (values["pick"]["compensation"]["mode"] != "none")
    assert 0 < values["run"]["slamiou"] <= 1


def test_demo_says_its_four_steps(demo):
    assert [line[:3] for line in demo[2].splitlines() if line[1:3] == "/4"] == ["1/4", "2/4", "3/4", "4/4"]


def test_demo_takes_the_shipped_bundle_when_torch_is_missing(tmp_path, monkeypatch):
    import edgeseg.optional

    def missing(module, *, extra):
        raise edgeseg.optional.MissingPackageError(f"{module} cannot be imported")

    monkeypatch.setattr(edgeseg.optional, "require", missing)
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["demo", *SMALL, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "taking the shipped bundle" in result.stderr
    assert "won: swiftnet_r18_" in result.stdout
    assert "compensation: labels moved to the present get sLAmIoU 0." in result.stdout
    assert (out / "overlay.mp4").is_file()
