"""The plot of a pick that a command makes beside what it was asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.runtime.pick import Pick


def is_drawn(picked: "Pick", bundle: "Bundle", path: Path, *, title: str, front: Sequence[str] = ()) -> bool:
    """Draw the plot to `path`, as `edgeseg.runtime.plot.save_plot`; whether its library is there, else a line on
    standard error says that it is not."""
    from edgeseg.errors import MissingPackageError
    from edgeseg.runtime.plot import save_plot

    try:
        save_plot(picked, bundle, path, title=title, front=front)
    except MissingPackageError as error:
        click.echo(f"plot left out: {error}", err=True)
        return False
    return True
