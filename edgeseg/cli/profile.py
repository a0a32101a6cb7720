"""`edgeseg profile`: a bundle and this device give a device profile, a table, a plot and a pick."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeseg.cli.options import FRAME_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from edgeseg.bundle import Bundle
    from edgeseg.config import Compensation
    from edgeseg.device_profile import DeviceProfile


MANIFEST_ROOM_BYTES = 100_000
"""Free space that accuracy tables are scored for at least."""


@click.command(name="profile")
@click.argument("bundle")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, ...: see edgeseg doctor. Of another "
              "machine: ssh://[USER@]HOST[:PORT][/DEVICE].")  # fmt: skip
@click.option("--fps", type=FRAME_RATE, required=True, help="Frame rate of the camera, frames per second.")
@click.option("--exhaustive", is_flag=True, help="Measure also what can no longer win.")
@click.option("--samples", type=click.IntRange(1), help="Timed steps per candidate.  [default: 60]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of a step.  [default: all usable cores]")
@click.option("--frame-size", metavar="HxW",
              help="Size of the camera's frames.  [default: where labels are moved that of --video, or of the videos "
              "that BUNDLE was scored on; else each configuration's own]")  # fmt: skip
@click.option("--video", metavar="SRC", help="Take frames of this source.  [default: seeded noise that moves]")
@click.option("--compensation", metavar="NAMES",
              help="Ways to move labels to the present that are measured with each configuration: all, none, or names "
              "separated by commas.  [default: those that BUNDLE has accuracy tables for]")  # fmt: skip
@click.option("--data", metavar="SPEC",
              help="Labelled video of the accuracy tables: what BUNDLE has no table for is scored on it first, and "
              "added to BUNDLE.")  # fmt: skip
@click.option("--split", help="Split of --data.  [default: val]")
@click.option("--out", "--profile", "out", metavar="FILE", help="Profile to write.  [default: profiles/DEVICE.json]")
@click.option("--plot", metavar="FILE", help="Plot to write, .png, .svg or .pdf.  [default: beside the profile]")
@click.option("--remote-command", metavar="CMD",
              help="edgeseg on an ssh:// device, such as ~/venv/bin/edgeseg.  [default: edgeseg]")  # fmt: skip
@click.option("--ssh-option", "ssh_options", metavar="KEY=VALUE", multiple=True,
              help="Option of ssh beside those of ~/.ssh/config.")  # fmt: skip
@click.option("--build-option", "build_options", metavar="NAME=VALUE", multiple=True,
              help="Option of the edgeseg build that a TensorRT ssh:// device needs first, such as "
              "workspace-mb=1024.")  # fmt: skip
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
    compensation: str | None,
    data: str | None,
    split: str | None,
    out: str | None,
    plot: str | None,
    remote_command: str | None,
    ssh_options: tuple[str, ...],
    build_options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the configurations of BUNDLE on this device, from frame bytes in to label bytes out, and pick one.

    Each is measured as it is, and with its labels moved to the present by motion compensation, the optical flow beside
    the network as in the camera loop. A bundle that was exported before compensation gains it by

        edgeseg profile BUNDLE --fps 15 --compensation all --data VIDEO

    All take turns; one is left as soon as its best possible LAmIoU cannot beat the best so far.

    With --device ssh://me@orin/cuda:0 the bundle is copied to that machine by ssh and measured by the edgeseg there;
    the profile is stored here, under that device's name, and nothing is left there but engines, which are kept in
    ~/.cache/edgeseg/engines for the next time. Keys let you in, never passwords.
    """
    import json

    from edgeseg.atomic import check_writable
    from edgeseg.bundle import Bundle
    from edgeseg.cli.options import check_different_files, measuring_bar, parse_size_hw
    from edgeseg.cli.pick_plot import is_drawn
    from edgeseg.cli.remote import build_words, measured_there, option_words, remote_device
    from edgeseg.cli.tables import print_pick
    from edgeseg.config import parse_compensations
    from edgeseg.errors import InputError
    from edgeseg.runtime.device import PROFILES_FOLDER, default_profile_path
    from edgeseg.runtime.pick import check_pickable, pick
    from edgeseg.runtime.plot import check_plot_path
    from edgeseg.runtime.profiler import SAMPLES, profile_bundle
    from edgeseg.runtime.remote_profile import is_far_side
    from edgeseg.shipped import bundle_path

    wanted = None if compensation is None else parse_compensations(compensation)
    if data and not wanted:
        raise InputError("--data is for scoring compensations | name them: --compensation all")
    if split and not data:
        raise InputError("--split is a split of --data | give both")
    opened = Bundle.open(bundle_path(bundle))
    check_pickable(opened)
    given_size_hw = parse_size_hw(frame_size) if frame_size else None
    remote = remote_device(device, remote_command, ssh_options)
    building = build_words(build_options, remote)
    # The name that the far side gives its device is known when its profile is here.
    path = Path(out) if out else PROFILES_FOLDER / "remote.json" if remote else default_profile_path(device)
    plot_path = Path(plot) if plot else path.with_suffix(".png")
    check_different_files(out=str(path), plot=str(plot_path))
    check_writable(path)
    check_plot_path(plot_path)
    frames_rgb = _frames_of(video, fps) if video else None
    if wanted and (missing := _without_table(opened, wanted)):
        opened = _scored(opened, missing, data, split or "val", None if remote else threads)
    elif data:
        click.echo(f"note: {opened.name} has all of these tables, --data was not read", err=True)
    if remote:
        asked = {"fps": fps, "samples": samples, "threads": threads, "frame-size": frame_size}
        words = option_words({**asked, "compensation": compensation, "exhaustive": exhaustive})
        brought = measured_there(opened, remote, words, remote_command, ssh_options, building, frames_rgb)
        profile = brought.profile
        path = path if out else PROFILES_FOLDER / brought.file_name
        plot_path = plot_path if plot else path.with_suffix(".png")
    else:
        with measuring_bar() as progress:
            profile = profile_bundle(
                opened,
                device=device,
                fps=fps,
                exhaustive=exhaustive,
                samples=samples or SAMPLES,
                threads=threads,
                frame_size_hw=given_size_hw or _camera_size_hw(opened, wanted, frames_rgb),
                frames_rgb=frames_rgb,
                compensations=wanted,
                progress=progress,
            )
    replaced = _lost_with(path, profile)
    profile.save(path)
    if replaced:
        click.echo(f"note: {path} held {replaced}, which is replaced: --out keeps both", err=True)
    chosen = pick(opened, profile, fps, compensations=wanted)
    title = f"{opened.name} on {profile.facts['cpu']}, {profile.device}, {fps:g} frames/s"
    # The near side of ssh draws its own.
    plotted = not is_far_side() and is_drawn(chosen, opened, plot_path, title=title)
    if as_json:
        values = {**chosen.as_dict(), "profile": str(path), "plot": str(plot_path) if plotted else None}
        click.echo(json.dumps(values, indent=1))
        return
    print_pick(chosen)
    for note in _notes(profile, is_size_given=given_size_hw is not None):
        click.echo(f"note: {note}")
    click.echo(f"profile: {path}" + (f"\nplot: {plot_path}" if plotted else ""))


