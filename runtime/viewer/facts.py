"""What the loop tells the live view's server beside frames, labels and figures; JSON-ready."""

from typing import Any

from edgeseg.classes import ClassSet, distinct_colours
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.source_address import public_name
from edgeseg.runtime.viewer.board import Offered


def class_set(loop: Loop) -> ClassSet:
    """The classes of the loop's bundle; a session without any gets numbers for names."""
    known = loop.session.classes
    return known or ClassSet(tuple(str(value) for value in range(254)), distinct_colours(254))


def loop_facts(loop: Loop) -> dict[str, Any]:
    """What runs: source, configuration, what was picked and promised, and counts."""
    picked = loop.session.pick
    return {
        "configuration": loop.session.configuration.name,
        "source": public_name(loop.source.name),
        "source_fps": loop.source.fps,
        "expected_fps": _expected_fps(loop),
        "expected_ms": None if picked is None else picked.row.p50_ms,
        "expected_slamiou": None if picked is None else picked.row.streaming_lamiou,
        "compensation": loop.compensation.name,
        "rate": loop.rate,
        "counts": loop.counts,
        "session_events": loop.session.events.counts,
        "is_lost": loop.source.is_lost,
    }


def picture_facts(loop: Loop, offered: Offered) -> dict[str, Any]:
    """What goes with a result that is shown."""
    result = offered.result
    return {
        "number": offered.number,
        "frame_index": result.frame_index,
        "configuration": result.configuration,
        "age_ms": round(1e3 * result.age_s, 2),
        "step_ms": round(result.step_ms, 2),
        "fallback": result.fallback,
        "counts": loop.counts,
    }


def _expected_fps(loop: Loop) -> float | None:
    """Results per second that the device profile promises; None where nothing was picked."""
    if loop.rate == "camera":
        return loop.source.fps
    picked = loop.session.pick
    return None if picked is None else min(loop.source.fps, 1e3 / picked.row.p50_ms)
