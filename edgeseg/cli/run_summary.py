"""What `edgeseg run` prints at its end, also where a failure ends it."""

import json
from typing import TYPE_CHECKING

import click

from edgeseg.cli.standard_error import logs_json, say

if TYPE_CHECKING:
    from edgeseg.runtime.pick import Pick
    from edgeseg.runtime.result import LoopSummary
    from edgeseg.runtime.run import RunReport
    from edgeseg.runtime.warp_stage import CompensationSummary


def print_report(report: "RunReport", pick: "Pick | None", *, as_json: bool, to_stderr: bool) -> None:
    """Print what a run did, and how good it was; the failure that ended it stands in the object alone.

    Args:
        pick: why its first configuration was taken.
        as_json: all of it, as one object.
        to_stderr: where standard output is another one's; as one event where the log is JSON.
    """
    if to_stderr and logs_json():
        done = report.summary
        text = f"{done.configuration}: {done.results} results in {done.seconds:.1f} s, {done.fps:.1f} frames/s"
        say(text, "run_ended", summary=report.as_dict())
    elif as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
    elif report.error is None or report.summary.results:
        _print_summary(report, pick, to_stderr=to_stderr)


def _print_summary(report: "RunReport", pick: "Pick | None", *, to_stderr: bool) -> None:
    summary = report.summary
    picked = f", picked: predicted sLAmIoU {pick.row.streaming_lamiou:.3f} at {pick.fps:g} frames/s" if pick else ""
    if pick and pick.row.configuration != summary.configuration:
        picked = f" at the end; {pick.row.configuration} was picked"
    origin = "" if summary.source_fps_origin == "told" else f", {summary.source_fps_origin}"
    lines = [
        f"configuration  {summary.configuration}{picked}",
        f"source         {summary.source}, {summary.source_fps:.5g} frames/s{origin}",
        f"schedule       {summary.schedule}",
        *_events(summary),
        f"results        {summary.results} in {summary.seconds:.1f} s, {summary.fps:.1f} frames/s",
        f"step           {_figures(summary.step_ms)} ms",
        f"age            {_figures(summary.age_ms)} ms when published",
        f"dropped        {summary.frames_dropped} frames while busy, {summary.frames_missed} missed by the source, "
        f"{summary.results_dropped} results not taken",
    ]
    if summary.frames_left or summary.results_left:
        left = f"{summary.frames_left} frames and {summary.results_left} results"
        lines.append(f"left           {left}, when it was stopped")
    if summary.reconnects or summary.stalls or summary.corrupt_frames or summary.camera_is_lost:
        away = ", away at the end" if summary.camera_is_lost else ""
        lines.append(
            f"camera         lost and back {summary.reconnects} times{away}, {summary.stalls} stalls, "
            f"{summary.corrupt_frames} corrupt pictures skipped"
        )
    lines += ["compensation   none"] if summary.compensation is None else _moved(summary.compensation)
    lines += _score(report)
    if report.video is not None:
        lines.append(f"video          {report.video}")
    lines += [
        f"not written    {sink.dropped} of {sink.written + sink.dropped} results, for {sink.name}"
        for sink in report.sinks
        if sink.dropped
    ]
    click.echo("\n".join(lines), err=to_stderr)


def _figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in values.items()) or "none"


def _events(summary: "LoopSummary") -> list[str]:
    """A line each; of the resets, of which a camera that is lost now and then leads to many, one for all."""
    lines = [
        f"{event.kind:<14} {event.configuration}: {event.reason}"
        for event in summary.last_events
        if event.kind != "reset"
    ]
    resets = [event.reason for event in summary.last_events if event.kind == "reset"]
    if resets:
        lines.append(f"reset          the state began anew {summary.session_events['reset']} times, last: {resets[-1]}")
    return lines


def _moved(moved: "CompensationSummary") -> list[str]:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(moved.fallbacks.items())) or "none"
    invalid = "" if moved.invalid_share is None else f", {moved.invalid_share:.1%} of the pixels invalid"
    way = f"moved by {moved.moved_px:.1f} px in the mean"
    return [
        f"compensation   {moved.name}, at the {moved.rate}'s rate; {way}{invalid}",
        f"warp           {_figures(moved.warp_ms)} ms",
        f"source age     {_figures(moved.source_age_ms)} ms: of the frame that the labels were computed from",
        f"not moved      {reasons}",
    ]


def _score(report: "RunReport") -> list[str]:
    if report.slamiou is None:
        if not report.frames_with_labels:
            return []
        return [f"sLAmIoU        interrupted: scored 0 of {report.frames_with_labels} frames"]
    line = f"sLAmIoU        {report.slamiou:.3f} over {report.scored_frames} camera frames with labels"
    if report.slamiou_after_first is not None:
        line += f", {report.slamiou_after_first:.3f} from the first labels on"
    if report.predicted_slamiou is not None:
        line += f", predicted {report.predicted_slamiou:.3f} by the bundle's own video"
    if report.scored_frames < report.frames_with_labels:
        line += f"; interrupted: scored {report.scored_frames} of {report.frames_with_labels} frames"
    return [line]
