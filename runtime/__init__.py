"""Run bundles: sessions, the camera loop, device profiles and picks. Imports neither torch nor anything of training.

    import edgeseg.runtime as runtime

    session = runtime.load("street.edgeseg", device="cpu", fps=15)
    with runtime.Loop(session, source="video.mp4") as loop:
        for result in loop:
            ...

The session says how labels are moved to the present (`session.compensation`, which the pick chooses along with the
configuration), and the loop does it. In a capture loop of one's own a `Compensator` does:

    session = runtime.load("street.edgeseg", fps=15, configuration="swiftnet_r18_180x240")
    compensator = runtime.Compensator(runtime.Compensation(), ignore_value=session.classes.ignore_value)

    compensator.add_frame(index, frame_rgb, captured_at_s)        # each camera frame, on the camera's thread
    compensator.add_labels(session.step(frame_rgb), index)        # when the network is ready, on its own thread
    moved = compensator.labels_at(captured_at_s + 1 / 15)         # labels for the next frame, on the camera's thread
    if moved is not None:                                         # None until the first labels have come
        show(moved.labels)                                        # moved.fallback says why they could not be moved

The names below are imported when they are first used, so that `import edgeseg.runtime` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.config import UNCOMPENSATED, Compensation
    from edgeseg.runtime.camera import Reconnection
    from edgeseg.runtime.compensation import Compensator, MovedLabels
    from edgeseg.runtime.kept_session import keep
    from edgeseg.runtime.loop import Loop
    from edgeseg.runtime.pick import Pick, PickRow
    from edgeseg.runtime.profiler import profile_bundle
    from edgeseg.runtime.result import LoopSummary, Result
    from edgeseg.runtime.schedule import Schedule
    from edgeseg.runtime.session import Session
    from edgeseg.runtime.session_loading import load
    from edgeseg.runtime.source import Frame, Source
    from edgeseg.runtime.source_opening import open_source

_WHERE = {
    "UNCOMPENSATED": "edgeseg.config",
    "Compensation": "edgeseg.config",
    "Compensator": "edgeseg.runtime.compensation",
    "Frame": "edgeseg.runtime.source",
    "Loop": "edgeseg.runtime.loop",
    "LoopSummary": "edgeseg.runtime.result",
    "MovedLabels": "edgeseg.runtime.compensation",
    "Pick": "edgeseg.runtime.pick",
    "PickRow": "edgeseg.runtime.pick",
    "Reconnection": "edgeseg.runtime.camera",
    "Result": "edgeseg.runtime.result",
    "Schedule": "edgeseg.runtime.schedule",
    "Session": "edgeseg.runtime.session",
    "Source": "edgeseg.runtime.source",
    "keep": "edgeseg.runtime.kept_session",
    "load": "edgeseg.runtime.session_loading",
    "open_source": "edgeseg.runtime.source_opening",
    "profile_bundle": "edgeseg.runtime.profiler",
}

__all__ = [
    "UNCOMPENSATED",
    "Compensation",
    "Compensator",
    "Frame",
    "Loop",
    "LoopSummary",
    "MovedLabels",
    "Pick",
    "PickRow",
    "Reconnection",
    "Result",
    "Schedule",
    "Session",
    "Source",
    "keep",
    "load",
    "open_source",
    "profile_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    """The names above, for completion at a prompt, which would not see them before their first use."""
    return sorted({*globals(), *__all__})
