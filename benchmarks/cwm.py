"""Phase graphs of channel-wise masked SwiftNet-R18 against its dense graph, on ONNX Runtime, CPU.

    python -m benchmarks.cwm --out results --rounds 30 --threads 1 2

Frame bytes in, label bytes at the logits' stride out, states in pre-allocated buffers by IO binding. What phase graphs
cost is the mean of phase0 and phase1, as they run in turn.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnx import ModelProto

from benchmarks.measure import interleave, machine_facts, markdown_table, report_parser, summary_ms, write_report
from edgeseg.export.graph_stats import count_macs
from edgeseg.export.onnx_export import export_module
from edgeseg.export.rewrites.fold_batch_norm import fold_batch_norm
from edgeseg.export.stateful import build_phase_graphs
from edgeseg.export.wrapper import CameraToLabels, Preprocessing
from edgeseg.models.cwm import BiStep, apply_cwm, masked_layers
from edgeseg.models.registry import build_network

PHASES = ("phase0", "phase1")
FORMS = ("concat", "split")
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    samples: dict[str, list[float]] = {}
    dense, graphs = build_graphs(tuple(options.size), options.width, options.rho, options.align)
    for threads in options.threads:
        runs = {"dense": runner(dense, threads)}
        runs.update({name: runner(model, threads) for name, model in graphs.items()})
        seconds = interleave(runs, options.rounds, options.warmup)
        samples.update({f"{name} {threads}t": values for name, values in seconds.items()})
        rows += table(seconds, dense, graphs, threads)
    facts = machine_facts() | {
        "network": f"swiftnet_r18 width {options.width}, 19 classes, random weights",
        "size_hw": list(options.size),
        "mask_align": options.align,
        "rounds": options.rounds,
        "warmup_rounds": options.warmup,
    }
    paths = write_report(options.out, "cwm", rows, facts, samples)
    print(json.dumps(rows, indent=1) if options.json else markdown_table(rows))
    print(f"written: {paths[0]}, {paths[1]}")


def build_graphs(
    size_hw: tuple[int, int], width: float, rhos: Sequence[float], align: int
) -> tuple[ModelProto, dict[str, ModelProto]]:
    """The dense graph (batch norms folded like in the phases), and `<rho> <form> <phase>` -> phase graph."""
    network = build_network("swiftnet_r18", 19, width=width).eval()
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    exported = export_module(CameraToLabels(network, preprocessing, size_hw=size_hw, labels_stride=4))
    graphs = {}
    for rho in rhos:
        masked = build_network("swiftnet_r18", 19, width=width).eval()
        apply_cwm(masked, BiStep(rho, align), example=torch.zeros(1, 3, 64, 64))
        masks = {name: _two_phases(layer.phases()) for name, layer in masked_layers(masked).items()}
        for form in FORMS:
            phases = build_phase_graphs(exported, masks, form=form)
            assert not phases.refused, phases.refused
            graphs.update({f"{rho} {form} {phase}": phases.models[phase] for phase in PHASES})
    return fold_batch_norm(exported)[0], graphs


def table(
    seconds: dict[str, list[float]], dense: ModelProto, graphs: dict[str, ModelProto], threads: int
) -> list[dict[str, Any]]:
    """One row for the dense graph and one per rho and form."""
    dense_macs, base = count_macs(dense), summary_ms(seconds["dense"])
    rows = [_row("dense", "", threads, 1.0, base, base)]
    for name in dict.fromkeys(key.rpartition(" ")[0] for key in graphs):
        rho, form = name.split()
        share = sum(count_macs(graphs[f"{name} {phase}"]) for phase in PHASES) / 2 / dense_macs
        pair = [summary_ms(seconds[f"{name} {phase}"]) for phase in PHASES]
        mean = {key: (pair[0][key] + pair[1][key]) / 2 for key in base}
        rows.append(_row(f"rho {rho}", form, threads, share, mean, base))
    return rows


def _row(
    graph: str, form: str, threads: int, macs: float, found: dict[str, float], dense: dict[str, float]
) -> dict[str, Any]:
    return {
        "graph": graph,
        "form": form,
        "threads": threads,
        "MACs ratio": round(macs, 3),
        "ratio (min)": round(found["min_ms"] / dense["min_ms"], 3),
        "ratio (median)": round(found["median_ms"] / dense["median_ms"], 3),
        "min ms": round(found["min_ms"], 1),
        "median ms": round(found["median_ms"], 1),
        "p90 ms": round(found["p90_ms"], 1),
        "cv": round(found["cv"], 3),
    }


def runner(model: ModelProto, threads: int) -> Callable[[], None]:
    """One call = one run of `model` with all inputs and outputs bound to buffers made here."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads that still spin for the last session would slow the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    for value in session.get_inputs():
        filled = (rng.random(value.shape, np.float32) * 255).astype(DTYPES[value.type])
        binding.bind_ortvalue_input(value.name, ort.OrtValue.ortvalue_from_numpy(filled))
    for value in session.get_outputs():
        empty = np.zeros(value.shape, DTYPES[value.type])
        binding.bind_ortvalue_output(value.name, ort.OrtValue.ortvalue_from_numpy(empty))
    return lambda: session.run_with_iobinding(binding)


def _two_phases(phases: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    first, second = phases
    return first, second


def _parser() -> argparse.ArgumentParser:
    parser = report_parser("cwm", __doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--width", type=float, default=1.0, help="width multiplier of the network")
    parser.add_argument("--rho", type=float, nargs="+", default=(0.0, 0.25))
    parser.add_argument("--align", type=int, default=16, help="masks begin and end at multiples of this")
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    return parser


if __name__ == "__main__":
    main()
