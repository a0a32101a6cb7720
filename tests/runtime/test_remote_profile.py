"""A bundle measured on another machine, over a real ssh connection to a server on the loopback address."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import ArtifactError, DeviceError, InputError
from edgeseg.runtime.remote_profile import RemoteProfile, parse_progress, profile_there, progress_line
from edgeseg.runtime.ssh_link import RemoteDevice
from support.small_disk import small_disk
from support.ssh_server import USER, LoopbackServer, loopback_server
from support.tensorrt_rtx import rtx_target
from support.waiting import until

QUICK = ("--fps=15", "--samples=5", "--threads=1")
SLOW = (
    r'trap "echo stopped >>$HOME/log; kill \$!; exit 143" TERM; echo begun >>$HOME/log; echo begun >&2; sleep 60 & wait'
)
"""An edgeseg that takes its time, and says when it is stopped."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with loopback_server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture
def there(server, bundle):
    """Profile `bundle` on the server: `there(script_of_a_command, ...)`, or the real edgeseg without one."""

    def profile(script: str | None = None, *arguments: str, **options) -> RemoteProfile:
        if script is not None:
            options["command"] = server.command("fake", script)
        given = {"ssh_options": server.options(), **options}
        return profile_there(given.pop("bundle", bundle), RemoteDevice.parse(server.address), arguments, **given)

    yield profile
    until(server.is_tidy)
    for left in (server.home / "log", server.home / "seen"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://orin", RemoteDevice("orin")),
        ("ssh://me@orin.lan:2222", RemoteDevice("orin.lan", "me", 2222)),
        ("ssh://me@10.0.0.7/cuda:0", RemoteDevice("10.0.0.7", "me", device="cuda:0")),
        ("ssh://orin/ort-tensorrt:0", RemoteDevice("orin", device="ort-tensorrt:0")),
        ("ssh://me@[fe80::1%eth0]:22/", RemoteDevice("fe80::1%eth0", "me", 22)),
    ],
)
def test_address_is_read_as_it_is_written(text, expected):
    assert RemoteDevice.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@orin",
        "ssh://orin:0",
        "ssh://orin:70000",
        "ssh://orin;reboot",
        "ssh://orin $(reboot)",
        "ssh://orin/cuda:0;reboot",
        "ssh://orin/ssh://xavier",
        "ssh://orin\n",
    ],
)
def test_address_is_refused_when_a_shell_or_ssh_could_misread_it(text):
    with pytest.raises(DeviceError, match=r"is written ssh://\[USER@\]HOST"):
        RemoteDevice.parse(text)


def test_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(DeviceError, match="no password belongs into") as caught:
        RemoteDevice.parse("ssh://me:secret@orin")
    assert "secret" not in str(caught.value)


def test_progress_survives_the_way_as_a_line():
    assert parse_progress(progress_line("net_48x64 late-warp", 0.25)) == ("net_48x64 late-warp", 0.25)
    assert parse_progress("edgeseg-progress of a kind") is None


def test_profile_is_measured_there_and_brought_back_and_nothing_is_left(server, there, bundle):
    steps: list[tuple[str, float]] = []
    brought = there(None, *QUICK, "--exhaustive", progress=lambda *step: steps.append(step))
    profile = brought.profile
    assert profile.bundle_digest == bundle.digest
    assert {len(entry.samples_ms) for entry in profile.entries} == {5}
    assert (profile.device, profile.threads) == ("cpu", 1)
    assert brought.file_name.endswith("-cpu.json")
    assert steps[-1][1] == 1.0
    assert server.is_tidy()
    # What libraries keep in the home for another time is theirs to leave behind, not ours.
    assert [path.name for path in server.home.iterdir() if path.name not in ("tmp", "bin")] == []


def test_words_arrive_as_they_were_given(server, there):
    odd = ["--video=a b", "$(touch ~/log)", "it's", '"', "`id`", "*", "--", "\\", "ü"]
    with pytest.raises(DeviceError):
        there('printf "%s\\n" "$@" >~/seen; exit 3', *odd)
    assert lines(server.home / "seen") == ["profile", "./tiny.edgeseg", "--device", "cpu", *odd]


