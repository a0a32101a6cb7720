"""A device profile: the latencies of a bundle's configurations on one device, every sample kept."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.atomic import write_text
from edgeseg.bundle import Bundle, Candidate
from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.errors import ArtifactError

FORMAT = "edgeseg-device-profile"
MAJOR, MINOR = 1, 2
STABLE_VARIATION = 0.025
"""Coefficient of variation above which a measurement is called unstable (the threshold that trtexec warns at)."""


@dataclass(frozen=True)
class LatencyProfile:
    """Latencies of one configuration, from frame bytes in to label bytes out."""

    name: str
    """Name of the configuration."""
    digest: str
    """Digest of the configuration that was measured (`BundleConfiguration.digest`)."""
    samples_ms: tuple[float, ...]
    """Every sample after the warm-up, in the order of measurement; none is trimmed. Empty when it was never run."""
    warm_up_steps: int
    peak_memory_mb: float | None = None
    """Resident memory that loading and running it added, where the device tells."""
    first_step_ms: float | None = None
    """Latency of the first step after a reset, which the samples leave out; None for a stateless configuration."""
    skipped: str | None = None
    """Why measuring stopped early (it could no longer win), or None when it was measured in full."""
    compensation: Compensation = UNCOMPENSATED
    """How the labels were moved to the present. A sample then ends when the moved labels can be read, and the flow of
    the camera's frames ran beside the network, as it does in the loop."""
    flow_ms: tuple[float, ...] = ()
    """With compensation: what each camera frame's flow took, beside the network."""
    energy_mj: float | None = None
    """Mean energy of a step, in mJ of the whole board, idle power included; None where the board tells no power, or the
    steps were over before it was looked at often enough."""
    device_ms: tuple[float, ...] = ()
    """What the device itself counted for the step of each sample, copies included: the rest is the host's. Empty where
    the device does not count."""

    @property
    def latencies_s(self) -> np.ndarray:
        """float64 `(n,)` samples in seconds."""
        return np.asarray(self.samples_ms, np.float64) / 1000.0

    def percentile_ms(self, percent: float) -> float:
        """Percentile of the samples; nan without samples."""
        return float(np.percentile(self.samples_ms, percent)) if self.samples_ms else float("nan")

    @property
    def variation(self) -> float:
        """Coefficient of variation of the samples."""
        values = np.asarray(self.samples_ms)
        return float(values.std() / values.mean()) if values.size else float("nan")

    @property
    def drift(self) -> float:
        """Median of the last third of the samples over that of the first third, minus 1: heat or load shows here."""
        third = len(self.samples_ms) // 3
        if third == 0:
            return 0.0
        return float(np.median(self.samples_ms[-third:]) / np.median(self.samples_ms[:third]) - 1.0)

    @property
    def stable(self) -> bool:
        """Whether variation and drift stay below `STABLE_VARIATION`."""
        return self.variation <= STABLE_VARIATION and abs(self.drift) <= STABLE_VARIATION


