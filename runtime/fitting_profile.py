"""Which device profile `load` picks by: the one given, the stored one when it fits, else a quick measurement."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeseg.bundle import Bundle, Candidate
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import InputError
from edgeseg.runtime.device import default_profile_path
from edgeseg.runtime.pick import check_pickable
from edgeseg.runtime.quick_profile import quick_profile

_log = logging.getLogger(__name__)


def fitting_profile(
    bundle: Bundle,
    *,
    device: str,
    fps: float | None,
    profile: DeviceProfile | Path | str | None,
    threads: int | None,
    frame_size_hw: tuple[int, int] | None,
    progress: Callable[[str, float], None] | None,
    compensations: Sequence[Compensation] | None = None,
) -> DeviceProfile:
    """The profile to pick by; arguments and errors as of `edgeseg.runtime.session_loading.load`.

    A profile that is given is used, with a warning in the log when it was measured otherwise, or while the board cut
    its clocks. The stored one is left aside then, with the reason in the log, and the candidates are measured for what
    was asked.

    A profile without compensation stands for what it holds, and the log says that labels will not be moved.

    Args:
        compensations: what the pick is to be among; None: those that the bundle has accuracy tables for.
    """
    if profile is not None:
        given = given_profile(bundle, device=device, profile=profile)
        if otherwise := measured_otherwise(given, threads, frame_size_hw):
            _log.warning("the profile %s: latencies may differ", otherwise)
        if given.invalid_reason is not None:
            _log.warning("the profile is invalid (%s): latencies are longer than they should be", given.invalid_reason)
        return given
    stored = default_profile_path(device)
    difference: str | None = "does not exist"
    if stored.is_file():
        found = DeviceProfile.load(stored)
        difference = measured_otherwise(found, threads, frame_size_hw) or _not_held(found, bundle, compensations)
        if found.invalid_reason is not None:
            difference = f"is invalid, the board cut its clocks meanwhile ({found.invalid_reason})"
        if found.bundle_digest != bundle.digest:
            difference = f"is of another bundle, {found.bundle_name} {found.bundle_digest[:12]}"
        if difference is None:
            if compensations is None and _lacks_all_moved(found, bundle):
                _log.warning("%s holds no compensation: labels are not moved; edgeseg profile measures it", stored)
            return found
    if fps is None:
        raise InputError(
            f"nothing to pick a configuration of {bundle.name} by: the stored profile {stored} {difference} | give "
            f"configuration, profile, or fps (then it is measured now), or run edgeseg profile {bundle.root} "
            f"--device {device}"
        )
    check_pickable(bundle)
    return quick_profile(
        bundle,
        why=f"the stored profile {stored} {difference}",
        device=device,
        fps=fps,
        threads=threads,
        frame_size_hw=frame_size_hw,
        compensations=compensations,
        progress=progress,
    )


def given_profile(bundle: Bundle, *, device: str, profile: DeviceProfile | Path | str) -> DeviceProfile:
    """The profile that a user gave, read and found to be of that bundle and device.

    Raises:
        ArtifactError: it is missing, unreadable, or of another bundle.
        InputError: it is of another device.
    """
    given = profile if isinstance(profile, DeviceProfile) else DeviceProfile.load(profile, of_bundle=bundle.root)
    given.check_fits(bundle)
    if given.device != device:
        raise InputError(
            f"the profile is of device {given.device} | got device {device}: measure that one, or load on it"
        )
    return given


def measured_otherwise(
    profile: DeviceProfile, threads: int | None, frame_size_hw: tuple[int, int] | None
) -> str | None:
    """In what a profile differs from what is asked, or None when its latencies stand for it.

    A profile at the configurations' own sizes stands for every frame size: it leaves out the resizing, and nothing
    else; unless it holds compensated entries, as the flow's time is that of the camera's frames. Nor does the frame
    rate matter: any rate can be asked of the samples.
    """
    if threads is not None and threads != profile.threads:
        return f"was measured with {profile.threads} threads, asked are {threads}"
    measured_hw = profile.frame_size_hw
    if measured_hw is not None and frame_size_hw is not None and measured_hw != tuple(frame_size_hw):
        return "was measured with frames of {} x {}, asked are {} x {}".format(*measured_hw, *frame_size_hw)
    has_flow = any(entry.flow_ms for entry in profile.entries)
    if has_flow and measured_hw is None and frame_size_hw is not None:
        return "has the flow of frames of the configurations' sizes, asked are {} x {}".format(*frame_size_hw)
    return None


def _not_held(profile: DeviceProfile, bundle: Bundle, compensations: Sequence[Compensation] | None) -> str | None:
    """That a profile has no samples with any of `compensations`: when all were raced they could not win."""
    candidates = [] if compensations is None else _scored(bundle, compensations)
    if not candidates or any(_has_samples(profile, entry) for entry in candidates):
        return None
    names = dict.fromkeys(entry.compensation.name for entry in candidates)
    return f"holds no latencies with {', '.join(names)}"


def _lacks_all_moved(profile: DeviceProfile, bundle: Bundle) -> bool:
    """Whether the bundle has tables of moved labels, and the profile never heard of moving any."""
    moved = [entry for entry in _scored(bundle, None) if entry.compensation.moves]
    return bool(moved) and all(profile.entry_of(entry) is None for entry in moved)


def _scored(bundle: Bundle, compensations: Sequence[Compensation] | None) -> list[Candidate]:
    return [entry for entry in bundle.candidates(compensations) if entry.table is not None]


def _has_samples(profile: DeviceProfile, candidate: Candidate) -> bool:
    entry = profile.entry_of(candidate)
    return entry is not None and bool(entry.samples_ms)
