"""The benchmark of picks with and without compensation, on the shipped bundle's tables and latencies that are given."""

import pytest

from benchmarks import picks as benchmark
from edgeseg.bundle import Bundle
from edgeseg.config import DEFAULT_COMPENSATIONS, UNCOMPENSATED, Compensation
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.shipped import bundle_path

LARGE, SMALL = "swiftnet_r18_540x720_w0.25", "swiftnet_r18_268x360_w0.25"
FINE = Compensation(divisor=1)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(bundle_path("shipped:street"))


def profile(bundle: Bundle, fps: float) -> DeviceProfile:
    """Steps of 80 ms at full size, 45 and 15 ms below; a flow takes 3 ms and the fine one 50, longer than a period."""
    step_ms = {540: 80.0, 404: 45.0, 268: 15.0}
    entries = tuple(
        LatencyProfile(
            entry.name,
            entry.digest,
            (step_ms[entry.knobs.size_hw[0]] + (0.5 if entry.knobs.labels_stride == 1 else 0.0),) * 4,
            2,
            compensation=each,
            flow_ms=() if each == UNCOMPENSATED else (50.0 if each == FINE else 3.0,),
        )
        for entry in bundle.configurations
        for each in DEFAULT_COMPENSATIONS
    )
    return DeviceProfile("cpu", {}, bundle.name, bundle.digest, fps, True, (360, 480), 1, entries, "now", "test")


@pytest.fixture(scope="module")
def picks(bundle) -> benchmark.Picks:
    return benchmark.Picks.of(bundle, profile(bundle, 30.0), 30.0, DEFAULT_COMPENSATIONS)


def test_the_pick_without_compensation_is_among_labels_as_they_come(picks):
    assert {row.compensation for row in picks.without.rows} == {"none"}
    assert picks.compensated.row.compensation == Compensation().name
    assert picks.compensated.row.streaming_lamiou > picks.without.row.streaming_lamiou


def test_each_configuration_is_shown_as_labels_come_and_with_its_best_compensation(picks):
    shown = [(row["shown as"], row["compensation"]) for row in benchmark.rate_rows(picks)]
    kinds = ("pick without", "pick with", "most accurate", "slowest")
    # The fine flow cannot keep up with the camera, whatever its labels are worth.
    assert shown == [(kind, compensation) for kind in kinds for compensation in ("none", Compensation().name)]


def test_the_slowest_is_the_one_of_the_longest_step_unless_one_is_named(picks):
    def slowest(name=None):
        return {row["configuration"] for row in benchmark.rate_rows(picks, name) if row["shown as"] == "slowest"}

    assert slowest() == {LARGE}
    assert slowest(SMALL) == {SMALL}


def test_the_most_accurate_one_is_so_without_delay(bundle, picks):
    best = max(entry.accuracy.miou[0] for entry in bundle.configurations)
    rows = [row for row in benchmark.rate_rows(picks) if row["shown as"] == "most accurate"]
    assert {row["mIoU k=0"] for row in rows} == {round(best, 4)}
    assert {row["k"] for row in rows} == {3}


def test_gains_are_to_the_pick_without_compensation(picks):
    rows = benchmark.rate_rows(picks)
    assert (rows[0]["sLAmIoU to pick without"], rows[0]["LAmIoU to pick without"]) == (0, 0)
    with_it = next(row for row in rows if row["shown as"] == "pick with" and row["compensation"] != "none")
    assert with_it["sLAmIoU to pick without"] == pytest.approx(with_it["sLAmIoU"] - rows[0]["sLAmIoU"], abs=2e-4)


@pytest.fixture
def camvid_like(monkeypatch):
    """The command finds a street of 96 x 128 where CamVid would be."""
    from edgeseg.data.street import StreetDataset

    data = StreetDataset((96, 128), videos=(1, 1, 1), frames=(4, 4, 4))
    monkeypatch.setattr(benchmark, "open_dataset", lambda name: data)


def test_the_command_measures_every_rate_with_the_videos_frames_and_writes_a_report(
    camvid_like, bundle, monkeypatch, tmp_path, capsys
):
    asked = []

    def measured(bundle, *, fps, **options):
        asked.append((fps, options["frame_size_hw"], options["exhaustive"], len(options["frames_rgb"])))
        return profile(bundle, fps)

    monkeypatch.setattr(benchmark, "profile_bundle", measured)
    arguments = ["--camvid", "there", "--bundle", "shipped:street", "--fps", "15", "30", "--out", str(tmp_path)]
    benchmark.main(arguments)
    assert asked == [(15.0, (96, 128), True, 4), (30.0, (96, 128), True, 4)]
    assert capsys.readouterr().out.count("| slowest |") == 4
    assert "accuracy tables: street" in (tmp_path / "picks.md").read_text()


def test_the_command_says_how_to_add_a_table_that_is_missing(camvid_like, monkeypatch):
    monkeypatch.setattr(benchmark, "profile_bundle", lambda *args, **options: pytest.fail("measured"))
    with pytest.raises(SystemExit, match=r"has no accuracy table for .*extrapolate.* add it: edgeseg profile"):
        benchmark.main(["--camvid", "there", "--bundle", "shipped:street", "--compensation", "extrapolate"])
