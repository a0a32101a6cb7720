import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.cache_folder import cache_folder
from edgeseg.cli.run import command as run_command
from edgeseg.runtime.camera import Reconnection
from support.jetson_root import write


@pytest.fixture
def bundle(tmp_path):
    """A bundle with engines beside it, as far as copying them goes."""
    write(tmp_path / "net.edgeseg" / "manifest.json", "{}")
    write(tmp_path / "net.engines" / "a.engine", "engine")
    return tmp_path / "net.edgeseg"


@pytest.fixture
def unit(jetson):
    """The unit, section -> key -> values."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None, dict_type=dict)
    parser.optionxform = str
    parser.read_string((jetson / "edgeseg.service").read_text())
    return parser


def environment(board) -> dict[str, str]:
    lines = shlex.split((board / "etc/edgeseg/edgeseg.env").read_text())
    return dict(line.split("=", 1) for line in lines)


def test_bundle_engines_unit_and_settings_are_installed(run, bundle, board):
    done = run("install-service.sh", bundle)
    assert done.returncode == 0, done.stderr
    assert (board / "var/lib/edgeseg/net.edgeseg/manifest.json").is_file()
    assert (board / "var/lib/edgeseg/net.engines/a.engine").is_file()
    assert (board / "etc/systemd/system/edgeseg.service").is_file()
    assert environment(board) == {
        "EDGESEG_BUNDLE": "/var/lib/edgeseg/net.edgeseg",
        "EDGESEG_SOURCE": "csi:0",
        "EDGESEG_DEVICE": "tensorrt:0",
        "EDGESEG_OPTIONS": "",
    }


def test_an_image_is_installed_into_without_users_and_systemd(run, bundle):
    out = run("install-service.sh", bundle).stdout
    assert "left out: useradd" in out
    assert "left out: systemctl --no-block restart edgeseg.service" in out


def test_settings_are_those_given(run, bundle, board, tmp_path):
    profile = write(tmp_path / "p.json", "{}")
    source = 'gst:v4l2src device=/dev/video2 ! capsfilter caps="image/jpeg" ! jpegdec'
    done = run("install-service.sh", bundle, "--source", source, "--device", "cpu", "--profile", profile,
               "--options", "--rate network")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = environment(board)
    assert found["EDGESEG_SOURCE"] == source
    assert found["EDGESEG_DEVICE"] == "cpu"
    assert found["EDGESEG_OPTIONS"] == "--profile /var/lib/edgeseg/profile.json --rate network"
    assert (board / "var/lib/edgeseg/profile.json").is_file()


def test_a_new_bundle_takes_the_place_of_the_old_one(run, bundle, board):
    assert run("install-service.sh", bundle).returncode == 0
    (bundle / "manifest.json").write_text("new")
    write(bundle / "more.onnx", "graph")
    assert run("install-service.sh", bundle).returncode == 0
    installed = board / "var/lib/edgeseg/net.edgeseg"
    assert (installed / "manifest.json").read_text() == "new"
    assert sorted(path.name for path in (board / "var/lib/edgeseg").iterdir()) == ["net.edgeseg", "net.engines"]


def test_dry_run_writes_nothing(run, bundle, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = run("install-service.sh", bundle, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would run: install -m 0644" in done.stdout
    assert "EDGESEG_BUNDLE='/var/lib/edgeseg/net.edgeseg'" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_the_unit_names_the_environment_that_was_installed_into(run, bundle, board):
    assert run("install-service.sh", bundle, "--venv", "/srv/venv").returncode == 0
    assert "ExecStart=/srv/venv/bin/edgeseg run " in (board / "etc/systemd/system/edgeseg.service").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no bundle"),
        (["nothing.edgeseg"], "no bundle at nothing.edgeseg | expected a folder"),
        (["net.edgeseg", "other.edgeseg"], "two bundles, net.edgeseg and other.edgeseg"),
        (["net.edgeseg", "--profile", "p.json"], "no device profile at p.json | measure one"),
        (["net.edgeseg", "--source", "gst:a 'b'"], "no quotes and no line ends"),
        (["net.edgeseg", "--venv", "/home/me/venv"], "/home/me/venv lies in a home, which the service does not see"),
        (["net.edgeseg", "--max-power"], "unknown option --max-power"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(run, bundle, board, arguments, words):
    done = run("install-service.sh", *arguments)
    assert done.returncode == 2
    assert f"install-service.sh: {words}" in done.stderr
    assert not (board / "var").exists()


def test_the_service_is_restarted_when_it_fails_or_hangs(unit):
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "on-failure"
    # The first start may have to measure, and being stopped is no failure.
    assert int(service["TimeoutStartSec"]) >= 600
    assert service["SuccessExitStatus"] == "143"


def test_the_service_waits_for_its_camera_and_is_never_given_up(unit):
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert "StartLimitBurst" not in unit["Unit"]
    assert " --wait " in unit["Service"]["ExecStart"]
    # A camera counts as lost before the watchdog takes the silence for a hang.
    assert float(unit["Service"]["WatchdogSec"]) > 4 * Reconnection().stall_s


def test_the_options_of_the_service_are_those_of_run(unit):
    words = shlex.split(unit["Service"]["ExecStart"])
    options = {option for parameter in run_command.params for option in parameter.opts}
    assert words[1:2] == ["run"]
    assert {word for word in words if word.startswith("--")} <= options


def test_a_quick_measurement_is_kept_where_the_service_may_write(jetson, unit, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert "Environment=XDG_CACHE_HOME=%C\n" in (jetson / "edgeseg.service").read_text()
    assert cache_folder("profiles").parent == Path("/var/cache") / unit["Service"]["CacheDirectory"]


def test_the_service_has_a_user_of_its_own_in_the_group_of_the_gpu(unit):
    assert (unit["Service"]["User"], unit["Service"]["SupplementaryGroups"]) == ("edgeseg", "video")


@pytest.mark.parametrize(
    "key", ["PrivateDevices", "PrivateTmp", "DevicePolicy", "ProtectClock", "MemoryDenyWriteExecute"]
)
def test_hardening_that_hides_gpu_or_camera_is_left_out(unit, key):
    assert key not in unit["Service"]


@pytest.mark.parametrize("key", ["NoNewPrivileges", "ProtectHome", "ProtectKernelModules", "RestrictNamespaces"])
def test_hardening_is_on(unit, key):
    assert unit["Service"][key] == "yes"


def test_systemd_understands_the_unit(jetson, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (jetson / "edgeseg.service").read_text()
    # What is not on this machine: the program and the user.
    text = text.replace("/opt/edgeseg/venv/bin/edgeseg", sys.executable)
    text = "\n".join(
        line for line in text.splitlines() if not line.startswith(("User=", "Group=", "SupplementaryGroups="))
    )
    path = write(tmp_path / "edgeseg.service", text)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert "edgeseg.service" not in done.stderr, done.stderr
