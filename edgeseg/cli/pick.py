"""`edgeseg pick`: a look-up in a stored device profile; nothing is measured."""

import click

from edgeseg.cli.options import FRAME_RATE


@click.command(name="pick")
@click.argument("bundle")
@click.option("--profile", metavar="FILE", help="Device profile.  [default: the stored one of --device]")
@click.option("--device", default="cpu", show_default=True, help="Device whose stored profile is read.")
@click.option("--fps", type=FRAME_RATE, required=True, help="Frame rate of the camera, frames per second.")
@click.option("--max-latency-ms", type=float, help="Only configurations whose p99 is at most this.")
@click.option("--min-miou", type=float, help="Only configurations whose mIoU without delay is at least this.")
@click.option("--statistic", type=click.Choice(["streaming", "expected", "median"]), default="streaming",
              show_default=True,
              help="sLAmIoU predicted for the loop, LAmIoU over all samples, or at the median latency.")  # fmt: skip
@click.option("--compensation", metavar="NAMES",
              help="Only candidates with these compensations: none, or names.  [default: all]")  # fmt: skip
@click.option("--schedule", metavar="NAME",
              help="Schedule of the loop: latest-frame, shrinking-tail, every-n-th:N or fixed-rate:HZ.  "
              "[default: the better one of the first two]")  # fmt: skip
@click.option("--plot", metavar="FILE", help="Plot to write, .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    bundle: str,
    profile: str | None,
    device: str,
    fps: float,
    max_latency_ms: float | None,
    min_miou: float | None,
    statistic: str,
    compensation: str | None,
    schedule: str | None,
    plot: str | None,
    as_json: bool,
) -> None:
    """Pick the configuration of BUNDLE with the best LAmIoU from a profile that was measured before.

    It picks a motion compensation along with it, where the bundle has accuracy tables for one and it was measured.
    At another frame rate than that of the scored videos, LAmIoU is interpolated between offsets: an approximation.
    """
    import json

    from edgeseg.bundle import Bundle
    from edgeseg.cli.tables import print_pick
    from edgeseg.config import parse_compensations
    from edgeseg.device_profile import DeviceProfile
    from edgeseg.errors import InputError
    from edgeseg.runtime.device import default_profile_path
    from edgeseg.runtime.pick import pick
    from edgeseg.runtime.plot import save_plot
    from edgeseg.runtime.schedule import CHOICES, Schedule
    from edgeseg.runtime.ssh_link import SCHEME
    from edgeseg.shipped import bundle_path

    if profile is None and device.startswith(SCHEME):
        raise InputError(
            f"pick asks no other machine, got {device} | name the profile that was brought here: --profile FILE"
        )
    # All are no restriction: there may be more in the bundle than `all` stands for elsewhere.
    wanted = None if compensation in (None, "all") else parse_compensations(compensation)
    stored = DeviceProfile.load(profile or default_profile_path(device), of_bundle=bundle)
    opened = Bundle.open(bundle_path(bundle))
    chosen = pick(
        opened,
        stored,
        fps,
        max_latency_ms=max_latency_ms,
        min_miou=min_miou,
        statistic=statistic,
        compensations=wanted,
        schedules=CHOICES if schedule is None else (Schedule.parse(schedule),),
    )
    if plot:
        title = f"{opened.name} on {stored.facts.get('cpu', stored.device)}, {fps:g} frames/s"
        save_plot(chosen, opened, plot, title=title)
    if as_json:
        click.echo(json.dumps(chosen.as_dict(), indent=1))
    else:
        print_pick(chosen)
