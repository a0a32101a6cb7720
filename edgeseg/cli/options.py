"""What several commands read and show alike."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.config import Compensation

FRAME_RATE = click.FloatRange(min=0, min_open=True)
"""Frames per second."""
COMPENSATION_MODES = ("none", "extrapolate", "late-warp", "late-warp+extrapolate")
"""`edgeseg.runtime.compensation.MODES`, which help texts must not import."""


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


def compensation_of(mode: str | None, flow: str | None, divisor: int | None) -> "Compensation | None":
    """The motion compensation of --compensation, --flow and --flow-divisor; None without a mode.

    Raises:
        InputError: an unknown mode, flow or divisor, or a flow without a mode.
    """
    if mode is None:
        if flow is not None or divisor is not None:
            raise InputError("--flow and --flow-divisor belong to a compensation | add --compensation MODE")
        return None
    from edgeseg.config import Compensation

    chosen = Compensation(mode=mode)
    return replace(
        chosen,
        flow=chosen.flow if flow is None else flow,
        divisor=chosen.divisor if divisor is None else divisor,
    )


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
def measuring_bar() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error for `edgeseg.runtime.profiler`: call it with a name and the share that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("measuring"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
    console = Console(stderr=True)
    # Without a terminal even a transient bar leaves an empty line.
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)
