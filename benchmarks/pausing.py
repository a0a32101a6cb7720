"""Paused ViT graphs against the graph whose tokens all go through, on ONNX Runtime, CPU: time beside MACs.

    python -m benchmarks.pausing --out results --rounds 30 --threads 1 2

Segmenter on ViT-Ti with random weights: what a graph costs depends on the plan alone. Frame bytes in, label bytes at
the logits' stride out.
"""

import argparse
import copy
import json
import time
from collections.abc import Sequence
from typing import Any

import torch
from onnx import ModelProto

from benchmarks.cwm import runner
from benchmarks.measure import interleave, machine_facts, markdown_table, report_parser, summary_ms, write_report
from edgeseg.export.graph_stats import count_macs
from edgeseg.export.onnx_export import export_module
from edgeseg.export.rewrites.fold_batch_norm import fold_batch_norm
from edgeseg.export.wrapper import CameraToLabels, Preprocessing
from edgeseg.models.reductions import add_auxiliary_decoder, build_reduction
from edgeseg.models.registry import build_network
from edgeseg.token_plan import METHODS, TokenPlan

PLANS = ("3:0.4", "3:0.4,5:0.4", "3:0.4,5:0.4,7:0.4")
CLASSES = 19
WHOLE = "none"
MAXIMUM_OVERHEAD = 1.05
"""Target: ratio of times at most this times the ratio of MACs."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    size_hw = (options.size[0], options.size[1])
    graphs = build_graphs(options.network, options.decoder, size_hw, options.method, options.plan)
    rows: list[dict[str, Any]] = []
    samples: dict[str, list[float]] = {}
    for threads in options.threads:
        runs = {name: runner(model, threads) for name, model in graphs.items()}
        clock = time.process_time if options.cpu_time else time.perf_counter
        seconds = interleave(runs, options.rounds, options.warmup, settle_calls=1, clock=clock)
        samples |= {f"{name} {threads}t": values for name, values in seconds.items()}
        rows += table(seconds, {name: count_macs(model) for name, model in graphs.items()}, threads)
    facts = machine_facts() | {
        "network": f"{options.network}, {options.decoder} decoder, {CLASSES} classes, random weights",
        "size_hw": list(size_hw),
        "labels_stride": "that of the logits",
        "method": options.method,
        "clock": "CPU time of the process" if options.cpu_time else "wall",
        "rounds": options.rounds,
        "warmup_rounds": options.warmup,
    }
    paths = write_report(options.out, "pausing", rows, facts, samples)
    print(json.dumps(rows, indent=1) if options.json else markdown_table(rows))
    print(f"written: {paths[0]}, {paths[1]}")


def build_graphs(
    name: str, decoder: str, size_hw: tuple[int, int], method: str, plans: Sequence[str]
) -> dict[str, ModelProto]:
    """`none` -> the graph of the whole network, plan -> the graph with that plan; the same weights."""
    network = build_network(name, CLASSES, decoder=decoder, size_hw=size_hw)
    add_auxiliary_decoder(network, CLASSES)
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    graphs = {}
    for plan in (WHOLE, *plans):
        planned = copy.copy(network.eval())
        if plan != WHOLE:
            planned.reduction = build_reduction(network, method, TokenPlan.parse(plan))  # type: ignore[assignment]
        stride = int(network.logits_stride)  # type: ignore[arg-type]
        wrapped = CameraToLabels(planned, preprocessing, size_hw=size_hw, labels_stride=stride)
        graphs[plan] = fold_batch_norm(export_module(wrapped))[0]
    return graphs


def table(seconds: dict[str, list[float]], macs: dict[str, int], threads: int) -> list[dict[str, Any]]:
    """One row per graph: its time and MACs as parts of the whole network's, and what is left between them."""
    whole = summary_ms(seconds[WHOLE])
    rows = []
    for name, values in seconds.items():
        found, share = summary_ms(values), macs[name] / macs[WHOLE]
        ratio = found["min_ms"] / whole["min_ms"]
        rows.append(
            {
                "plan": name,
                "threads": threads,
                "GMACs": round(macs[name] / 1e9, 3),
                "MACs ratio": round(share, 3),
                "ratio (min)": round(ratio, 3),
                "ratio (median)": round(found["median_ms"] / whole["median_ms"], 3),
                "ratio / MACs ratio": round(ratio / share, 3),
                "within 1.05": "yes" if ratio <= MAXIMUM_OVERHEAD * share else "no",
                "throughput": f"{100 * (1 / ratio - 1):+.0f} %",
                "min ms": round(found["min_ms"], 1),
                "median ms": round(found["median_ms"], 1),
            }
        )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = report_parser("pausing", __doc__)
    parser.add_argument("--network", default="segmenter_ti")
    parser.add_argument("--decoder", default="linear", choices=("linear", "mask"))
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--method", default="pause", choices=METHODS)
    parser.add_argument("--plan", nargs="+", default=PLANS, metavar="L:P,...")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="CPU time instead of wall time: for a busy machine")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    return parser


if __name__ == "__main__":
    main()
