"""The pick: which candidate of a bundle has the best latency-aware mIoU on a measured device at a frame rate."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle, BundleConfiguration, Candidate
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError, InputError
from edgeseg.metrics.latency_aware import latency_tax
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime.pick_reason import invalid_note, is_left_to_measure, left_out, reason, remarks
from edgeseg.runtime.schedule import CHOICES, LATEST_FRAME, Schedule

STATISTICS = ("streaming", "expected", "median")
"""`streaming`: the predicted sLAmIoU, what a reader of the camera loop finds (with compensation: at the camera's rate);
`expected`: sum of P(k) * table[k] over the samples; `median`: table at the median latency's offset."""

ALIKE = 0.0005
"""LAmIoU that two candidates may differ by and count as alike: half a unit of the last figure that is shown. Less is
decided by the noise of the latencies and by single pixels."""
SCHEDULE_GAIN = ALIKE
"""Predicted sLAmIoU that another schedule must add to be chosen."""


@dataclass(frozen=True)
class PickRow:
    """One candidate on the device at the frame rate. Latencies from frame bytes in to label bytes out, moved or not."""

    name: str
    """Of the candidate: that of the configuration, and of the compensation where labels are moved."""
    configuration: str
    compensation: str
    """Name of the compensation; `none` without one."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    offset: int
    """Frames of the camera that the labels are late, at the median latency."""
    miou: float
    """mIoU without delay."""
    streaming_lamiou: float
    """Predicted sLAmIoU, by `schedule`."""
    expected_lamiou: float
    median_lamiou: float
    latency_tax: float
    """miou - streaming_lamiou: what the delay costs."""
    is_bound: bool
    """Whether the delay lies beyond the accuracy table, so that its last entry stands for a lower one."""
    mean_age_ms: float
    """Predicted mean over the camera's frames of how old the frame is that the labels read there come from."""
    steps_per_s: float
    """Predicted steps of the network per second."""
    samples: int
    flow_p90_ms: float | None = None
    """90th percentile of what a camera frame's flow took beside the network; None without compensation."""
    skipped: str | None = None
    """Why measuring stopped early; the figures then come from the samples until then."""
    excluded: str | None = None
    """The limit that it does not satisfy."""
    schedule: str = LATEST_FRAME.name
    """Name of the schedule with the best predicted sLAmIoU."""
    latest_frame_lamiou: float | None = None
    """Predicted sLAmIoU by the latest-frame schedule; None where it was not asked for."""

    def lamiou(self, statistic: str) -> float:
        """LAmIoU by one of `STATISTICS`."""
        return float(getattr(self, f"{statistic}_lamiou"))


@dataclass(frozen=True)
class Pick:
    """The candidate chosen, its row and then all others in the order of their LAmIoU (those within the limits first),
    and why."""

    candidate: Candidate
    rows: tuple[PickRow, ...]
    fps: float
    statistic: str
    reason: str
    notes: tuple[str, ...]
    """What to know about the figures: interpolation, candidates left out, a table that ends early."""
    profile: DeviceProfile
    """What it was picked by."""

    @property
    def configuration(self) -> BundleConfiguration:
        """The configuration of the candidate chosen."""
        return self.candidate.configuration

    @property
    def schedule(self) -> Schedule:
        """The schedule chosen for the loop."""
        return Schedule.parse(self.row.schedule)

    @property
    def row(self) -> PickRow:
        """Row of the candidate chosen."""
        return self.rows[0]

    @property
    def rows_to_show(self) -> tuple[PickRow, ...]:
        """Those measured in full, and of each other configuration its best candidate."""
        full = {row.configuration for row in self.rows if row.skipped is None}
        best = {row.configuration: row for row in reversed(self.rows) if row.configuration not in full}
        return tuple(row for row in self.rows if row.skipped is None or best.get(row.configuration) is row)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "configuration": self.row.configuration,
            "compensation": self.candidate.compensation.as_dict(),
            "schedule": self.row.schedule,
            "fps": self.fps,
            "statistic": self.statistic,
            "reason": self.reason,
            "notes": list(self.notes),
            "rows": [asdict(row) for row in self.rows],
        }


def check_pickable(bundle: Bundle) -> None:
    """Refuse, before anything is measured, a bundle that nothing could be picked from.

    Raises:
        ArtifactError: no configuration has an accuracy table.
    """
    if all(entry.accuracy is None for entry in bundle.configurations):
        raise ArtifactError(
            f"nothing to pick from in {bundle.name} | no configuration has an accuracy table: export it again with "
            "--data"
        )