@pytest.mark.parametrize("home", ["~/", "", "{home}/"])
def test_command_may_be_several_words_and_a_path_from_the_home_there(server, there, home):
    server.command("odd name", 'echo "$0" "$1" >~/seen; exit 3')
    with pytest.raises(DeviceError):
        there(command=f"{home.format(home=server.home)}'bin/odd name' first")
    assert lines(server.home / "seen") == [f"{server.home}/bin/odd name first"]


def test_engines_are_built_before_they_are_measured(server, bundle, there):
    fake = server.command("fake", 'echo "$*" >>~/log; [ "$1" = build ]')
    with pytest.raises(DeviceError):
        profile_there(
            bundle,
            RemoteDevice.parse(f"{server.address}/tensorrt:0"),
            ["--fps=15"],
            command=fake,
            ssh_options=server.options(),
        )
    assert lines(server.home / "log") == [
        "build ./tiny.edgeseg --device tensorrt:0",
        "profile ./tiny.edgeseg --device tensorrt:0 --fps=15",
    ]


@pytest.fixture
def engines(server, bundle):
    """`engines(option, ...)`: profile on `tensorrt:0` with these options of the build, and a build that makes a file of
    its own beside the bundle; what it found there before."""
    built = 'ls tiny.engines 2>/dev/null >~/seen; mkdir -p tiny.engines; : >"tiny.engines/of $4"'

    def found(*build_options: str, on_line=lambda line: None) -> list[str]:
        with pytest.raises(DeviceError):
            profile_there(
                bundle,
                RemoteDevice.parse(f"{server.address}/tensorrt:0"),
                [],
                command=server.command("fake", f'[ "$1" = build ] || exit 3; {built}'),
                ssh_options=server.options(),
                build_options=build_options,
                on_line=on_line,
            )
        until(server.is_tidy)
        return lines(server.home / "seen")

    yield found
    (server.home / "seen").unlink(missing_ok=True)
    cache = server.home / ".cache"
    shutil.rmtree(cache) if cache.is_dir() else cache.unlink(missing_ok=True)


def test_engines_are_kept_there_for_the_next_time(server, engines):
    assert engines() == []
    assert engines() == ["of tensorrt:0"]
    kept = server.home / ".cache" / "edgeseg" / "engines"
    assert [path.relative_to(kept).as_posix() for path in kept.rglob("*")] == ["tiny", "tiny/of tensorrt:0"]


def test_engines_of_other_build_options_are_kept_apart(engines):
    engines("--workspace-mb=64")
    assert engines() == []
    assert engines("--workspace-mb=65") == []
    assert engines("--workspace-mb=64") == ["of tensorrt:0"]


def test_engines_are_built_for_this_time_when_they_cannot_be_kept(server, engines):
    (server.home / ".cache").write_text("a file")
    heard: list[str] = []
    assert engines(on_line=heard.append) == []
    assert heard == [f"engines are not kept for the next time: {server.home}/.cache/edgeseg/engines cannot be written"]


def test_real_engines_are_built_there_once(server, bundle):
    rtx_target()

    def times_ns() -> dict[str, int]:
        with pytest.raises(DeviceError):  # There is no GPU to measure on.
            profile_there(
                bundle,
                RemoteDevice.parse(f"{server.address}/tensorrt-rtx:0"),
                QUICK,
                ssh_options=server.options(),
            )
        kept = server.home / ".cache" / "edgeseg" / "engines" / "tiny"
        return {path.name: path.stat().st_mtime_ns for path in kept.glob("*.engine")}

    try:
        first = times_ns()
        assert len(first) == sum(len(entry.graphs) for entry in bundle.configurations)
        assert times_ns() == first
    finally:
        shutil.rmtree(server.home / ".cache")


def test_bundle_arrives_byte_by_byte_and_nothing_else_of_its_folder(there, server, own_bundle):
    (own_bundle.root / "notes.txt").write_text("not part of it")
    with pytest.raises(DeviceError):
        there("cp -r . ~/seen; exit 3", bundle=own_bundle)
    seen = server.home / "seen" / "own.edgeseg"
    assert sorted(path.name for path in seen.iterdir()) == sorted(["manifest.json", *own_bundle.files])
    assert all(path.read_bytes() == (own_bundle.root / path.name).read_bytes() for path in seen.iterdir())


