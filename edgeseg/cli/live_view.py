"""`edgeseg run --serve`: the port is opened, and what is wrong with it said, before anything is measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.runtime.loop import Loop
    from edgeseg.runtime.viewer import Viewer


@contextmanager
def live_view(
    serve: str | None, *, token: str | None, token_file: str | None, tls_cert: str | None, tls_key: str | None
) -> Iterator["Callable[[Loop], Viewer] | None"]:
    """What makes the live view of a loop, on a port that is open for the time of the block; None without `--serve`.

    Raises:
        InputError: as `edgeseg.runtime.viewer.listen`, or an option without `--serve`.
        MissingPackageError: the extra `live` is not installed.
    """
    if serve is None:
        options = {"--token": token, "--token-file": token_file, "--tls-cert": tls_cert, "--tls-key": tls_key}
        for option, value in options.items():
            if value is not None:
                raise InputError(f"{option} is about the live view | give --serve [HOST:]PORT too, or leave it out")
        yield None
        return
    from edgeseg.optional import require
    from edgeseg.runtime.viewer import Serving, Viewer, listen

    require("aiohttp.web", extra="live")
    require("prometheus_client", extra="live")
    listener = listen(Serving.parse(serve, token=token, token_file=token_file, tls_cert=tls_cert, tls_key=tls_key))
    try:
        note = "" if listener.token is None else ", opened with ?token=..."
        click.echo(f"live view  {listener.url}{note}", err=True)
        if not listener.is_loopback and listener.tls_cert is None:
            click.echo("live view  the token and the pictures travel unencrypted without --tls-cert", err=True)
        yield lambda loop: Viewer(loop, listener)
    finally:
        listener.close()
