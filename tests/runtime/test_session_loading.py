import pytest

from edgeseg.bundle import Bundle
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError, DeviceError, InputError
from edgeseg.manifest import MANIFEST
from edgeseg.runtime.session_loading import load


def test_load_names_the_known_devices_when_the_device_is_unknown(bundle):
    with pytest.raises(DeviceError, match=r"unknown device 'npu' \| known: cpu, cuda:0, .*torch:cpu"):
        load(bundle, configuration="plain_32x48", device="npu")


def test_load_says_why_when_the_device_is_not_usable(bundle):
    with pytest.raises(DeviceError, match=r"cannot be used here \| .*'cpu:3'.* \| usable here: cpu"):
        load(bundle, configuration="plain_32x48", device="cpu:3")


def test_load_names_the_configurations_when_there_is_no_such_one(bundle):
    with pytest.raises(ArtifactError, match="it has: plain_32x48, phases"):
        load(bundle, configuration="big")


def test_load_refuses_when_one_byte_of_a_graph_changed(own_bundle):
    path = own_bundle.root / "plain_32x48.step.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        load(own_bundle.root, configuration="plain_32x48")


def test_load_refuses_when_one_byte_of_the_weights_changed(own_bundle):
    path = own_bundle.root / "plain_32x48.step.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ArtifactError, match=r"step\.bin is damaged"):
        load(own_bundle.root, configuration="plain_32x48")


def test_load_refuses_when_the_manifest_names_a_file_outside(own_bundle):
    path = own_bundle.root / MANIFEST
    path.write_text(path.read_text().replace("plain_32x48.step.onnx", "../plain_32x48.step.onnx"))
    with pytest.raises(ArtifactError):
        load(own_bundle.root, configuration="plain_32x48")


def profile_of(
    bundle: Bundle,
    latencies_ms: dict[str, float],
    digest: str | None = None,
    frame_size_hw: tuple[int, int] | None = None,
) -> DeviceProfile:
    entries = tuple(LatencyProfile(name, "d", (latency,) * 9, 5) for name, latency in latencies_ms.items())
    return DeviceProfile(
        "cpu",
        {},
        bundle.name,
        digest or bundle.digest,
        15.0,
        False,
        frame_size_hw,
        1,
        entries,
        "2026-01-01",
        "edgeseg profile",
    )


def test_load_picks_by_the_given_profile(bundle):
    # At 15 frames/s a period is 66.7 ms: plain reads k = 2 (.4), phases k = 1 (.5), frames k = 2 (.4).
    latencies = {"plain_32x48": 100.0, "phases_32x48_rho0-concat": 40.0, "frames_32x48": 100.0}
    with load(bundle, profile=profile_of(bundle, latencies)) as session:
        assert session.configuration.name == "phases_32x48_rho0-concat"
        assert session.threads == 1


def test_load_takes_the_stored_profile_of_this_device(bundle, tmp_path, monkeypatch):
    from edgeseg.runtime.device import default_profile_path

    monkeypatch.chdir(tmp_path)
    profile_of(bundle, {"frames_32x48": 1.0}).save(default_profile_path("cpu"))
    with load(bundle) as session:
        assert session.configuration.name == "frames_32x48"


@pytest.fixture
def stored(bundle, tmp_path, monkeypatch):
    """Stores a profile with which only `frames` can be picked; measuring would give all three samples."""
    from edgeseg.runtime.device import default_profile_path

    monkeypatch.chdir(tmp_path)
    return lambda **measured: profile_of(bundle, {"frames_32x48": 1.0}, **measured).save(default_profile_path("cpu"))


@pytest.mark.parametrize(
    ("measured_hw", "asked"),
    [
        (None, {"frame_size_hw": (64, 96)}),
        ((64, 96), {}),
        ((64, 96), {"frame_size_hw": (64, 96)}),
        (None, {"threads": 1}),
        (None, {"fps": 60}),
    ],
)
def test_load_takes_the_stored_profile_when_it_fits_what_is_asked(bundle, stored, caplog, measured_hw, asked):
    stored(frame_size_hw=measured_hw)
    with load(bundle, **{"fps": 15, **asked}) as session:
        assert [row.name for row in session.pick.rows] == ["frames_32x48"]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("measured", "asked", "words"),
    [
        ({"frame_size_hw": (64, 96)}, {"frame_size_hw": (40, 60)}, "with frames of 64 x 96, asked are 40 x 60"),
        ({}, {"threads": 2}, "with 1 threads, asked are 2"),
        ({"digest": "0" * 64}, {}, "of another bundle, tiny 000000000000"),
    ],
)
def test_load_measures_and_says_so_when_the_stored_profile_does_not_fit(bundle, stored, caplog, measured, asked, words):
    stored(**measured)
    with load(bundle, fps=15, **asked) as session:
        assert len(session.pick.rows) == 3
    assert words in caplog.text


def test_load_says_why_the_stored_profile_does_not_fit_when_it_cannot_measure(bundle, stored):
    stored()
    with pytest.raises(InputError, match=r"with 1 threads, asked are 2 \| give configuration, profile, or fps"):
        load(bundle, threads=2)


def test_load_takes_the_given_profile_and_warns_when_it_was_measured_otherwise(bundle, caplog):
    with load(bundle, profile=profile_of(bundle, {"frames_32x48": 1.0}), threads=2) as session:
        assert session.configuration.name == "frames_32x48"
    assert "was measured with 1 threads, asked are 2" in caplog.text


def test_load_refuses_the_profile_of_another_bundle(bundle):
    with pytest.raises(ArtifactError, match="measured with another bundle"):
        load(bundle, profile=profile_of(bundle, {"plain_32x48": 1.0}, digest="0" * 64))


def test_load_says_what_to_give_when_there_is_nothing_to_pick_by(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="give configuration, profile, or fps"):
        load(bundle)


def test_load_measures_when_there_is_no_profile_and_fps_is_given(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with load(bundle, fps=15, threads=1) as session:
        assert session.configuration.name in {entry.name for entry in bundle.configurations}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_load_refuses_a_number_of_threads_that_the_machine_cannot_use(bundle, threads):
    with pytest.raises(InputError, match=rf"threads lies between 1 and \d+ .* got {threads}"):
        load(bundle, configuration="plain_32x48", threads=threads)
