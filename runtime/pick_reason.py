"""A pick in words: why this candidate, what was left out, and what to know about the figures."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeseg.metrics.rated_table import is_whole_ratio
from edgeseg.runtime.race import CANNOT_WIN

if TYPE_CHECKING:
    from edgeseg.bundle import Candidate
    from edgeseg.device_profile import DeviceProfile
    from edgeseg.runtime.pick import PickRow

_STATISTIC_NAMES = {
    "streaming": "predicted sLAmIoU",
    "expected": "expected LAmIoU",
    "median": "LAmIoU at the median latency",
}


def reason(rows: Sequence["PickRow"], fps: float, statistic: str) -> str:
    """Why the first of `rows` was picked: against the best without compensation and against the most accurate one."""
    best = rows[0]
    text = (
        f"{_worth(rows, fps, statistic)}: its labels are {_late(best.offset)} at {best.p50_ms:.1f} ms, which costs "
        f"{best.miou - best.lamiou(statistic):.3f} of its mIoU {best.miou:.3f}"
    )
    return "; ".join(
        [text, *_scheduled(best), *_given_back(rows, statistic), _beside_the_most_accurate(rows, statistic)]
    )


def _worth(rows: Sequence["PickRow"], fps: float, statistic: str) -> str:
    """That the first one is the best, or as good as the best and faster, or as fast and without compensation."""
    best, name = rows[0], _STATISTIC_NAMES[statistic]
    top = max((row for row in rows if row.excluded is None), key=lambda row: row.lamiou(statistic))
    if top.lamiou(statistic) == best.lamiou(statistic):
        return f"{best.name} has the best {name} at {fps:g} frames/s, {best.lamiou(statistic):.3f}"
    ours, theirs = f"{best.lamiou(statistic):.4f}", f"{top.lamiou(statistic):.4f}"
    beside = f"{ours} as {top.name}" if ours == theirs else f"{ours} beside {theirs} of {top.name}"
    gain = "faster" if round(best.p50_ms, 1) < round(top.p50_ms, 1) else "no slower, without compensation"
    return f"{best.name} is as good as the best {name} at {fps:g} frames/s, {beside}, and {gain}"


def _scheduled(best: "PickRow") -> list[str]:
    """What the schedule gives, where it is not the latest-frame one."""
    if best.schedule == "latest-frame":
        return []
    text = f"the loop's schedule is {best.schedule}"
    if best.latest_frame_lamiou is None:
        return [f"{text}, as asked"]
    return [f"{text}, with which it reads {best.streaming_lamiou:.3f} (latest-frame: {best.latest_frame_lamiou:.3f})"]


def _given_back(rows: Sequence["PickRow"], statistic: str) -> list[str]:
    """What compensation gives, where it was picked."""
    best = rows[0]
    plain = [row for row in rows if row.compensation == "none" and row.excluded is None]
    if best.compensation == "none" or not plain:
        return []
    parts = []
    own = next((row for row in plain if row.configuration == best.configuration), None)
    if own is not None:
        back = best.lamiou(statistic) - own.lamiou(statistic)
        parts.append(f"labels moved by {best.compensation} give back {back:.3f} ({own.lamiou(statistic):.3f} without)")
    if own is not plain[0]:
        parts.append(
            f"the best without compensation, {plain[0].configuration}, reaches {plain[0].lamiou(statistic):.3f}"
        )
    elif own is not None:
        parts[0] += ", and it is also the best one without"
    return parts


def _beside_the_most_accurate(rows: Sequence["PickRow"], statistic: str) -> str:
    best = rows[0]
    accurate = max(rows, key=lambda row: (row.miou, row.excluded is None, row.lamiou(statistic)))
    if accurate.configuration == best.configuration:
        return "it is also the most accurate one"
    moved = "" if accurate.compensation == "none" else f" with {accurate.compensation}"
    return (
        f"the most accurate one, {accurate.configuration} (mIoU {accurate.miou:.3f}), would be "
        f"{_late(accurate.offset)} at {accurate.p50_ms:.1f} ms{moved} and reach {accurate.lamiou(statistic):.3f}"
    )


def _late(offset: int) -> str:
    return f"{offset} frame{'' if offset == 1 else 's'} late"


def left_out(candidates: Sequence["Candidate"], profile: "DeviceProfile") -> list[str]:
    """Why these have no row: by name without compensation, counted with one, of which there can be a hundred."""
    notes, counts = [], Counter[str]()
    for candidate in candidates:
        entry, moves = profile.entry_of(candidate), candidate.compensation.moves
        if candidate.configuration.accuracy is None:
            if not moves:
                notes.append(f"{candidate.name} has no accuracy table: export it with a data set")
        elif candidate.table is None:
            counts[f"no accuracy table with {candidate.compensation.name}: edgeseg profile --data makes it"] += 1
        elif entry is not None and entry.skipped and not entry.skipped.startswith(CANNOT_WIN):
            counts[f"not measured with {candidate.compensation.name}: {entry.skipped}"] += 1
        elif entry is not None and entry.skipped:
            counts["not measured with a compensation: even at the network's latency alone it could not win"] += 1
        elif moves:
            counts[f"not measured with {candidate.compensation.name}: edgeseg profile does it"] += 1
        else:
            notes.append(f"{candidate.name} was not measured")
    return notes + [f"{text} ({_times(count)})" for text, count in counts.items()]


def is_left_to_measure(candidate: "Candidate", profile: "DeviceProfile") -> bool:
    """Whether a candidate could be picked once it is measured: it has a table, and was not found to be unusable."""
    entry = profile.entry_of(candidate)
    is_unusable = entry is not None and entry.skipped is not None and not entry.skipped.startswith(CANNOT_WIN)
    return candidate.table is not None and not is_unusable


def _times(count: int) -> str:
    return f"{count} candidate{'' if count == 1 else 's'}"


def remarks(
    ranked: Sequence["Candidate"], rows: Sequence["PickRow"], profile: "DeviceProfile", fps: float
) -> list[str]:
    """What to know about the figures of these rows; `ranked` are their candidates."""
    rates_scored = {candidate.configuration.accuracy.fps for candidate in ranked if candidate.configuration.accuracy}
    between = sorted(rate for rate in rates_scored if not is_whole_ratio(rate, fps))
    notes = []
    if between:
        rates = ", ".join(f"{rate:g}" for rate in between)
        is_rough = any(candidate.configuration.knobs.stateful for candidate in ranked)
        stateful = " (a rough one for stateful networks)" if is_rough else ""
        notes.append(
            f"accuracy was measured at {rates} frames/s, asked is {fps:g}: "
            f"LAmIoU is interpolated between offsets, an approximation{stateful}"
        )
    bounds = [row.name for row in rows if row.is_bound]
    if bounds:
        notes.append(f"LAmIoU is an upper bound, as the accuracy table ends before the delay, for {', '.join(bounds)}")
    return notes + _other_rate(profile, rows, fps)


def invalid_note(profile: "DeviceProfile") -> list[str]:
    """That the figures are not those of the device; empty when they are."""
    if profile.invalid_reason is None:
        return []
    return [
        f"INVALID PROFILE, the board cut its clocks while it was measured ({profile.invalid_reason}): latencies are "
        "longer than they should be and the pick may be wrong; see to cooling, power supply or a lower power mode, and "
        "measure again"
    ]


def _other_rate(profile: "DeviceProfile", rows: Sequence["PickRow"], fps: float) -> list[str]:
    """What a profile that was measured for another frame rate does not tell."""
    notes = []
    if fps != profile.fps and any(row.skipped for row in rows):
        notes.append(
            f"measured for {profile.fps:g} frames/s: what could not win there was left after a few samples; "
            "measure for this rate, or --exhaustive"
        )
    if fps != profile.fps and any(row.flow_p90_ms is not None for row in rows):
        notes.append(
            f"measured with the flow of {profile.fps:g} frames/s beside the network, asked is {fps:g}: with "
            "compensation latencies differ"
        )
    return notes
