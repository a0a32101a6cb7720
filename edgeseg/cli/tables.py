"""Tables that several commands print."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from edgeseg.runtime.pick import Pick, PickRow


def print_pick(pick: "Pick") -> None:
    """The rows of `pick`, sorted by LAmIoU, the reason and the notes, to standard output."""
    from rich import box
    from rich.table import Table

    console = _console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("configuration", overflow="fold")
    for heading in ("p50", "p90", "p99 ms", "k", "mIoU", "LAmIoU", "median", "tax"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in pick.rows:
        chosen = row.name == pick.row.name
        style = "bold green" if chosen else "dim" if row.skipped or row.excluded else None
        table.add_row(*_cells(row, chosen), style=style)
    console.print(table)
    if any(row.skipped for row in pick.rows):
        console.print("~ left early: it could not win any more", style="dim", soft_wrap=True)
    for row in pick.rows:
        if row.excluded:
            console.print(f"x {row.name}: {row.excluded}", style="dim", soft_wrap=True)
    for note in pick.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"pick: {pick.reason}", soft_wrap=True)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Dicts with the same keys as a table, to standard output."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    _console().print(table)


def print_facts(facts: dict[str, Any]) -> None:
    """Keys and values in two columns, to standard output; values may wrap."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key, str(value))
    _console().print(table)


def _console() -> "Console":
    """Standard output. In a file or a pipe a table is searched by programs: it is not folded to 80 columns there."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=max(console.width, 120))


def _cells(row: "PickRow", chosen: bool) -> list[str]:
    mark = "> " if chosen else "x " if row.excluded else "~ " if row.skipped else "  "
    bound = "<=" if row.is_bound else ""
    return [
        mark + row.name,
        f"{row.p50_ms:.1f}",
        f"{row.p90_ms:.1f}",
        f"{row.p99_ms:.1f}",
        str(row.offset),
        f"{row.miou:.3f}",
        f"{bound}{row.expected_lamiou:.3f}",
        f"{row.median_lamiou:.3f}",
        f"{row.latency_tax:.3f}",
    ]