def _without_table(bundle: "Bundle", wanted: "Sequence[Compensation]") -> "list[Compensation]":
    """Those that some configuration with an accuracy table has none for."""
    tables = [entry.accuracy for entry in bundle.configurations if entry.accuracy is not None]
    return [each for each in wanted if any(accuracy.table_of(each) is None for accuracy in tables)]


def _scored(
    bundle: "Bundle", missing: "list[Compensation]", data: str | None, split: str, threads: int | None
) -> "Bundle":
    """The bundle with tables for the `missing` compensations, which are added to its manifest.

    Raises:
        InputError: there are no data, they are others than those of the tables, or the bundle cannot be written to.
    """
    from edgeseg.errors import InputError
    from edgeseg.shipped import FOLDER

    names = missing[0].name + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
    if data is None:
        raise InputError(
            f"{bundle.name} has no accuracy table for {names} | add --data with the labelled video that its tables "
            "were made on: they are scored first, and added to the bundle"
        )
    if bundle.root.resolve().is_relative_to(FOLDER.resolve()):
        raise InputError(
            f"{bundle.root} is part of edgeseg, and accuracy tables would be added to it ({names}) | copy the bundle "
            "and profile the copy"
        )
    _check_can_grow(bundle)
    from edgeseg.cli.export_progress import ExportProgress
    from edgeseg.data.open import open_dataset
    from edgeseg.export.accuracy import EvaluationData, add_compensated_tables, compensated_runs

    evaluation_data = EvaluationData.open(open_dataset(data), split)
    with ExportProgress() as progress:
        progress.stage("scoring compensations", compensated_runs(bundle, evaluation_data, missing))
        return add_compensated_tables(bundle, evaluation_data, missing, threads=threads, on_frame=progress.advance)


