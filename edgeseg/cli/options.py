"""What several commands read and show alike."""

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edgeseg.errors import InputError

LINE_EVERY_S = 15.0
"""Seconds between two lines about the same work where there is no terminal."""


class _FrameRate(click.FloatRange):
    """A positive number: `nan` and `inf`, which a range lets through, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        rate = float(super().convert(value, param, ctx))
        if not math.isfinite(rate):
            self.fail(f"{value} is not a number of frames per second.", param, ctx)
        return rate


FRAME_RATE = _FrameRate(min=0, min_open=True)
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

    On the far side of ssh it is lines, which the near side turns into its own bar. Where there is no terminal it is a
    line now and then.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from edgeseg.runtime.remote_profile import is_far_side, progress_line

    if is_far_side():
        yield lambda name, share: click.echo(progress_line(name, share), err=True)
        return
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines_now_and_then(what)
        return
    with Progress(*columns, TextColumn("{task.description}"), console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)


def _lines_now_and_then(what: str, clock: Callable[[], float] = time.monotonic) -> Callable[[str, float], None]:
    """Tells how far work is every `LINE_EVERY_S`: nothing of what is done before."""
    last_s = clock()

    def tell(name: str, share: float) -> None:
        nonlocal last_s
        if clock() - last_s >= LINE_EVERY_S:
            last_s = clock()
            click.echo(f"{what}: {100 * share:.0f} %, {name}", err=True)

    return tell
