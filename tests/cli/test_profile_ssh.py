"""`edgeseg profile --device ssh://...` from the outside, over a real ssh connection to the loopback address."""

import json
import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile
from edgeseg.runtime.device import device_name
from support.ssh_server import loopback_server
from support.waiting import until

REFUSING = (
    'printf "%s\\n" "$@" >~/seen; ls frames >>~/seen 2>/dev/null; echo "edgeseg: not me | ask others" >&2; exit 2'
)
SLOW = 'trap "sleep 0.7; rm ~/begun; exit 143" TERM; touch ~/begun; while :; do sleep 0.05; done'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with loopback_server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture
def words(server):
    """Arguments of `edgeseg profile` for the server."""
    given = ["--device", server.address, *(word for each in server.options() for word in ("--ssh-option", each))]
    return lambda bundle, *more: ["profile", str(bundle.root), *given, "--fps", "15", *map(str, more)]


@pytest.fixture
def run(words, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda bundle, *more: CliRunner().invoke(main, words(bundle, *more))


def test_profile_is_stored_here_under_the_name_of_the_device_there(run, server, bundle, tmp_path):
    result = run(bundle, "--samples", 5, "--threads", 1, "--json")
    assert result.exit_code == 0, result.output
    stored = f"profiles/{device_name('cpu')}.json"
    assert json.loads(result.stdout)["profile"] == stored
    assert DeviceProfile.load(stored).bundle_digest == bundle.digest
    assert {path.suffix for path in (tmp_path / "here" / "profiles").iterdir()} <= {".json", ".png"}
    picked = CliRunner().invoke(main, ["pick", str(bundle.root), "--profile", stored, "--fps", "15", "--json"])
    assert json.loads(picked.stdout)["configuration"] == json.loads(result.stdout)["configuration"]
    assert server.is_tidy()


def test_options_are_handed_through(run, server, bundle):
    fake = server.command("fake", REFUSING)
    options = ["--exhaustive", "--samples", 7, "--threads", 99, "--frame-size", "64x96", "--compensation", "none"]
    run(bundle, *options, "--video", "street:60x80", "--remote-command", fake)
    seen = (server.home / "seen").read_text().splitlines()
    expected = {
        "--exhaustive",
        "--samples=7",
        "--threads=99",
        "--frame-size=64x96",
        "--compensation=none",
        "--fps=15.0",
    }
    assert expected <= set(seen)
    assert seen[seen.index("--video") + 1] == "frames"
    assert seen[-8:] == [f"{index:03d}.png" for index in range(8)]


def test_device_there_is_handed_through_and_nothing_that_was_not_given(server, bundle, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake = server.command("fake", REFUSING)
    arguments = [word.replace(server.address, server.address + "/cuda:0") for word in words(bundle)]
    CliRunner().invoke(main, [*arguments, "--remote-command", fake])
    seen = (server.home / "seen").read_text().splitlines()
    assert seen == ["profile", "./tiny.edgeseg", "--device", "cuda:0", "--fps=15.0"]


def test_build_options_are_handed_to_the_build_there(server, bundle, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [word.replace(server.address, server.address + "/tensorrt:0") for word in words(bundle)]
    options = ["--build-option", "workspace-mb=1024", "--build-option", "version-compatible"]
    CliRunner().invoke(main, [*arguments, *options, "--remote-command", server.command("fake", REFUSING)])
    seen = (server.home / "seen").read_text().splitlines()
    assert seen == [
        *("build", "./tiny.edgeseg", "--device", "tensorrt:0", "--workspace-mb=1024", "--version-compatible")
    ]


@pytest.mark.parametrize(
    ("device", "option", "words_said"),
    [
        ("/tensorrt:0", "workspace=64", "workspace=64: no such option of edgeseg build | known: workspace-mb, dla,"),
        ("/tensorrt:0", "rebuild", "no such option of edgeseg build"),
        ("/tensorrt:0", "workspace-mb", "Option '--workspace-mb' requires an argument"),
        ("/tensorrt:0", "workspace-mb=much", "'much' is not a valid integer"),
        ("/tensorrt:0", "workspace-mb=0", "--workspace-mb is at least 1 | got 0"),
        ("/cuda:0", "workspace-mb=64", "is for engines of another machine | got --device ssh://"),
    ],
)
def test_wrong_build_option_is_refused_before_anything_is_sent(
    server, bundle, words, tmp_path, monkeypatch, device, option, words_said
):
    monkeypatch.chdir(tmp_path)
    before = len(server.commands)
    arguments = [word.replace(server.address, server.address + device) for word in words(bundle)]
    result = CliRunner().invoke(main, [*arguments, "--build-option", option])
    assert result.exit_code == 2
    assert words_said in result.stderr
    assert len(server.commands) == before


def test_build_option_is_refused_for_a_device_of_this_machine(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["profile", str(bundle.root), "--fps", "15", "--device", "tensorrt:0", "--build-option", "dla=0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "here edgeseg build comes first" in result.stderr


def test_refusal_there_is_one_line_here_and_nothing_is_written(run, server, bundle, tmp_path):
    result = run(bundle, "--remote-command", server.command("fake", REFUSING))
    assert result.exit_code == 2
    assert result.stderr == f"edgeseg: {server.address}: not me | ask others\n"
    assert list((tmp_path / "here").iterdir()) == []


def test_fault_there_is_a_fault_and_its_traceback_is_shown_when_it_is_asked_for(run, server, bundle):
    script = 'echo "Traceback of $*" >&2; echo "edgeseg: internal error, KeyError: 1 | report" >&2; exit 1'
    result = run(bundle, "--remote-command", server.command("fake", script), "--verbose")
    assert result.exit_code == 1
    assert "127.0.0.1: Traceback of profile" in result.stderr
    assert "--verbose" in result.stderr.partition("\n")[0]
    assert f"edgeseg on {server.address}: internal error, KeyError: 1" in result.stderr


def test_unwritable_place_is_refused_before_anything_is_sent(run, server, bundle, tmp_path):
    (tmp_path / "here" / "profiles").write_text("a file")
    before = len(server.commands)
    result = run(bundle)
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert len(server.commands) == before


def test_compensations_are_scored_here_and_their_tables_go_along(run, server, scored):
    bundle, data = scored
    fake = server.command("fake", "cp before.edgeseg/manifest.json ~/seen; exit 3")
    result = run(bundle, "--compensation", "none,late-warp", "--data", data, "--remote-command", fake)
    assert result.exit_code == 2
    grown = Bundle.open(bundle.root)
    assert Compensation(mode="late-warp") in grown.configurations[0].accuracy.compensations
    assert (server.home / "seen").read_bytes() == (bundle.root / "manifest.json").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_ends_both_sides_and_leaves_nothing(server, bundle, words, tmp_path, number, code):
    arguments = words(bundle, "--remote-command", server.command("fake", SLOW))
    child = subprocess.Popen(
        [sys.executable, "-m", "edgeseg", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until((server.home / "begun").exists)
    # A terminal signals the whole group, and with it an ssh that is not kept out of it.
    os.killpg(child.pid, number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == code, errors
    assert len(errors.splitlines()) == 1
    assert list(server.work.iterdir()) == []
    assert not (server.home / "begun").exists()
    assert list(tmp_path.iterdir()) == []