def test_frames_arrive_without_loss(there, server):
    import cv2

    frames_rgb = [np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8) for seed in (0, 1)]
    with pytest.raises(DeviceError):
        there('cp -r frames ~/seen; echo "$5" "$6" >~/log; exit 3', frames_rgb=frames_rgb)
    arrived = [cv2.imread(str(path))[..., ::-1] for path in sorted((server.home / "seen").iterdir())]
    assert np.array_equal(arrived, frames_rgb)
    assert lines(server.home / "log") == ["--video frames"]


def test_lines_of_the_far_side_are_handed_on_while_it_works(there):
    heard: list[str] = []
    script = 'echo "edgeseg-progress 0.5000 net" >&2; echo note >&2; echo "edgeseg: no | do" >&2; exit 2'
    steps: list[tuple[str, float]] = []
    with pytest.raises(DeviceError, match=r"no \| do"):
        there(script, on_line=heard.append, progress=lambda *step: steps.append(step))
    assert (heard, steps) == (["note"], [("net", 0.5)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"IdentityFile": "{keys}/stranger"}, r"refused our key \(.*Permission denied.*\) \| let it in: ssh-copy-id"),
        (
            {"UserKnownHostsFile": "/dev/null"},
            r"the host key of ssh://tester@127.0.0.1:\d+ is not known here \| compare",
        ),
        ({"UserKnownHostsFile": "{keys}/other_hosts"}, "shows another host key than before"),
        ({"Nonsense": "yes"}, r"cannot be reached \(.*Bad configuration option"),
    ],
)
def test_connection_that_is_not_to_be_is_one_clear_error(server, there, changed, message):
    stranger = (server.keys / "stranger.pub").read_text()
    (server.keys / "other_hosts").write_text(f"[127.0.0.1]:{server.port} {stranger}")
    options = {key: value.format(keys=server.keys) for key, value in changed.items()}
    before = len(server.commands)
    with pytest.raises(DeviceError, match=message) as caught:
        there(ssh_options=server.options(**options), on_line=pytest.fail)
    assert "\n" not in str(caught.value)
    assert len(server.commands) == before


def test_machine_that_does_not_answer_is_named_with_the_reason_and_a_way_to_try(server, bundle):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        message = rf"ssh://{USER}@127.0.0.1:{port} cannot be reached \(.*Connection refused\) \| .*: ssh -p {port} -l "
        with pytest.raises(DeviceError, match=message):
            remote = RemoteDevice.parse(f"ssh://{USER}@127.0.0.1:{port}")
            profile_there(bundle, remote, QUICK, ssh_options=server.options())


def test_missing_ssh_is_said(there, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match="needs ssh, which is not installed here"):
        there()


def test_damaged_bundle_is_refused_before_anything_is_sent(server, there, own_bundle):
    (own_bundle.root / next(iter(own_bundle.files))).write_bytes(b"?")
    before = len(server.commands)
    with pytest.raises(ArtifactError, match="is damaged"):
        there(bundle=own_bundle)
    assert len(server.commands) == before


@pytest.mark.parametrize("command", ["", "   ", "it's"])
def test_command_that_cannot_be_read_is_refused(there, command):
    with pytest.raises(InputError, match="--remote-command"):
        there(command=command)


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ('echo "edgeseg: m has format version [9, 0] | this edgeseg reads 1.x: update it" >&2; exit 2', DeviceError,
         r"ssh://tester@127.0.0.1:\d+: m has format version \[9, 0\] \| this edgeseg reads 1.x"),
        ('echo "Error: No such option: --compensation" >&2; exit 2', DeviceError,
         r"does not know this call \(No such option: --compensation\) \| it is of another version"),
        ('echo "edgeseg: internal error, KeyError: x | please report" >&2; exit 1', RuntimeError,
         r"edgeseg on ssh://.*: internal error, KeyError: x$"),
        ('echo "No module named edgeseg" >&2; exit 1', DeviceError, r"does not run on .* \(No module named edgeseg\)"),
        ("kill -9 $$", DeviceError, "was killed: out of memory, perhaps"),
        ("exit 0", DeviceError, "ended without a profile"),
        ("mkdir profiles; echo '{}' >profiles/a.json", ArtifactError, r"what .* sent cannot be read: a.json is not a"),
    ],
)  # fmt: skip
def test_failure_there_is_one_error_here_that_names_the_machine(there, script, error, message):
    with pytest.raises(error, match=message):
        there(script, on_line=lambda line: pytest.fail(line) if line.startswith(("edgeseg:", "Error:")) else None)


