"""Where the tokens of an image stopped, why, and what was predicted there, as one picture [C figure 3.1]."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.optional import require
from edgeseg.runtime.overlay import overlay
from edgeseg.runtime.picture_board import FAINT, INK, Board, outline
from edgeseg.runtime.plot import figure_file

TO_THE_END = (230, 60, 0)
"""RGB of tokens that ran through all layers; far from all `stop_colours`, for colour-blind readers too."""
OPACITY = 0.65
"""Of the colours laid over the grey frame."""
_COMPUTED, _NOT_COMPUTED = "#64748b", "#cbd5e1"
_CLASSES = 24
"""More names than this have no room."""
_KEY_ROWS = 7
"""More of them stand in two columns."""
_DOUBT_RANGE = 1e5
"""Highest doubt by the lowest one that is told apart from none."""


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

    @property
    def stopped(self) -> np.ndarray:
        """bool: tokens that ran until here and no further."""
        return self.ran & ~self.went_on

    @property
    def context(self) -> np.ndarray:
        """bool: tokens that went on although they were surer than one that stopped, as pruning keeps some of each
        class for the others to look at [Z 5.2.4]."""
        return self.went_on & (self.doubt < self.doubt[self.stopped].max(initial=-np.inf))


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
            stopped[stop.stopped] = index
        return stopped

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.stops[0].ran.shape
        return rows, columns


def stop_colours(count: int) -> list[tuple[int, int, int]]:
    """RGB of the tokens that stop at the first, second, ... of `count` stops: from dark to light, so that their order
    is seen, and told apart by colour-blind readers too.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    matplotlib: Any = require("matplotlib", extra="plot")
    # A map of even steps to the eye in all common kinds of colour vision.
    colours = np.rint(255 * matplotlib.colormaps["viridis"](np.linspace(0, 1, count))).astype(int)
    return [(int(red), int(green), int(blue)) for red, green, blue, _ in colours]


def save_token_picture(stages: TokenStages, path: Path | str) -> None:
    """One column per stage, between the image and the end: tokens that stopped, doubt, labels.

    Args:
        path: .png, .svg or .pdf; written whole or not at all.

    Raises:
        MissingPackageError: matplotlib is not installed.
        InputError: the ending is another one, or the file cannot be written.
    """
    height, width = stages.frame_rgb.shape[:2]
    board = Board(len(stages.stops) + 2, 3, height / width)
    with figure_file(path, **board.options) as figure:
        board.figure = figure
        board.head(stages.name, _summary(stages))
        _draw_first_column(board, stages)
        doubt = _draw_stops(board, stages)
        _draw_last_column(board, stages, doubt)


