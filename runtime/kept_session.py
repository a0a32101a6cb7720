"""What keeps a loop going for months: the watchdog and the fallback ladder around a session."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.runtime.loop_session import OwnedSession, SessionEvents
    from edgeseg.runtime.session import Session

_log = logging.getLogger(__name__)


def keep(
    session: "Session", bundle: Bundle, *, adaptive: bool = False, step_limit_s: float | None = None
) -> "OwnedSession":
    """`session`, or what stands for it in a loop; to be closed in its place.

    Args:
        session: of `bundle`.
        adaptive: change to a faster configuration while latencies are longer than the profile's, and back: see
            `edgeseg.runtime.ladder`. Configurations are those of the profile that the session was picked by. Two are
            loaded at a time, so that a change between them takes no time.
        step_limit_s: replace the session when a step takes longer: see `edgeseg.runtime.watched_session`.

    Raises:
        InputError: the limit is not positive, or `adaptive` without a pick.
    """
    if not adaptive and step_limit_s is None:
        return session
    from edgeseg.runtime.loop_session import SessionEvents

    events = SessionEvents()

    def watched(opened: "Session") -> "OwnedSession":
        if step_limit_s is None:
            return opened
        from edgeseg.runtime.watched_session import WatchedSession

        configuration = opened.configuration
        return WatchedSession(
            opened, lambda: _like(session, bundle, configuration), limit_s=step_limit_s, events=events
        )

    if not adaptive:
        return watched(session)
    return _adaptive(session, bundle, watched, events)


def _adaptive(
    session: "Session", bundle: Bundle, watched: "Callable[[Session], OwnedSession]", events: "SessionEvents"
) -> "OwnedSession":
    from edgeseg.runtime.adaptive_session import AdaptiveSession
    from edgeseg.runtime.ladder import Ladder, rungs_of

    if session.pick is None:
        raise InputError(
            "what adapts changes between configurations by their profile, and this one was named | leave the "
            "configuration out, or --adaptive"
        )
    rungs = rungs_of(bundle, session.pick, session.schedule)
    ladder = Ladder(rungs, session.configuration.name, schedule=session.schedule)
    if len(rungs) == 1:
        _log.warning(
            "of what was measured %s is predicted to be the best however slow steps become: there is nothing to change "
            "to", ladder.names[0],
        )  # fmt: skip
    return AdaptiveSession(
        watched(session),
        ladder,
        lambda name: watched(_like(session, bundle, bundle.configuration(name))),
        events=events,
    )


def _like(session: "Session", bundle: Bundle, configuration: BundleConfiguration) -> "Session":
    """A fresh session of `configuration`, otherwise as `session`."""
    from edgeseg.runtime.session import Session

    bundle.verify(configuration.files)
    return Session(
        bundle.root,
        configuration,
        graph_colour_order=bundle.colour_order,
        device=session.device,
        threads=session.threads,
        frame_size_hw=session.frame_size_hw,
        colour_order=session.colour_order,
        classes=session.classes,
        pick=session.pick,
        compensation=session.compensation,
        schedule=session.schedule,
    )
