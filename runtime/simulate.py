"""What a camera loop is expected to reach by each schedule, from latency samples and accuracy tables: no camera runs.

It is the prediction that the pick goes by (`edgeseg.runtime.pick`), of each candidate by each schedule: the steps take
the profile's latencies in the order in which they were measured, so that the same question has the same answer.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.bundle import Bundle
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import InputError
from edgeseg.runtime.pick import SCHEDULE_GAIN, PickRow, pick
from edgeseg.runtime.schedule import LATEST_FRAME, SHRINKING_TAIL, Schedule

SCHEDULES = (LATEST_FRAME, SHRINKING_TAIL, Schedule("every-n-th", 2.0))
"""Simulated unless others are asked for."""


@dataclass(frozen=True)
class Simulation:
    """A row for each candidate and schedule, those within the limits first, then the best first."""

    rows: tuple[PickRow, ...]
    """`streaming_lamiou`, `mean_age_ms` and `steps_per_s` are those of the row's `schedule`."""
    fps: float
    notes: tuple[str, ...]
    """What to know about the figures, as of a pick."""

    def waiting_gain(self) -> str | None:
        """Where shrinking-tail is better than latest-frame, in words; None where both were not simulated."""
        by_schedule = {
            schedule.name: {row.name: row.streaming_lamiou for row in self.rows if row.schedule == schedule.name}
            for schedule in (LATEST_FRAME, SHRINKING_TAIL)
        }
        latest, shrinking = by_schedule[LATEST_FRAME.name], by_schedule[SHRINKING_TAIL.name]
        gains = {name: value - latest[name] for name, value in shrinking.items() if name in latest}
        if not gains:
            return None
        worth = [name for name, gain in gains.items() if gain >= SCHEDULE_GAIN]
        best = max(gains, key=lambda name: gains[name])
        at_most = f": by {gains[best]:.4f} at most, {best}" if worth else ""
        return f"shrinking-tail is better than latest-frame for {len(worth)} of {len(gains)} candidates{at_most}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "fps": self.fps,
            "notes": list(self.notes),
            "waiting_gain": self.waiting_gain(),
            "rows": [asdict(row) for row in self.rows],
        }


def simulate(
    bundle: Bundle,
    profile: DeviceProfile,
    fps: float,
    *,
    schedules: Sequence[Schedule] = SCHEDULES,
    compensations: Sequence[Compensation] | None = None,
    configurations: Collection[str] | None = None,
) -> Simulation:
    """Predicted sLAmIoU of each candidate by each schedule, at a camera of `fps`.

    Args:
        schedules: at least one.
        compensations: only candidates with one of these; None: all that the bundle has accuracy tables for.
        configurations: names of configurations; None: all.

    Raises:
        ArtifactError, InputError: as `edgeseg.runtime.pick.pick`, or a name that the bundle does not have.
    """
    if not schedules:
        raise InputError("no schedule to simulate | leave it out, or name at least one")
    for name in configurations or ():
        bundle.configuration(name)
    picks = [
        pick(bundle, profile, fps, compensations=compensations, schedules=(schedule,))
        for schedule in dict.fromkeys(schedules)
    ]
    rows = [row for each in picks for row in each.rows if configurations is None or row.configuration in configurations]
    if not rows:
        raise InputError(
            f"nothing to simulate of {', '.join(configurations or ())} | measure it: edgeseg profile {bundle.root} "
            f"--fps {fps:g} --exhaustive"
        )
    # Sorting is stable: of schedules alike the first one named comes first.
    rows.sort(key=lambda row: (row.excluded is not None, -row.streaming_lamiou))
    notes = dict.fromkeys(note for each in picks for note in each.notes)
    return Simulation(tuple(rows), fps, tuple(notes))
