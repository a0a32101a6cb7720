"""Cameras and network streams as sources: what ends, stalls or breaks is opened again, and everything is counted."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeseg.errors import EdgesegError, InputError, MissingPackageError, SourceError
from edgeseg.runtime.camera_reader import CameraReader, Stalled
from edgeseg.runtime.capture import Capture, CaptureEnded, CaptureLost, DeviceCapture, RecordingBroken
from edgeseg.runtime.run_log import event
from edgeseg.runtime.source import Frame, Source, SourceCounts
from edgeseg.runtime.source_address import public_name
from edgeseg.runtime.stream_capture import Playhead, StreamCapture

DEFAULT_CAMERA_FPS = 30.0
"""Assumed when a camera does not tell its rate, and its first pictures do not either."""
PERIODS_OF_A_STALL = 3.0
"""A camera that is slower than its stall limit is given so many periods."""
HANGING_AT_MOST = 8
"""Readers that hang in a driver; then none is added until one comes back."""
CLOSE_S = 0.5
"""How long `close` waits for the reader."""
OTHER_RATE = 0.2
"""A camera that differs by more from the rate that it tells, or that the user gave, is told of."""
FEW_PICTURES, FEW_STALLS = 3, 2
"""Of a camera that stalls so often after so few pictures the limit is too short."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconnection:
    """How a camera is watched, and opened again when it was lost."""

    stall_s: float = 1.5
    """Seconds without a picture after which it counts as stalled (or three of its periods, if longer)."""
    first_wait_s: float = 0.5
    """Seconds before it is opened again; doubled after each attempt in vain."""
    most_wait_s: float = 30.0
    """Seconds between two attempts at most."""
    open_s: float = 10.0
    """Seconds that opening may take, the first picture included: a stream's is a key frame. Less where less is left
    of `give_up_s`."""
    give_up_s: float | None = None
    """Seconds after the loss, from which on no further attempt is made; None: never. 0: it is not opened again."""

    def __post_init__(self) -> None:
        for name, option in (("stall_s", "--stall"), ("most_wait_s", "--retry-most"), ("open_s", "--open-limit")):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{option} takes positive seconds | got {getattr(self, name)}")
        if not 0 < self.first_wait_s <= self.most_wait_s:
            raise InputError(
                f"--retry-most is no shorter than the first wait of {self.first_wait_s:g} s | got {self.most_wait_s:g}"
            )
        if self.give_up_s is not None and not self.give_up_s >= 0:
            raise InputError(f"--give-up takes seconds, or 0 to end at the first loss | got {self.give_up_s}")


