"""Where what can be made again is kept."""

from edgeseg.cache_folder import cache_folder


def test_cache_folder_follows_the_users_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("calibration") == tmp_path / "edgeseg" / "calibration"


def test_cache_folder_is_in_the_home_when_nothing_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("profiles") == tmp_path / ".cache" / "edgeseg" / "profiles"
