"""Network streams by PyAV: live ones, and recordings such as a video on a web server."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.errors import SourceError
from edgeseg.optional import require
from edgeseg.runtime.capture import (
    PLAUSIBLE_FPS,
    Capture,
    CaptureEnded,
    CaptureLost,
    CorruptPicture,
    RecordingBroken,
)
from edgeseg.runtime.damage import Damage
from edgeseg.runtime.lost_pictures import SEARCHED_BYTES, LostPictures

STREAM_OPTIONS = {"rtsp_transport": "tcp", "flags": "low_delay", "fpsprobesize": "0"}
"""For FFmpeg: over UDP a lost packet is a damaged picture; counting pictures to know the rate takes a second."""
WAITED_S = 0.0005
"""A packet that took less had been waiting: FFmpeg reads some ahead to know what a stream is."""
PAUSE_S = 1.0
"""Longest time between two pictures of a recording; longer pauses are cut short, or they would look like a stall."""
END_S = 0.5
"""A recording may end so long before its stated end: containers round, and sound may be longer than the pictures."""
_PLAYLISTS = ("hls", "dash")
"""Formats whose file lists others: its length is not theirs. It has a duration when no others will come."""


@dataclass
class Playhead:
    """How far a recording was played. It outlives the captures that play it, one after the other."""

    shown_s: float | None = None
    """Time in the recording of the last picture that was taken; None before the first one."""


class StreamCapture(Capture):
    """A network stream: RTSP, HTTP, and what else FFmpeg reads.

    What has a length is a recording: it is given at its own pace, and ends; what comes late delays the rest, as in a
    player. Everything else is live: where it ends, it is lost. (Fragments of a live video have a duration too.)

    Args:
        url: with its scheme.
        name: for messages.
        open_s: how long opening may take.
        read_s: how long a read may block.
        fps: at which a recording is played; None: its own.
        playhead: of a recording that was lost: it is played on from there.
        clock: seconds.
        wait: waits for some seconds.

    Raises:
        SourceError: it cannot be opened, or holds no video.
        MissingPackageError: PyAV is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        open_s: float,
        read_s: float,
        fps: float | None = None,
        playhead: Playhead | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._av: Any = require("av", extra="video")
        self._name, self._clock, self._wait = name, clock, wait
        try:
            self._container = self._av.open(url, options=STREAM_OPTIONS, timeout=(open_s, read_s))
        except (self._av.FFmpegError, OSError) as error:
            raise SourceError(
                f"{name} cannot be opened ({_said(error)}) | does it answer, and is the address right?"
            ) from error
        try:
            self._open(Playhead() if playhead is None else playhead, fps)
        except BaseException:
            self._container.close()
            raise

    def _open(self, playhead: Playhead, played_fps: float | None) -> None:
        if not self._container.streams.video:
            raise SourceError(f"{self._name} holds no video | give the address of a video stream")
        self._video = self._container.streams.video[0]
        context = self._video.codec_context
        is_h264 = context.codec.name == "h264"
        # Decoding frames on several threads gives each of them as many frames late.
        self._video.thread_type = "SLICE"
        if is_h264:
            # With its slices on several threads, FFmpeg does not tell of those that are missing.
            context.thread_count = 1
        self._damage = Damage(self._name, is_predicted=not context.codec.intra_only)
        self._gaps = LostPictures(context.extradata or b"") if is_h264 else None
        rate = self._video.average_rate
        self.fps = float(rate) if rate and 0 < rate < PLAUSIBLE_FPS else None
        known = self._container.format.name not in _PLAYLISTS or self._container.duration is not None
        self.is_recording = known and self._container.size > 0
        self._slowness = self.fps / played_fps if self.fps and played_fps else 1.0
        self._playhead, self._resumed_s = playhead, playhead.shown_s
        self._given_s = playhead.shown_s
        self._offset_s: float | None = None
        self._came_at_s = 0.0
        self._decoded: deque[tuple[Any, bool]] = deque()
        if self.is_recording and self._resumed_s is not None:
            try:
                self._container.seek(int(1e6 * self._resumed_s))
            except (self._av.FFmpegError, OSError) as error:
                raise self._broken(_said(error)) from error
        self._packets = self._container.demux(self._video)

    def read(self) -> tuple[float, np.ndarray]:
        # Who reads on has taken the picture before.
        self._playhead.shown_s = self._given_s
        picture = self._next()
        rgb = picture.to_ndarray(format="rgb24")
        if not self.is_recording or picture.time is None:
            return self._came_at_s, rgb
        self._given_s = picture.time
        return self._wait_until_due(picture.time), rgb

    def close(self) -> None:
        self._container.close()

    def _next(self) -> Any:
        """The next picture that is of use and was not given before."""
        while True:
            while not self._decoded:
                self._decode_next()
            picture, is_damaged = self._decoded.popleft()
            shown_s = self._came_at_s if not self.is_recording or picture.time is None else picture.time
            problem = self._damage.problem_of(is_key=picture.key_frame, is_damaged=is_damaged, shown_s=shown_s)
            if self.is_recording and self._resumed_s is not None and (picture.time or 0.0) <= self._resumed_s:
                continue
            if problem is not None:
                raise problem
            return picture

    def _wait_until_due(self, shown_s: float) -> float:
        """Wait for the moment of a recording's picture; when it was."""
        now_s = self._clock()
        played_s = shown_s * self._slowness
        due_s = now_s if self._offset_s is None else min(max(self._offset_s + played_s, now_s), now_s + PAUSE_S)
        self._offset_s = due_s - played_s
        if due_s > now_s:
            self._wait(due_s - now_s)
        return due_s

    def _decode_next(self) -> None:
        asked_s = self._clock()
        try:
            packet = next(self._packets)
        except StopIteration:
            raise self._ended() from None
        except (self._av.FFmpegError, OSError) as error:
            raise self._lost(f"the connection is lost: {_said(error)}") from error
        self._came_at_s = self._clock()
        self.had_waited = self._came_at_s - asked_s < WAITED_S
        if self._gaps is not None and self._gaps.precede(bytes(memoryview(packet)[:SEARCHED_BYTES])):
            self._damage.note()
        try:
            pictures = packet.decode()
        except self._av.EOFError:
            raise self._ended() from None
        except self._av.FFmpegError as error:
            self._damage.note()
            raise CorruptPicture(f"it cannot be decoded: {_said(error)}") from error
        self._decoded.extend((picture, picture.is_corrupt or packet.is_corrupt) for picture in pictures)

    def _ended(self) -> Exception:
        if not self.is_recording:
            return CaptureLost("the stream ended")
        if self._shown_s < self._stated_s - END_S:
            return self._lost("it breaks off")
        return CaptureEnded("it was played to its end")

    def _lost(self, reason: str) -> Exception:
        """A recording that was opened again and gives nothing more is broken there; what else is lost may come back."""
        if self.is_recording and self._resumed_s is not None and self._given_s == self._resumed_s:
            return self._broken(reason)
        return CaptureLost(reason)

    def _broken(self, reason: str) -> RecordingBroken:
        stated = f" of {self._stated_s:.1f}" if math.isfinite(self._stated_s) else ""
        return RecordingBroken(
            f"{self._name} broke at {self._shown_s:.1f}{stated} s | {reason}: it is damaged or cut off, or its server "
            "cannot continue it"
        )

    @property
    def _shown_s(self) -> float:
        """How much of it was shown, the last picture's own time included."""
        begin_s = float((self._video.start_time or 0) * self._video.time_base)
        return 0.0 if self._given_s is None else self._given_s - begin_s + 1.0 / (self.fps or math.inf)

    @property
    def _stated_s(self) -> float:
        """How long it is; -inf where that is not told."""
        if self._video.duration:
            return float(self._video.duration * self._video.time_base)
        duration_us = self._container.duration
        return -math.inf if duration_us is None else duration_us / 1e6


def _said(error: Exception) -> str:
    """What FFmpeg says, without its numbers and the address."""
    return str(getattr(error, "strerror", None) or error)
