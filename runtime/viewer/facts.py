"""What the live view tells about a loop beside its pictures."""

import re
from typing import Any

from edgeseg.classes import ClassSet, distinct_colours
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.viewer.hub import HISTORY_S, Hub, Offered, Point

RECENT_S = 1.5
"""Points of the plots that come with each picture: those since the picture before, and some more."""
HISTORY_POINTS = 900


def class_set(loop: Loop) -> ClassSet:
    """The classes of the loop's bundle; a session without any gets numbers for names."""
    known = loop.session.classes
    return known or ClassSet(tuple(str(value) for value in range(254)), distinct_colours(254))


def about(loop: Loop, hub: Hub) -> dict[str, Any]:
    """What a page is told once: classes, source, what was picked and promised, and the last minute."""
    classes, picked = class_set(loop), loop.session.pick
    points = hub.points()
    return {
        "classes": [{"name": name, "rgb": list(rgb)} for name, rgb in zip(classes.names, classes.palette, strict=True)],
        "source": public_name(loop.source.name),
        "source_fps": loop.source.fps,
        "expected_fps": _expected_fps(loop),
        "expected_ms": None if picked is None else picked.row.p50_ms,
        "expected_slamiou": None if picked is None else picked.row.streaming_lamiou,
        "compensation": loop.compensation.name,
        "rate": loop.rate,
        "history_s": HISTORY_S,
        "points": _short(points[:: 1 + len(points) // HISTORY_POINTS]),
        "now_s": round(hub.now_s, 3),
    }


def state(loop: Loop, hub: Hub, offered: Offered) -> dict[str, Any]:
    """What goes with each picture."""
    result = offered.result
    return {
        "number": offered.number,
        "frame_index": result.frame_index,
        "configuration": result.configuration,
        "age_ms": round(1e3 * result.age_s, 2),
        "step_ms": round(result.step_ms, 2),
        "fallback": result.fallback,
        "fps": round(hub.fps(), 2),
        "counts": loop.counts,
        "points": _short(hub.points(RECENT_S)),
        "now_s": round(hub.now_s, 3),
    }


def health(hub: Hub, stale_s: float) -> dict[str, Any]:
    """Whether results come: `ok`, `starting` before the first one, or `stale` when none came for `stale_s` seconds."""
    silent_s = hub.silent_s
    status = "starting" if hub.newest is None else "ok"
    return {
        "status": status if silent_s <= stale_s else "stale",
        "seconds_since_result": None if hub.newest is None else round(silent_s, 3),
        "results": 0 if hub.newest is None else hub.newest.number,
    }


def public_name(name: str) -> str:
    """A source's name without the user and password, and the query, that an address may hold."""
    return re.sub(r"\?\S*", "", re.sub(r"(?<=://)[^/\s]*@", "", name))


def _expected_fps(loop: Loop) -> float | None:
    """Results per second that the device profile promises; None where nothing was picked."""
    if loop.rate == "camera":
        return loop.source.fps
    picked = loop.session.pick
    return None if picked is None else min(loop.source.fps, 1e3 / picked.row.p50_ms)


def _short(points: list[Point]) -> list[list[float]]:
    return [[round(point.at_s, 3), round(point.step_ms, 2), round(point.age_ms, 2)] for point in points]
