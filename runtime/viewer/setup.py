"""What the live view's server is told once, when it starts."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.classes import ClassSet
from edgeseg.runtime.viewer.connections import Limits

FPS_MAX = 15.0
"""Pictures per second that leave the loop's process, at most."""
STALE_S = 5.0


@dataclass(frozen=True)
class Setup:
    """Settings of a server, and what never changes of the loop that it shows."""

    classes: ClassSet
    port: int
    token: str | None = field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    fps_max: float = FPS_MAX
    stale_s: float = STALE_S
    """Without new labels for so long, `/healthz` says 503."""
    limits: Limits = field(default_factory=Limits)
    log_level: int = logging.WARNING
    """What the loop's process would not log need not be sent there."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        files = {name: None if path is None else str(path.absolute()) for name, path in self._files().items()}
        return {**vars(self), **files, "classes": self.classes.as_dict(), "limits": asdict(self.limits)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Setup":
        """Inverse of `as_dict`."""
        files = {name: None if values[name] is None else Path(values[name]) for name in ("tls_cert", "tls_key")}
        classes, limits = ClassSet.from_dict(values["classes"]), Limits(**values["limits"])
        return cls(**{**values, **files, "classes": classes, "limits": limits})

    def _files(self) -> dict[str, Path | None]:
        return {"tls_cert": self.tls_cert, "tls_key": self.tls_key}
