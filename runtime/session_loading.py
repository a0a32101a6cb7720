"""Which configuration of a bundle becomes a session: the one named, or the one picked for the device and frame rate."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.config import UNCOMPENSATED, Compensation, parse_compensations
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import InputError
from edgeseg.runtime.fitting_profile import fitting_profile
from edgeseg.runtime.pick import pick
from edgeseg.runtime.schedule import CHOICES, LATEST_FRAME, Schedule
from edgeseg.runtime.session import Session
from edgeseg.shipped import bundle_path


def load(
    bundle: Path | str | Bundle,
    *,
    device: str = "cpu",
    fps: float | None = None,
    configuration: str | None = None,
    profile: DeviceProfile | Path | str | None = None,
    threads: int | None = None,
    frame_size_hw: tuple[int, int] | None = None,
    colour_order: str = "RGB",
    compensation: Compensation | str | None = None,
    schedule: Schedule | str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Session:
    """Load one configuration of a bundle: the one named, else the one picked for this device and frame rate.

    The pick chooses a motion compensation too, which `edgeseg.runtime.Loop` applies. `Session.step` does not: who calls
    it alone says compensation="none", else the pick may take a slow network whose labels were to be moved.

    Without `configuration` the pick is made from `profile`, else from the profile that `edgeseg profile` stored for
    this device (`profiles/<device>.json` in the current folder) when it is of this bundle, of these `threads` and of
    this frame size or the configurations' own (where they are given), else from a quick measurement, for which `fps`
    must be given. The log says why a stored profile was not used.

    Args:
        bundle: bundle folder, `shipped:NAME`, or an open bundle.
        device: device string, such as `cpu` or `cuda:0`.
        fps: frame rate of the camera, frames per second; None: that of the profile.
        configuration: name of a configuration; then nothing is picked.
        profile: device profile, or its path.
        threads: CPU threads of one step; None: those of the profile, else all that this process may use.
        frame_size_hw: height and width of the camera's frames; None: those of the configuration.
        colour_order: `RGB` or `BGR`, order of the channels in the frames that `step` will be given.
        compensation: how the loop is to move labels, or its name, such as `late-warp+extrapolate`: the pick is then
            among configurations with it. None: what the pick chooses, and none for a configuration that was named.
        schedule: when the loop is to start a step (`edgeseg.runtime.schedule.Schedule`), or its name. None: what the
            pick chooses, and `latest-frame` for a configuration that was named.
        progress: called while it measures, with a configuration's name and the share of the work that is done.

    Raises:
        ArtifactError: the bundle is damaged, or the profile is of another bundle.
        DeviceError: the device is unknown or not usable here.
        InputError: there is nothing to pick by: no configuration, no profile, no frame rate. Or an unknown name of a
            compensation, or several, or of a schedule.
    """
    scheduled = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    moving = compensation_of(compensation) if isinstance(compensation, str) else compensation
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle_path(bundle))
    if configuration is not None:
        picked, entry = None, opened.configuration(configuration)
        moving, scheduled = moving or UNCOMPENSATED, scheduled or LATEST_FRAME
    else:
        # Marking changes what hidden pixels get, and neither the table nor the time of the flow.
        asked = None if moving is None else (replace(moving, mark_invalid=False),)
        fitting = fitting_profile(
            opened,
            device=device,
            fps=fps,
            profile=profile,
            threads=threads,
            frame_size_hw=frame_size_hw,
            progress=progress,
            compensations=asked,
        )
        schedules = CHOICES if scheduled is None else (scheduled,)
        picked = pick(opened, fitting, fps or fitting.fps, compensations=asked, schedules=schedules)
        entry = picked.configuration
        moving, scheduled = moving or picked.candidate.compensation, scheduled or picked.schedule
        threads = threads or fitting.threads
    opened.verify(entry.files)
    return Session(
        opened.root,
        entry,
        graph_colour_order=opened.colour_order,
        device=device,
        threads=threads,
        frame_size_hw=frame_size_hw,
        colour_order=colour_order,
        classes=opened.classes,
        pick=picked,
        compensation=moving,
        schedule=scheduled,
    )


def compensation_of(name: str) -> Compensation:
    """The one compensation of that name: a mode, or a `Compensation.name`.

    Raises:
        InputError: no such compensation, or several.
    """
    found = parse_compensations(name)
    if len(found) != 1:
        raise InputError(f"a loop moves labels in one way | got {name!r}, expected one compensation")
    return found[0]
