"""Which pictures of a stream are of use after one was damaged.

H.264 and its like predict a picture from those before it, so that damage stays until the next key frame, in pictures
that FFmpeg takes for whole. Of MJPEG each picture stands alone.

H.264 that is damaged or lost is noticed (`edgeseg.runtime.lost_pictures`). Of H.265 FFmpeg tells no damage within a
picture; where one is missing, it gives none before the next key frame by itself.
"""

import logging

from edgeseg.runtime.capture import CorruptPicture

KEY_WAIT_S = 5.0
"""For so long pictures are skipped at most. Key frames of cameras are one to four seconds apart as a rule; some streams
have none, and refresh their pictures part by part within that time."""

_log = logging.getLogger(__name__)


class PredictedFromDamage(CorruptPicture):
    """The next picture may be whole, but what it was predicted from was not."""


class Damage:
    """Follows the pictures of one connection, in the order in which they are shown.

    After damage pictures are skipped up to the next key frame. Where none comes within `KEY_WAIT_S`, they are used
    again, with what is left of the damage, and until a key frame has come only damaged pictures themselves are skipped.

    Args:
        name: of the camera, for the log.
        is_predicted: whether pictures are predicted from others.
    """

    def __init__(self, name: str, *, is_predicted: bool) -> None:
        self._name, self._is_predicted = name, is_predicted
        self._waits = False
        self._since_s: float | None = None
        self._key_frames_come = True

    def note(self) -> None:
        """A picture cannot be decoded, or was lost."""
        self._waits = self._waits or (self._is_predicted and self._key_frames_come)

    def problem_of(self, *, is_key: bool, is_damaged: bool, shown_s: float) -> CorruptPicture | None:
        """Why the next picture is of no use; None if it is.

        Args:
            is_key: it is predicted from no other.
            is_damaged: parts of it are missing.
            shown_s: seconds, from any beginning.
        """
        if is_damaged:
            self.note()
        elif is_key:
            self._waits, self._key_frames_come, self._since_s = False, True, None
        if self._waits and self._since_s is None:
            self._since_s = shown_s
        if is_damaged:
            return CorruptPicture("parts of it are missing")
        if self._waits and self._since_s is not None and shown_s - self._since_s > KEY_WAIT_S:
            self._waits, self._key_frames_come, self._since_s = False, False, None
            _log.warning(
                "%s: no key frame came within %.3g s of a damaged picture | pictures are used again, with what is left "
                "of the damage", self._name, KEY_WAIT_S,
            )  # fmt: skip
        return PredictedFromDamage("it is predicted from a damaged one") if self._waits else None
