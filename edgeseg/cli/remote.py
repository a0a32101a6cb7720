"""`--device ssh://...`: a command's work done by the edgeseg of another machine, its words shown here."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from edgeseg.bundle import Bundle
    from edgeseg.runtime.remote_profile import RemoteProfile
    from edgeseg.runtime.ssh_link import RemoteDevice


def remote_device(device: str, command: str | None, ssh_options: "Sequence[str]") -> "RemoteDevice | None":
    """The device of another machine, None for one of this machine.

    Raises:
        DeviceError: the address is not written as one.
        InputError: options of ssh without it.
    """
    from edgeseg.errors import InputError
    from edgeseg.runtime.ssh_link import SCHEME, RemoteDevice

    if device.startswith(SCHEME):
        return RemoteDevice.parse(device)
    if command is not None or ssh_options:
        option = "--ssh-option" if command is None else "--remote-command"
        raise InputError(f"{option} is for a device of another machine | got --device {device}, expected ssh://HOST")
    return None


def option_words(options: "Mapping[str, object]") -> list[str]:
    """Long options as they were given, for the command line of the far side; None and False were not."""
    given = {name: value for name, value in options.items() if value not in (None, False)}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


def build_words(given: "Sequence[str]", remote: "RemoteDevice | None") -> list[str]:
    """Options of the `edgeseg build` there, from `NAME=VALUE` and, for a switch, `NAME`; checked as it checks them.

    Raises:
        InputError: there is no such option, its value is none, or nothing is built there.
    """
    from dataclasses import fields

    from edgeseg.cli.build import command as build
    from edgeseg.errors import InputError
    from edgeseg.export.build_options import BuildOptions
    from edgeseg.runtime.remote_profile import needs_engines

    if not given:
        return []
    if remote is None or not needs_engines(remote):
        raise InputError(
            f"--build-option is for engines of another machine | got --device {remote or 'of this machine'}, expected "
            "ssh://HOST/tensorrt:0; here edgeseg build comes first"
        )
    names = {field.name for field in fields(BuildOptions)}
    known = [option.opts[0].removeprefix("--") for option in build.params if option.name in names]
    if unknown := next((each for each in given if each.partition("=")[0] not in known), None):
        raise InputError(f"--build-option {unknown}: no such option of edgeseg build | known: {', '.join(known)}")
    words = [f"--{each}" for each in given]
    try:
        values = build.make_context("build", ["BUNDLE", *words]).params
    except click.UsageError as error:
        raise InputError(f"--build-option: {error.format_message()}") from error
    BuildOptions(**{name: values[name] for name in names})
    return words


def measured_there(
    bundle: "Bundle",
    remote: "RemoteDevice",
    words: list[str],
    command: str | None,
    ssh_options: "Sequence[str]",
    build_options: "Sequence[str]",
    frames_rgb: "Sequence[np.ndarray] | None",
) -> "RemoteProfile":
    """The profile that the far side measures, its notes and, with --verbose, its tracebacks on standard error."""
    from edgeseg.cli.options import measuring_bar
    from edgeseg.runtime.remote_profile import profile_there

    if click.get_current_context().find_root().params.get("verbose"):
        words = [*words, "--verbose"]
    with measuring_bar() as progress:
        return profile_there(
            bundle,
            remote,
            words,
            command=command or "edgeseg",
            ssh_options=ssh_options,
            build_options=build_options,
            frames_rgb=frames_rgb,
            progress=progress,
            on_line=lambda line: click.echo(f"{remote.host}: {line}", err=True),
        )
