"""`edgeseg demo`: the whole way on this machine, from weights to a camera loop."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeseg.cli.options import FRAME_RATE

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.data.video import Dataset
    from edgeseg.runtime.pick import Pick
    from edgeseg.runtime.run import RunReport

STREET = "street:540x720@30"
"""The demo's camera: its largest networks take about a frame period on two cores, so that the delay matters."""
STREET_VIDEOS = {"videos": (1, 3, 1), "frames": (1, 60, 600)}
"""Three short drives make the accuracy tables; another street, seen by nobody before, is the loop's camera."""


@click.command(name="demo")
@click.option("--data", metavar="SPEC", help=f"Labelled video: a folder, or the simulator.  [default: {STREET}]")
@click.option("--split", default="val", show_default=True, help="Split of a folder of yours.")
@click.option("--checkpoint", "checkpoints", metavar="CKPT", multiple=True,
              help="Checkpoint to export; may be repeated.  [default: shipped:street]")  # fmt: skip
@click.option("--fps", type=FRAME_RATE, help="Frame rate of the camera.  [default: that of the video]")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True,
              help="How long the camera loop runs.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="CPU threads of a step.  [default: all usable cores]")
@click.option("--out", metavar="DIR", default="edgeseg-demo", show_default=True, help="Folder for everything it makes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    data: str | None,
    split: str,
    checkpoints: tuple[str, ...],
    fps: float | None,
    seconds: float,
    threads: int | None,
    out: str,
    as_json: bool,
) -> None:
    """Export, profile, pick and run: the shipped weights on simulated video, or your checkpoint on yours.

    Needs no network and about three minutes on two cores. Without torch the shipped bundle is used as it is.
    """
    import json

    from edgeseg.atomic import check_writable
    from edgeseg.cli.options import measuring_bar
    from edgeseg.cli.pick_plot import is_drawn
    from edgeseg.cli.tables import print_pick
    from edgeseg.data.open import is_simulator, open_dataset
    from edgeseg.runtime.clip import first_frames
    from edgeseg.runtime.pick import pick
    from edgeseg.runtime.profiler import profile_bundle

    folder = Path(out)
    check_writable(folder / "profile.json")
    spec = data or STREET
    dataset = open_dataset(spec, **(STREET_VIDEOS if is_simulator(spec) else {}))
    camera_size_hw = dataset.videos(split)[0].size_hw
    bundle = _bundle(folder, dataset, split, checkpoints, camera_size_hw)
    rate = fps or dataset.videos(split)[0].fps
    _say(f"2/4  measuring {len(bundle.configurations)} configurations on this CPU for a camera of {rate:g} frames/s")
    with measuring_bar() as progress:
        profile = profile_bundle(
            bundle, fps=rate, threads=threads, frame_size_hw=camera_size_hw, exhaustive=True, progress=progress,
            frames_rgb=first_frames(dataset.videos(split)[0]),
        )  # fmt: skip
    profile.save(folder / "profile.json")
    chosen = pick(bundle, profile, rate)
    title = f"{bundle.name} on {profile.facts['cpu']}, {rate:g} frames/s"
    plot = str(folder / "plot.png") if is_drawn(chosen, bundle, folder / "plot.png", title=title) else None
    _say(f"3/4  picked {chosen.row.name}")
    if not as_json:
        print_pick(chosen)
    _say(f"4/4  camera loop for {seconds:g} s")
    report = _loop(bundle, chosen, dataset, split, rate, seconds, profile.threads, folder / "overlay.mp4")
    if as_json:
        result = {"bundle": str(bundle.root), "profile": str(folder / "profile.json"), "plot": plot}
        click.echo(json.dumps({**result, "pick": chosen.as_dict(), "run": report.as_dict()}, indent=1))
    else:
        _close(bundle, chosen, report, folder, plot)


