"""The searches for a token plan against each other, on one exhaustive record of a real network on this CPU.

    python -m benchmarks.tuning runs/vit/checkpoint.safetensors --data street --out results

Every plan of the grid is measured in turns with the whole network, and scored. Each search then runs on that record at
several frame rates: it sees a plan's figures when it asks for them, and its best plan is held against the best of all.
The record is CPU time of the process, which a busy machine changes little; so one thread.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import machine_facts, markdown_table, report_parser, write_report
from edgeseg.cli.options import parse_size_hw
from edgeseg.data.open import open_dataset
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.checkpoint_source import checkpoint_source
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.export.tuning import CheckpointBench, Measuring
from edgeseg.runtime.plan_grid import PlanGrid
from edgeseg.runtime.plan_objective import Objective
from edgeseg.runtime.plan_search import SearchResult, Workbench, search_plans
from edgeseg.token_plan import TokenPlan

WITHIN = 0.005
"""Target: the best plan found is at most this share below the best of all, with at most a fifth of the measurements."""


class Record:
    """A workbench that remembers: what is asked for again costs nothing.

    Args:
        bench: what is asked the first time.
        path: file of what is known already, and of everything afterwards.
    """

    def __init__(self, bench: Workbench, path: Path) -> None:
        self._bench, self._path = bench, path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def latencies_s(self, plan: TokenPlan | None) -> np.ndarray:
        return np.array(self._entry(plan)["latencies_s"])

    def tables(self, plan: TokenPlan | None) -> np.ndarray:
        return np.array(self._entry(plan)["tables"])

    def _entry(self, plan: TokenPlan | None) -> dict[str, Any]:
        if str(plan) not in self._known:
            latencies_s, tables = np.asarray(self._bench.latencies_s(plan)), self._bench.tables(plan)
            self._known[str(plan)] = {"latencies_s": latencies_s.tolist(), "tables": tables.tolist()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._known))
        return self._known[str(plan)]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    source = checkpoint_source(options.checkpoint)
    sizes = (parse_size_hw(options.size),) if options.size else ()
    knobs = plan_grid([source], Grid(sizes_hw=sizes), sweep=False)[0].knobs
    grid = PlanGrid(
        tuple(options.layers), tuple(options.proportions), options.max_layers, source.token_stack(knobs.size_hw)
    )
    data = EvaluationData.open(open_dataset(options.data), options.split)
    data.check_network(source.facts.classes, source.facts.trained_on, source.facts.origin)
    measuring = Measuring(data.fps, samples=options.samples, threads=1, clock=time.process_time)
    bench = CheckpointBench(source, knobs, options.method, data, measuring, rank_frames=options.rank_frames)
    record = Record(bench, options.out / "tuning-record.json")
    rows: list[dict[str, Any]] = []
    for fps in options.fps:
        objective = Objective(fps, data.fps)
        found = {name: search_plans(name, grid, record, objective) for name in ("exhaustive", "greedy", "guided")}
        rows += [row(fps, result, found["exhaustive"]) for result in found.values()]
    facts = machine_facts() | {
        "network": knobs.name,
        "method": options.method,
        "data": f"{options.data} {options.split}, {options.rank_frames} frames",
        "plans": len(grid),
        "clock": "CPU time of the process, one thread",
    }
    paths = write_report(options.out, "tuning", rows, facts, {})
    print(json.dumps(rows, indent=1) if options.json else markdown_table(rows))
    print(f"written: {paths[0]}, {paths[1]}")


def row(fps: float, result: SearchResult, exhaustive: SearchResult) -> dict[str, Any]:
    """One search at one frame rate."""
    best, share = result.best, len(result.trials) / result.grid_plans
    behind = 1 - best.lamiou / exhaustive.best.lamiou
    errors = np.abs(result.prediction_errors)
    return {
        "frames/s": fps,
        "search": result.search,
        "plan": str(best.plan),
        "ms": round(1e3 * best.median_s, 1),
        "mIoU": round(best.miou, 4),
        "sLAmIoU": round(best.lamiou, 4),
        "behind the best": f"{100 * behind:.2f} %",
        "measured": len(result.trials),
        "of the grid": f"{100 * share:.0f} %",
        "scored": result.scored,
        "prediction off by (median)": f"{100 * float(np.median(errors)):.1f} %" if len(errors) else "-",
        "target": "met" if behind <= WITHIN and share <= 0.2 else "-" if result.search != "guided" else "missed",
    }


def _parser() -> argparse.ArgumentParser:
    parser = report_parser("tuning", __doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", default="street")
    parser.add_argument("--split", default="val")
    parser.add_argument("--size", metavar="HxW")
    parser.add_argument("--method", default="pause")
    parser.add_argument("--layers", type=int, nargs="+", default=(3, 5, 7))
    parser.add_argument("--proportions", type=float, nargs="+", default=(0.2, 0.4, 0.6, 0.8))
    parser.add_argument("--max-layers", type=int, default=2)
    parser.add_argument("--rank-frames", type=int, default=120)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--fps", type=float, nargs="+", default=(15, 30, 45, 60, 90))
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    return parser


if __name__ == "__main__":
    main()