@dataclass(frozen=True)
class DeviceProfile:
    """What `edgeseg profile` measured on one device in one power state."""

    device: str
    """Device string, as given to `--device`."""
    facts: Mapping[str, Any]
    """Model, cores, governor, library versions, load: what the figures depend on."""
    bundle_name: str
    bundle_digest: str
    fps: float
    """Frame rate that decided which configurations could be skipped; any rate can be asked of the samples."""
    exhaustive: bool
    """Whether every configuration was measured in full."""
    frame_size_hw: tuple[int, int] | None
    """Size of the camera frames that the steps took; None: each configuration's own size."""
    threads: int
    entries: tuple[LatencyProfile, ...]
    measured_at: str
    command_line: str
    invalid_reason: str | None = None
    """Why the latencies are not those of the device in this power state: its clocks were cut meanwhile. None when they
    were not, or the device does not tell."""

    def entry(self, name: str) -> LatencyProfile | None:
        """The entry of configuration `name` without compensation, if it has one."""
        return self._entry(name, UNCOMPENSATED)

    def entry_of(self, candidate: Candidate) -> LatencyProfile | None:
        """The entry of a candidate, if it was measured."""
        return self._entry(candidate.configuration.name, candidate.compensation)

    def _entry(self, name: str, compensation: Compensation) -> LatencyProfile | None:
        return next((e for e in self.entries if e.name == name and e.compensation == compensation), None)

    def check_fits(self, bundle: Bundle) -> None:
        """Refuse a bundle that is not the measured one.

        Raises:
            ArtifactError: the profile names other hashes.
        """
        if self.bundle_digest != bundle.digest:
            raise ArtifactError(
                f"the profile was measured with another bundle | it names {self.bundle_name} "
                f"{self.bundle_digest[:12]}, got {bundle.name} {bundle.digest[:12]}: run edgeseg profile {bundle.root}"
            )

    def save(self, path: Path | str) -> None:
        """Write the profile as JSON, whole or not at all."""
        values = {
            "format": FORMAT,
            "format_version": [MAJOR, MINOR],
            **asdict(self),
            "entries": [
                {
                    **asdict(entry),
                    "p50_ms": _json_number(entry.percentile_ms(50)),
                    "p90_ms": _json_number(entry.percentile_ms(90)),
                    "p99_ms": _json_number(entry.percentile_ms(99)),
                    "max_ms": max(entry.samples_ms, default=None),
                    "stable": entry.stable,
                }
                for entry in self.entries
            ],
        }
        write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path | str, *, of_bundle: Path | str = "BUNDLE") -> "DeviceProfile":
        """Read a profile.

        Args:
            of_bundle: the bundle that it is to be of, for the message that says how to measure it.

        Raises:
            ArtifactError: missing, unreadable, or of an unknown major version.
        """
        path = Path(path)
        if not path.is_file():
            raise ArtifactError(f"no device profile at {path} | measure one: edgeseg profile {of_bundle} --out {path}")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ArtifactError(f"{path} is not readable ({error}) | measure again: edgeseg profile") from error
        if not isinstance(values, dict):
            raise ArtifactError(f"{path} is not a device profile | expected a file that edgeseg profile wrote")
        try:
            if values.get("format") != FORMAT or values["format_version"][0] != MAJOR:
                raise ArtifactError(
                    f"{path} is not a device profile that this edgeseg reads | got {values.get('format')!r} "
                    f"{values.get('format_version')}, expected {FORMAT!r} {MAJOR}.x"
                )
            size = values["frame_size_hw"]
            return cls(
                device=values["device"],
                facts=values["facts"],
                bundle_name=values["bundle_name"],
                bundle_digest=values["bundle_digest"],
                fps=float(values["fps"]),
                exhaustive=bool(values["exhaustive"]),
                frame_size_hw=(int(size[0]), int(size[1])) if size else None,
                threads=int(values["threads"]),
                entries=tuple(_parse_entry(entry) for entry in values["entries"]),
                measured_at=values["measured_at"],
                command_line=values["command_line"],
                # Before format 1.2 nobody looked.
                invalid_reason=values.get("invalid_reason"),
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ArtifactError(f"{path} is damaged ({error!r}) | measure again: edgeseg profile") from error


def _parse_entry(values: dict[str, Any]) -> LatencyProfile:
    samples = tuple(float(sample) for sample in values["samples_ms"])
    if not all(0 <= sample < float("inf") for sample in samples):
        raise ValueError("a latency is negative or not finite")
    memory, first_step, energy = values["peak_memory_mb"], values.get("first_step_ms"), values.get("energy_mj")
    return LatencyProfile(
        name=values["name"],
        digest=values["digest"],
        samples_ms=samples,
        warm_up_steps=int(values["warm_up_steps"]),
        peak_memory_mb=None if memory is None else float(memory),
        first_step_ms=None if first_step is None else float(first_step),
        skipped=values["skipped"],
        # Profiles of format 1.0 know no compensation.
        compensation=Compensation.from_dict(values.get("compensation", {"mode": "none"})),
        flow_ms=tuple(float(sample) for sample in values.get("flow_ms", ())),
        device_ms=tuple(float(sample) for sample in values.get("device_ms", ())),
        energy_mj=None if energy is None else float(energy),
    )


def _json_number(value: float) -> float | None:
    return None if np.isnan(value) else value
