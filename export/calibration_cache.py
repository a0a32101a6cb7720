"""Ranges of graphs that were calibrated before, kept in a folder and used again when nothing changed.

One file per graph, named by a key over everything that its ranges follow from. A file that is damaged, or was written
by another version, is as good as none and is replaced.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx

from edgeseg.atomic import check_writable, write_text
from edgeseg.errors import InputError

FORMAT = 1
"""Changes whenever ranges are measured otherwise."""
_QUANTISERS = ("nvidia-modelopt", "onnxruntime")
_log = logging.getLogger(__name__)


class CalibrationCache:
    """Ranges by key, in `folder`, which is made when the first are stored.

    Args:
        must_work: whether a folder that cannot be written is the user's mistake; else the cache is done without, and
            the log says so.

    Raises:
        InputError: the folder cannot be written, and `must_work`.
    """

    def __init__(self, folder: Path, *, must_work: bool = False) -> None:
        self.folder = folder
        self._must_work = must_work
        if must_work:
            check_writable(folder / "ranges.json")

    def get(self, key: str) -> dict[str, Any] | None:
        """The ranges stored under `key`; None when there are none, or they are damaged."""
        try:
            values = json.loads(self._path(key).read_text(encoding="utf-8"))
            ranges = values["ranges"]
            intact = values["key"] == key and values["sha256"] == _sha256(ranges) and isinstance(ranges, dict)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is damaged (%s): calibrating again", self._path(key), error)
            return None
        if not intact:
            _log.warning("%s is damaged (its content is not what was written): calibrating again", self._path(key))
            return None
        return dict(ranges)

    def put(self, key: str, ranges: Mapping[str, Any]) -> None:
        """Store JSON-able `ranges` under `key`, whole or not at all."""
        text = json.dumps({"key": key, "sha256": _sha256(ranges), "ranges": dict(ranges)})
        try:
            write_text(self._path(key), text)
        except InputError as error:
            if self._must_work:
                raise
            _log.warning("the calibration is not kept for the next export: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def ranges_key(graphs: Mapping[str, onnx.ModelProto], role: str, frames_sha256: str, settings: Sequence[str]) -> str:
    """What the ranges of the graph of `role` follow from, as hexadecimal digits.

    Args:
        graphs: all graphs of the configuration: the states that one reads are made by the others.
        settings: method and whatever else changes ranges.
    """
    digest = hashlib.sha256()
    for name, model in sorted(graphs.items()):
        digest.update(f"{name}\n".encode())
        digest.update(model.SerializeToString(deterministic=True))
    for text in (role, frames_sha256, f"format {FORMAT}", *settings, *(_installed(name) for name in _QUANTISERS)):
        digest.update(f"\n{text}".encode())
    return digest.hexdigest()


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} none"


def _sha256(ranges: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(ranges, sort_keys=True).encode()).hexdigest()
