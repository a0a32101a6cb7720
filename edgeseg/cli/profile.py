"""`edgeseg profile`: a bundle and this device give a device profile, a table, a plot and a pick."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeseg.cli.options import FRAME_RATE

if TYPE_CHECKING:
    import numpy as np

    from edgeseg.bundle import Bundle
    from edgeseg.runtime.pick import Pick


@click.command(name="profile")
@click.argument("bundle")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, ...: see edgeseg doctor.")
@click.option("--fps", type=FRAME_RATE, required=True, help="Frame rate of the camera, frames per second.")
@click.option("--exhaustive", is_flag=True, help="Measure also what can no longer win.")
@click.option("--samples", type=click.IntRange(1), help="Timed steps per configuration.  [default: 60]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of a step.  [default: all usable cores]")
@click.option("--frame-size", metavar="HxW", help="Size of the camera's frames.  [default: each configuration's own]")
@click.option("--video", metavar="SRC", help="Take frames of this source.  [default: seeded noise]")
@click.option("--out", metavar="FILE", help="Profile to write.  [default: profiles/DEVICE.json]")
@click.option("--plot", metavar="FILE", help="Plot to write, .png, .svg or .pdf.  [default: beside the profile]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    bundle: str,
    device: str,
    fps: float,
    exhaustive: bool,
    samples: int | None,
    threads: int | None,
    frame_size: str | None,
    video: str | None,
    out: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Measure the configurations of BUNDLE on this device, from frame bytes in to label bytes out, and pick one.

    Configurations take turns; one is left as soon as its best possible LAmIoU cannot beat the best so far.
    """
    import json

    from edgeseg.atomic import check_writable
    from edgeseg.bundle import Bundle
    from edgeseg.cli.options import check_different_files, measuring_bar, parse_size_hw
    from edgeseg.cli.tables import print_pick
    from edgeseg.runtime.device import default_profile_path
    from edgeseg.runtime.pick import check_pickable, pick
    from edgeseg.runtime.plot import check_plot_path
    from edgeseg.runtime.profiler import SAMPLES, profile_bundle
    from edgeseg.shipped import bundle_path

    opened = Bundle.open(bundle_path(bundle))
    check_pickable(opened)
    frame_size_hw = parse_size_hw(frame_size) if frame_size else None
    path = Path(out) if out else default_profile_path(device)
    plot_path = Path(plot) if plot else path.with_suffix(".png")
    check_different_files(out=str(path), plot=str(plot_path))
    check_writable(path)
    check_plot_path(plot_path)
    with measuring_bar() as progress:
        profile = profile_bundle(
            opened,
            device=device,
            fps=fps,
            exhaustive=exhaustive,
            samples=samples or SAMPLES,
            threads=threads,
            frame_size_hw=frame_size_hw,
            frames_rgb=_frames_of(video) if video else None,
            progress=progress,
        )
    replaced = _another_bundles_profile(path, opened)
    profile.save(path)
    if replaced:
        click.echo(f"note: {path} held a profile of {replaced}: it is replaced; --out keeps both", err=True)
    chosen = pick(opened, profile, fps)
    plotted = _plot(chosen, plot_path, f"{opened.name} on {profile.facts['cpu']}, {device}, {fps:g} frames/s")
    if as_json:
        values = {**chosen.as_dict(), "profile": str(path), "plot": str(plot_path) if plotted else None}
        click.echo(json.dumps(values, indent=1))
        return
    print_pick(chosen)
    unstable = [entry.name for entry in profile.entries if entry.skipped is None and not entry.stable]
    if unstable:
        click.echo(
            f"note: {len(unstable)} of {len(profile.entries)} measurements vary or drift by more than 2.5 % "
            "(load, heat or clocks): the profile holds every sample"
        )
    click.echo(f"profile: {path}" + (f"\nplot: {plot_path}" if plotted else ""))


def _frames_of(source: str) -> "list[np.ndarray]":
    """The first frames of a source, uint8 `(H, W, 3)` RGB."""
    import threading

    from edgeseg.errors import SourceError
    from edgeseg.runtime.source import open_source

    opened, stop = open_source(source, fps=None, paced=source.isdecimal() or "://" in source), threading.Event()
    try:
        frames = [frame.rgb for _ in range(8) if (frame := opened.read(stop)) is not None]
    finally:
        opened.close()
    if not frames:
        raise SourceError(f"{source} gives no frames | give a video, a data set or leave --video out")
    return frames


def _another_bundles_profile(path: Path, bundle: "Bundle") -> str | None:
    """Name and date of another bundle's profile at `path`, which is about to be replaced."""
    from edgeseg.device_profile import DeviceProfile
    from edgeseg.errors import ArtifactError

    try:
        found = DeviceProfile.load(path)
    except ArtifactError:
        return None
    if found.bundle_digest == bundle.digest:
        return None
    return f"bundle {found.bundle_name} {found.bundle_digest[:12]} of {found.measured_at}"


def _plot(chosen: "Pick", path: Path, title: str) -> bool:
    from edgeseg.errors import MissingPackageError
    from edgeseg.runtime.plot import save_plot

    try:
        save_plot(chosen, path, title=title)
    except MissingPackageError as error:
        click.echo(f"plot left out: {error}", err=True)
        return False
    return True
