"""What ships in the package is whole, small, and fits together."""

import pytest

from edgeseg import profiles, shipped
from edgeseg.bundle import Bundle
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import InputError
from edgeseg.runtime.pick import pick

PROFILES = sorted(profiles.FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(shipped.bundle_path("shipped:street"))


def test_shipped_bundle_is_whole_and_every_configuration_was_checked_and_scored(bundle):
    bundle.verify()
    for entry in bundle.configurations:
        assert entry.parity is not None
        assert entry.parity.label_agreement >= 0.999
        assert entry.accuracy is not None
        assert len(entry.accuracy.miou) == 9


def test_what_ships_stays_below_six_megabytes():
    files = [path for path in shipped.FOLDER.rglob("*") if path.suffix != ".py" and path.is_file()]
    assert sum(path.stat().st_size for path in files if "__pycache__" not in path.parts) <= 6_000_000


def test_shipped_checkpoint_was_trained_on_the_simulator_alone():
    checkpoint = pytest.importorskip("edgeseg.training.checkpoint", reason="reading a checkpoint needs torch")
    meta = checkpoint.read_meta(shipped.checkpoint_path("shipped:street"))
    assert (meta.trained_on["dataset"], meta.trained_on["splits"]) == ("street", ["train"])


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_shipped_profile_fits_the_shipped_bundle_and_gives_a_pick(bundle, path):
    profile = DeviceProfile.load(path)
    profile.check_fits(bundle)
    assert profile.exhaustive
    assert pick(bundle, profile, 30).row.samples >= 60


def test_there_is_a_shipped_profile():
    assert PROFILES


def test_unknown_shipped_name_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'shipped:moon' ships with edgeseg \| known: shipped:street"):
        shipped.bundle_path("shipped:moon")


def test_other_paths_stay_as_they_are():
    assert str(shipped.checkpoint_path("a/b.safetensors")) == "a/b.safetensors"
