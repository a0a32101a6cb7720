"""The command line: a group that imports a command when it is asked for, and the one place that catches errors."""

import importlib
import os
import sys
import traceback

import click

from edgeseg import __version__
from edgeseg.errors import EdgesegError

COMMANDS = {
    "demo": "The whole way on this machine: export, profile, pick, run.",
    "train": "Train a network by a recipe.",
    "eval": "Score a checkpoint or a bundle on labelled video.",
    "export": "Turn a network into a bundle of fixed-shape graphs.",
    "info": "Say what a bundle, checkpoint or device profile holds.",
    "profile": "Measure a bundle's configurations on this device and pick one.",
    "pick": "Pick a configuration from a stored device profile.",
    "run": "Run a camera loop.",
    "doctor": "Say which backends and devices are usable here.",
}
"""Command -> its line in `edgeseg --help`; each is the object `command` of the module of that name."""


class LazyGroup(click.Group):
    """Lists the commands without importing them, and turns our errors into one line and an exit code."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"edgeseg.cli.{name}").command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        # People add --verbose to the end of the line that just failed: take it anywhere.
        if "--verbose" in args:
            args = ["--verbose", *(argument for argument in args if argument != "--verbose")]
        return super().parse_args(context, args)

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except EdgesegError as error:
            if context.params["verbose"]:
                traceback.print_exc()
            click.echo(f"edgeseg: {error}", err=True)
            context.exit(2)
        except BrokenPipeError:
            # The reader of our output went away (`| head`): no error; spare the user the complaint at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("edgeseg: interrupted", err=True)
            context.exit(130)
        except Exception as error:
            if context.params["verbose"]:
                traceback.print_exc()
            click.echo(
                f"edgeseg: internal error, {type(error).__name__}: {error} | this is a fault of edgeseg: "
                "please report it with the output of --verbose",
                err=True,
            )
            context.exit(1)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    invoke_without_command=False,
)
@click.option("--verbose", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="edgeseg")
def main(verbose: bool) -> None:
    """Video segmentation on the device: train, export, measure, pick by latency-aware mIoU, run.

    \b
    Try it:          edgeseg demo
    Your network:    edgeseg export package.module:factory --data VIDEO_FOLDER --out net.edgeseg
    On the device:   edgeseg profile net.edgeseg --device cpu --fps 15
    In a loop:       edgeseg run net.edgeseg --source 0
    """
