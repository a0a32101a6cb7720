"""What the server tells viewers about a loop beside its pictures; JSON-ready."""

from collections.abc import Mapping
from typing import Any

from edgeseg.classes import ClassSet
from edgeseg.runtime.viewer.board import HISTORY_S, Point
from edgeseg.runtime.viewer.board_reader import BoardReader, Shown

RECENT_S = 1.5
"""Points of the plots that come with each picture: those since the picture before, and some more."""
HISTORY_POINTS = 900


def about(facts: Mapping[str, Any], classes: ClassSet, board: BoardReader) -> dict[str, Any]:
    """What a page is told once: classes, source, what was picked and promised, and the last minute."""
    points = board.points()
    told = ("source", "source_fps", "expected_fps", "expected_ms", "expected_slamiou", "compensation", "rate")
    return {
        "classes": [{"name": name, "rgb": list(rgb)} for name, rgb in zip(classes.names, classes.palette, strict=True)],
        **{name: facts[name] for name in told},
        "history_s": HISTORY_S,
        "points": _short(points[:: 1 + len(points) // HISTORY_POINTS]),
        "now_s": round(board.now_s, 3),
    }


def state(shown: Shown, board: BoardReader) -> dict[str, Any]:
    """What goes with each picture."""
    return {
        **shown.facts,
        "fps": round(board.fps(), 2),
        "points": _short(board.points(RECENT_S)),
        "now_s": round(board.now_s, 3),
        "without_labels_s": round(board.without_labels_s(board.figures()), 3),
    }


def health(board: BoardReader, stale_s: float) -> dict[str, Any]:
    """Whether labels come: `ok`, `starting` before the first ones, or `stale` when the network gave no new ones for
    `stale_s` seconds, counted from when the loop was there. Old ones that are still moved along with the camera's
    frames are results, and not new labels."""
    figures = board.figures()
    without_s = board.without_labels_s(figures)
    has_begun = figures.number or board.facts_number
    status = "ok" if figures.number else "starting"
    return {
        "status": "stale" if has_begun and without_s > stale_s else status,
        "seconds_since_new_labels": round(without_s, 3) if figures.number else None,
        "seconds_since_result": round(board.silent_s(figures), 3) if figures.number else None,
        "results": figures.number,
    }


def _short(points: list[Point]) -> list[list[float]]:
    return [[round(point.at_s, 3), round(point.step_ms, 2), round(point.age_ms, 2)] for point in points]