class CameraSource(Source):
    """Frames when they come, the newest one first; the others are missed.

    A capture that is lost, stalls or fails is opened again, with waits that double, and the frames' numbers go on; a
    recording ends. Corrupt pictures are counted and skipped. Frames may change their size in the middle: `size_hw` is
    that of the first.

    Args:
        name: for messages.
        open_capture: opens it, each time anew; may hang, as reading may.
        fps: frame rate, whatever the capture tells; None: what that tells, else the rate at which the first pictures
            come.
        advice: what to do when it opens and gives nothing.
        reconnection: limits.

    Raises:
        EdgesegError: it cannot be opened the first time, or then gives nothing.
    """

    paced = True

    def __init__(
        self,
        name: str,
        open_capture: Callable[[], Capture],
        *,
        fps: float | None = None,
        advice: str = "does another program show it?",
        reconnection: Reconnection | None = None,
    ) -> None:
        self.name = name
        self._open = open_capture
        self._limits = reconnection or Reconnection()
        self._reconnects = self._stalls = self._corrupt = self._early_stalls = 0
        self._is_lost = False
        self._hanging: list[CameraReader] = []
        self._next = 0
        self._first_number: int | None = None
        self._reader = self._new_reader()
        try:
            first_size_hw = self._reader.wait_for_size_hw(threading.Event(), self._limits.open_s)
        except BaseException as error:
            self._reader.leave()
            if isinstance(error, (CaptureLost, CaptureEnded)):
                raise SourceError(f"{name} opens but gives no picture | {error} | {advice}") from error
            raise
        assert first_size_hw is not None
        self.size_hw = self._shown_size_hw = first_size_hw
        self.fps, self.fps_origin = self._rate(fps)
        self._rate_is_known = self.fps_origin == "measured"

    @property
    def counts(self) -> SourceCounts:
        return SourceCounts(self._reconnects, self._stalls, self._corrupt)

    @property
    def is_lost(self) -> bool:
        return self._is_lost

    def read(self, stop: threading.Event) -> Frame | None:
        while not stop.is_set():
            try:
                taken = self._reader.take(stop, max(self._limits.stall_s, PERIODS_OF_A_STALL / self.fps))
            except CaptureLost as loss:
                self._reconnect(loss, stop)
                continue
            except CaptureEnded:
                return None
            if taken is None:
                return None
            number, came_at_s, rgb = taken
            if self._first_number is None:
                # What came before somebody asked was not missed.
                self._first_number = number
            index = self._next + number - self._first_number
            self._note_size(index, rgb.shape[:2])
            self._note_rate()
            return Frame(index, came_at_s, rgb)
        return None

    def close(self) -> None:
        self._reader.leave(CLOSE_S)

    def _rate(self, given_fps: float | None) -> tuple[float, str]:
        """The frame rate, and where it is known from."""
        if given_fps:
            return given_fps, "given"
        if self._reader.fps:
            return self._reader.fps, "told"
        measured = self._reader.measured_fps(self._limits.open_s)
        return (measured, "measured") if measured else (DEFAULT_CAMERA_FPS, "assumed")

    def _new_reader(self) -> CameraReader:
        return CameraReader(self._open, self.name, self._note_corrupt)

    def _note_corrupt(self) -> None:
        # Only the reader that was not left calls this.
        self._corrupt += 1

    def _note_size(self, index: int, size_hw: tuple[int, int]) -> None:
        if size_hw != self._shown_size_hw:
            before, self._shown_size_hw = self._shown_size_hw, size_hw
            _log.warning(
                "%s: pictures of %dx%d instead of %dx%d from frame %d on", self.name, *size_hw, *before, index,
                extra=event("camera_size", source=self.name, size_hw=size_hw, frame_index=index),
            )  # fmt: skip

    def _note_rate(self) -> None:
        if self._rate_is_known or (fps := self._reader.settled_fps()) is None:
            return
        self._rate_is_known = True
        if abs(fps / self.fps - 1) > OTHER_RATE:
            _log.warning(
                "%s: %.3g frames/s come, %.3g were %s | where that lasts: --fps %.3g",
                self.name, fps, self.fps, self.fps_origin, fps,
                extra=event("camera_rate", source=self.name, fps=round(fps, 3), expected_fps=self.fps),
            )  # fmt: skip

    def _note_stall(self) -> None:
        self._stalls += 1
        self._early_stalls = self._early_stalls + 1 if self._reader.pictures <= FEW_PICTURES else 0
        if self._early_stalls == FEW_STALLS:
            _log.warning(
                "%s: stalled %d times after %d pictures at most | is it that slow? Then give three of its periods: "
                "--stall SECONDS", self.name, FEW_STALLS, FEW_PICTURES,
            )  # fmt: skip

    def _reconnect(self, loss: Exception, stop: threading.Event) -> None:
        """Open it again, until a picture has come or `stop` is set.

        Raises:
            SourceError: it was given up.
        """
        lost_at_s, wait_s = time.monotonic(), self._limits.first_wait_s
        end_s = math.inf if self._limits.give_up_s is None else lost_at_s + self._limits.give_up_s
        if isinstance(loss, Stalled):
            self._note_stall()
        self._is_lost = True
        self._let_go()
        kind = "camera_lost"
        problem: str | None = str(loss)
        while problem is not None:
            left_s = max(0.0, end_s - time.monotonic())
            if left_s:
                then = f"next try in {wait_s:.3g} s" if wait_s < left_s else f"given up in {left_s:.3g} s"
                told = event(kind, source=self.name, frame_index=self._next - 1, reason=problem)
                _log.warning("%s: lost after frame %d | %s | %s", self.name, self._next - 1, problem, then, extra=told)
            if stop.wait(min(wait_s, left_s)):
                return
            if wait_s >= left_s:
                raise SourceError(
                    f"{self.name} stopped after frame {self._next - 1} | {problem}; given up after "
                    f"{time.monotonic() - lost_at_s:.1f} s"
                )
            problem = self._try_again(stop, left_s - wait_s, problem)
            kind, wait_s = "camera_still_lost", min(2 * wait_s, self._limits.most_wait_s)
        if not stop.is_set():
            self._is_lost = False
            self._reconnects += 1
            away_s = time.monotonic() - lost_at_s
            told = event("camera_back", source=self.name, away_s=round(away_s, 3))
            _log.warning("%s: back after %.1f s", self.name, away_s, extra=told)

    def _try_again(self, stop: threading.Event, left_s: float, before: str) -> str | None:
        """Open it once more and wait for a picture: what was wrong, or None when it came or `stop` was set.

        What was wrong `before` stands where `left_s` was less time than a camera may take to open.
        """
        self._hanging = [reader for reader in self._hanging if reader.is_alive]
        if len(self._hanging) >= HANGING_AT_MOST:
            return f"{len(self._hanging)} calls hang in its driver"
        self._reader = self._new_reader()
        try:
            self._reader.wait_for_size_hw(stop, min(self._limits.open_s, left_s))
        except (MissingPackageError, RecordingBroken):
            raise
        except CaptureEnded:
            return None
        except Stalled as stall:
            self._let_go()
            return before if left_s < self._limits.open_s else str(stall)
        except (CaptureLost, EdgesegError) as error:
            self._let_go()
            # What to do is for whoever sits in front of it.
            return str(error).partition(" | ")[0].removeprefix(f"{self.name} ")
        return None

    def _let_go(self) -> None:
        """Leave the reader; the numbers of its pictures are used up, taken or not."""
        self._reader.leave()
        self._hanging.append(self._reader)
        if self._first_number is not None:
            self._next += self._reader.pictures - self._first_number
            self._first_number = 0


