"""Where results go: an overlay video, lines of JSON, label maps as PNG files, shared memory for another process.

    from edgeseg.runtime.sinks import JsonLines, sinking

    with sinking([JsonLines("lines.jsonl")], wait=False) as put, runtime.Loop(session, 0) as loop:
        for result in loop:
            put(result)

Each sink has a thread and a short queue of its own, so that one that is slow holds up neither the loop nor another.
What a sink has written is there whatever becomes of the process: see each class for what a reader finds after a
`kill -9`. None destroys what an earlier run wrote unless told to.

The names below are imported when they are first used: a process that reads `SharedLabels` loads nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.runtime.sinks.base import FileSink, Sink, SinkSummary
    from edgeseg.runtime.sinks.json_lines import JsonLines
    from edgeseg.runtime.sinks.label_images import LabelImages
    from edgeseg.runtime.sinks.segments import Segments
    from edgeseg.runtime.sinks.shared_labels import SharedLabels, SharedResult
    from edgeseg.runtime.sinks.shared_labels_sink import SharedLabelsSink
    from edgeseg.runtime.sinks.threads import SinkThread, sinking
    from edgeseg.runtime.sinks.video import overlay_video

_WHERE = {
    "FileSink": "base",
    "JsonLines": "json_lines",
    "LabelImages": "label_images",
    "Segments": "segments",
    "SharedLabels": "shared_labels",
    "SharedLabelsSink": "shared_labels_sink",
    "SharedResult": "shared_labels",
    "Sink": "base",
    "SinkSummary": "base",
    "SinkThread": "threads",
    "overlay_video": "video",
    "sinking": "threads",
}

__all__ = [
    "FileSink",
    "JsonLines",
    "LabelImages",
    "Segments",
    "SharedLabels",
    "SharedLabelsSink",
    "SharedResult",
    "Sink",
    "SinkSummary",
    "SinkThread",
    "overlay_video",
    "sinking",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
