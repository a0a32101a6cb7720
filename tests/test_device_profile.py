import json
from dataclasses import replace

import pytest

from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError

PROFILE = DeviceProfile(
    device="cpu",
    facts={"cpu": "Some CPU", "cores": 2},
    bundle_name="small",
    bundle_digest="a" * 64,
    fps=15.0,
    exhaustive=False,
    frame_size_hw=(360, 480),
    threads=2,
    entries=(
        LatencyProfile("fast", "d1", (1.0, 2.0, 3.0), 5),
        LatencyProfile("slow", "d2", (), 0, skipped="cannot win"),
    ),
    measured_at="2026-01-01T00:00:00+00:00",
    command_line="edgeseg profile small.edgeseg",
)


def test_profile_survives_the_round_trip_through_its_file(tmp_path):
    PROFILE.save(tmp_path / "cpu.json")
    assert DeviceProfile.load(tmp_path / "cpu.json") == PROFILE


def test_percentiles_are_those_of_all_samples():
    assert PROFILE.entries[0].percentile_ms(50) == 2.0
    assert PROFILE.entries[0].percentile_ms(100) == 3.0


def test_file_is_plain_json_even_when_a_configuration_has_no_samples(tmp_path):
    PROFILE.save(tmp_path / "cpu.json")
    assert json.loads((tmp_path / "cpu.json").read_text())["entries"][1]["p50_ms"] is None


@pytest.mark.parametrize(
    ("samples", "stable"),
    [((1.0, 1.01, 1.0, 1.0, 1.0, 1.01), True), ((1.0, 2.0, 1.0, 2.0), False), ((1.0,) * 3 + (1.04,) * 3, False)],
)
def test_measurement_is_stable_when_it_neither_varies_nor_drifts(samples, stable):
    assert LatencyProfile("net", "d", samples, 0).stable is stable


class OtherBundle:
    name, digest, root = "other", "b" * 64, "other.edgeseg"


def test_profile_is_refused_for_a_bundle_of_other_hashes():
    with pytest.raises(ArtifactError, match="measured with another bundle"):
        PROFILE.check_fits(OtherBundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(format="x"),
        lambda values: values.update(format_version=[9, 0]),
        lambda values: values.pop("entries"),
        lambda values: values["entries"][0].update(samples_ms=[-1]),
        lambda values: values["entries"][0].update(samples_ms="many"),
        lambda values: values.update(frame_size_hw=[1]),
    ],
)
def test_profile_is_refused_when_damaged(tmp_path, change):
    path = tmp_path / "cpu.json"
    PROFILE.save(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=r"cpu\.json"):
        DeviceProfile.load(path)


def test_missing_profile_says_how_to_measure_one(tmp_path):
    with pytest.raises(ArtifactError, match=r"no device profile .* edgeseg profile street\.edgeseg --out .*none\.json"):
        DeviceProfile.load(tmp_path / "none.json", of_bundle="street.edgeseg")


def test_entry_is_none_when_the_configuration_was_not_measured():
    assert PROFILE.entry("other") is None
    assert replace(PROFILE, entries=()).entry("fast") is None
