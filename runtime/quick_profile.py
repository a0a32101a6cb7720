"""The quick measurement that `load` picks by when no device profile fits; it is kept in the user's cache.

So a service that is started again does not measure again, and picks what it picked before. One that is kept is found by
all that its latencies follow from: bundle, what was asked, machine, power mode, libraries.
"""

import hashlib
import json
import logging
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.cache_folder import cache_folder
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import ArtifactError, InputError
from edgeseg.runtime.device import device_facts, device_name
from edgeseg.runtime.profiler import profile_bundle

SAMPLES = 15
"""Timed steps per candidate."""
_FACTS = ("cpu", "usable_cores", "governor", "versions", "jetson", "jetpack", "gpus", "power_mode")
_log = logging.getLogger(__name__)


def quick_profile(
    bundle: Bundle,
    *,
    why: str,
    device: str,
    fps: float,
    threads: int | None,
    frame_size_hw: tuple[int, int] | None,
    compensations: Sequence[Compensation] | None,
    progress: Callable[[str, float], None] | None,
) -> DeviceProfile:
    """The one that is kept, else one that is measured now; arguments and errors as of `load`.

    Args:
        why: what is wrong with the stored profile, for the log.
    """
    asked = [
        f"--device {device}" if device != "cpu" else "",
        f"--fps {fps:g}",
        f"--threads {threads}" if threads else "",
        "--frame-size {}x{}".format(*frame_size_hw) if frame_size_hw else "",
    ]
    advice = f"edgeseg profile {shlex.quote(str(bundle.root))} {' '.join(filter(None, asked))} measures it well"
    path = _path(bundle, device, fps, threads, frame_size_hw, compensations)
    if (kept := _kept(path, bundle)) is not None:
        _log.warning("%s: picking by the quick measurement of %s, %s; %s", why, kept.measured_at, path, advice)
        return kept
    _log.warning("%s: measuring %s now; %s", why, bundle.name, advice)
    profile = profile_bundle(
        bundle,
        device=device,
        fps=fps,
        samples=SAMPLES,
        threads=threads,
        frame_size_hw=frame_size_hw,
        progress=progress,
        compensations=compensations,
    )
    if profile.invalid_reason is None:
        _keep(profile, path)
    return profile


def _path(
    bundle: Bundle,
    device: str,
    fps: float,
    threads: int | None,
    frame_size_hw: tuple[int, int] | None,
    compensations: Sequence[Compensation] | None,
) -> Path:
    facts = device_facts()
    names = None if compensations is None else [entry.name for entry in compensations]
    key = [
        bundle.digest,
        device,
        # A camera's rate that is measured differs a little from start to start; it decides only what may be skipped.
        f"{fps:.2g}",
        threads,
        frame_size_hw,
        names,
        SAMPLES,
        {name: facts.get(name) for name in _FACTS},
    ]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder("profiles") / f"{device_name(device)}-{digest[:16]}.json"


def _kept(path: Path, bundle: Bundle) -> DeviceProfile | None:
    if not path.is_file():
        return None
    try:
        kept = DeviceProfile.load(path)
        kept.check_fits(bundle)
    except ArtifactError as error:
        _log.warning("the quick measurement that was kept is of no use: %s", error)
        return None
    return kept


def _keep(profile: DeviceProfile, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        profile.save(path)
    except (InputError, OSError) as error:
        _log.warning("the quick measurement is not kept for the next start: %s", error)
