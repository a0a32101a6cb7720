"""The pick: which configuration of a bundle has the best latency-aware mIoU on a measured device at a frame rate."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError, InputError
from edgeseg.metrics.latency_aware import latency_tax
from edgeseg.metrics.rated_table import RatedTable

STATISTICS = ("expected", "median")
"""`expected`: sum of P(k) * table[k] over the samples; `median`: table at the median latency's offset."""


@dataclass(frozen=True)
class PickRow:
    """One configuration on the device at the frame rate. Latencies from frame bytes in to label bytes out."""

    name: str
    p50_ms: float
    p90_ms: float
    p99_ms: float
    offset: int
    """Frames of the camera that the labels are late, at the median latency."""
    miou: float
    """mIoU without delay."""
    expected_lamiou: float
    median_lamiou: float
    latency_tax: float
    """miou - expected_lamiou: what the delay costs."""
    is_bound: bool
    """Whether the delay lies beyond the accuracy table, so that its last entry stands for a lower one."""
    samples: int
    skipped: str | None = None
    """Why measuring stopped early; the figures then come from the samples until then."""
    excluded: str | None = None
    """The limit that it does not satisfy."""

    def lamiou(self, statistic: str) -> float:
        """LAmIoU by one of `STATISTICS`."""
        return self.expected_lamiou if statistic == "expected" else self.median_lamiou


@dataclass(frozen=True)
class Pick:
    """The configuration chosen, all rows in the order of their LAmIoU (those within the limits first), and why."""

    configuration: BundleConfiguration
    rows: tuple[PickRow, ...]
    fps: float
    statistic: str
    reason: str
    notes: tuple[str, ...]
    """What to know about the figures: interpolation, configurations left out, a table that ends early."""

    @property
    def row(self) -> PickRow:
        """Row of the configuration chosen."""
        return self.rows[0]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "configuration": self.row.name,
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
            "--data, or name a configuration"
        )


def pick(
    bundle: Bundle,
    profile: DeviceProfile,
    fps: float,
    *,
    max_latency_ms: float | None = None,
    min_miou: float | None = None,
    statistic: str = "expected",
) -> Pick:
    """Pick without measuring: a look-up in the bundle's accuracy tables and the profile's samples.

    Any frame rate can be asked for. At another rate than that of a table's videos its entries are interpolated
    (`edgeseg.metrics.latency_aware.RatedTable`), which is an approximation, more so for stateful networks.

    Args:
        max_latency_ms: only configurations whose 99th percentile is at most this.
        min_miou: only configurations whose mIoU without delay is at least this.
        statistic: one of `STATISTICS`, what is maximised.

    Raises:
        ArtifactError: the profile is of another bundle, or no configuration has both an accuracy table and samples.
        InputError: an unknown statistic, a frame rate that is not positive, or limits that nothing satisfies.
    """
    if statistic not in STATISTICS:
        raise InputError(f"unknown statistic {statistic!r} | known: {', '.join(STATISTICS)}")
    if not 0 < fps < math.inf:
        raise InputError(f"fps must be positive | got {fps}")
    profile.check_fits(bundle)
    rows, notes = [], []
    for configuration in bundle.configurations:
        entry = profile.entry(configuration.name)
        if configuration.accuracy is None:
            notes.append(f"{configuration.name} has no accuracy table: export it with a data set")
        elif entry is None or not entry.samples_ms:
            notes.append(f"{configuration.name} was not measured")
        else:
            row = pick_row(configuration, entry, fps)
            rows.append(_limited(row, max_latency_ms, min_miou))
    if not rows:
        raise ArtifactError(f"nothing to pick from in {bundle.name} | {'; '.join(notes)}")
    rows.sort(key=_order(statistic))
    if rows[0].excluded:
        raise InputError(_nothing_fits(rows, max_latency_ms, min_miou))
    chosen = bundle.configuration(rows[0].name)
    notes += _remarks(bundle, rows, fps)
    if fps != profile.fps and any(row.skipped for row in rows):
        notes.append(
            f"measured for {profile.fps:g} frames/s: what could not win there was left after a few samples; "
            "measure for this rate, or --exhaustive"
        )
    return Pick(chosen, tuple(rows), fps, statistic, _reason(rows, fps, statistic), tuple(notes))