def pick(
    bundle: Bundle,
    profile: DeviceProfile,
    fps: float,
    *,
    max_latency_ms: float | None = None,
    min_miou: float | None = None,
    statistic: str = "streaming",
    compensations: Sequence[Compensation] | None = None,
    schedules: Sequence[Schedule] = CHOICES,
) -> Pick:
    """Pick without measuring: a look-up in the bundle's accuracy tables and the profile's samples.

    The highest LAmIoU is picked; of those that come within `ALIKE` of it, the fastest.

    Any frame rate can be asked for. At another rate than that of a table's videos its entries are interpolated
    (`edgeseg.metrics.rated_table.RatedTable`), which is an approximation, more so for stateful networks. A candidate
    whose flow cannot keep up with the camera is out, whatever its labels are worth.

    Args:
        max_latency_ms: only candidates whose 99th percentile is at most this.
        min_miou: only configurations whose mIoU without delay is at least this.
        statistic: one of `STATISTICS`, what is maximised.
        compensations: only candidates with one of these; None: all that the bundle has accuracy tables for.
        schedules: each candidate gets the one of these that it reaches the highest sLAmIoU with; of several alike, to
            `SCHEDULE_GAIN`, the first.

    Raises:
        ArtifactError: the profile is of another bundle, or no candidate has both an accuracy table and samples.
        InputError: an unknown statistic, a frame rate that is not positive, or limits that nothing satisfies.
    """
    if statistic not in STATISTICS:
        raise InputError(f"unknown statistic {statistic!r} | known: {', '.join(STATISTICS)}")
    if not 0 < fps < math.inf:
        raise InputError(f"fps must be positive | got {fps}")
    if not schedules:
        raise InputError("no schedule to choose from | leave it out, or name at least one")
    profile.check_fits(bundle)
    candidates = bundle.candidates(compensations)
    measured = {candidate.name: candidate for candidate in candidates if _has_row(candidate, profile)}
    rows = [
        _limited(pick_row(candidate, entry, fps, schedules), max_latency_ms, min_miou)
        for candidate in measured.values()
        if (entry := profile.entry_of(candidate)) is not None
    ]
    notes = left_out([candidate for candidate in candidates if candidate.name not in measured], profile)
    if not rows:
        advice = f" | measure them: edgeseg profile {bundle.root} --fps {fps:g} --exhaustive"
        could = any(is_left_to_measure(candidate, profile) for candidate in candidates)
        raise ArtifactError(f"nothing to pick from in {bundle.name} | {'; '.join(notes)}{advice if could else ''}")
    rows.sort(key=_order(statistic))
    if rows[0].excluded:
        raise InputError(_nothing_fits(rows, max_latency_ms, min_miou))
    chosen = _fastest_of_the_best(rows, statistic)
    rows = [chosen, *(row for row in rows if row is not chosen)]
    notes = invalid_note(profile) + notes + remarks([measured[row.name] for row in rows], rows, profile, fps)
    return Pick(
        measured[rows[0].name], tuple(rows), fps, statistic, reason(rows, fps, statistic), tuple(notes), profile
    )


def pick_row(
    candidate: Candidate, entry: LatencyProfile, fps: float, schedules: Sequence[Schedule] = CHOICES
) -> PickRow:
    """Figures of a candidate that has an accuracy table and samples, at a camera of `fps`, by the best schedule."""
    accuracy = candidate.configuration.accuracy
    assert accuracy is not None
    table = rated_table(candidate, fps)
    median_s = entry.percentile_ms(50) / 1e3
    loops = {schedule.name: table.streamed(entry.latencies_s, schedule.start_rule(fps)) for schedule in schedules}
    first = schedules[0].name
    best = max(loops, key=lambda name: loops[name].slamiou)
    # A schedule that waits makes results rarer: it has to be worth it.
    schedule = best if loops[best].slamiou >= loops[first].slamiou + SCHEDULE_GAIN else first
    loop = loops[schedule]
    return PickRow(
        name=candidate.name,
        configuration=candidate.configuration.name,
        compensation=candidate.compensation.name,
        p50_ms=entry.percentile_ms(50),
        p90_ms=entry.percentile_ms(90),
        p99_ms=entry.percentile_ms(99),
        offset=table.offset(median_s),
        miou=accuracy.miou[0],
        streaming_lamiou=loop.slamiou,
        expected_lamiou=table.expected(entry.latencies_s),
        median_lamiou=table.lamiou(median_s),
        latency_tax=latency_tax(accuracy.table, loop.slamiou),
        is_bound=table.is_bound(median_s),
        mean_age_ms=1e3 * loop.mean_age_s,
        steps_per_s=loop.steps_per_s,
        samples=len(entry.samples_ms),
        flow_p90_ms=float(np.percentile(entry.flow_ms, 90)) if entry.flow_ms else None,
        skipped=entry.skipped,
        excluded=flow_fault([flow / 1e3 for flow in entry.flow_ms], fps),
        schedule=schedule,
        latest_frame_lamiou=loops[LATEST_FRAME.name].slamiou if LATEST_FRAME.name in loops else None,
    )


