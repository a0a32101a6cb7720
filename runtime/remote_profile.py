"""Measures a bundle on another machine: the bundle goes there by ssh, `edgeseg profile` runs there, the profile comes
back.

All goes over one connection. The far side needs sh, tar, mktemp and an edgeseg; what it makes lies in one temporary
folder, which it removes when it is done, when it fails, and when the connection ends. Only engines outlive it, in the
user's folder for caches there, as they take minutes to build.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.classes import file_name_safe
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import ArtifactError, DeviceError
from edgeseg.manifest import MANIFEST
from edgeseg.runtime.engine_key import DEVICE_FAMILIES
from edgeseg.runtime.remote_script import (
    CALLED_BY,
    NO_COMMAND,
    NO_FOLDER,
    NO_PROFILE,
    NOT_UNPACKED,
    PROFILE_HEAD,
    command_words,
    keeping_engines,
    measuring_script,
)
from edgeseg.runtime.ssh_link import Answer, RemoteDevice, run_there
from edgeseg.runtime.tar_stream import Member, archive, archive_size

_PROGRESS = "edgeseg-progress"
_FRAMES = "frames"
_MEANING_OF_SIGNALS = {137: "killed: out of memory, perhaps", 143: "terminated", 130: "interrupted"}


@dataclass(frozen=True)
class RemoteProfile:
    """What was brought back."""

    profile: DeviceProfile
    file_name: str
    """Name that the far side stores it under: of its own device."""


def profile_there(
    bundle: Bundle,
    remote: RemoteDevice,
    arguments: Sequence[str],
    *,
    command: str = "edgeseg",
    ssh_options: Sequence[str] = (),
    build_options: Sequence[str] = (),
    frames_rgb: Sequence[np.ndarray] | None = None,
    progress: Callable[[str, float], None] = lambda name, share: None,
    on_line: Callable[[str], None] = lambda line: None,
) -> RemoteProfile:
    """Copy `bundle` to the far side, run `edgeseg profile` there and bring the profile back.

    Engines that the device needs are built there first. They stay there for the next time, by the bundle's name and the
    build's options, and nothing else does.

    Args:
        arguments: options of `edgeseg profile` but the device's and the video's.
        command: the far side's edgeseg: a name, a path, or several words (`python3 -m edgeseg`); `~/` is its home.
        ssh_options: `KEY=VALUE` as in ssh_config.
        build_options: options of `edgeseg build`, for devices that need engines: `--workspace-mb=1024`.
        frames_rgb: consecutive uint8 `(H, W, 3)` RGB frames to step through, sent along; None: the far side's noise.
        progress: as for `edgeseg.runtime.profiler.profile_bundle`.
        on_line: called with lines that the far side writes beside its progress.

    Raises:
        ArtifactError: a file of the bundle is damaged, here, or the profile that came back cannot be read.
        InputError: `command` is empty or its quotes do not match.
        DeviceError: the far side cannot be reached, or refused; the message says what it said.
        RuntimeError: edgeseg failed there by a fault of its own.
    """
    bundle.verify()
    words = command_words(command)
    folder = file_name_safe(bundle.root.resolve().name)
    members = [Member.of_file(f"{folder}/{name}", bundle.path(name)) for name in (MANIFEST, *sorted(bundle.files))]
    given = ["--device", remote.device, *arguments]
    if frames_rgb is not None:
        members += _frame_members(frames_rgb)
        given += ["--video", _FRAMES]
    calls = [["profile", f"./{folder}", *given]]
    keeping = ""
    if needs_engines(remote):
        calls.insert(0, ["build", f"./{folder}", "--device", remote.device, *build_options])
        keeping = keeping_engines(folder, build_options)
    script = measuring_script(words, calls, archive_size(members), keeping)
    said: list[str] = []

    def hear(line: str) -> None:
        if (step := parse_progress(line)) is not None:
            progress(*step)
            return
        said[:] = [*said[-19:], line]
        if not _is_verdict(line):
            on_line(line)

    answer = run_there(
        remote,
        script,
        archive(members),
        ssh_options=ssh_options,
        on_line=hear,
    )
    if answer.status:
        raise _failure(remote, answer.status, said, command)
    return _received(remote, answer, bundle)


def needs_engines(remote: RemoteDevice) -> bool:
    """Whether a bundle's engines are built before it is measured there."""
    return remote.device.partition(":")[0] in DEVICE_FAMILIES


