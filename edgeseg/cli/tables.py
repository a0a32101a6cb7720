"""Tables that several commands print."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from edgeseg.runtime.pick import Pick, PickRow

_LEFT_OUT_FIRST = ("median", "tax", "p90", "LAmIoU", "p99")
"""Columns of a pick that a narrow terminal does without."""
_SHORT_MODES = {"late-warp+extrapolate": "late+ex", "extrapolate": "ex", "late-warp": "late"}
_SHORT_FLOWS = {"dis-ultrafast": "uf", "dis-fast": "fast", "dis-medium": "med", "lucas-kanade": "lk"}


def print_pick(pick: "Pick") -> None:
    """The rows of `pick`, sorted by LAmIoU, the reason and the notes, to standard output.

    Of a configuration whose candidates were all left early only the best one is shown.
    """
    from rich import box
    from rich.table import Table

    console = _console()
    shown = pick.rows_to_show
    with_compensation = any(row.compensation != "none" for row in shown)
    rows = [_cells(row, row.name == pick.row.name, with_compensation=with_compensation) for row in shown]
    headings = _headings_that_fit(rows, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        is_name = heading in ("", "configuration", "compensation")
        table.add_column(
            heading,
            justify="left" if is_name else "right",
            no_wrap=heading != "configuration",
            overflow="fold",
        )
    for row, cells in zip(shown, rows, strict=True):
        chosen = row.name == pick.row.name
        style = "bold green" if chosen else "dim" if row.skipped or row.excluded else None
        table.add_row(*(cells[heading] for heading in headings), style=style)
    console.print(table)
    if any(row.skipped for row in pick.rows):
        hidden = len(pick.rows) - len(shown)
        more = f"; --json lists {hidden} more" if hidden else ""
        console.print(f"~ left early: it could not win any more{more}", style="dim", soft_wrap=True)
    if with_compensation:
        console.print(_legend(shown), style="dim", soft_wrap=True)
    for row in shown:
        if row.excluded:
            console.print(f"x {row.name}: {row.excluded}", style="dim", soft_wrap=True)
    for note in pick.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"pick: {pick.reason}", soft_wrap=True)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Dicts with the same keys as a table, to standard output."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, heading in enumerate(rows[0]):
        # The first one is a name, which people copy: the others fold before it does.
        table.add_column(heading, no_wrap=index == 0, overflow="fold")
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


def _headings_that_fit(rows: "Sequence[Mapping[str, str]]", width: int) -> list[str]:
    """Columns of the table, those that matter least left out until names need not be folded."""
    headings = list(rows[0])
    for least in (None, *_LEFT_OUT_FIRST):
        if least is not None:
            headings.remove(least)
        needed = sum(2 + max(len(heading), *(len(row[heading]) for row in rows)) for heading in headings)
        if needed <= width:
            break
    return headings


def _short(compensation: str) -> str:
    """The name of a compensation in few letters: `late+ex uf/2` for `late-warp+extrapolate_dis-ultrafast_d2`."""
    mode, _, rest = compensation.partition("_")
    flow, _, divisor = rest.partition("_d")
    if not rest:
        return "-" if mode == "none" else mode
    divisor, *marked = divisor.split("_")
    return " ".join([_SHORT_MODES.get(mode, mode), f"{_SHORT_FLOWS.get(flow, flow)}/{divisor}", *marked])


def _legend(rows: "Sequence[PickRow]") -> str:
    """What the short names of compensations stand for."""
    names = dict.fromkeys(row.compensation for row in rows if row.compensation != "none")
    return "labels moved by: " + ", ".join(f"{_short(name)} = {name}" for name in names)


def _cells(row: "PickRow", chosen: bool, *, with_compensation: bool) -> dict[str, str]:
    """Heading -> what stands under it."""
    mark = ">" if chosen else "x" if row.excluded else "~" if row.skipped else " "
    bound = "<=" if row.is_bound else ""
    return {
        "": mark,
        "configuration": row.configuration,
        **({"compensation": _short(row.compensation)} if with_compensation else {}),
        "p50 ms": f"{row.p50_ms:.1f}",
        "p90": f"{row.p90_ms:.1f}",
        "p99": f"{row.p99_ms:.1f}",
        "k": str(row.offset),
        "mIoU": f"{row.miou:.3f}",
        "sLAmIoU": f"{bound}{row.streaming_lamiou:.3f}",
        "LAmIoU": f"{bound}{row.expected_lamiou:.3f}",
        "median": f"{row.median_lamiou:.3f}",
        "tax": f"{row.latency_tax:.3f}",
    }
