"""The pick against what a user would do without us, on the same checkpoint, video, threads and machine.

    python -m benchmarks.peers --checkpoint CKPT --data PATH [--fps 15 30] [--bundle NAME.edgeseg] [--out DIR]

Every side goes from a camera frame (uint8 `(H, W, 3)` RGB) to a label map (uint8), and takes its turn in every round.
mIoU is measured for each side on the same frames and labels; LAmIoU follows from it and the latencies of this very run.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from benchmarks.measure import interleave, machine_facts, report_parser, summary_ms, write_report
from benchmarks.peer_networks import PEERS, build_peers
from benchmarks.peer_sides import (
    Ours,
    Side,
    camera_frames,
    check_belongs_together,
    dense_configuration,
    dense_network,
    label_agreement,
    most_accurate,
    our_sides,
    over_frames,
    peer_side,
    table_of,
)
from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.cli.options import parse_size_hw
from edgeseg.config import UNCOMPENSATED
from edgeseg.data.open import open_dataset
from edgeseg.errors import EdgesegError
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.checkpoint_source import checkpoint_source
from edgeseg.export.pipeline import export_bundle
from edgeseg.export.sweep import DENSE, OWN, Grid, plan_grid
from edgeseg.metrics.latency_aware import AccuracyTable
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime.pick import pick
from edgeseg.runtime.profiler import profile_bundle
from edgeseg.runtime.threads import usable_cores
from edgeseg.training.checkpoint import LoadedCheckpoint, load_checkpoint

WARM_UP_ROUNDS = 3
SETTLE_CALLS = 2
"""Even, so that both phases of a two-phase configuration are timed."""


class Comparison(NamedTuple):
    """What `compare` found."""

    rows: list[dict[str, Any]]
    facts: dict[str, Any]
    samples: dict[str, list[float]]
    """Seconds, by side, in the order of the rounds."""


def compare(
    bundle: Bundle,
    checkpoint: LoadedCheckpoint,
    data: EvaluationData,
    *,
    fps: Sequence[float],
    threads: int,
    rounds: int,
    peer_size_hw: tuple[int, int] | None = None,
    peer_names: Sequence[str] = tuple(PEERS),
) -> Comparison:
    """Profile, pick, build the peers, score them, and time all sides in turns.

    Args:
        fps: frame rates of the camera.
        threads: CPU threads of every side.
        peer_size_hw: input size of the peers; None: that of the most accurate configuration.

    Raises:
        InputError: bundle, checkpoint and data do not belong together, or the bundle has no dense configuration of
            the peers' size.
    """
    check_belongs_together(bundle, checkpoint, data)
    dense = dense_configuration(bundle, peer_size_hw)
    cv2.setNumThreads(threads)
    frames = camera_frames(data)
    facts = {**machine_facts(), "threads": threads, "rounds": rounds}
    ours = Ours(dense, most_accurate(bundle), _picks(bundle, fps, threads, frames))
    _tell(f"building {', '.join(peer_names)}")
    ready, missing = build_peers(peer_names, dense_network(checkpoint, dense.knobs.size_hw, threads))
    with ExitStack() as stack:
        sides = our_sides(bundle, ours, threads=threads, camera_hw=data.size_hw, stack=stack)
        reference, equal = sides[dense.name], {}
        for name, peer in ready.items():
            _tell(f"scoring {name}")
            sides[name] = peer_side(name, peer, data, len(reference.miou))
            equal[name] = label_agreement(sides[name], reference, frames)
        _tell(f"timing {len(sides)} sides, {rounds} rounds")
        calls = {name: over_frames(frames, side.predict) for name, side in sides.items()}
        samples = interleave(calls, rounds, WARM_UP_ROUNDS, settle_calls=SETTLE_CALLS)
    lamiou = {
        rate: {name: _lamiou(side, samples[name], data.fps, rate) for name, side in sides.items()} for rate in fps
    }
    rows = table_rows(list(sides.values()), samples, lamiou, _bases(ours), equal)
    rows += [{**dict.fromkeys(rows[0]), "side": name, "note": f"not run: {why}"} for name, why in missing.items()]
    facts["load_average_after"] = list(os.getloadavg())
    facts |= _data_facts(data, dense, fps) | findings(lamiou, ours, list(ready))
    return Comparison(rows, facts, samples)


def table_rows(
    sides: Sequence[Side],
    samples: Mapping[str, Sequence[float]],
    lamiou: Mapping[float, Mapping[str, float]],
    bases: Mapping[str, str],
    equal_labels: Mapping[str, float],
) -> list[dict[str, Any]]:
    """A row per side.

    Args:
        samples: seconds by side.
        lamiou: frame rate -> side -> expected LAmIoU.
        bases: side -> how the column of times relative to it is headed.
        equal_labels: share by side, for those that have one.
    """
    return [
        {
            "side": side.name,
            **summary_ms(samples[side.name]),
            "mIoU": round(side.miou[0], 4),
            **{f"LAmIoU {rate:g} fps": round(values[side.name], 4) for rate, values in lamiou.items()},
            **{f"time / {text}": ratio_text(samples[side.name], samples[base]) for base, text in bases.items()},
            "equal labels": f"{100 * equal_labels[side.name]:.2f} %" if side.name in equal_labels else None,
            "mIoU at k = 0, 1, ...": [round(value, 3) for value in side.miou],
            "note": side.note,
        }
        for side in sides
    ]


def ratio_text(seconds: Sequence[float], base_s: Sequence[float]) -> str:
    """Ratios of two sides within each round: median [10th percentile, 90th percentile]."""
    ratios = np.asarray(seconds, np.float64) / np.asarray(base_s, np.float64)
    low, middle, high = np.percentile(ratios, (10, 50, 90))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def findings(lamiou: Mapping[float, Mapping[str, float]], ours: Ours, peers: Sequence[str]) -> dict[str, str]:
    """A line per frame rate: the pick beside the best peer, whichever of them wins."""
    lines = {}
    for rate, values in lamiou.items():
        name = ours.picks[rate].name
        line = f"{name} reaches LAmIoU {values[name]:.4f}"
        if peers:
            best = max(peers, key=lambda peer: values[peer])
            line += f"; the best peer, {best}, {values[best]:.4f} (pick - peer = {values[name] - values[best]:+.4f})"
        lines[f"pick at {rate:g} fps"] = line
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        size_hw = parse_size_hw(options.peer_size) if options.peer_size else None
        data = EvaluationData.open(open_dataset(options.data), options.split)
        checkpoint = load_checkpoint(options.checkpoint, cwm=False)
        data.check_network(checkpoint.meta.classes, checkpoint.meta.trained_on, str(options.checkpoint))
        bundle = Bundle.open(options.bundle) if options.bundle else _export(options.checkpoint, data, options.out)
        found = compare(
            bundle,
            checkpoint,
            data,
            fps=options.fps,
            threads=options.threads,
            rounds=options.rounds,
            peer_size_hw=size_hw,
            peer_names=options.peers,
        )
    except EdgesegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    facts = {**found.facts, "bundle": bundle.root.name, "checkpoint": options.checkpoint.name}
    json_path, markdown_path = write_report(options.out, "peers", found.rows, facts, found.samples)
    print(markdown_path.read_text(encoding="utf-8"))
    _tell(f"written: {json_path}, {markdown_path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = report_parser("peers", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="CKPT")
    parser.add_argument("--data", required=True, metavar="PATH", help="labelled video: a folder, or 'street'")
    parser.add_argument("--split", default="val")
    parser.add_argument("--fps", type=_positive, nargs="+", default=[15.0, 30.0], help="frame rates of the camera")
    parser.add_argument("--bundle", type=Path, help="bundle of CKPT, scored on the same data; default: a sweep of CKPT")
    parser.add_argument("--peer-size", metavar="HxW", help="peers' size; default: the most accurate configuration's")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=_at_least_one, default=100)
    parser.add_argument("--threads", type=_at_least_one, default=usable_cores(), help="CPU threads of every side")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return value


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _export(checkpoint: Path, data: EvaluationData, out: Path) -> Bundle:
    requests = plan_grid([checkpoint_source(checkpoint)], Grid(rhos=(OWN, DENSE)), sweep=True)
    _tell(f"exporting {len(requests)} configurations of {checkpoint}")
    return export_bundle(requests, out / "peers.edgeseg", data=data)


def _picks(
    bundle: Bundle, fps: Sequence[float], threads: int, frames: list[np.ndarray]
) -> dict[float, BundleConfiguration]:
    _tell(f"profiling {len(bundle.configurations)} configurations")
    height, width = frames[0].shape[:2]
    # Exhaustive, so that one profile answers for every frame rate.
    profile = profile_bundle(
        bundle,
        fps=max(fps),
        exhaustive=True,
        threads=threads,
        frame_size_hw=(height, width),
        frames_rgb=frames,
        compensations=[UNCOMPENSATED],
    )
    # The peers are compared by the expected LAmIoU of labels as networks give them.
    return {
        rate: pick(bundle, profile, rate, statistic="expected", compensations=[UNCOMPENSATED]).configuration
        for rate in fps
    }


def _bases(ours: Ours) -> dict[str, str]:
    """What times are divided by: our dense configuration and the picks, each once."""
    headings = {ours.dense.name: "our dense"}
    for rate, entry in ours.picks.items():
        known = f"{headings[entry.name]} = " if entry.name in headings else ""
        headings[entry.name] = f"{known}pick {rate:g}"
    return headings


def _lamiou(side: Side, samples_s: Sequence[float], table_fps: float, camera_fps: float) -> float:
    return RatedTable(AccuracyTable(side.miou), table_fps, camera_fps).expected(samples_s)


def _data_facts(data: EvaluationData, dense: BundleConfiguration, fps: Sequence[float]) -> dict[str, Any]:
    table = AccuracyTable(table_of(dense))
    between = [rate for rate in fps if not RatedTable(table, data.fps, rate).is_exact]
    facts: dict[str, Any] = {
        "scored_on": f"{data.dataset.name} {data.split}, {data.labelled_frames} labelled frames at {data.fps:g} fps",
        "camera_hw": list(data.size_hw),
        "peers_hw": list(dense.knobs.size_hw),
    }
    if between:
        rates = ", ".join(f"{rate:g}" for rate in between)
        facts["interpolated"] = f"LAmIoU at {rates} fps, linearly between offsets that were scored at {data.fps:g} fps"
    return facts


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