def rated_table(candidate: Candidate, fps: float) -> RatedTable:
    """The accuracy table of a candidate that has one, read at a camera of `fps`."""
    accuracy, table = candidate.configuration.accuracy, candidate.table
    assert accuracy is not None
    assert table is not None
    return RatedTable(table, accuracy.fps, fps)


def flow_fault(flow_s: Sequence[float], fps: float, *, percent: float = 90) -> str | None:
    """Why a flow cannot keep up with a camera of `fps`; None when it can.

    Args:
        flow_s: seconds that the flow of each camera frame took; empty without compensation.
        percent: percentile of them that has to fit into a frame period.
    """
    if not len(flow_s):
        return None
    taken_ms, period_ms = 1e3 * float(np.percentile(flow_s, percent)), 1e3 / fps
    if taken_ms <= period_ms:
        return None
    return f"its flow cannot keep up: p{percent:g} {taken_ms:.1f} ms a frame, a frame comes every {period_ms:.1f} ms"


def _has_row(candidate: Candidate, profile: DeviceProfile) -> bool:
    entry = profile.entry_of(candidate)
    return candidate.table is not None and entry is not None and bool(entry.samples_ms)


def _order(statistic: str) -> Callable[[PickRow], tuple]:
    """Within the limits first, then by LAmIoU; of two alike the faster one."""
    return lambda row: (row.excluded is not None, -row.lamiou(statistic), row.p50_ms, row.name)


def _fastest_of_the_best(rows: Sequence[PickRow], statistic: str) -> PickRow:
    """The fastest of those that are as good as the first one; what was left early has too few samples to be."""
    least = rows[0].lamiou(statistic) - ALIKE
    rivals = (row for row in rows[1:] if row.excluded is None and row.skipped is None and row.lamiou(statistic) > least)
    # To the figure shown: less is noise, and must not add a flow per frame to labels that stay as they are.
    return min(
        (rows[0], *rivals),
        key=lambda row: (round(row.p50_ms, 1), row.compensation != "none", -row.lamiou(statistic)),
    )


def _limited(row: PickRow, max_latency_ms: float | None, min_miou: float | None) -> PickRow:
    reasons = [row.excluded] if row.excluded else []
    if max_latency_ms is not None and row.p99_ms > max_latency_ms:
        reasons.append(f"p99 {row.p99_ms:.1f} ms is over {max_latency_ms:g} ms")
    if min_miou is not None and row.miou < min_miou:
        reasons.append(f"mIoU {row.miou:.3f} is under {min_miou:g}")
    return replace(row, excluded="; ".join(reasons) or None)


def _nothing_fits(rows: list[PickRow], max_latency_ms: float | None, min_miou: float | None) -> str:
    """Names the row whose worst breach of a limit, relative to the limit, is the smallest."""

    def breach(row: PickRow) -> float:
        late = row.p99_ms / max_latency_ms - 1 if max_latency_ms else 0.0
        poor = 1 - row.miou / min_miou if min_miou else 0.0
        return max(late, poor)

    closest = min(rows, key=breach)
    limits = [f"at most {max_latency_ms:g} ms"] if max_latency_ms is not None else []
    limits += [f"mIoU at least {min_miou:g}"] if min_miou is not None else []
    asked = f" ({', '.join(limits)})" if limits else ""
    return (
        f"no candidate satisfies the limits{asked} | the closest is {closest.name}: "
        f"{closest.excluded} | loosen a limit, allow other compensations, or export smaller or better configurations"
    )
