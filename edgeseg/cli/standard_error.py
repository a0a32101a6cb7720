"""What a command says on standard error: lines for people, or with `--log-json` one line of JSON each for a collector.

A command of the class `JsonLogCommand` has that option, and says in that form also what is wrong with its arguments.
"""

import logging
import traceback
from collections.abc import Callable

import click

LOG_JSON = "--log-json"
_AS_JSON = f"{__name__}.as_json"
_log = logging.getLogger(__name__)


class JsonLogCommand(click.Command):
    """A command that logs as JSON from its first look at the arguments until the command line ends, when told to."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        # Before they are parsed: what is wrong with them is told as JSON too.
        if any(argument.partition("=")[0] == LOG_JSON for argument in args):
            from edgeseg.runtime.run_log import logging_to_stderr

            root = context.find_root()
            root.meta[_AS_JSON] = True
            root.with_resource(logging_to_stderr(as_json=True))
        return super().parse_args(context, args)


def logs_json() -> bool:
    """Whether everything on standard error is to be JSON; for the thread of the command."""
    context = click.get_current_context(silent=True)
    return context is not None and _AS_JSON in context.meta


def say(
    message: str,
    kind: str,
    *,
    prefix: str = "",
    level: int = logging.INFO,
    with_traceback: bool = False,
    **fields: object,
) -> None:
    """Say `message` on standard error; for the thread of the command.

    Args:
        kind: the field `event` of the line of JSON.
        prefix: what people read before the message.
        level: of the line of JSON, as in `logging`.
        with_traceback: with that of the exception that is handled: before the message, or as the field `error`.
        fields: further fields of the line of JSON.
    """
    if logs_json():
        from edgeseg.runtime.run_log import event

        _log.log(level, "%s", message, exc_info=with_traceback, extra=event(kind, **fields))
        return
    if with_traceback:
        traceback.print_exc()
    click.echo(f"{prefix}{message}", err=True)


def measuring_events() -> Callable[[str, float], None]:
    """In the place of `edgeseg.cli.options.measuring_bar`: an event at each tenth of the work, on any thread.

    Its fields are the configuration that was measured last, and the share of the work that is done.
    """
    from edgeseg.runtime.run_log import event

    tenths = -1

    def tell(name: str, share: float) -> None:
        nonlocal tenths
        if int(10 * share) > tenths:
            tenths = int(10 * share)
            fields = event("measuring", configuration=name, share=round(share, 3))
            _log.info("measuring: %.0f %%, %s", 100 * share, name, extra=fields)

    return tell
