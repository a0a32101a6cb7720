"""What motion compensation makes of a bundle's pick on this device: the pick without it, the pick with it, and others.

    python -m benchmarks.picks --camvid FOLDER --bundle BUNDLE [--fps 15 30] [--configuration NAME] [--out DIR]

Every configuration is measured at each frame rate with each compensation, to the end, on frames of CamVid val and with
the flow of such frames beside it. Four configurations are shown, each as its labels come and with the compensation that
suits it best: those of the two picks, the most accurate one, and the slowest one or the one that is named. Accuracy is
that of the bundle's tables, which tell what video they were made on; at another rate than theirs it is interpolated.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import machine_facts, markdown_table, report_parser, users_errors, write_report
from edgeseg.bundle import Bundle
from edgeseg.cli.options import measuring_bar
from edgeseg.config import DEFAULT_COMPENSATIONS, UNCOMPENSATED, Compensation, parse_compensations
from edgeseg.data.open import open_dataset
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import InputError
from edgeseg.runtime.pick import Pick, PickRow, check_pickable, pick
from edgeseg.runtime.profiler import profile_bundle
from edgeseg.shipped import bundle_path

FRAMES = 8
"""Frames of the video that steps and flow go through, to and fro."""


@dataclass(frozen=True)
class Picks:
    """What is picked at one frame rate."""

    without: Pick
    """Among labels as they come."""
    compensated: Pick
    """Among all compensations; labels as they come are one of them."""

    @classmethod
    def of(cls, bundle: Bundle, profile: DeviceProfile, fps: float, compensations: Sequence[Compensation]) -> "Picks":
        """Look both up in a profile of every configuration with each of `compensations`; errors as of `pick`."""
        among = tuple(dict.fromkeys((UNCOMPENSATED, *compensations)))
        return cls(
            pick(bundle, profile, fps, compensations=[UNCOMPENSATED]),
            pick(bundle, profile, fps, compensations=among),
        )

    def shown(self, slowest: str | None = None) -> dict[str, str]:
        """What a configuration is shown as -> its name.

        Args:
            slowest: what is shown as the slowest one; None: the one with the highest median latency.
        """
        plain = self.without.rows
        return {
            "pick without": self.without.row.configuration,
            "pick with": self.compensated.row.configuration,
            "most accurate": max(plain, key=lambda row: (row.miou, -row.p50_ms)).configuration,
            "slowest": slowest or max(plain, key=lambda row: row.p50_ms).configuration,
        }

    def both(self, configuration: str) -> list[PickRow]:
        """Rows of a configuration: as labels come, and with its best compensation where it has one."""
        rows = [row for row in self.compensated.rows if row.configuration == configuration]
        plain = [row for row in rows if row.compensation == UNCOMPENSATED.name]
        moved = [row for row in rows if row.compensation != UNCOMPENSATED.name]
        return plain + moved[:1]


def rate_rows(picks: Picks, slowest: str | None = None) -> list[dict[str, object]]:
    """The report's rows of one frame rate; `slowest` as of `Picks.shown`."""
    base = picks.without.row
    return [
        {
            "fps": picks.without.fps,
            "shown as": shown_as,
            "configuration": row.configuration,
            "compensation": row.compensation,
            "p50 ms": round(row.p50_ms, 1),
            "k": row.offset,
            "mIoU k=0": round(row.miou, 4),
            "sLAmIoU": round(row.streaming_lamiou, 4),
            "LAmIoU": round(row.expected_lamiou, 4),
            "sLAmIoU to pick without": round(row.streaming_lamiou - base.streaming_lamiou, 4),
            "LAmIoU to pick without": round(row.expected_lamiou - base.expected_lamiou, 4),
            "remark": row.excluded or ("beyond the table: at most" if row.is_bound else ""),
        }
        for shown_as, name in picks.shown(slowest).items()
        for row in picks.both(name)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write it."""
    parser = report_parser("picks", __doc__)
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--bundle", required=True, help="bundle with accuracy tables of the compensations")
    parser.add_argument("--configuration", help="shown as the slowest one [default: the slowest one]")
    parser.add_argument("--compensation", default=",".join(each.name for each in DEFAULT_COMPENSATIONS))
    parser.add_argument("--fps", type=float, nargs="+", default=[15.0, 30.0])
    parser.add_argument("--samples", type=int, default=20, help="per candidate and frame rate")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a step")
    options = parser.parse_args(arguments)
    with users_errors("picks"):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """What `main` does once its options are read.

    Raises:
        InputError: the bundle lacks an accuracy table of a compensation that is asked for.
    """
    bundle, compensations = Bundle.open(bundle_path(options.bundle)), parse_compensations(options.compensation)
    check_pickable(bundle)
    if options.configuration:
        bundle.configuration(options.configuration)
    if missing := [entry.name for entry in bundle.candidates(compensations) if entry.table is None]:
        raise InputError(
            f"{bundle.name} has no accuracy table for {missing[0]} | add it: edgeseg profile {bundle.root} "
            f"--compensation {options.compensation} --data {options.camvid}"
        )
    video = open_dataset(options.camvid).videos("val")[0]
    frames_rgb = [video.frame_rgb(index) for index in range(min(FRAMES, len(video)))]
    rows: list[dict[str, object]] = []
    samples: dict[str, list[float]] = {}
    for fps in options.fps:
        with measuring_bar() as progress:
            profile = profile_bundle(
                bundle,
                fps=fps,
                exhaustive=True,
                samples=options.samples,
                threads=options.threads,
                frame_size_hw=frames_rgb[0].shape[:2],
                frames_rgb=frames_rgb,
                compensations=compensations,
                progress=progress,
            )
        picks = Picks.of(bundle, profile, fps, compensations)
        rows += rate_rows(picks, options.configuration)
        for entry in profile.entries:
            samples[f"{fps:g} fps {entry.name} {entry.compensation.name}"] = entry.latencies_s.tolist()
        for note in picks.compensated.notes:
            print(f"note, {fps:g} fps: {note}", file=sys.stderr)
    print(markdown_table(rows))
    write_report(options.out, "picks", rows, {**machine_facts(), **_origin(bundle)}, samples)


def _origin(bundle: Bundle) -> dict[str, object]:
    """The bundle, and what its accuracy tables were made on."""
    tables = [entry.accuracy for entry in bundle.configurations if entry.accuracy is not None]
    made_on = sorted({f"{each.data_set} {each.split}, {each.frames} frames at {each.fps:g} Hz" for each in tables})
    return {"bundle": f"{bundle.name} {bundle.digest[:12]}", "accuracy tables": "; ".join(made_on)}


if __name__ == "__main__":
    main()
