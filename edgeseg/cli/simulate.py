"""`edgeseg simulate`: what the camera loop is expected to reach by each schedule; nothing is run."""

from typing import TYPE_CHECKING, Any

import click

from edgeseg.cli.options import FRAME_RATE

if TYPE_CHECKING:
    from edgeseg.runtime.pick import PickRow

ROWS = 20
"""Rows of the table unless asked otherwise."""


@click.command(name="simulate")
@click.argument("bundle")
@click.option("--profile", metavar="FILE", help="Device profile.  [default: the stored one of --device]")
@click.option("--device", default="cpu", show_default=True, help="Device whose stored profile is read.")
@click.option("--fps", type=FRAME_RATE, required=True, help="Frame rate of the camera, frames per second.")
@click.option("--schedule", metavar="NAMES",
              help="Schedules, with commas between: latest-frame, shrinking-tail, every-n-th:N, fixed-rate:HZ.  "
              "[default: latest-frame,shrinking-tail,every-n-th:2]")  # fmt: skip
@click.option("--compensation", metavar="NAMES",
              help="Only candidates with these compensations: none, or names.  [default: all]")  # fmt: skip
@click.option("--configuration", metavar="NAME", multiple=True,
              help="Only this configuration; may be repeated.  [default: all]")  # fmt: skip
@click.option("--rows", type=click.IntRange(1), default=ROWS, show_default=True, help="Rows of the table.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON.")
def command(
    bundle: str,
    profile: str | None,
    device: str,
    fps: float,
    schedule: str | None,
    compensation: str | None,
    configuration: tuple[str, ...],
    rows: int,
    as_json: bool,
) -> None:
    """Predict the streaming LAmIoU of BUNDLE's configurations by each schedule, at a camera's frame rate.

    It comes from a device profile's latency samples and the bundle's accuracy tables: nothing is run, and the same
    question has the same answer. sLAmIoU is what a reader of the loop finds at each camera frame from the first labels
    on; the age is that of the frame those labels were computed from.
    """
    import json

    from edgeseg.bundle import Bundle
    from edgeseg.cli.tables import print_rows
    from edgeseg.config import parse_compensations
    from edgeseg.device_profile import DeviceProfile
    from edgeseg.runtime.device import default_profile_path
    from edgeseg.runtime.schedule import Schedule
    from edgeseg.runtime.simulate import SCHEDULES, simulate
    from edgeseg.shipped import bundle_path

    named = SCHEDULES if schedule is None else tuple(Schedule.parse(name.strip()) for name in schedule.split(","))
    wanted = None if compensation in (None, "all") else parse_compensations(compensation)
    stored = DeviceProfile.load(profile or default_profile_path(device), of_bundle=bundle)
    found = simulate(
        Bundle.open(bundle_path(bundle)),
        stored,
        fps,
        schedules=named,
        compensations=wanted,
        configurations=configuration or None,
    )
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
        return
    moves = any(row.compensation != "none" for row in found.rows)
    print_rows([_cells(row, with_compensation=moves) for row in found.rows[:rows]])
    if len(found.rows) > rows:
        click.echo(f"{len(found.rows) - rows} rows more: --rows or --json shows them")
    for row in dict.fromkeys((row.name, row.excluded) for row in found.rows[:rows] if row.excluded):
        click.echo(f"x {row[0]}: {row[1]}")
    for note in found.notes:
        click.echo(f"note: {note}")
    if (gain := found.waiting_gain()) is not None:
        click.echo(gain)


def _cells(row: "PickRow", *, with_compensation: bool) -> dict[str, Any]:
    """Heading -> what stands under it."""
    return {
        "configuration": f"x {row.configuration}" if row.excluded else row.configuration,
        **({"compensation": row.compensation} if with_compensation else {}),
        "schedule": row.schedule,
        "sLAmIoU": f"{'<=' if row.is_bound else ''}{row.streaming_lamiou:.3f}",
        "steps/s": f"{row.steps_per_s:.1f}",
        "age ms": f"{row.mean_age_ms:.0f}",
        "p50 ms": f"{row.p50_ms:.1f}",
    }
