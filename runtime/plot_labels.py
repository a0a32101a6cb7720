"""Names of a plot's points: short enough to stand beside them, placed where they cover nothing."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeseg.config import Configuration
from edgeseg.runtime.pick import PickRow

_DISTANCES_POINTS = (7, 11, 16, 22, 30, 40, 52)
_DIRECTIONS = 24
_MARGIN_POINTS = 1.5
_COVERED = 60.0
"""Points of distance that a leader is worth to be longer by, rather than to run over something all the way."""
_DEAREST = 60.0
"""Worse places are not taken: a name far from its point, behind other things, is not found to belong to it."""


def short_names(rows: Sequence[PickRow], knobs: Mapping[str, Configuration]) -> tuple[str, dict[str, str]]:
    """What tells the candidates of `rows` apart, and what they have in common.

    Args:
        knobs: configuration name -> its knobs, for all of the rows.

    Returns:
        The common knobs (empty for a single configuration), and row name -> the knobs in which it differs from others:
        plan, size, width, ...; and the compensation's where several of one configuration are shown.
    """
    told = {name: _words(knobs[name]) for name in dict.fromkeys(row.configuration for row in rows)}
    parts = range(len(_DEFAULTS))
    varying = [part for part in parts if len({words[part] for words in told.values()} - {""}) > 1]
    shared = [max(words[part] for words in told.values()) for part in parts if part not in varying]
    common = " ".join(word for word in shared if word and word not in _DEFAULTS)
    if not varying:
        return "", _with_compensation(rows, dict.fromkeys(told, common))
    names = {}
    for name, words in told.items():
        differing = [words[part] for part in varying if words[part]]
        said = [word for word in differing if word not in _DEFAULTS or word == _ALL_TOKENS]
        names[name] = " ".join(said or differing)
    return common, _with_compensation(rows, names)


_ALL_TOKENS = "all tokens"
_DEFAULTS = ("", "", "full width", "dense", "", _ALL_TOKENS, "full labels", "t+0", "fp32", "st32")
"""Per part of `_words`: what is not worth saying where something else is."""


def _words(knobs: Configuration) -> tuple[str, ...]:
    """In the order of `Configuration.name`; empty where a knob says nothing."""
    return (
        knobs.network,
        f"{knobs.size_hw[0]}x{knobs.size_hw[1]}",
        "full width" if knobs.width == 1 else f"w{knobs.width:g}",
        "dense" if knobs.rho is None else f"rho{knobs.rho:g}-{knobs.cwm_form}",
        knobs.method or "",
        _ALL_TOKENS if knobs.plan is None else str(knobs.plan),
        "full labels" if knobs.labels_stride == 1 else f"s{knobs.labels_stride}",
        f"t+{knobs.target_offset}",
        knobs.precision,
        "st32" if knobs.state_dtype == "fp32" else "st16",
    )


def _with_compensation(rows: Sequence[PickRow], names: Mapping[str, str]) -> dict[str, str]:
    """Row name -> its configuration's short name, and how labels are moved where that is not the only way shown."""
    moved = [row for row in rows if row.compensation != "none"]
    ways = Counter(row.configuration for row in moved)
    parts = {row.compensation: row.compensation.split("_") for row in moved}
    shared = set.intersection(*map(set, parts.values())) if parts else set()
    labels = {}
    for row in rows:
        way = " ".join(part for part in parts.get(row.compensation, ()) if part not in shared)
        labels[row.name] = names[row.configuration] + (f", {way}" if way and ways[row.configuration] > 1 else "")
    return labels


@dataclass
class Obstacles:
    """Boxes on a canvas that no name may cover, in pixels: left, bottom, right, top."""

    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Of what is drawn."""
    names: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Of names that are placed."""

    def add_point(self, place: tuple[float, float], radius: float) -> None:
        """A marker."""
        x, y = place
        self.boxes.append((x - radius, y - radius, x + radius, y + radius))

    def add_line(self, begin: tuple[float, float], end: tuple[float, float], width: float) -> None:
        """A straight line, as small boxes along it."""
        steps = max(2, int(math.dist(begin, end) / 4))
        for x, y in zip(np.linspace(begin[0], end[0], steps), np.linspace(begin[1], end[1], steps), strict=True):
            self.add_point((float(x), float(y)), width / 2)

    def hit(self, boxes: np.ndarray, *, names_only: bool = False) -> np.ndarray:
        """How many obstacles each of the float `(n, 4)` boxes touches: int `(n,)`."""
        others = np.array(self.names if names_only else self.boxes + self.names).reshape(-1, 4)
        apart = (boxes[:, None, :2] >= others[None, :, 2:]) | (boxes[:, None, 2:] <= others[None, :, :2])
        return np.asarray(~apart.any(axis=2)).sum(axis=1)


def place_name(axes: Any, point: tuple[float, float], text: Any, obstacles: Obstacles, *, must: bool) -> bool:
    """Move `text`, an annotation of `point` in its axes, to the nearest free place, and make it an obstacle.

    Args:
        point: in pixels.
        must: take the best place also where none is free.

    Returns:
        Whether there was a place. The text is removed when there was none.
    """
    pixels = axes.figure.dpi / 72
    extent = text.get_window_extent(axes.figure.canvas.get_renderer())
    half = np.array([extent.width, extent.height]) / 2 + _MARGIN_POINTS * pixels
    # From the right side on, downwards first: points lie at the upper end of a line down from them more often than not.
    angles = -np.arange(_DIRECTIONS) * 2 * math.pi / _DIRECTIONS
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = np.repeat(np.array(_DISTANCES_POINTS), _DIRECTIONS)[:, None] * pixels
    ways = np.tile(ways, (len(_DISTANCES_POINTS), 1))
    centres = np.array(point) + ways * (reach + half)
    boxes = np.concatenate([centres - half, centres + half], axis=1)
    frame = axes.get_window_extent()
    inside = (boxes[:, :2] >= (frame.x0, frame.y0)).all(axis=1) & (boxes[:, 2:] <= (frame.x1, frame.y1)).all(axis=1)
    hits = obstacles.hit(boxes)
    cost = reach[:, 0] / pixels + 1e3 * (hits + 10 * ~inside)
    for index in np.flatnonzero(inside & (hits == 0)):
        leader = _leader(point, boxes[index])
        # The first steps are over what is drawn of the point itself.
        cost[index] += _COVERED * float((obstacles.hit(leader[len(leader) // 3 :]) > 0).mean())
        cost[index] += 1e3 * int(obstacles.hit(leader, names_only=True).sum())
    best = int(cost.argmin())
    if cost[best] > _DEAREST and not must:
        text.remove()
        return False
    text.set_position(((centres[best] - np.array(point)) / pixels).tolist())
    obstacles.boxes += [tuple(each) for each in _leader(point, boxes[best]).tolist()]
    obstacles.names.append(tuple(boxes[best].tolist()))
    return True


def _leader(point: tuple[float, float], box: np.ndarray) -> np.ndarray:
    """Small boxes float `(n, 4)` along the line that joins the point and the name in the box, towards its middle."""
    middle = (box[:2] + box[2:]) / 2
    steps = max(8, int(np.hypot(*(middle - point)) / 2))
    line = np.array(point) + np.linspace(0, 1, steps)[:, None] * (middle - point)
    line = line[((line < box[:2]) | (line > box[2:])).any(axis=1)]
    return np.concatenate([line - 0.5, line + 0.5], axis=1)
