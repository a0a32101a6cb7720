"""What `edgeseg export` prints about the bundle that it wrote."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle, BundleConfiguration

SHOWN_OFFSETS = (0, 1, 2, 3, 4, 6, 8)
"""Offsets of the accuracy table that are printed."""


def bundle_row(entry: "BundleConfiguration") -> dict[str, Any]:
    """JSON-ready: what a configuration is, costs and scores."""
    from edgeseg.cli.export_precision import precision_facts

    steady = [entry.graphs[role] for role in entry.then]
    parity, accuracy = entry.parity, entry.accuracy
    return {
        "name": entry.name,
        "knobs": entry.knobs.as_dict(),
        "macs": sum(graph.macs for graph in steady) / len(steady),
        "parameters": max(graph.parameters for graph in entry.graphs.values()),
        **precision_facts(entry),
        "parity": vars(parity) if parity else None,
        "programs": {form: each.parity and vars(each.parity) for form, each in entry.programs.items()},
        "accuracy": accuracy.as_dict() if accuracy else None,
    }


def print_bundle(bundle: "Bundle") -> None:
    """Print the configurations as a table, with remarks below it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from edgeseg.cli.export_precision import precision_cells, precision_remarks
    from edgeseg.cli.export_programs import programs_text

    rows = [bundle_row(entry) for entry in bundle.configurations]
    tables = [row["accuracy"]["miou"] for row in rows if row["accuracy"]]
    offsets = [k for k in SHOWN_OFFSETS if tables and k < max(map(len, tables))]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("configuration", no_wrap=True)
    lower = [precision_cells(entry) for entry in bundle.configurations]
    about_precision = list(lower[0]) if any(cell for cells in lower for cell in cells.values()) else []
    costs = ("GMACs", "Mparams", "parity", "dlogit", *about_precision)
    for heading in (*costs, *(f"mIoU k={k}" if k == 0 else f"k={k}" for k in offsets)):
        table.add_column(heading, justify="right", no_wrap=True)
    best = [entry.accuracy.best_compensated if entry.accuracy else None for entry in bundle.configurations]
    for row, cells, moved in zip(rows, lower, best, strict=True):
        table.add_row(*_cells(row), *(cells[heading] for heading in about_precision), *_miou_cells(_miou(row), offsets))
        if moved:
            table.add_row("  moved", *("" for _ in costs), *_miou_cells(moved.miou, offsets))
    console = Console(highlight=False, markup=False)
    # A pipe or file is read by programs: lines are not folded there.
    (console if console.is_terminal else Console(highlight=False, markup=False, width=200)).print(table)
    ways = dict.fromkeys(moved.compensation.name for moved in best if moved)
    if ways:
        click.echo(f"moved: labels moved to the present, each by the best way, {' or '.join(ways)}")
    for remark in precision_remarks(bundle.configurations):
        click.echo(remark)
    if programs := programs_text(bundle.configurations):
        click.echo(f"programs: {programs}")
    size = sum(record.bytes for record in bundle.files.values())
    click.echo(f"{bundle.root}: {len(rows)} configuration{'' if len(rows) == 1 else 's'}, {size / 1e6:.1f} MB")
    if any(not row["accuracy"] for row in rows):
        click.echo(
            "no accuracy table: nothing can be picked from this bundle | give labelled video with --data to have one",
            err=True,
        )


def _cells(row: dict[str, Any]) -> list[str]:
    """Beginning of a line of the table; `-` where something was not measured."""
    parity = row["parity"]
    error = parity["max_logit_error"] if parity else None
    return [
        row["name"],
        f"{row['macs'] / 1e9:.3f}",
        f"{row['parameters'] / 1e6:.2f}",
        f"{100 * parity['label_agreement']:.3f} %" if parity else "-",
        "-" if error is None else f"{error:.0e}",
    ]


def _miou(row: dict[str, Any]) -> Sequence[float]:
    return row["accuracy"]["miou"] if row["accuracy"] else ()


def _miou_cells(miou: Sequence[float], offsets: list[int]) -> list[str]:
    return [f"{miou[k]:.3f}" if k < len(miou) else "-" for k in offsets]
