"""Two ways to make up for a delay, compared and combined: training for later labels, and moving labels to the present.

    python -m benchmarks.anticipation CHECKPOINT... --data VIDEO [--compensation NAME] [--out DIR]

Each checkpoint was trained for labels o frames after its (last) input frame (`sequence.target_offset`), with one input
frame or two. Its accuracy table is made twice, as labels come and moved by motion compensation: a network for o > 0 is
"trained", one for o = 0 with moved labels "compensated", and one for o > 0 with moved labels both. The labels of a
network that anticipates stand for a time o frames after their frame, so that they are moved by the rest of the way only
(back, when they are read earlier). The tables are those that `edgeseg export` writes into a bundle.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import machine_facts, markdown_table, report_parser, users_errors, write_report
from edgeseg.accuracy import Accuracy
from edgeseg.bundle import Bundle
from edgeseg.config import Compensation, parse_compensations
from edgeseg.data.open import open_dataset
from edgeseg.errors import InputError
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.checkpoint_source import checkpoint_source
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.sweep import Grid, plan_grid

MAX_OFFSET = 6


def scored(checkpoints: Sequence[Path], data: EvaluationData, compensation: Compensation, folder: Path) -> list[Bundle]:
    """A bundle per checkpoint, with accuracy tables with and without `compensation`."""
    options = ExportOptions(max_offset=MAX_OFFSET, compensations=(compensation,), threads=1)
    bundles = []
    for number, path in enumerate(checkpoints):
        requests = plan_grid([checkpoint_source(path)], Grid(labels_strides=(1,)), sweep=False)
        bundles.append(export_bundle(requests, folder / f"{number}.edgeseg", data=data, options=options))
    return bundles


def rows_of(bundle: Bundle) -> list[dict[str, object]]:
    """Rows of a bundle's one configuration: mIoU, then moving-object mIoU, over k; as labels come, and moved."""
    entry = bundle.configurations[0]
    accuracy = entry.accuracy
    assert accuracy is not None
    knobs = entry.knobs
    return [
        {
            "input frames": knobs.input_frames,
            "trained for": f"t+{knobs.target_offset}" if knobs.target_offset else "t",
            "labels": labels,
            **{f"k={k}": round(value, 3) for k, value in enumerate(miou)},
            **{f"moving k={k}": value if value is None else round(value, 3) for k, value in enumerate(movable)},
        }
        for labels, miou, movable in _tables(accuracy)
    ]


def _tables(accuracy: Accuracy) -> list[tuple[str, tuple[float, ...], tuple[float | None, ...]]]:
    plain = [("as they come", accuracy.miou, accuracy.movable_miou)]
    return plain + [("moved", entry.miou, entry.movable_miou) for entry in accuracy.compensated]


def main() -> None:
    """Score, print the table and write it."""
    parser = report_parser("anticipation", __doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--data", required=True, help="labelled video that none of them was trained on")
    parser.add_argument("--split", default="val")
    parser.add_argument("--compensation", default=Compensation().name, help="default: %(default)s")
    options = parser.parse_args()
    with users_errors("anticipation"):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """What `main` does once its options are read."""
    compensations = [entry for entry in parse_compensations(options.compensation) if entry.moves]
    if len(compensations) != 1:
        raise InputError(f"one compensation that moves labels is compared | got {options.compensation!r}")
    data = EvaluationData.open(open_dataset(options.data), options.split)
    with tempfile.TemporaryDirectory() as folder:
        bundles = scored(options.checkpoints, data, compensations[0], Path(folder))
        rows = [row for bundle in bundles for row in rows_of(bundle)]
    print(markdown_table(rows))
    facts = {**machine_facts(), "data": options.data, "compensation": compensations[0].name}
    write_report(options.out, "anticipation", rows, facts)


if __name__ == "__main__":
    main()
