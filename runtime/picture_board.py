"""Panels of one size on a figure: stages side by side, and under one another where one line would be too wide."""

from typing import Any

import numpy as np

INK, FAINT = "#111827", "#6b7280"
_COLUMN, _GAP, _TOP, _BOTTOM, _LEFT = 3.2, 0.14, 1.02, 0.25, 0.3
"""Inches."""
_PANEL_TITLE, _BAND_GAP = 0.4, 0.2
_ACROSS = 5
"""Stages side by side: with more of them, text is too small to read at the width of a page."""
_DOTS_PER_INCH = 130


class Board:
    """Places panels by stage and by row within the stage; to be bound to a figure of `options`.

    Args:
        stages: columns to place, from 1.
        rows: panels of a stage, under one another.
        height_by_width: of a panel.
    """

    figure: Any

    def __init__(self, stages: int, rows: int, height_by_width: float) -> None:
        bands = -(-stages // _ACROSS)
        self.across = -(-stages // bands)
        self._panel = _COLUMN * height_by_width
        self._band = rows * (self._panel + _PANEL_TITLE) + _BAND_GAP
        height = _TOP + bands * self._band - _BAND_GAP - _PANEL_TITLE + _BOTTOM
        self.size = (_LEFT + self.across * (_COLUMN + _GAP) + 0.2, height)

    @property
    def options(self) -> dict[str, Any]:
        """Of the figure."""
        return {"figsize": self.size, "dpi": _DOTS_PER_INCH, "facecolor": "white"}

    def head(self, name: str, summary: str) -> None:
        """Two lines above all panels."""
        width, height = self.size
        self.figure.text(_LEFT / width, 1 - 0.32 / height, name, fontsize=15, weight="bold", color=INK)
        self.figure.text(_LEFT / width, 1 - 0.6 / height, summary, fontsize=11.5, color=FAINT)

    def axes(self, row: int, stage: int, title: str) -> Any:
        """Empty axes, titled."""
        axes = self.figure.add_axes(self._place(row, stage))
        axes.set_title(title, fontsize=11, loc="left", color=INK, pad=4)
        return axes

    def blank(self, row: int, stage: int, title: str) -> Any:
        """Axes from 0 to 1 that are not seen, to write on."""
        axes = self.axes(row, stage, title)
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        return axes

    def image(
        self, row: int, stage: int, title: str, image: np.ndarray, grid_hw: tuple[int, int], **options: Any
    ) -> Any:
        """An image without ticks, on axes that count the patches of `grid_hw`; returns what matplotlib drew."""
        axes = self.axes(row, stage, title)
        axes.set_axis_off()
        rows, columns = grid_hw
        return axes.imshow(image, interpolation="nearest", aspect="auto", extent=(0, columns, rows, 0), **options)

    def _place(self, row: int, stage: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel as matplotlib's fractions."""
        band, column = divmod(stage, self.across)
        left = _LEFT + column * (_COLUMN + _GAP)
        top = _TOP + band * self._band + row * (self._panel + _PANEL_TITLE)
        width, height = self.size
        return left / width, 1 - (top + self._panel) / height, _COLUMN / width, self._panel / height


def outline(mask: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Edges `((x, y), (x, y))` between the patches in bool `(rows, columns)` and those that are not."""
    padded = np.pad(mask, 1)
    upright = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    level = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    return [((int(x), int(y)), (int(x), int(y) + 1)) for y, x in upright] + [
        ((int(x), int(y)), (int(x) + 1, int(y))) for y, x in level
    ]