def _check_can_grow(bundle: "Bundle") -> None:
    """Refuse a bundle whose manifest cannot be replaced before the scoring rather than after it."""
    from edgeseg.atomic import check_writable
    from edgeseg.errors import InputError
    from edgeseg.manifest import MANIFEST

    manifest = bundle.root / MANIFEST
    try:
        # The new manifest is whole beside the old one before it takes its place.
        check_writable(manifest, room_bytes=max(MANIFEST_ROOM_BYTES, 2 * manifest.stat().st_size))
    except InputError as error:
        raise InputError(
            f"accuracy tables cannot be added to {bundle.root} ({error}) | copy the bundle and profile the copy"
        ) from error


def _notes(profile: "DeviceProfile", *, is_size_given: bool) -> list[str]:
    """What to know about a measurement."""
    import numpy as np

    notes = []
    full = [entry for entry in profile.entries if entry.skipped is None]
    if unstable := sum(not entry.stable for entry in full):
        notes.append(
            f"{unstable} of {len(full)} measurements vary or drift by more than 2.5 % (load, heat or clocks): the "
            "profile holds every sample"
        )
    if unmoved := profile.facts.get("unmoved"):
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(unmoved.items()))
        notes.append(f"labels of some steps stayed as they were while it was measured: {reasons}")
    for entry in profile.entries:
        if entry.device_ms and not entry.compensation.moves:
            share = f"{np.median(entry.device_ms):.2f} ms of {entry.percentile_ms(50):.2f} ms"
            notes.append(f"{entry.name}: {share} (medians) are the device's own, by its events")
    if not is_size_given and any(entry.flow_ms for entry in profile.entries):
        size = "each configuration's size"
        if profile.frame_size_hw is not None:
            size = "{} x {}".format(*profile.frame_size_hw)
        notes.append(f"the camera's frames were taken to be of {size}: --frame-size HxW measures with others")
    return notes


def _camera_size_hw(
    bundle: "Bundle", wanted: "Sequence[Compensation] | None", frames_rgb: "Sequence[np.ndarray] | None"
) -> tuple[int, int] | None:
    """Height and width of the frames whose flow moves labels: those of the video that is given, else of the videos that
    the accuracy tables were made on, so that time and score are of the same flow. None where no labels are moved, or
    the videos differ.
    """
    if not any(entry.compensation.moves for entry in bundle.candidates(wanted)):
        return None
    if frames_rgb is not None:
        return frames_rgb[0].shape[0], frames_rgb[0].shape[1]
    sizes = {entry.accuracy.size_hw for entry in bundle.configurations if entry.accuracy is not None}
    return sizes.pop() if len(sizes) == 1 else None


def _frames_of(source: str, fps: float) -> "list[np.ndarray]":
    """The first frames of a source, uint8 `(H, W, 3)` RGB; `fps` is for a folder of images, which has no rate."""
    import threading

    from edgeseg.errors import SourceError
    from edgeseg.runtime.source_opening import is_camera, open_source

    rate = fps if Path(source).is_dir() else None
    opened, stop = open_source(source, fps=rate, paced=is_camera(source)), threading.Event()
    try:
        frames = [frame.rgb for _ in range(8) if (frame := opened.read(stop)) is not None]
    finally:
        opened.close()
    if not frames:
        raise SourceError(f"{opened.name} gives no frames | give a video, a data set or leave --video out")
    return frames


def _lost_with(path: Path, profile: "DeviceProfile") -> str | None:
    """What the profile at `path`, which `profile` is about to replace, holds and that one does not: another bundle, or
    compensations that were measured then and are left out now."""
    from edgeseg.device_profile import DeviceProfile
    from edgeseg.errors import ArtifactError

    try:
        found = DeviceProfile.load(path)
    except ArtifactError:
        return None
    if found.bundle_digest != profile.bundle_digest:
        return f"a profile of bundle {found.bundle_name} {found.bundle_digest[:12]} of {found.measured_at}"
    kept = {entry.compensation for entry in profile.entries}
    measured = dict.fromkeys(entry.compensation for entry in found.entries if entry.samples_ms)
    lost = [each.name for each in measured if each not in kept]
    return f"a profile of {found.measured_at} with compensation {', '.join(lost)}" if lost else None
