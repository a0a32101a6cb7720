"""What several commands read and show alike."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from edgeseg.errors import InputError

FRAME_RATE = click.FloatRange(min=0, min_open=True)
"""Frames per second."""


def check_different_files(**paths: str | None) -> None:
    """Refuse two options that name the same file: one would be written over the other.

    Raises:
        InputError: the message names both options.
    """
    seen: dict[Path, str] = {}
    for name, path in paths.items():
        if path is None or path == "-":
            continue
        option, place = "--" + name.replace("_", "-"), Path(path).expanduser().resolve()
        if place in seen:
            raise InputError(f"{seen[place]} and {option} are the same file, {path} | give two names")
        seen[place] = option


def check_not_source(source: str, **paths: str | None) -> None:
    """Refuse options that name the file that a source is read from, however that is spelled, or the same file twice.

    Raises:
        InputError: the message names both options; or the file of an `@FILE` cannot be read.
    """
    from edgeseg.runtime.source_address import files_of

    for path in files_of(source):
        check_different_files(source=path, **paths)


def parse_size_hw(text: str) -> tuple[int, int]:
    """`360x480` -> (360, 480): height, then width.

    Raises:
        InputError: anything else.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or 0 in (size := (int(match[1]), int(match[2]))):
        raise InputError(f"a size is written HEIGHTxWIDTH, such as 360x480 | got {text!r}")
    return size


@contextmanager
def measuring_bar(what: str = "measuring") -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error for long work on one thing after another: call it with a name and the share done.

    On the far side of ssh it is lines, which the near side turns into its own bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from edgeseg.runtime.remote_profile import is_far_side, progress_line

    if is_far_side():
        yield lambda name, share: click.echo(progress_line(name, share), err=True)
        return
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
    console = Console(stderr=True)
    # Without a terminal even a transient bar leaves an empty line.
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)