def open_camera(
    address: str,
    *,
    fps: float | None = None,
    size_hw: tuple[int, int] | None = None,
    reconnection: Reconnection | None = None,
) -> CameraSource:
    """A camera by its index or device, or a network stream by its URL.

    Args:
        address: digits, a path in /dev, or a URL.
        fps: asked of a device, which gives the nearest it has; of a stream it is believed, whatever that tells, and
            a recording is played at it.
        size_hw: asked of a device; a stream has the size it has.
        reconnection: limits; None: the default ones.

    Raises:
        InputError: a size is given for a stream.
        SourceError: it cannot be opened, has no such size, or gives no picture.
        MissingPackageError: a stream needs PyAV.
    """
    limits = reconnection or Reconnection()
    if "://" in address:
        if size_hw is not None:
            raise InputError("a stream has the size it has | leave --camera-size out")
        name = public_name(address)
        stall_s = max(limits.stall_s, PERIODS_OF_A_STALL / (fps or DEFAULT_CAMERA_FPS))
        playhead = Playhead()

        def open_stream() -> Capture:
            # The watchdog comes first; the hung call comes back a second later and ends its thread.
            return StreamCapture(
                address, name=name, open_s=limits.open_s, read_s=stall_s + 1.0, fps=fps, playhead=playhead
            )

        advice = (
            f"its first picture is a key frame: where those are more than {limits.open_s:g} s apart, give --open-limit"
        )
        return CameraSource(name, open_stream, fps=fps, advice=advice, reconnection=limits)
    device = int(address) if address.isdecimal() else address
    name = f"camera {address}"

    def open_device() -> Capture:
        advice = "is it connected, and free of other programs? Its index may be another one"
        return DeviceCapture(device, name=name, advice=advice, fps=fps, size_hw=size_hw)

    return CameraSource(name, open_device, reconnection=limits)
