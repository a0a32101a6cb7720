"""Where the tokens of an image stopped, why, and what was predicted there, as one picture [C figure 3.1]."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.optional import require
from edgeseg.runtime.overlay import overlay
from edgeseg.runtime.plot import figure_file

STOP_COLOURS = ((38, 166, 91), (233, 84, 155), (245, 166, 35), (64, 132, 214), (149, 97, 226), (0, 178, 178))
"""RGB of tokens by the stage where they stopped, in turn."""
TO_THE_END = (214, 40, 40)
"""RGB of tokens that ran through all layers."""
_INK, _FAINT = "#111827", "#6b7280"
_COLUMN, _GAP, _TOP, _BOTTOM, _LEFT = 3.2, 0.12, 0.95, 0.3, 0.3
"""Inches."""
_ROW_TITLE = 0.38
_CLASSES = 24
"""More names than this have no room."""


@dataclass(frozen=True)
class TokenStop:
    """What happened after one layer, on the grid of patches."""

    layer: int
    ran: np.ndarray
    """bool `(rows, columns)`: tokens that ran until here."""
    went_on: np.ndarray
    """bool: those of them that went on."""
    doubt: np.ndarray
    """float32: how unsure the auxiliary head was; nan where nothing ran."""
    labels: np.ndarray
    """uint8: its labels; where nothing ran, those of the stage where the token stopped."""


@dataclass(frozen=True)
class TokenStages:
    """One image on its way through a network whose tokens stop."""

    name: str
    """Of the configuration."""
    frame_rgb: np.ndarray
    """uint8 `(H, W, 3)` RGB at the network's input size."""
    stops: tuple[TokenStop, ...]
    """By rising layer; at least one."""
    labels: np.ndarray
    """uint8 `(h, w)`: what comes out in the end."""
    classes: ClassSet
    layers: int
    """Of the encoder."""
    doubt_name: str
    """What `TokenStop.doubt` is, for a reader."""

    def __post_init__(self) -> None:
        if not self.stops:
            raise InputError(f"{self.name}: no token stops anywhere | there is nothing to show")

    @property
    def counts(self) -> dict[int, int]:
        """Layer -> tokens that went on after it."""
        return {stop.layer: int(stop.went_on.sum()) for stop in self.stops}

    @property
    def stopped_at(self) -> np.ndarray:
        """int `(rows, columns)`: index of the stop where each token stopped; -1 for those that ran to the end."""
        stopped = np.full(self.stops[0].ran.shape, -1)
        for index, stop in enumerate(self.stops):
            stopped[stop.ran & ~stop.went_on] = index
        return stopped


def save_token_picture(stages: TokenStages, path: Path | str) -> None:
    """One column per stage, between the image and the end: tokens that stopped, doubt, labels.

    Args:
        path: .png, .svg or .pdf; written whole or not at all.

    Raises:
        MissingPackageError: matplotlib is not installed.
        InputError: the ending is another one, or the file cannot be written.
    """
    columns = len(stages.stops) + 2
    height, width = stages.frame_rgb.shape[:2]
    panel = _COLUMN * height / width
    size = (_LEFT + columns * (_COLUMN + _GAP) + 0.2, _TOP + 3 * (panel + _ROW_TITLE) + _BOTTOM)
    with figure_file(path, figsize=size, dpi=130, facecolor="white") as figure:
        board = _Board(figure, size, panel)
        figure.text(_LEFT / size[0], 1 - 0.3 / size[1], stages.name, fontsize=14, weight="bold", color=_INK)
        figure.text(_LEFT / size[0], 1 - 0.55 / size[1], _summary(stages), fontsize=10, color=_FAINT)
        _draw_first_column(board, stages)
        _draw_stops(board, stages)
        _draw_last_column(board, stages, columns - 1)