def test_profile_of_another_bundle_is_refused(there, tmp_path, server, bundle, own_bundle):
    from edgeseg.runtime.profiler import profile_bundle

    profile_bundle(own_bundle, fps=15, samples=1, threads=1).save(server.home / "seen")
    with pytest.raises(ArtifactError, match="was measured with another bundle"):
        there("mkdir profiles; cp ~/seen profiles/a.json")


def test_name_that_comes_back_stays_a_plain_file_name(there, server, bundle):
    from edgeseg.runtime.profiler import profile_bundle

    profile_bundle(bundle, fps=15, samples=1, threads=1).save(server.home / "seen")
    assert there("mkdir profiles; cp ~/seen 'profiles/a b;c.json'").file_name == "a-b-c.json"


def test_missing_command_is_said_before_the_bundle_is_sent(there):
    with pytest.raises(
        DeviceError, match=r"there is no ~/venv/bin/edgeseg on ssh://.* \| install edgeseg there, or say"
    ):
        there(command="~/venv/bin/edgeseg")


def test_full_disk_there_is_said(there, server):
    server.work.mkdir(exist_ok=True)
    with small_disk(server.work, 8 << 10):
        with pytest.raises(DeviceError, match=r"has no room for the bundle \(.*No space left on device\)"):
            there("exit 0")
        assert server.is_tidy()


def test_account_that_talks_at_login_does_no_harm(server, there, monkeypatch):
    monkeypatch.setattr(server, "login", "echo Welcome; echo Have a nice day >&2; ")
    with pytest.raises(DeviceError, match="ended without a profile"):
        there("exit 0")


def test_account_without_a_shell_is_said(server, there, monkeypatch):
    monkeypatch.setattr(server, "login", "echo This account is not available.; exit 1; ")
    with pytest.raises(DeviceError, match=r"does not run our commands \(This account is not available.\)"):
        there("exit 0")


def test_connection_that_breaks_while_it_is_measured_stops_the_far_side(server, there):
    with pytest.raises(DeviceError, match=r"the connection to .* broke in the middle .* nothing was written here"):
        there(SLOW, on_line=lambda line: server.cut())
    until(server.is_tidy)
    assert lines(server.home / "log") == ["begun", "stopped"]


def test_connection_that_breaks_while_the_bundle_is_sent_leaves_nothing(server, there):
    frame_rgb = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    # More than the buffers on the way hold, so that it is still being sent when the connection is cut.
    server.command(
        "tar", 'echo unpacking >&2; sleep 0.3; /usr/bin/tar "$@"; status=$?; echo $status >~/log; exit $status'
    )
    try:
        with pytest.raises(DeviceError, match="broke in the middle"):
            there("exit 3", frames_rgb=[frame_rgb], on_line=lambda line: server.cut())
        until(server.is_tidy)
    finally:
        (server.home / "bin" / "tar").unlink()
    assert lines(server.home / "log") == ["2"]


def test_interrupt_stops_the_far_side_and_waits_until_it_is_tidy(server, there):
    def interrupted(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        there(SLOW, on_line=interrupted)
    assert not list(server.work.iterdir())
    assert lines(server.home / "log") == ["begun", "stopped"]


def test_script_is_plain_to_any_login_shell(server: LoopbackServer, there):
    with pytest.raises(DeviceError):
        there("exit 3", "it's")
    assert set(server.commands[-1]) <= set("exec /bin/sh -c 'eval \"$(head -c 0123456789)\"'")
    assert json.dumps(server.commands[-1]).count("\\n") == 0