def _bundle(
    folder: Path, dataset: "Dataset", split: str, checkpoints: tuple[str, ...], camera_size_hw: tuple[int, int]
) -> "Bundle":
    """The bundle to measure: exported now, or the shipped one where torch is missing."""
    from edgeseg.bundle import Bundle
    from edgeseg.errors import MissingPackageError
    from edgeseg.optional import require
    from edgeseg.shipped import bundle_path, checkpoint_path

    try:
        for package in ("torch", "onnx", "safetensors"):
            require(package, extra="export")
    except MissingPackageError as error:
        if checkpoints:
            raise
        _say(f"1/4  taking the shipped bundle instead of exporting one: {error}")
        return Bundle.open(bundle_path("shipped:street"))
    from edgeseg.cli.export_progress import ExportProgress
    from edgeseg.export.accuracy import EvaluationData
    from edgeseg.export.checkpoint_source import checkpoint_source
    from edgeseg.export.pipeline import ExportOptions, export_bundle
    from edgeseg.export.sweep import Grid, plan_grid, sweep_sizes
    from edgeseg.runtime.threads import usable_cores

    sources = [checkpoint_source(checkpoint_path(path)) for path in checkpoints or ("shipped:street",)]
    grid = Grid(sizes_hw=tuple(sweep_sizes(camera_size_hw)), labels_strides=(1, 4))
    requests = plan_grid(sources, grid, sweep=True)
    _say(f"1/4  exporting {len(requests)} configurations, each checked against PyTorch and scored on {dataset.name}")
    with ExportProgress() as progress:
        return export_bundle(
            requests,
            folder / f"{dataset.name}.edgeseg",
            data=EvaluationData.open(dataset, split),
            options=ExportOptions(threads=usable_cores()),
            progress=progress,
        )


def _loop(
    bundle: "Bundle",
    chosen: "Pick",
    dataset: "Dataset",
    split: str,
    fps: float,
    seconds: float,
    threads: int,
    video_path: Path,
) -> "RunReport":
    from edgeseg.data.recorded import RecordedVideo
    from edgeseg.runtime.result import Result
    from edgeseg.runtime.run import run_loop, write_overlays
    from edgeseg.runtime.session_loading import load
    from edgeseg.runtime.source import VideoSource

    # The simulator has a street that no table was made from; a folder of yours may have but this split.
    video = max(dataset.videos("test" if dataset.name == "street" else split), key=len)
    # Neither rendering nor encoding may take the cores from the loop: a camera and a consumer would not.
    recorded = RecordedVideo(video, frames=round(seconds * fps))
    results: list[Result] = []
    session = load(
        bundle,
        configuration=chosen.configuration.name,
        threads=threads,
        frame_size_hw=video.size_hw,
        compensation=chosen.candidate.compensation,
    )
    camera = VideoSource(recorded, dataset.classes, fps=fps)
    with session:
        report = run_loop(session, camera, classes=bundle.classes, seconds=seconds, progress=results.append)
    write_overlays(results, video_path, fps=fps, size_hw=video.size_hw, classes=bundle.classes)
    return replace(report, video=video_path)


def _close(bundle: "Bundle", chosen: "Pick", report: "RunReport", folder: Path, plot: str | None) -> None:
    best = max(chosen.rows, key=lambda row: (row.miou, row.streaming_lamiou))
    row = chosen.row
    click.echo(
        f"\nloop: {report.summary.results} results in {report.summary.seconds:.1f} s, "
        f"labels {report.summary.age_ms.get('p50', float('nan')):.0f} ms old (median), "
        f"{report.summary.frames_dropped} frames dropped"
        + (f", sLAmIoU {report.slamiou:.3f} measured" if report.slamiou is not None else "")
    )
    click.echo(
        f"won: {row.name}, sLAmIoU {row.streaming_lamiou:.3f} predicted at {chosen.fps:g} frames/s, {row.p50_ms:.1f} ms"
    )
    if gain := _gain(chosen):
        click.echo(gain)
    if best.configuration == row.configuration:
        click.echo(f"it is also the most accurate one without delay (mIoU {best.miou:.3f})")
    else:
        click.echo(
            f"the most accurate one, {best.name} (mIoU {best.miou:.3f} without delay), would have got sLAmIoU "
            f"{best.streaming_lamiou:.3f}: its labels are {best.offset} frames late"
        )
    files = [str(bundle.root), str(folder / "profile.json"), *([plot] if plot else []), str(report.video)]
    click.echo("files: " + ", ".join(files))


def _gain(chosen: "Pick") -> str | None:
    """What moving the labels gave; None where it was not measured both with and without."""
    kept = [row for row in chosen.rows if not row.excluded]
    plain = next((row for row in kept if row.compensation == "none"), None)
    moved = next((row for row in kept if row.compensation != "none"), None)
    if plain is None or moved is None:
        return None
    gain = moved.streaming_lamiou - plain.streaming_lamiou
    return (
        f"compensation: labels moved to the present get sLAmIoU {moved.streaming_lamiou:.3f} at best, {gain:+.3f} "
        f"against the best of those that stay as they come, {plain.configuration} with {plain.streaming_lamiou:.3f}"
    )


def _say(text: str) -> None:
    click.echo(text, err=True)
