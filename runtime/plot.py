"""A picture of a pick: latency against LAmIoU, with the frame periods after which labels are a frame older."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgeseg.atomic import atomic_file, check_writable
from edgeseg.bundle import Bundle
from edgeseg.config import Configuration
from edgeseg.errors import InputError
from edgeseg.optional import require
from edgeseg.runtime.pick import Pick, PickRow
from edgeseg.runtime.plot_labels import Obstacles, place_name, short_names

_PICKED, _OTHER, _FAINT, _INK = "#c2410c", "#1d4ed8", "#9ca3af", "#374151"
_LEADER = {"arrowstyle": "-", "color": _FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
_ENDINGS = (".png", ".svg", ".pdf")
_LABELLED = 20
"""More names than this are not read: only the best ones are written."""
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


def save_plot(
    pick: Pick, bundle: Bundle, path: Path | str, *, title: str | None = None, front: Sequence[str] = ()
) -> None:
    """Draw the rows of `pick` that are worth showing and mark the one chosen.

    Args:
        bundle: that was picked from.
        path: .png, .svg or .pdf; written whole or not at all.
        title: above the picture; None: bundle-independent text with the frame rate.
        front: configurations of the Pareto front of latency and mIoU, which a line joins.

    Raises:
        MissingPackageError: matplotlib is not installed.
        InputError: the ending is another one, or the file cannot be written.
    """
    knobs = {entry.name: entry.knobs for entry in bundle.configurations}
    with figure_file(path, figsize=(9, 5.8), dpi=120, layout="constrained") as figure:
        draw_pick(figure, pick, knobs, title=title, front=front)


def draw_pick(
    figure: Any,
    pick: Pick,
    knobs: Mapping[str, Configuration],
    *,
    title: str | None = None,
    front: Sequence[str] = (),
) -> None:
    """Draw on `figure`, of constrained layout, what `save_plot` writes.

    Filled: predicted sLAmIoU, hollow: mIoU without delay; on an axis that is broken between both where they lie apart.
    Circles are candidates without compensation, diamonds are those whose labels are moved to the present.

    Args:
        knobs: configuration name -> its knobs.
    """
    common, names = short_names(pick.rows_to_show, knobs)
    figure.suptitle(title or f"Latency-aware mIoU at {pick.fps:g} frames/s", x=0.01, ha="left", fontsize=12)
    panels = _panels(figure, pick.rows_to_show)
    for axes in panels:
        _draw_front(axes, pick, front)
        for row in pick.rows_to_show:
            _draw_row(axes, row, chosen=row.name == pick.row.name)
    _draw_boundaries(panels, pick)
    panels[0].set_title(common, loc="left", fontsize=9, color=_INK, pad=18)
    panels[-1].set_xlabel("latency, frame bytes in to label bytes out (ms): median, with p90")
    _draw_legend(figure, panels[-1], pick, names[pick.row.name])
    # Where things lie on the canvas is known when the layout is, which names no longer change.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    _write_names(panels[-1], pick, names, front)


def _panels(figure: Any, rows: Sequence[PickRow]) -> list[Any]:
    """Axes with their limits of mIoU: one, or two under one another where the mIoU without delay of all rows lies far
    above all of their LAmIoU, so that differences are seen in both."""
    late = min(row.streaming_lamiou for row in rows), max(row.streaming_lamiou for row in rows)
    exact = min(row.miou for row in rows), max(row.miou for row in rows)
    spans = late[1] - late[0], exact[1] - exact[0]
    if exact[0] - late[1] <= 0.6 * sum(spans) or sum(spans) == 0:
        axes = figure.subplots()
        low, high = min(late[0], exact[0]), max(late[1], exact[1])
        margin = 0.12 * max(high - low, 0.02)
        axes.set_ylim(low - 1.6 * margin, high + margin)
        axes.set_ylabel("mIoU")
        return [axes]
    # One scale for both: a step of mIoU is as long above as below.
    least = 0.35 * max(spans)
    heights = [max(span, least) for span in reversed(spans)]
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.5 * heights[0], 1.9 * heights[1]])
    middle = sum(exact) / 2
    upper.set_ylim(middle - 0.75 * heights[0], middle + 0.75 * heights[0])
    middle = sum(late) / 2 - 0.2 * heights[1]
    lower.set_ylim(middle - 0.95 * heights[1], middle + 0.95 * heights[1])
    upper.set_ylabel("mIoU without delay")
    lower.set_ylabel("predicted sLAmIoU")
    upper.spines["bottom"].set_visible(False)
    lower.spines["top"].set_visible(False)
    upper.tick_params(bottom=False)
    for axes, y in ((upper, 0), (lower, 1)):
        mark = {"marker": [(-1, -0.5), (1, 0.5)], "markersize": 9, "linestyle": "none", "color": "k", "clip_on": False}
        axes.plot([0, 1], [y, y], transform=axes.transAxes, **mark)
    return [upper, lower]


def _draw_boundaries(panels: Sequence[Any], pick: Pick) -> None:
    """Limits of latency around the points, and in them where labels become a frame older."""
    rows, period_ms = pick.rows_to_show, 1e3 / pick.fps
    # Of rows that are not to be picked the median counts: few samples have long tails.
    right = max(row.p50_ms if row.skipped or row.excluded else row.p90_ms for row in rows)
    right = max(right, *(row.p50_ms for row in rows))
    left = min(row.p50_ms for row in rows)
    left = 0.0 if left < 0.25 * right else left - 0.08 * max(right - left, 0.1 * right)
    right += 0.06 * (right - left)
    panels[0].set_xlim(left, right)
    boundaries = _boundaries(panels[0], pick.fps)
    every, spelled_out = 1 + len(boundaries) // 10, len(boundaries) < 6
    for axes in panels:
        for k in boundaries:
            axes.axvline(k * period_ms, color=_FAINT, linewidth=0.8, linestyle="--", zorder=0)
    for k in (boundaries.start - 1, *boundaries):
        begin_ms, end_ms = max(k * period_ms, left), min((k + 1) * period_ms, right)
        if k % every == 0 and end_ms - begin_ms > (0.1 if spelled_out else 0.04) * (right - left):
            text = f"{k + 1} frame{'s' if k else ''} late" if spelled_out else f"k={k + 1}"
            panels[0].text(
                (begin_ms + end_ms) / 2, 1.01, text, transform=panels[0].get_xaxis_transform(), ha="center",
                va="bottom", fontsize=8.5, color=_INK,
            )  # fmt: skip


def _boundaries(axes: Any, fps: float) -> range:
    """Which multiples of the frame period lie within the axes."""
    left, right = axes.get_xlim()
    return range(int(left * fps / 1e3) + 1, int(right * fps / 1e3) + 1)


def _draw_front(axes: Any, pick: Pick, front: Sequence[str]) -> None:
    if joined := _front_points(pick, front):
        axes.plot(*zip(*joined, strict=True), color=_FAINT, linewidth=1, zorder=1, label="Pareto front without delay")


def _front_points(pick: Pick, front: Sequence[str]) -> list[tuple[float, float]]:
    points = {row.configuration: (row.p50_ms, row.miou) for row in pick.rows if row.compensation == "none"}
    return sorted(points[name] for name in front if name in points)


def _draw_legend(figure: Any, axes: Any, pick: Pick, picked: str) -> None:
    """Below the axes, where no point is."""
    plain = [row for row in pick.rows_to_show if row.compensation == "none"]
    moved = "" if pick.row.compensation == "none" else f"\n{pick.row.compensation}"
    axes.plot([], [], "*", color=_PICKED, markersize=12, label=f"pick: {picked}{moved}")
    if plain:
        axes.plot([], [], _PLAIN, color=_OTHER, label="predicted sLAmIoU (on this device)")
    if len(plain) < len(pick.rows_to_show):
        same = "the same" if plain else "predicted sLAmIoU (on this device)"
        axes.plot([], [], _MOVED, color=_OTHER, markersize=5, label=f"{same}, labels moved by compensation")
    axes.plot([], [], "o", color=_OTHER, markerfacecolor="none", label="mIoU without delay")
    if any(row.skipped or row.excluded for row in pick.rows_to_show):
        axes.plot([], [], "o", color=_FAINT, label="left early, or outside the limits")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=8.5, frameon=False)


def _draw_row(axes: Any, row: PickRow, *, chosen: bool) -> None:
    colour = _PICKED if chosen else _OTHER if row.skipped is None and row.excluded is None else _FAINT
    figure, front = row.streaming_lamiou, 0.5 if chosen else 0
    axes.plot([row.p50_ms] * 2, [figure, row.miou], color=colour, linewidth=0.8, alpha=0.5, zorder=1 + front)
    axes.plot(row.p50_ms, row.miou, "o", color=colour, markerfacecolor="white", markersize=5, zorder=2 + front)
    axes.plot([row.p50_ms, row.p90_ms], [figure] * 2, color=colour, linewidth=1.5, zorder=2 + front)
    marker, size = ("*", 15) if chosen else (_PLAIN, 6) if row.compensation == "none" else (_MOVED, 5)
    axes.plot(row.p50_ms, figure, marker, color=colour, markersize=size, zorder=3 + front)


def _write_names(axes: Any, pick: Pick, names: Mapping[str, str], front: Sequence[str]) -> None:
    """Names beside the points of LAmIoU, clear of everything drawn; those without a place are left out."""
    obstacles = _obstacles(axes, pick, front)
    for row in pick.rows_to_show[:_LABELLED]:
        chosen, point = row.name == pick.row.name, (row.p50_ms, row.streaming_lamiou)
        text = axes.annotate(
            names[row.name], point, (0, 0), textcoords="offset points", fontsize=8.5, ha="center", va="center",
            color=_INK, weight="bold" if chosen else "normal", arrowprops=_LEADER,
        )  # fmt: skip
        x, y = axes.transData.transform(point)
        place_name(axes, (float(x), float(y)), text, obstacles, must=chosen)


def _obstacles(axes: Any, pick: Pick, front: Sequence[str]) -> Obstacles:
    """All that is drawn in the axes, in pixels."""
    left, right = axes.get_xlim()

    def at(x: float, y: float) -> tuple[float, float]:
        x, y = axes.transData.transform((min(max(x, left), right), y))
        return float(x), float(y)

    obstacles, pixels = Obstacles(), axes.figure.dpi / 72
    for row in pick.rows_to_show:
        point, size = at(row.p50_ms, row.streaming_lamiou), 8 if row.name == pick.row.name else 3.5
        obstacles.add_point(point, size * pixels)
        obstacles.add_point(at(row.p50_ms, row.miou), 3.5 * pixels)
        obstacles.add_line(point, at(row.p50_ms, row.miou), 1.5 * pixels)
        obstacles.add_line(point, at(row.p90_ms, row.streaming_lamiou), 3 * pixels)
    for begin, end in pairwise(_front_points(pick, front)):
        obstacles.add_line(at(*begin), at(*end), 2 * pixels)
    bottom, top = axes.get_ylim()
    for k in _boundaries(axes, pick.fps):
        obstacles.add_line(at(1e3 * k / pick.fps, bottom), at(1e3 * k / pick.fps, top), 2 * pixels)
    return obstacles
