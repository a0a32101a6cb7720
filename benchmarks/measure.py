"""What all benchmarks share: options, machine facts, interleaved timing, reports as JSON beside a Markdown table.

    seconds = interleave({"dense": run_dense, "phase": run_phase}, rounds=50, warmup=5)
    write_report(out_dir, "cwm", rows, machine_facts(), samples=seconds)

Within a round every contender has its turn, so that a change of clock or load meets all alike; the order rotates by
one each round. Nothing is trimmed: every sample is in the JSON file.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeseg.atomic import write_text
from edgeseg.errors import EdgesegError
from edgeseg.runtime.device import device_facts, versions

PACKAGES = ("onnx", "torch", "openvino")
"""What benchmarks compare with, beside the packages that take part in a step."""


def report_parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m benchmarks.NAME`, with `--out` for the folder of its reports.

    Args:
        about: the benchmark's docstring, whose first line says what it measures.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(about or "").partition("\n")[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("benchmarks/results"),
        metavar="DIR",
        help="folder of the reports [default: %(default)s]",
    )
    return parser


@contextmanager
def users_errors(name: str) -> Iterator[None]:
    """Ends the program `benchmarks.NAME` with one line when the user made a mistake."""
    try:
        yield
    except EdgesegError as error:
        sys.exit(f"benchmarks.{name}: {error}")


def machine_facts() -> dict[str, Any]:
    """Facts that a figure is worthless without: machine, versions, load, date, command line; JSON-ready."""
    facts = device_facts()
    return {
        **facts,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {**facts["versions"], **versions(PACKAGES)},
    }


def interleave(
    callables: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int,
    *,
    settle_calls: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Call each of `callables` once per round, in rotating order.

    Args:
        rounds: measured rounds, at least 1.
        warmup: rounds before those, whose times are dropped.
        settle_calls: calls before each timed one whose times are dropped: meanwhile the caches fill with the
            contender's own weights, and worker threads of the one before stop spinning.
        clock: seconds; `time.process_time` leaves out what other programs took, but adds up the threads.

    Returns:
        Seconds of each call, `rounds` of them per name, in the order of the rounds.
    """
    if rounds < 1 or warmup < 0 or not callables:
        raise ValueError(f"nothing to measure: rounds {rounds}, warmup {warmup}, {len(callables)} callables")
    names = list(callables)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(-warmup, rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            for _ in range(settle_calls):
                callables[name]()
            begin = clock()
            callables[name]()
            elapsed = clock() - begin
            if index >= 0:
                seconds[name].append(elapsed)
    return seconds


def summary_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Minimum, median, 90th percentile of latency samples in milliseconds, and their coefficient of variation `cv`."""
    ordered = sorted(seconds)
    spread = statistics.stdev(ordered) / statistics.fmean(ordered) if len(ordered) > 1 else 0.0
    return {
        "min_ms": round(1e3 * ordered[0], 3),
        "median_ms": round(1e3 * statistics.median(ordered), 3),
        "p90_ms": round(1e3 * ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))], 3),
        "cv": round(spread, 4),
    }


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows (dicts with the same keys) as a Markdown table, columns in the order of the first row's keys."""
    if not rows:
        return "(no rows)\n"
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_report(
    out_dir: str | Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    samples: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Path, Path]:
    """Write `name.json` (rows, facts, samples in seconds) and `name.md` (table and facts); returns both paths."""
    folder = Path(out_dir)
    document: dict[str, Any] = {"benchmark": name, "facts": dict(facts), "rows": [dict(row) for row in rows]}
    if samples is not None:
        document["samples_s"] = {key: list(values) for key, values in samples.items()}
    json_path, markdown_path = folder / f"{name}.json", folder / f"{name}.md"
    write_text(json_path, json.dumps(document, indent=1) + "\n")
    write_text(markdown_path, f"# {name}\n\n{markdown_table(rows)}\n{_facts_text(facts)}")
    return json_path, markdown_path


def _facts_text(facts: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in facts.items() if value is not None}
    return "".join(f"- {key}: {_cell(value)}\n" for key, value in shown.items())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:.1f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(item) for item in value)
    return "" if value is None else str(value)
