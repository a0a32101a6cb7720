"""Where files go that can be made again at any time."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`edgeseg/KIND` in the user's folder for caches; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg" / kind
