"""What `edgeseg run` refuses before the camera is opened: that may be hours away, and a mistake is told at once."""

from typing import TYPE_CHECKING

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.config import Compensation
    from edgeseg.device_profile import DeviceProfile
    from edgeseg.runtime.schedule import Schedule


def refuse_contradictions(
    *, configuration: str | None, profile: str | None, schedule: "Schedule | None", adaptive: bool, no_pace: bool
) -> None:
    """Refuse options about the same thing of which one alone can be followed.

    Raises:
        InputError: the message says which, and what to leave out.
    """
    from edgeseg.runtime.schedule import SHRINKING_TAIL

    if configuration and profile:
        raise InputError("--configuration and --profile contradict each other | name one, or let the other pick")
    if no_pace and schedule == SHRINKING_TAIL:
        raise InputError(
            "--no-pace and --schedule shrinking-tail contradict each other | frames that wait have no tail: "
            "leave one out"
        )
    if adaptive and configuration:
        raise InputError(
            "--adaptive and --configuration contradict each other | name the one to stay with, or let the pick begin"
        )
    if adaptive and no_pace:
        raise InputError(
            "--adaptive and --no-pace contradict each other | frames that wait make no configuration too slow: leave "
            "one out"
        )


def checked_names(
    bundle: "Bundle", *, configuration: str | None, profile: str | None, device: str, threads: int | None
) -> "DeviceProfile | None":
    """Refuse what `load` would refuse, as far as that needs no camera: one may be hours away; the profile, read.

    Raises:
        EdgesegError: as of `load`.
    """
    from edgeseg.runtime.backends.base import runner_class
    from edgeseg.runtime.fitting_profile import given_profile
    from edgeseg.runtime.threads import checked_threads

    runner_class(device)
    checked_threads(threads)
    if configuration is not None:
        bundle.configuration(configuration)
    return None if profile is None else given_profile(bundle, device=device, profile=profile)


def check_moved(compensation: "Compensation", *, mark_invalid: bool, rate: str | None, check_consistency: bool) -> None:
    """Refuse options of moved labels where none are moved.

    Raises:
        InputError: the message says which.
    """
    from edgeseg.runtime.warp_stage import chosen_rate

    if mark_invalid and not compensation.moves:
        raise InputError("--mark-invalid marks pixels of moved labels | name how: --compensation MODE")
    chosen_rate(rate, compensation, check_consistency=check_consistency)
