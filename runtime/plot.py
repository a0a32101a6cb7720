"""A picture of a pick: latency against LAmIoU, with the frame periods after which labels are a frame older."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeseg.atomic import atomic_file, check_writable
from edgeseg.errors import InputError
from edgeseg.optional import require
from edgeseg.runtime.pick import Pick, PickRow

_PICKED, _OTHER, _FAINT = "#c2410c", "#1d4ed8", "#9ca3af"
_LEADER = {"arrowstyle": "-", "color": _FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
_ENDINGS = (".png", ".svg", ".pdf")
_LABELLED = 8
"""More names than this would cover each other: only the best ones are written."""
_PLAIN, _MOVED = "o", "D"
"""Markers of candidates without and with compensation."""


def check_plot_path(path: Path | str) -> None:
    """Refuse, before anything is measured, a place that `save_plot` could not write.

    Raises:
        InputError: the ending is not that of a picture, or the file cannot be written.
    """
    if Path(path).suffix.lower() not in _ENDINGS:
        raise InputError(f"a plot is written as {', '.join(_ENDINGS)} | got {path}")
    check_writable(path)


@contextmanager
def figure_file(path: Path | str, **options: Any) -> Iterator[Any]:
    """A figure of matplotlib to draw on, written to `path` when the block ends well.

    Args:
        path: .png, .svg or .pdf; written whole or not at all.
        options: of `matplotlib.pyplot.figure`.

    Raises:
        MissingPackageError: matplotlib is not installed.
        InputError: the ending is another one, or the file cannot be written.
    """
    check_plot_path(path)
    require("matplotlib", extra="plot").use("Agg")
    pyplot: Any = require("matplotlib.pyplot", extra="plot")
    figure = pyplot.figure(**options)
    try:
        yield figure
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.lower().lstrip("."))
    finally:
        pyplot.close(figure)


def save_plot(pick: Pick, path: Path | str, *, title: str | None = None, front: Sequence[str] = ()) -> None:
    """Draw the rows of `pick` that are worth showing and mark the one chosen.

    Filled: predicted sLAmIoU, hollow: mIoU without delay.

    Circles are candidates without compensation, diamonds are those whose labels are moved to the present.

    Args:
        path: .png, .svg or .pdf; written whole or not at all.
        title: above the picture; None: bundle-independent text with the frame rate.
        front: configurations of the Pareto front of latency and mIoU, which a line joins.

    Raises:
        MissingPackageError: matplotlib is not installed.
        InputError: the ending is another one, or the file cannot be written.
    """
    with figure_file(path, figsize=(9, 5.4), dpi=120) as figure:
        axes = figure.subplots()
        _draw_boundaries(axes, pick)
        _draw_front(axes, pick, front)
        for row in pick.rows_to_show:
            _draw_row(axes, row, chosen=row.name == pick.row.name)
        _write_names(axes, pick)
        axes.set_xlabel("latency, frame bytes in to label bytes out (ms): median, with p90")
        axes.set_ylabel("mIoU")
        axes.set_title(title or f"Latency-aware mIoU at {pick.fps:g} frames/s", loc="left", fontsize=11)
        _draw_legend(axes, pick)
        figure.tight_layout()


def _draw_boundaries(axes: Any, pick: Pick) -> None:
    period_ms = 1e3 / pick.fps
    right = max(max(row.p90_ms for row in pick.rows_to_show) * 1.12, period_ms * 1.15)
    axes.set_xlim(0, right)
    low = min(row.streaming_lamiou for row in pick.rows_to_show)
    high = max(max(row.miou, row.streaming_lamiou) for row in pick.rows_to_show)
    margin = 0.14 * max(high - low, 0.02)
    axes.set_ylim(low - margin, high + margin)
    boundaries = int(right / period_ms)
    every, spelled_out = 1 + boundaries // 10, boundaries < 6
    for k in range(boundaries + 1):
        if k:
            axes.axvline(k * period_ms, color=_FAINT, linewidth=0.8, linestyle="--", zorder=0)
        seen_ms = min((k + 1) * period_ms, right) - k * period_ms
        middle = k * period_ms + seen_ms / 2
        if k % every == 0 and seen_ms > (0.09 if spelled_out else 0.03) * right:
            text = f"{k + 1} frame{'s' if k else ''} late" if spelled_out else f"k={k + 1}"
            axes.text(
                middle, 0.015, text, transform=axes.get_xaxis_transform(), ha="center", fontsize=8, color="#4b5563"
            )


def _draw_front(axes: Any, pick: Pick, front: Sequence[str]) -> None:
    points = {row.configuration: (row.p50_ms, row.miou) for row in pick.rows if row.compensation == "none"}
    if joined := sorted(points[name] for name in front if name in points):
        axes.plot(*zip(*joined, strict=True), color=_FAINT, linewidth=1, zorder=1, label="Pareto front without delay")


def _draw_legend(axes: Any, pick: Pick) -> None:
    plain = [row for row in pick.rows_to_show if row.compensation == "none"]
    if plain:
        axes.plot([], [], _PLAIN, color=_OTHER, label="predicted sLAmIoU (on this device)")
    if len(plain) < len(pick.rows_to_show):
        axes.plot([], [], _MOVED, color=_OTHER, markersize=5, label="the same, labels moved by compensation")
    axes.plot([], [], "o", color=_OTHER, markerfacecolor="none", label="mIoU without delay")
    axes.plot([], [], "*", color=_PICKED, markersize=12, label=f"pick: {_wrapped(pick.row)}")
    if any(row.skipped or row.excluded for row in pick.rows_to_show):
        axes.plot([], [], "o", color=_FAINT, label="left early, or outside the limits")
    axes.legend(loc="best", fontsize=8, framealpha=0.9)


def _wrapped(row: PickRow) -> str:
    return row.configuration if row.compensation == "none" else f"{row.configuration}\n{row.compensation}"


def _draw_row(axes: Any, row: PickRow, *, chosen: bool) -> None:
    colour = _PICKED if chosen else _OTHER if row.skipped is None and row.excluded is None else _FAINT
    figure = row.streaming_lamiou
    axes.plot([row.p50_ms] * 2, [figure, row.miou], color=colour, linewidth=0.8, alpha=0.5, zorder=1)
    axes.plot(row.p50_ms, row.miou, "o", color=colour, markerfacecolor="white", markersize=5, zorder=2)
    axes.plot([row.p50_ms, row.p90_ms], [figure] * 2, color=colour, linewidth=1.5, zorder=2)
    marker, size = ("*", 15) if chosen else (_PLAIN, 6) if row.compensation == "none" else (_MOVED, 5)
    axes.plot(row.p50_ms, figure, marker, color=colour, markersize=size, zorder=3)


def _write_names(axes: Any, pick: Pick) -> None:
    """Names beside the points, moved down until they do not touch one another."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    row_height, taken = 0.036 * (top - bottom), list[tuple[float, float, float]]()
    for row in pick.rows_to_show[:_LABELLED]:
        width = 0.0078 * len(row.configuration) * (right - left)
        to_the_left = row.p50_ms + width > right - 0.01 * (right - left)
        gap = 0.012 * (right - left)
        begin = row.p50_ms - gap - width if to_the_left else row.p50_ms + gap
        y = row.streaming_lamiou - 0.5 * row_height
        while any(abs(y - other) < row_height and begin < end and begin + width > start for start, end, other in taken):
            y -= 0.5 * row_height
        taken.append((begin, begin + width, y))
        weight = "bold" if row.name == pick.row.name else "normal"
        axes.annotate(
            row.configuration,
            (row.p50_ms, row.streaming_lamiou),
            (begin + (width if to_the_left else 0), max(y, bottom + row_height)),
            fontsize=7.5,
            ha="right" if to_the_left else "left",
            va="center",
            weight=weight,
            arrowprops={**_LEADER, "relpos": (1 if to_the_left else 0, 0.5)},
        )
