"""`edgeseg show`: what motion compensation changes, as a video, or which tokens stopped where, as a picture."""

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from edgeseg.cli.options import FRAME_RATE

_OF_A_VIDEO = ("source", "compensation", "delay", "fps", "split", "device", "threads", "frames")
_OF_A_PICTURE = ("plan", "method", "size")

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.runtime.show import ShowReport


@click.command(name="show")
@click.argument("bundle")
@click.option("--source", metavar="SRC", help="Video file, folder of images, data set, or street[:HxW][@FPS].")
@click.option("--image", metavar="FILE", help="PNG or JPEG: a picture of the tokens that stop in it.")
@click.option("--plan", metavar="L:P,...", help="With --image and a checkpoint: after layer L the proportion P stops.")
@click.option("--method", help="With --image and a checkpoint: pause, early-exit or prune.  [default: pause]")
@click.option("--size", metavar="HxW", help="With --image and a checkpoint: input size.  [default: as it was trained]")
@click.option("--compensation", metavar="NAME", default="late-warp+extrapolate", show_default=True,
              help="How labels are moved: none, extrapolate, late-warp, late-warp+extrapolate, or a full name such as "
              "late-warp+extrapolate_dis-medium_d1.")  # fmt: skip
@click.option("--delay", type=click.IntRange(1, 60), default=3, show_default=True,
              help="Frames that the labels are late.")  # fmt: skip
@click.option("--configuration", metavar="NAME", help="Configuration to run.  [default: the most accurate one]")
@click.option("--fps", type=FRAME_RATE, help="Frame rate of the source.  [default: its own]")
@click.option("--split", help="Split of a data set.  [default: val]")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, ...: see edgeseg doctor.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of a step.")
@click.option("--frames", type=click.IntRange(1), help="Stop after so many frames.")
@click.option("--out", metavar="FILE", help="What to write.  [default: compensation.mp4; with --image tokens.png]")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    bundle: str,
    source: str | None,
    image: str | None,
    plan: str | None,
    method: str | None,
    size: str | None,
    compensation: str,
    delay: int,
    configuration: str | None,
    fps: float | None,
    split: str | None,
    device: str,
    threads: int | None,
    frames: int | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Show what compensation does to BUNDLE's labels: a video of labels as they come, labels moved, and their errors.
    With --image: which tokens of a transformer stop after which layer, why, and the labels there, as one picture.

    \b
    edgeseg show camvid.edgeseg --source camvid --delay 3
    edgeseg show vit.edgeseg --image frame.png --configuration segmenter_ti_144x192_pause3-0.4
    edgeseg show runs/vit/checkpoint.safetensors --image frame.png --plan 3:0.4,5:0.4 --method early-exit

    The delay is simulated: the video is the same on any machine, and needs no camera. Errors need true labels, as data
    sets and the simulator have them; elsewhere the third panel shows where the two label maps differ.
    """
    import json

    from edgeseg.bundle import Bundle
    from edgeseg.cli.options import check_different_files, check_not_source
    from edgeseg.cli.show_tokens import TokenChoice, show_tokens
    from edgeseg.errors import InputError
    from edgeseg.runtime.session_loading import load
    from edgeseg.runtime.show import compensation_video
    from edgeseg.runtime.source_address import public_name
    from edgeseg.runtime.source_opening import is_camera, open_source
    from edgeseg.shipped import bundle_path

    _check_options(image)
    if image is not None:
        check_different_files(image=image, out=out)
        show_tokens(bundle, image, TokenChoice(configuration, plan, method, size), out or "tokens.png", as_json)
        return
    assert source is not None
    out = out or "compensation.mp4"
    if is_camera(source):
        raise InputError(
            f"camera {public_name(source)} cannot be played again the same | record it, and give the recording"
        )
    check_not_source(source, out=out)
    opened = Bundle.open(bundle_path(bundle))
    name = configuration or _most_accurate(opened)
    recording = open_source(source, fps=fps, paced=False, split=split)
    try:
        with load(
            opened,
            configuration=name,
            device=device,
            threads=threads,
            frame_size_hw=recording.size_hw,
            compensation=compensation,
        ) as session:
            report = compensation_video(session, recording, out, classes=opened.classes, delay=delay, frames=frames)
    finally:
        recording.close()
    if as_json:
        click.echo(json.dumps({"configuration": name, "delay": delay, **report.as_dict()}, indent=1))
    else:
        _print(report, name, delay)


def _check_options(image: str | None) -> None:
    """Refuse options of the other kind of picture.

    Raises:
        InputError: the message names the option.
    """
    from edgeseg.errors import InputError

    context = click.get_current_context()
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if image is None and "source" not in given:
        raise InputError("nothing to show | give a video with --source, or an image with --image")
    other, wanted = (_OF_A_PICTURE, "--image") if image is None else (_OF_A_VIDEO, "--source")
    if wrong := [name for name in given if name in other]:
        raise InputError(f"--{wrong[0]} goes with {wanted} | leave it out, or give {wanted} alone")


def _most_accurate(bundle: "Bundle") -> str:
    """The configuration with the highest mIoU without delay; the first one where none was scored."""
    return max(bundle.configurations, key=lambda entry: entry.accuracy.miou[0] if entry.accuracy else -1.0).name


def _print(report: "ShowReport", name: str, delay: int) -> None:
    click.echo(f"configuration  {name}, labels {delay} frame{'s' if delay > 1 else ''} late")
    click.echo(f"compensation   {report.compensation}")
    if report.miou_late is not None:
        click.echo(
            f"mIoU           {report.miou_late:.3f} as they come, {report.miou_moved:.3f} moved to the present, over "
            f"{report.scored_frames} frames with labels"
        )
    if report.fallbacks:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.fallbacks.items()))
        click.echo(f"not moved      {reasons}")
    click.echo(f"video          {report.video}, {report.frames} frames")
