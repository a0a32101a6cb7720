"""The command line: a group that imports a command when it is asked for, and the one place that catches errors."""

import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from edgeseg import __version__
from edgeseg.cli.standard_error import logs_json, say
from edgeseg.errors import EdgesegError

COMMANDS = {
    "demo": "The whole way on this machine: export, profile, pick, run.",
    "train": "Train a network by a recipe.",
    "import": "Turn weights that other code trained into a checkpoint.",
    "eval": "Score a checkpoint or a bundle on labelled video.",
    "export": "Turn a network into a bundle of fixed-shape graphs.",
    "build": "Build a bundle's TensorRT engines on this device.",
    "info": "Say what a bundle, checkpoint or device profile holds.",
    "profile": "Measure a bundle's configurations on this device and pick one.",
    "pick": "Pick a configuration from a stored device profile.",
    "simulate": "Predict what each schedule of the camera loop reaches, without a camera.",
    "tune": "Choose the token plan of a ViT for this device and frame rate.",
    "run": "Run a camera loop.",
    "show": "Show what motion compensation changes, or which tokens stop where.",
    "doctor": "Say which backends and devices are usable here.",
}
"""Command -> its line in `edgeseg --help`; each is the object `command` of the module of that name."""
_MODULES = {"import": "import_"}
"""Modules of another name: a keyword cannot be imported."""


_THE_MACHINES = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE}
"""Failures of a file that are the machine's state, not a fault of ours, wherever they happen."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from a service manager: everything that is cleaned up after Ctrl-C is cleaned up after it too."""


class LazyGroup(click.Group):
    """Lists the commands without importing them, and turns our errors into one line and an exit code."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = _MODULES.get(name, name)
        return importlib.import_module(f"edgeseg.cli.{module}").command

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
            with _terminating():
                return super().invoke(context)
        except EdgesegError as error:
            _refuse(context, str(error))
        except BrokenPipeError:
            # The reader of our output went away (`| head`): no error; spare the user the complaint at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(0)
        except click.ClickException as error:
            if not logs_json():
                raise
            _end(context, _usage(error), error.exit_code)
        except (click.exceptions.Exit, click.Abort):
            raise
        except Terminated:
            _end(context, "terminated", 128 + signal.SIGTERM, kind="terminated", level=logging.INFO)
        except KeyboardInterrupt:
            _end(context, "interrupted", 128 + signal.SIGINT, kind="interrupted", level=logging.INFO)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _THE_MACHINES:
                what = error.filename or "standard output, or a file,"
                _refuse(context, f"{what} cannot be used ({error.strerror}) | make room, or choose another place")
            if _is_out_of_memory(error):
                _refuse(context, "out of memory | choose a smaller --size, batch or network, or free memory")
            message = (
                f"internal error, {type(error).__name__}: {error} | this is a fault of edgeseg: "
                "please report it with the output of --verbose"
            )
            _end(context, message, 1, kind="internal_error", with_traceback=context.params["verbose"])


def _refuse(context: click.Context, message: str) -> NoReturn:
    """End with a mistake of the user's."""
    _end(context, message, 2, with_traceback=context.params["verbose"])


def _end(
    context: click.Context,
    message: str,
    exit_code: int,
    *,
    kind: str = "failed",
    level: int = logging.ERROR,
    with_traceback: bool = False,
) -> NoReturn:
    """Say why, and end."""
    say(message, kind, prefix="edgeseg: ", level=level, with_traceback=with_traceback, exit_code=exit_code)
    context.exit(exit_code)


def _usage(error: click.ClickException) -> str:
    """In one line, what is wrong with the arguments and where they are explained."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return error.format_message() + (f" | see {context.command_path} --help" if context else "")


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM raises `Terminated`; without this it would end the process with its temporary files left behind."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_out_of_memory(error: Exception) -> bool:
    # PyTorch raises a plain RuntimeError on the CPU and a class of its own on a GPU; OpenCV its one class for all.
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "out of memory", "Failed to allocate")
    )


def _hush_decoders() -> None:
    """OpenCV and its decoders complain on standard error before our own message says what is wrong."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


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
    if not verbose:
        _hush_decoders()
