"""A quick measurement is made once, and picked by again at the next start."""

import logging

import pytest

from edgeseg.cache_folder import cache_folder
from edgeseg.runtime.session_loading import load


@pytest.fixture
def start(own_bundle, tmp_path, monkeypatch):
    """What `load` measures at a start in an empty folder: names, in the order in which they are told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def started(**asked) -> list[str]:
        told: list[str] = []
        with load(own_bundle, **{"fps": 15, "threads": 1, "progress": lambda name, done: told.append(name), **asked}):
            return told

    return started


def kept_file():
    (file,) = cache_folder("profiles").iterdir()
    return file


def test_quick_measurement_is_picked_by_again_at_the_next_start(start):
    assert start()
    assert start() == []


def test_it_is_picked_by_again_when_a_measured_rate_is_a_little_different(start):
    start(fps=14.97)
    assert start(fps=15.02) == []


@pytest.mark.parametrize("asked", [{"fps": 30}, {"threads": 2}, {"frame_size_hw": (64, 96)}, {"compensation": "none"}])
def test_it_is_measured_anew_when_something_else_is_asked(start, asked):
    start()
    assert start(**asked)


def test_it_is_measured_anew_when_the_power_mode_is_another(start, monkeypatch):
    from edgeseg.runtime import quick_profile

    start()
    facts = quick_profile.device_facts()
    monkeypatch.setattr(quick_profile, "device_facts", lambda: {**facts, "power_mode": {"number": 1, "name": "15W"}})
    assert start()


def test_a_damaged_one_is_measured_anew_and_replaced(start, caplog):
    start()
    whole = len(kept_file().read_text().splitlines())
    kept_file().write_text("{")
    assert start()
    assert "of no use" in caplog.text
    assert len(kept_file().read_text().splitlines()) == whole


def test_loading_goes_on_when_nothing_can_be_kept(start, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert start()
    assert "is not kept for the next start" in caplog.text


def test_the_log_says_what_to_run_for_a_good_measurement(start, caplog, own_bundle):
    with caplog.at_level(logging.WARNING):
        start(frame_size_hw=(64, 96))
    assert f"edgeseg profile {own_bundle.root} --fps 15 --threads 1 --frame-size 64x96 measures it well" in caplog.text


def test_a_profile_of_the_user_comes_before_the_quick_one(start, own_bundle, caplog):
    from edgeseg.runtime.device import default_profile_path
    from edgeseg.runtime.profiler import profile_bundle

    start()
    default_profile_path("cpu").parent.mkdir()
    profile_bundle(own_bundle, fps=15, threads=1, samples=5).save(default_profile_path("cpu"))
    caplog.clear()
    start()
    assert "quick measurement" not in caplog.text
