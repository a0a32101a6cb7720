"""Options of the commands that read a camera."""

import functools
from collections.abc import Callable
from typing import Any

import click

from edgeseg.cli.options import parse_size_hw

_POSITIVE_S = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    click.option("--camera-size", metavar="HxW", help="Size that a camera is to give.  [default: its own]"),
    click.option(
        "--rotate", type=click.Choice(["0", "90", "180", "270"]), default="0", help="Turn the pictures clockwise."
    ),
    click.option(
        "--colour-order",
        type=click.Choice(["rgb", "bgr"]),
        default="rgb",
        help="bgr: what the source gives as red is blue.",
    ),
    click.option(
        "--stall", type=_POSITIVE_S, metavar="SECONDS",
        help="A camera that gives nothing for so long is opened again.  [default: 1.5]",
    ),
    click.option(
        "--retry-most", type=_POSITIVE_S, metavar="SECONDS",
        help="Longest wait before a lost camera is tried again; the first one is half a second, and they double.  "
        "[default: 30]",
    ),
    click.option(
        "--give-up", type=click.FloatRange(min=0), metavar="SECONDS",
        help="End when a lost camera has not come back after so long; 0: at the first loss.  [default: never]",
    ),
    click.option(
        "--open-limit", type=_POSITIVE_S, metavar="SECONDS",
        help="How long opening a camera may take, up to its first picture; a stream's is a key frame.  [default: 10]",
    ),
)  # fmt: skip


def camera_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, which it gets as `camera_arguments`, those of
    `edgeseg.runtime.source_opening.open_source`."""

    @functools.wraps(command)
    def with_camera(
        *arguments: Any,
        camera_size: str | None,
        rotate: str,
        colour_order: str,
        stall: float | None,
        retry_most: float | None,
        give_up: float | None,
        open_limit: float | None,
        **others: Any,
    ) -> Any:
        from edgeseg.runtime.camera import Reconnection

        given = {"stall_s": stall, "most_wait_s": retry_most, "give_up_s": give_up, "open_s": open_limit}
        limits = {name: value for name, value in given.items() if value is not None}
        if retry_most is not None:
            limits["first_wait_s"] = min(Reconnection.first_wait_s, retry_most)
        camera_arguments = {
            "size_hw": None if camera_size is None else parse_size_hw(camera_size),
            "rotate_deg": int(rotate),
            "colour_order": colour_order.upper(),
            "reconnection": Reconnection(**limits) if limits else None,
        }
        return command(*arguments, camera_arguments=camera_arguments, **others)

    for option in reversed(_OPTIONS):
        with_camera = option(with_camera)
    return with_camera
