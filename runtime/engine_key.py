"""What a TensorRT engine depends on, and whether it runs at a place: library, version, GPU, builder options."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeseg.errors import ArtifactError

LIBRARIES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
"""Module -> what people call it."""
DEVICE_FAMILIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""First part of a device string -> the module that runs there."""


@dataclass(frozen=True)
class EngineHost:
    """Where an engine is to run."""

    device: str
    """Device string, such as `tensorrt:0`."""
    library: str
    """One of `LIBRARIES`."""
    version: str
    """The library's `__version__`."""
    compute_capability: str
    """Of the GPU, such as `8.7`."""
    gpu: str
    """The GPU's name, as its driver gives it."""

    def __str__(self) -> str:
        return f"{LIBRARIES[self.library]} {self.version} on {self.gpu} ({self.compute_capability})"


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on: of equal keys one engine is enough."""

    graph_sha256: str
    """`graph_sha256` of the graph."""
    library: str
    """One of `LIBRARIES`."""
    version: str
    """The library's `__version__`."""
    compute_capabilities: tuple[str, ...]
    """Those it runs on, such as `("8.7",)`; `12.0+` stands for 12.0 and later."""
    gpu: str | None
    """Name of the one GPU model it runs on; None for all of those compute capabilities."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Builder options, JSON-ready: `edgeseg.export.tensorrt_build.BuildOptions.as_dict`."""

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise ArtifactError(f"unknown engine library {self.library!r} | known: {', '.join(LIBRARIES)}")
        if not self.compute_capabilities:
            raise ArtifactError("an engine is built for at least one compute capability | got none")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the key in file names."""
        content = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def built_for(self) -> str:
        """Library, version and GPU, in words."""
        where = f"compute capability {', '.join(self.compute_capabilities)}"
        on = f"{self.gpu} ({where})" if self.gpu else f"any GPU of {where}"
        return f"{LIBRARIES[self.library]} {self.version} on {on}"

    def misfit(self, host: EngineHost) -> str | None:
        """Why an engine of this key does not run on `host`, as one clause; None when it does."""
        if self.library != host.library:
            return f"it is for {LIBRARIES[self.library]}"
        compatible = bool(self.options.get("version_compatible"))
        if host.version != self.version and not (compatible and _reads(host.version, self.version)):
            return f"it is for {LIBRARIES[self.library]} {self.version}" + (" and later" if compatible else "")
        if not any(_covers(entry, host.compute_capability) for entry in self.compute_capabilities):
            return f"it is for compute capability {', '.join(self.compute_capabilities)}"
        if self.gpu is not None and self.gpu != host.gpu:
            return f"it is for {self.gpu}"
        return None


def _covers(entry: str, compute_capability: str) -> bool:
    if entry.endswith("+"):
        return _numbers(compute_capability) >= _numbers(entry[:-1])
    return entry == compute_capability


def _reads(version: str, built: str) -> bool:
    """Whether a library reads a version-compatible engine of another: the same or the next major version, forward."""
    here, there = _numbers(version), _numbers(built)
    return here >= there and here[0] - there[0] <= 1


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in version.split("."))
