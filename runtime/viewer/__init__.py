"""The live view of a camera loop in a browser (extra `live`): `Viewer` serves it, `Serving` says where and to whom."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.runtime.viewer.address import Listener, Serving, listen
    from edgeseg.runtime.viewer.connections import Limits
    from edgeseg.runtime.viewer.live_view import Viewer

_WHERE = {
    "Limits": "edgeseg.runtime.viewer.connections",
    "Listener": "edgeseg.runtime.viewer.address",
    "Serving": "edgeseg.runtime.viewer.address",
    "Viewer": "edgeseg.runtime.viewer.live_view",
    "listen": "edgeseg.runtime.viewer.address",
}

__all__ = ["Limits", "Listener", "Serving", "Viewer", "listen"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