def pick_row(configuration: BundleConfiguration, entry: LatencyProfile, fps: float) -> PickRow:
    """Figures of one configuration that has an accuracy table and samples, at a camera of `fps`."""
    assert configuration.accuracy is not None
    table = rated_table(configuration, fps)
    median_s = entry.percentile_ms(50) / 1e3
    expected = table.expected(entry.latencies_s)
    return PickRow(
        name=configuration.name,
        p50_ms=entry.percentile_ms(50),
        p90_ms=entry.percentile_ms(90),
        p99_ms=entry.percentile_ms(99),
        offset=table.offset(median_s),
        miou=configuration.accuracy.miou[0],
        expected_lamiou=expected,
        median_lamiou=table.lamiou(median_s),
        latency_tax=latency_tax(configuration.accuracy.table, expected),
        is_bound=table.is_bound(median_s),
        samples=len(entry.samples_ms),
        skipped=entry.skipped,
    )


def rated_table(configuration: BundleConfiguration, fps: float) -> RatedTable:
    """The accuracy table of a configuration that has one, read at a camera of `fps`."""
    assert configuration.accuracy is not None
    return RatedTable(configuration.accuracy.table, configuration.accuracy.fps, fps)


def _order(statistic: str) -> Callable[[PickRow], tuple]:
    """Within the limits first, then by LAmIoU; of two alike the faster one."""
    return lambda row: (row.excluded is not None, -row.lamiou(statistic), row.p50_ms, row.name)


def _limited(row: PickRow, max_latency_ms: float | None, min_miou: float | None) -> PickRow:
    reasons = []
    if max_latency_ms is not None and row.p99_ms > max_latency_ms:
        reasons.append(f"p99 {row.p99_ms:.1f} ms is over {max_latency_ms:g} ms")
    if min_miou is not None and row.miou < min_miou:
        reasons.append(f"mIoU {row.miou:.3f} is under {min_miou:g}")
    return PickRow(**{**vars(row), "excluded": "; ".join(reasons)}) if reasons else row


def _nothing_fits(rows: list[PickRow], max_latency_ms: float | None, min_miou: float | None) -> str:
    """Names the row whose worst breach of a limit, relative to the limit, is the smallest."""

    def breach(row: PickRow) -> float:
        late = row.p99_ms / max_latency_ms - 1 if max_latency_ms else 0.0
        poor = 1 - row.miou / min_miou if min_miou else 0.0
        return max(late, poor)

    closest = min(rows, key=breach)
    limits = [f"at most {max_latency_ms:g} ms"] if max_latency_ms is not None else []
    limits += [f"mIoU at least {min_miou:g}"] if min_miou is not None else []
    return (
        f"no configuration satisfies the limits ({', '.join(limits)}) | the closest is {closest.name}: "
        f"{closest.excluded} | loosen a limit, or export smaller or better configurations"
    )


def _reason(rows: list[PickRow], fps: float, statistic: str) -> str:
    best = rows[0]
    text = (
        f"{best.name} has the best {statistic} LAmIoU at {fps:g} frames/s, {best.lamiou(statistic):.3f}: "
        f"its labels are {_late(best.offset)} at {best.p50_ms:.1f} ms, which costs {best.latency_tax:.3f} "
        f"of its mIoU {best.miou:.3f}"
    )
    accurate = max(rows, key=lambda row: row.miou)
    if accurate.name == best.name:
        return f"{text}; it is also the most accurate one"
    return (
        f"{text}; the most accurate one, {accurate.name} (mIoU {accurate.miou:.3f}), would be "
        f"{_late(accurate.offset)} at {accurate.p50_ms:.1f} ms and reach {accurate.lamiou(statistic):.3f}"
    )


def _late(offset: int) -> str:
    return f"{offset} frame{'' if offset == 1 else 's'} late"


def _remarks(bundle: Bundle, rows: list[PickRow], fps: float) -> list[str]:
    ranked = [bundle.configuration(row.name) for row in rows]
    between = sorted(
        {entry.accuracy.fps for entry in ranked if entry.accuracy and not rated_table(entry, fps).is_exact}
    )
    notes = []
    if between:
        rates = ", ".join(f"{rate:g}" for rate in between)
        stateful = " (a rough one for stateful networks)" if any(entry.knobs.stateful for entry in ranked) else ""
        notes.append(
            f"accuracy was measured at {rates} frames/s, asked is {fps:g}: "
            f"LAmIoU is interpolated between offsets, an approximation{stateful}"
        )
    bounds = [row.name for row in rows if row.is_bound]
    if bounds:
        notes.append(f"LAmIoU is an upper bound, as the accuracy table ends before the delay, for {', '.join(bounds)}")
    return notes
