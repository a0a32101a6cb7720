"""What token plans are worth, method beside method: mIoU, latency and latency-aware mIoU of every plan of some bundles.

    edgeseg export ENTROPY --data street --sweep --plan none --plan published --out entropy.edgeseg
    edgeseg export RANDOM --data street --sweep --plan published --method pause-random --out random.edgeseg
    python -m benchmarks.plans entropy.edgeseg random.edgeseg [--fps 15] [--threads 1] [--out DIR]

The source's table 3.1 [C 3.4.1]: pausing by entropy against the baseline that was trained to pause at random, early
exit and pruning beside them. Accuracy is that of the bundles' tables, latency is measured here, all configurations of
a bundle in turns.
"""

import argparse
from pathlib import Path

from benchmarks.measure import machine_facts, markdown_table, report_parser, users_errors, write_report
from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.config import UNCOMPENSATED
from edgeseg.errors import InputError
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime.profiler import profile_bundle

WHOLE = "none"


def plan_rows(bundle: Bundle, fps: float, threads: int, samples: int) -> list[dict[str, object]]:
    """A row per configuration of `bundle`, measured on this CPU.

    Raises:
        InputError: a configuration has no accuracy table.
    """
    for entry in bundle.configurations:
        if entry.accuracy is None:
            raise InputError(f"{entry.name} of {bundle.root} has no accuracy table | export it with --data")
    profile = profile_bundle(
        bundle, fps=fps, exhaustive=True, samples=samples, threads=threads, compensations=[UNCOMPENSATED]
    )
    rows = []
    for entry in bundle.configurations:
        measured = profile.entry(entry.name)
        assert measured is not None
        rows.append(_row(bundle, entry, fps) | _latencies(entry, measured.samples_ms, fps))
    return rows


def _row(bundle: Bundle, entry: BundleConfiguration, fps: float) -> dict[str, object]:
    assert entry.accuracy is not None
    knobs = entry.knobs
    return {
        "bundle": bundle.name,
        "network": knobs.network,
        "method": knobs.method or WHOLE,
        "plan": str(knobs.plan) if knobs.plan else WHOLE,
        "GMACs": round(entry.graphs["step"].macs / 1e9, 3),
        "parity": entry.parity.label_agreement if entry.parity else None,
        "mIoU": round(entry.accuracy.miou[0], 4),
    }


def _latencies(entry: BundleConfiguration, samples_ms: tuple[float, ...], fps: float) -> dict[str, object]:
    assert entry.accuracy is not None
    table = RatedTable(entry.accuracy.table, entry.accuracy.fps, fps)
    seconds = [sample / 1e3 for sample in samples_ms]
    return {
        "p50 ms": round(sorted(samples_ms)[len(samples_ms) // 2], 2),
        "min ms": round(min(samples_ms), 2),
        f"LAmIoU {fps:g}/s": round(table.expected(seconds), 4),
        f"sLAmIoU {fps:g}/s": round(table.streaming(seconds), 4),
    }


def wins(rows: list[dict[str, object]], method: str = "pause", baseline: str = "pause-random") -> str:
    """At how many plans `method` has a higher mIoU than `baseline`, and where it has not."""
    scores = {(row["method"], row["plan"]): float(str(row["mIoU"])) for row in rows}
    plans = [plan for name, plan in scores if name == method and (baseline, plan) in scores]
    lost = [str(plan) for plan in plans if scores[method, plan] <= scores[baseline, plan]]
    return f"{method} is above {baseline} at {len(plans) - len(lost)} of {len(plans)} plans" + (
        f", not at {', '.join(lost)}" if lost else ""
    )


def main() -> None:
    """Measure, print the table and write it."""
    parser = report_parser("plans", __doc__)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=30, help="per configuration")
    options = parser.parse_args()
    with users_errors("plans"):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """What `main` does once its options are read."""
    rows: list[dict[str, object]] = []
    for path in options.bundles:
        rows += plan_rows(Bundle.open(path), options.fps, options.threads, options.samples)
    print(markdown_table(rows))
    print(wins(rows))
    write_report(options.out, "plans", rows, machine_facts())


if __name__ == "__main__":
    main()