def is_far_side() -> bool:
    """Whether another edgeseg called this one by ssh: it reads progress as lines, and draws its plot itself."""
    return os.environ.get(CALLED_BY) == "ssh"


def progress_line(name: str, share: float) -> str:
    """How progress is written for the near side: `name` is measured, `share` of the work in [0, 1] is done."""
    return f"{_PROGRESS} {share:.4f} {name}"


def parse_progress(line: str) -> tuple[str, float] | None:
    """Name and share of a line that `progress_line` made; None for other lines."""
    first, _, rest = line.partition(" ")
    share, _, name = rest.partition(" ")
    if first != _PROGRESS or not share.replace(".", "", 1).isdecimal():
        return None
    return name, float(share)


def _frame_members(frames_rgb: Sequence[np.ndarray]) -> list[Member]:
    """The frames as PNG files, which lose nothing."""
    import cv2

    pictures = [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in frames_rgb]
    return [Member(f"{_FRAMES}/{i:03d}.png", picture, len(picture)) for i, picture in enumerate(pictures)]


def _is_verdict(line: str) -> bool:
    """Whether a line is part of the far side's error, which becomes ours, or is nothing to anybody here."""
    return line.startswith(("edgeseg: ", "Usage: ", "Try 'edgeseg", "Error: ", "plot left out: "))


def _failure(remote: RemoteDevice, status: int, said: Sequence[str], command: str) -> Exception:
    """The error of a script that ended with `status` after it said the lines `said`."""
    machine, last = remote.machine, next((line.strip() for line in reversed(said) if line.strip()), "without a word")
    if status == NO_COMMAND:
        return DeviceError(
            f"there is no {command} on {machine} | install edgeseg there, or say where it is: --remote-command "
            "'~/venv/bin/edgeseg'"
        )
    if status == NO_FOLDER:
        return DeviceError(f"no temporary folder can be made on {machine} ({last}) | make room in /tmp there")
    if status == NOT_UNPACKED:
        full = next((line for line in said if "No space left" in line or "quota exceeded" in line), None)
        return DeviceError(
            f"{machine} has no room for the bundle ({full}) | make room in /tmp there"
            if full
            else f"the bundle cannot be unpacked on {machine} ({last}) | it needs head and tar there"
        )
    if status == NO_PROFILE:
        return DeviceError(f"{command} on {machine} ended without a profile | is it edgeseg? --remote-command names it")
    if status in _MEANING_OF_SIGNALS:
        return DeviceError(f"edgeseg on {machine} was {_MEANING_OF_SIGNALS[status]} | see what else runs there")
    verdict = next((line for line in reversed(said) if line.startswith("edgeseg: ")), None)
    usage = next((line for line in reversed(said) if line.startswith("Error: ")), None)
    if status == 1 and verdict is not None:
        return RuntimeError(f"edgeseg on {machine}: {verdict.removeprefix('edgeseg: ').partition(' | ')[0]}")
    if status == 2 and verdict is not None:
        return DeviceError(f"{machine}: {verdict.removeprefix('edgeseg: ')}")
    if usage is not None:
        return DeviceError(
            f"edgeseg on {machine} does not know this call ({usage.removeprefix('Error: ')}) | it is of another "
            "version: install the same one there"
        )
    return DeviceError(f"{command} does not run on {machine} ({last}) | try it there: {command} doctor")


def _received(remote: RemoteDevice, answer: Answer, bundle: Bundle) -> RemoteProfile:
    """The profile in the far side's answer, checked: whole, readable, and of this bundle."""
    head, _, content = answer.output.partition(b"\n")
    words = head.decode(errors="replace").split(maxsplit=2)
    if len(words) != 3 or words[0] != PROFILE_HEAD or words[1] != str(len(content)):
        raise DeviceError(f"the profile of {remote.machine} did not arrive whole | try again")
    name = file_name_safe(words[2].removesuffix(".json")) + ".json"
    with tempfile.TemporaryDirectory(prefix="edgeseg-profile-") as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            profile = DeviceProfile.load(path)
        except ArtifactError as error:
            raise ArtifactError(
                f"what {remote.machine} sent cannot be read: {str(error).replace(str(path), name)}"
            ) from error
    profile.check_fits(bundle)
    return RemoteProfile(profile, name)
