"""Run bundles: sessions, the camera loop, device profiles and picks. Imports neither torch nor anything of training.

    import edgeseg.runtime as runtime

    session = runtime.load("street.edgeseg", device="cpu", fps=15)
    with runtime.Loop(session, source="video.mp4") as loop:
        for result in loop:
            ...

The names below are imported when they are first used, so that `import edgeseg.runtime` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.runtime.loop import Loop
    from edgeseg.runtime.pick import Pick, PickRow
    from edgeseg.runtime.profiler import profile_bundle
    from edgeseg.runtime.result import LoopSummary, Result
    from edgeseg.runtime.session import Session, load
    from edgeseg.runtime.source import Frame, Source, open_source

_WHERE = {
    "Frame": "source",
    "Loop": "loop",
    "LoopSummary": "result",
    "Pick": "pick",
    "PickRow": "pick",
    "Result": "result",
    "Session": "session",
    "Source": "source",
    "load": "session",
    "open_source": "source",
    "profile_bundle": "profiler",
}

__all__ = [
    "Frame",
    "Loop",
    "LoopSummary",
    "Pick",
    "PickRow",
    "Result",
    "Session",
    "Source",
    "load",
    "open_source",
    "profile_bundle",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    """The names above, for completion at a prompt, which would not see them before their first use."""
    return sorted({*globals(), *__all__})