def _draw_first_column(board: Board, stages: TokenStages) -> None:
    height, width = stages.frame_rgb.shape[:2]
    board.image(0, 0, f"image, {height} x {width}", stages.frame_rgb, stages.grid_hw)
    _draw_counts(board.axes(1, 0, "tokens that each layer computes"), stages)
    axes = board.blank(2, 0, "classes that occur")
    present = _present(stages)
    rows = max(6, -(-len(present) // 2))
    for position, index in enumerate(present):
        left, bottom = 0.5 * (position // rows), 1 - (position % rows + 1) / rows
        colour = _hex(stages.classes.palette[index])
        axes.add_patch(_rectangle((left, bottom + 0.2 / rows), 0.07, 0.6 / rows, colour))
        axes.text(left + 0.09, bottom + 0.5 / rows, stages.classes.names[index], fontsize=10, va="center", color=INK)


def _present(stages: TokenStages) -> list[int]:
    """Classes that occur in any of the panels, in order; the most frequent ones where there are many."""
    shown = [stages.labels, *(stop.labels for stop in stages.stops)]
    counted = [np.bincount(labels.ravel(), minlength=256) / labels.size for labels in shown]
    shares = np.sum(counted, axis=0)[: len(stages.classes)]
    occurring = np.flatnonzero(shares)
    return sorted(int(index) for index in occurring[np.argsort(-shares[occurring])][:_CLASSES])


def _draw_counts(axes: Any, stages: TokenStages) -> None:
    total = now = stages.stops[0].ran.size
    # The layer after which tokens stop has their colour.
    of_stop = dict(zip(stages.counts, map(_hex, stop_colours(len(stages.stops))), strict=True))
    running = []
    for layer in range(1, stages.layers + 1):
        running.append(now)
        now = stages.counts.get(layer, now)
    colours = [of_stop.get(layer, _COMPUTED) for layer in range(1, stages.layers + 1)]
    axes.bar(range(1, stages.layers + 1), [total] * stages.layers, color=_NOT_COMPUTED, width=0.8)
    axes.bar(range(1, stages.layers + 1), running, color=colours, width=0.8)
    for layer in (1, *(layer + 1 for layer in stages.counts)):
        axes.text(layer, running[layer - 1], str(running[layer - 1]), ha="center", va="bottom", fontsize=9, color=INK)
    axes.set(xlim=(0.3, stages.layers + 0.7), ylim=(0, 1.15 * total), yticks=[])
    axes.set_xticks(range(1, stages.layers + 1), labels=range(1, stages.layers + 1), fontsize=9, color=FAINT)
    axes.tick_params(length=0, pad=1)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _draw_stops(board: Board, stages: TokenStages) -> Any:
    """Returns a drawn map of doubt, for its colour bar."""
    grey, stopped_at, grid_hw = _grey(stages.frame_rgb), stages.stopped_at, stages.grid_hw
    doubts = np.concatenate([stop.doubt[stop.ran] for stop in stages.stops])
    colours, norm = _doubt_colours(), _doubt_norm(doubts)
    drawn = None
    for index, stop in enumerate(stages.stops):
        ran, went_on = int(stop.ran.sum()), int(stop.went_on.sum())
        until_here = np.where(stopped_at <= index, stopped_at, -1)
        title = f"after layer {stop.layer}: {ran - went_on} stop, {went_on} go on"
        tinted = board.image(0, index + 1, title, _tinted(grey, until_here, len(stages.stops)), grid_hw)
        _mark(tinted.axes, stop)
        title = f"doubt of the {ran} tokens, layer {stop.layer}"
        drawn = board.image(1, index + 1, title, np.maximum(stop.doubt, norm.vmin), grid_hw, norm=norm, cmap=colours)
        _mark(drawn.axes, stop)
        labels = cv2.resize(stop.labels, stages.frame_rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        painted = overlay(stages.frame_rgb, labels, stages.classes, opacity=0.65)
        board.image(2, index + 1, f"labels of the auxiliary head, layer {stop.layer}", painted, grid_hw)
    return drawn


def _mark(axes: Any, stop: TokenStop) -> None:
    """White lines around the tokens that stop here, rings on those that stay as context."""
    collections: Any = require("matplotlib.collections", extra="plot")
    edges, scale = outline(stop.stopped), min(1.0, 20 / stop.ran.shape[1])
    for colour, width in ((INK, 3), ("white", 1.4)):
        axes.add_collection(
            collections.LineCollection(edges, colors=colour, linewidths=scale * width, capstyle="round")
        )
    rows, columns = np.nonzero(stop.context)
    _draw_rings(axes, columns + 0.5, rows + 0.5, scale)


def _draw_rings(axes: Any, x: Any, y: Any, scale: float) -> None:
    axes.plot(x, y, "o", color="white", markersize=6 * scale, markeredgecolor=INK, markeredgewidth=1.4 * scale)


def _draw_last_column(board: Board, stages: TokenStages, doubt: Any) -> None:
    stopped_at, stops, column = stages.stopped_at, len(stages.stops), len(stages.stops) + 1
    through = int((stopped_at < 0).sum())
    image = _tinted(_grey(stages.frame_rgb), np.where(stopped_at < 0, stops, stopped_at), stops)
    board.image(0, column, f"the end: {through} ran through all {stages.layers} layers", image, stages.grid_hw)
    axes = board.blank(1, column, f"doubt: {stages.doubt_name}")
    bar = board.figure.colorbar(doubt, cax=axes.inset_axes((0.02, 0.9, 0.96, 0.09)), orientation="horizontal")
    ticks = _ticks(doubt.norm.vmin, doubt.norm.vmax)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=9, colors=FAINT, length=2)
    bar.outline.set_visible(False)
    _draw_key(axes, stages)
    painted = overlay(stages.frame_rgb, stages.labels, stages.classes, opacity=0.65)
    board.image(2, column, "labels in the end", painted, stages.grid_hw)


def _draw_key(axes: Any, stages: TokenStages) -> None:
    colours = [_hex(colour) for colour in stop_colours(len(stages.stops))]
    after = "after layer" if len(colours) < _KEY_ROWS - 2 else "after"
    rows = [(colour, f"stopped {after} {stop.layer}") for colour, stop in zip(colours, stages.stops, strict=True)]
    rows += [(_hex(TO_THE_END), "ran to the end"), (_NOT_COMPUTED, "no longer computed")]
    if any(stop.context.any() for stop in stages.stops):
        rows.append(("", "goes on as context"))
    step = 0.72 / _KEY_ROWS
    for position, (colour, words) in enumerate(rows):
        left, middle = 0.02 + 0.44 * (position // _KEY_ROWS), 0.7 - step * (position % _KEY_ROWS)
        if colour:
            axes.add_patch(_rectangle((left, middle - 0.35 * step), 0.06, 0.7 * step, colour))
        else:
            _draw_rings(axes, [left + 0.03], [middle], 1.0)
        axes.text(left + 0.08, middle, words, fontsize=9.5, va="center", color=INK)


def _summary(stages: TokenStages) -> str:
    total = stages.stops[0].ran.size
    steps = " -> ".join(map(str, (total, *stages.counts.values())))
    rows, columns = stages.grid_hw
    kept = any(stop.context.any() for stop in stages.stops)
    but = ", but for the surest of each class, which go on as context (ringed)" if kept else ""
    return f"{rows} x {columns} patches; tokens {steps}; the surest stop first{but}"


def _tinted(grey_rgb: np.ndarray, stopped_at: np.ndarray, stops: int) -> np.ndarray:
    """The grey frame, with the tokens that have an index from 0 in the colour of that stop; `stops`: to the end."""
    height, width = grey_rgb.shape[:2]
    colours = np.array([*stop_colours(stops), TO_THE_END], np.float32)
    index = cv2.resize(stopped_at.astype(np.int16), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    tinted = ((1 - OPACITY) * grey_rgb + OPACITY * colours[index]).astype(np.uint8)
    return np.where((index >= 0)[..., None], tinted, grey_rgb)


def _grey(frame_rgb: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def _doubt_colours() -> Any:
    matplotlib: Any = require("matplotlib", extra="plot")
    colours = matplotlib.colormaps["magma"]
    return matplotlib.colors.ListedColormap(colours.colors).with_extremes(bad=_NOT_COMPUTED)


def _doubt_norm(doubts: np.ndarray) -> Any:
    """Logarithmic: most tokens of an image are all but sure, and which of them stop is decided there."""
    matplotlib: Any = require("matplotlib.colors", extra="plot")
    highest = float(doubts.max()) or 1.0
    lowest = min(max(float(np.percentile(doubts, 2)), highest / _DOUBT_RANGE), highest / 10)
    return matplotlib.LogNorm(lowest, highest)


def _ticks(lowest: float, highest: float) -> list[float]:
    """Round values between both, fewer of each decade the more decades there are."""
    exponents = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    steps = (1, 2, 5) if len(exponents) <= 4 else (1,)
    values = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
    return [value for value in values if lowest <= value <= highest]


def _rectangle(corner: tuple[float, float], width: float, height: float, colour: str) -> Any:
    patches: Any = require("matplotlib.patches", extra="plot")
    return patches.Rectangle(corner, width, height, facecolor=colour, edgecolor="none")


def _hex(colour: tuple[int, ...]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
