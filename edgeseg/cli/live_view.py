"""`edgeseg run --serve`: it answers, or what is wrong is said, before anything is measured."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from edgeseg.cli.standard_error import say
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.classes import ClassSet
    from edgeseg.runtime.loop import Loop
    from edgeseg.runtime.viewer import Viewer


SERVING_S = 5.0
"""How long the server may take to start before the rest goes on: it would take time from what is measured."""


@contextmanager
def live_view(
    serve: str | None,
    *,
    classes: "ClassSet",
    token: str | None,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
) -> Iterator["Callable[[Loop], AbstractContextManager[Viewer]] | None"]:
    """The live view, which says that it is starting until it is told a loop; None without `--serve`.

    Args:
        classes: the bundle's.

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
    with Viewer(None, listener, classes=classes) as view:
        note = "" if listener.token is None else ", opened with ?token=..."
        say(f"live view  {listener.url}{note}", "live_view", url=listener.url, needs_token=listener.token is not None)
        if not listener.is_loopback and listener.tls_cert is None:
            say(
                "live view  the token and the pictures travel unencrypted without --tls-cert",
                "live_view_unencrypted",
                level=logging.WARNING,
            )
        view.wait_until_serving(SERVING_S)

        @contextmanager
        def following(loop: "Loop") -> Iterator["Viewer"]:
            view.follow(loop)
            try:
                yield view
            finally:
                view.close()

        yield following
