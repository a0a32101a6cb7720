"""`edgeseg run`: the camera loop from the command line."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from edgeseg.cli.camera_options import camera_options
from edgeseg.cli.options import FRAME_RATE
from edgeseg.cli.sink_options import SinkArguments, sink_options
from edgeseg.cli.standard_error import LOG_JSON, JsonLogCommand, logs_json, measuring_events

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result


@click.command(name="run", cls=JsonLogCommand)
@click.argument("bundle")
@click.option("--source", metavar="SRC", required=True,
              help="Camera index, URL, csi:0 or usb:0 through GStreamer, both with [:HxW][@FPS], gst:PIPELINE, video "
              "file, folder of images, data set, or street[:HxW][@FPS]. @FILE: what the first line of FILE says, such "
              "as an address with a password.")  # fmt: skip
@click.option("--configuration", metavar="NAME", help="Configuration to run.  [default: the one picked]")
@click.option("--profile", metavar="FILE", help="Device profile to pick by.  [default: the stored one, else measure]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, ...: see edgeseg doctor.")
@click.option("--fps", type=FRAME_RATE, help="Frame rate of the source.  [default: its own]")
@camera_options
@click.option("--wait", is_flag=True,
              help="Wait for a camera or stream that cannot be opened yet, such as one that boots later than this "
              "machine. It is tried again as a lost one is, for ever or as long as --give-up says.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="CPU threads of a step.")
@click.option("--split", help="Split of a data set.  [default: val]")
@click.option("--no-pace", is_flag=True, help="As fast as possible, every frame, instead of at the source's rate.")
@click.option("--compensation", metavar="NAME",
              help="How labels are moved along the flow to the newest frame: none, extrapolate, late-warp, "
              "late-warp+extrapolate, or a full name such as late-warp+extrapolate_dis-ultrafast_d2.  "
              "[default: the one picked; none with --configuration]")  # fmt: skip
@click.option("--schedule", metavar="NAME",
              help="When a step starts, and with which frame: latest-frame, shrinking-tail, every-n-th:N or "
              "fixed-rate:HZ.  "
              "[default: the one picked; latest-frame with --configuration]")  # fmt: skip
@click.option("--adaptive", is_flag=True,
              help="Change to a faster configuration while steps are slower than profiled, and back.")  # fmt: skip
@click.option("--step-limit-s", type=click.FloatRange(0, min_open=True),
              help="Report a step that takes longer, and replace the session.  [default: wait for it]")  # fmt: skip
@click.option("--rate", type=click.Choice(["network", "camera"]),
              help="Results per step of the network, or of moved labels per camera frame.  "
              "[default: camera where labels are moved]")  # fmt: skip
@click.option("--mark-invalid", is_flag=True,
              help="Pixels that were hidden in the labels' frame get the ignored value.")  # fmt: skip
@click.option("--check-consistency", is_flag=True,
              help="Tell the share of such pixels; they keep the label at their place. "
              "Doubles the flow's time.")  # fmt: skip
@click.option("--frames", type=click.IntRange(1), help="Stop after so many results.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True),
              help="Stop after so many seconds from the first frame on; what --wait waits is not counted.")  # fmt: skip
@sink_options
@click.option("--summary-every", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="Log the summary so often, on standard error.")  # fmt: skip
@click.option(LOG_JSON, is_flag=True, expose_value=False, help="Log as lines of JSON on standard error, errors too.")
@click.option("--serve", metavar="[HOST:]PORT",
              help="Show it in a browser, with figures at /metrics and /healthz; on this machine alone unless HOST is "
              "another address, which needs a token.")  # fmt: skip
@click.option("--token", metavar="TEXT", help="What viewers have to know. Other users of this machine can see it here.")
@click.option("--token-file", metavar="FILE", help="File whose first line is the token.")
@click.option("--tls-cert", metavar="FILE.pem", help="Serve over TLS with this certificate chain.")
@click.option("--tls-key", metavar="FILE.pem", help="Its private key.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    bundle: str,
    source: str,
    configuration: str | None,
    profile: str | None,
    device: str,
    fps: float | None,
    wait: bool,
    threads: int | None,
    split: str | None,
    no_pace: bool,
    compensation: str | None,
    schedule: str | None,
    adaptive: bool,
    step_limit_s: float | None,
    rate: str | None,
    mark_invalid: bool,
    check_consistency: bool,
    frames: int | None,
    seconds: float | None,
    summary_every: float | None,
    serve: str | None,
    token: str | None,
    token_file: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    as_json: bool,
    camera_arguments: dict[str, Any],
    written: SinkArguments,
) -> None:
    """Run BUNDLE over a source: the newest frame in, its labels out, until the source ends or Ctrl-C.

    Ctrl-C ends the loop and keeps what it made: the video is finished and the summary printed.

    Without --configuration it picks by the device profile for the source's frame rate, and measures when there is none.

    With a compensation, picked or named, the labels are moved to the newest frame, along the motion in the image since
    the frame that they were computed from, and come at every camera frame, however slow the network is.
    """
    import os
    from dataclasses import replace
    from functools import partial

    from edgeseg.bundle import Bundle
    from edgeseg.cli.live_view import live_view
    from edgeseg.cli.options import measuring_bar
    from edgeseg.cli.run_checks import check_moved, checked_names, refuse_contradictions
    from edgeseg.cli.run_summary import print_report
    from edgeseg.config import UNCOMPENSATED
    from edgeseg.errors import InputError
    from edgeseg.runtime.kept_session import keep
    from edgeseg.runtime.run import RunReport, run_loop
    from edgeseg.runtime.schedule import Schedule
    from edgeseg.runtime.service_notify import ServiceNotifier, notifying
    from edgeseg.runtime.session_loading import compensation_of, load
    from edgeseg.runtime.source_opening import is_camera, open_source
    from edgeseg.runtime.source_wait import open_when_there
    from edgeseg.shipped import bundle_path

    scheduled = None if schedule is None else Schedule.parse(schedule)
    refuse_contradictions(
        configuration=configuration, profile=profile, schedule=scheduled, adaptive=adaptive, no_pace=no_pace
    )
    if as_json and written.to_stdout:
        raise InputError("--json and --json-lines - both write to standard output | give --json-lines a file")
    written.check_source(source)
    if wait and not is_camera(source):
        raise InputError(f"--wait: for cameras and streams | got {source}: leave it out")
    moving = None if compensation is None else compensation_of(compensation)
    check_fits = partial(check_moved, mark_invalid=mark_invalid, rate=rate, check_consistency=check_consistency)
    if moving is not None or configuration is not None:
        check_fits(moving or UNCOMPENSATED)
    click.get_current_context().with_resource(_logging(everything=summary_every is not None))
    opened = Bundle.open(bundle_path(bundle))
    given = checked_names(opened, configuration=configuration, profile=profile, device=device, threads=threads)
    written.check_places(opened.classes)
    viewer = click.get_current_context().with_resource(
        live_view(serve, classes=opened.classes, token=token, token_file=token_file, tls_cert=tls_cert, tls_key=tls_key)
    )
    failed: list[RunReport] = []
    service = ServiceNotifier.from_environment(os.environ)
    opening = partial(open_source, source, fps=fps, paced=not no_pace, split=split, **camera_arguments)
    if wait:
        told = None if service is None else service.starting
        camera = open_when_there(opening, limits=camera_arguments["reconnection"], on_wait=told)
    else:
        camera = opening()
    try:
        video, sinks = written.sinks(camera, opened.classes)
        with nullcontext(measuring_events()) if logs_json() else measuring_bar() as measuring:
            picked = load(
                opened,
                device=device,
                fps=camera.fps,
                configuration=configuration,
                profile=given,
                threads=threads,
                frame_size_hw=camera.size_hw,
                compensation=moving,
                schedule=scheduled,
                progress=measuring,
            )
        with (
            keep(picked, opened, adaptive=adaptive, step_limit_s=step_limit_s) as session,
            _live_line() as shown,
            notifying(shown, service) as progress,
        ):
            check_fits(session.compensation)
            report = run_loop(
                session,
                camera,
                classes=opened.classes,
                frames=frames,
                seconds=seconds,
                save=video,
                sinks=sinks,
                summary_every_s=summary_every,
                progress=progress,
                compensation=replace(session.compensation, mark_invalid=mark_invalid),
                rate=rate,
                check_consistency=check_consistency,
                viewer=viewer,
                watchdog=None if service is None else service.watching,
                on_failure=failed.append,
            )
    except Exception:
        for report in failed:
            print_report(report, picked.pick, as_json=as_json, to_stderr=written.to_stdout)
        raise
    finally:
        camera.close()
    print_report(report, picked.pick, as_json=as_json, to_stderr=written.to_stdout)
    if report.interruption is not None:
        raise report.interruption


def _logging(*, everything: bool) -> AbstractContextManager[None]:
    """Our logs on standard error: all of them, or warnings, which have their time where no terminal shows them.

    As lines of JSON they are there already.
    """
    import logging
    import sys

    from edgeseg.runtime.run_log import logging_to_stderr

    if logs_json():
        return nullcontext()
    if everything:
        return logging_to_stderr(as_json=False)
    return nullcontext() if sys.stderr.isatty() else logging_to_stderr(as_json=False, level=logging.WARNING)


@contextmanager
def _live_line() -> Iterator["Callable[[Result], None] | None"]:
    """A line on standard error that says how it goes, when somebody is watching."""
    import sys

    if logs_json() or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    shown_at = 0.0
    with Console(stderr=True).status("waiting for the first frame") as status:

        def show(result: "Result") -> None:
            nonlocal shown_at
            # Drawing costs more than a fast network's step: twice a second is enough to read.
            if result.published_at - shown_at >= 0.5:
                shown_at = result.published_at
                status.update(f"frame {result.frame_index}, labels {1e3 * result.age_s:.0f} ms old")

        yield show