class _Board:
    """Places panels of one size by row and column."""

    def __init__(self, figure: Any, size: tuple[float, float], panel_height: float) -> None:
        self.figure, self._size, self._panel = figure, size, panel_height

    def axes(self, row: int, column: int, title: str) -> Any:
        """Empty axes, titled."""
        left = _LEFT + column * (_COLUMN + _GAP)
        top = _TOP + row * (self._panel + _ROW_TITLE)
        axes = self.figure.add_axes(self.place(left, top, _COLUMN, self._panel))
        axes.set_title(title, fontsize=9.5, loc="left", color=_INK, pad=4)
        return axes

    def image(self, row: int, column: int, title: str, image: np.ndarray, **options: Any) -> Any:
        """An image without ticks; returns what matplotlib drew."""
        axes = self.axes(row, column, title)
        axes.set_axis_off()
        return axes.imshow(image, interpolation="nearest", aspect="auto", **options)

    def place(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Inches from the upper left corner as matplotlib's fractions."""
        full_width, full_height = self._size
        return left / full_width, 1 - (top + height) / full_height, width / full_width, height / full_height

    def beside(self, row: int, column: int) -> Any:
        """Narrow axes right of a panel."""
        left = _LEFT + column * (_COLUMN + _GAP) + _COLUMN + 0.07
        return self.figure.add_axes(self.place(left, _TOP + row * (self._panel + _ROW_TITLE), 0.1, self._panel))


def _draw_first_column(board: _Board, stages: TokenStages) -> None:
    height, width = stages.frame_rgb.shape[:2]
    board.image(0, 0, f"image, {height} x {width}", stages.frame_rgb)
    _draw_counts(board.axes(1, 0, "tokens that each layer computes"), stages)
    axes = board.axes(2, 0, "classes that occur")
    axes.set_axis_off()
    present = _present(stages)
    rows = max(6, -(-len(present) // 2))
    for position, index in enumerate(present):
        left, bottom = 0.5 * (position // rows), 1 - (position % rows + 1) / rows
        colour = [value / 255 for value in stages.classes.palette[index]]
        axes.add_patch(_rectangle((left, bottom + 0.2 / rows), 0.07, 0.6 / rows, colour))
        axes.text(left + 0.09, bottom + 0.5 / rows, stages.classes.names[index], fontsize=8.5, va="center", color=_INK)
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _present(stages: TokenStages) -> list[int]:
    """Classes that occur in any of the panels, in order; the most frequent ones where there are many."""
    shown = [stages.labels, *(stop.labels for stop in stages.stops)]
    counted = [np.bincount(labels.ravel(), minlength=256) / labels.size for labels in shown]
    shares = np.sum(counted, axis=0)[: len(stages.classes)]
    occurring = np.flatnonzero(shares)
    return sorted(int(index) for index in occurring[np.argsort(-shares[occurring])][:_CLASSES])


def _draw_counts(axes: Any, stages: TokenStages) -> None:
    total = stages.stops[0].ran.size
    running, colours, stop_of = [], [], {stop.layer: index for index, stop in enumerate(stages.stops)}
    now = total
    for layer in range(1, stages.layers + 1):
        running.append(now)
        # The layer after which tokens stop has their colour.
        colours.append(_hex(STOP_COLOURS[stop_of[layer] % len(STOP_COLOURS)]) if layer in stop_of else "#cbd5e1")
        now = stages.counts.get(layer, now)
    axes.bar(range(1, stages.layers + 1), running, color=colours, width=0.8)
    for layer in (1, *(layer + 1 for layer in stages.counts)):
        axes.text(layer, running[layer - 1], str(running[layer - 1]), ha="center", va="bottom", fontsize=7, color=_INK)
    axes.set(xlim=(0.3, stages.layers + 0.7), ylim=(0, 1.15 * total), yticks=[])
    axes.set_xticks(range(1, stages.layers + 1), labels=range(1, stages.layers + 1), fontsize=7, color=_FAINT)
    axes.tick_params(length=0, pad=1)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _draw_stops(board: _Board, stages: TokenStages) -> None:
    highest = max(float(np.nanmax(stop.doubt)) for stop in stages.stops) or 1.0
    grey, stopped_at = _grey(stages.frame_rgb), stages.stopped_at
    colour_map = _colour_map()
    for index, stop in enumerate(stages.stops):
        ran, went_on = int(stop.ran.sum()), int(stop.went_on.sum())
        until_here = np.where(stopped_at <= index, stopped_at, -1)
        title = f"after layer {stop.layer}: {ran - went_on} stop, {went_on} go on"
        board.image(0, index + 1, title, _tinted(grey, until_here))
        title = f"{stages.doubt_name} of the {ran} tokens"
        drawn = board.image(1, index + 1, title, stop.doubt, cmap=colour_map, vmin=0, vmax=highest)
        title = f"labels of the auxiliary head, layer {stop.layer}"
        board.image(2, index + 1, title, overlay(stages.frame_rgb, stop.labels, stages.classes, opacity=0.65))
    last = len(stages.stops)
    bar = board.figure.colorbar(drawn, cax=board.beside(1, last))
    bar.ax.tick_params(labelsize=7, colors=_FAINT, length=2)
    bar.outline.set_visible(False)


def _draw_last_column(board: _Board, stages: TokenStages, column: int) -> None:
    stopped_at = stages.stopped_at
    through = int((stopped_at < 0).sum())
    image = _tinted(_grey(stages.frame_rgb), np.where(stopped_at < 0, len(STOP_COLOURS), stopped_at))
    board.image(0, column, f"the end: {through} ran through all {stages.layers} layers", image)
    axes = board.axes(1, column, "")
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    key = [
        (STOP_COLOURS[index % len(STOP_COLOURS)], f"stopped after layer {stop.layer}")
        for index, stop in enumerate(stages.stops)
    ]
    rows = [*key, (TO_THE_END, "ran to the end"), ((203, 213, 225), "not computed any more")]
    for position, (colour, words) in enumerate(rows):
        middle = 0.92 - 0.11 * position
        axes.add_patch(_rectangle((0.26, middle - 0.035), 0.07, 0.07, [value / 255 for value in colour]))
        axes.text(0.36, middle, words, fontsize=8.5, va="center", color=_INK)
    board.image(2, column, "labels in the end", overlay(stages.frame_rgb, stages.labels, stages.classes, opacity=0.65))


def _summary(stages: TokenStages) -> str:
    total = stages.stops[0].ran.size
    steps = " -> ".join(map(str, (total, *stages.counts.values())))
    rows, columns = stages.stops[0].ran.shape
    return f"{rows} x {columns} patches; tokens {steps}; the surest stop first"


def _tinted(grey_rgb: np.ndarray, stopped_at: np.ndarray) -> np.ndarray:
    """The grey frame, with the tokens that have an index from 0 in its colour; `len(STOP_COLOURS)`: to the end."""
    height, width = grey_rgb.shape[:2]
    # Stages beyond the colours start again; the last row is not among them.
    colours = np.array([*STOP_COLOURS, TO_THE_END], np.float32)
    index = cv2.resize(stopped_at.astype(np.int16), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    wrapped = np.where(index == len(STOP_COLOURS), index, index % len(STOP_COLOURS))
    tinted = (0.5 * grey_rgb + 0.5 * colours[wrapped]).astype(np.uint8)
    return np.where((index >= 0)[..., None], tinted, grey_rgb)


def _grey(frame_rgb: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def _colour_map() -> Any:
    matplotlib: Any = require("matplotlib", extra="plot")
    colour_map = matplotlib.colormaps["magma"]
    return matplotlib.colors.ListedColormap(colour_map.colors).with_extremes(bad="#cbd5e1")


def _rectangle(corner: tuple[float, float], width: float, height: float, colour: list[float]) -> Any:
    patches: Any = require("matplotlib.patches", extra="plot")
    return patches.Rectangle(corner, width, height, facecolor=colour, edgecolor="none")


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
