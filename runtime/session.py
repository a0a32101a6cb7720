"""A session: one configuration loaded on a device, with its state. `step(frame) -> labels`, `reset()`."""

import logging
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgeseg.bundle import BundleConfiguration
from edgeseg.classes import ClassSet
from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.errors import ArtifactError, InputError
from edgeseg.runtime.backends.base import Runner, open_runner
from edgeseg.runtime.loop_session import SessionEvents
from edgeseg.runtime.schedule import LATEST_FRAME, Schedule
from edgeseg.runtime.threads import checked_threads

if TYPE_CHECKING:
    from edgeseg.runtime.pick import Pick

COLOUR_ORDERS = ("RGB", "BGR")
_log = logging.getLogger(__name__)


class Session:
    """Steps frames through one configuration.

    One thread at a time: a session has one state and one set of buffers. Different sessions are independent.

    Args:
        root: folder of the bundle.
        configuration: the configuration to load. Its files are trusted here; `load` verifies their hashes.
        graph_colour_order: `RGB` or `BGR`, what the graphs take.
        device: device string.
        threads: CPU threads of one step; None: all that this process may use.
        frame_size_hw: height and width of the frames that `step` takes; None: the configuration's own. Frames of
            another size are resized in `step`, by area averages when they shrink, else bilinearly.
        colour_order: `RGB` or `BGR`, what `step` is given.
        classes: the bundle's classes, for those who show the labels.
        pick: why this configuration was taken, for those who tell; None when it was named.
        compensation: how a loop moves the labels; `step` gives them as they come from the network.
        schedule: when a loop starts a step, and with which frame.

    Raises:
        InputError: an unknown colour order, a frame size that is not positive, or too many threads.
        DeviceError: the device is unknown or not usable here.
        ArtifactError: a graph cannot be loaded or is not what the manifest says.
    """

    def __init__(
        self,
        root: Path | str,
        configuration: BundleConfiguration,
        *,
        graph_colour_order: str = "RGB",
        device: str = "cpu",
        threads: int | None = None,
        frame_size_hw: tuple[int, int] | None = None,
        colour_order: str = "RGB",
        classes: ClassSet | None = None,
        pick: "Pick | None" = None,
        compensation: Compensation = UNCOMPENSATED,
        schedule: Schedule = LATEST_FRAME,
    ) -> None:
        for order in (graph_colour_order, colour_order):
            if order not in COLOUR_ORDERS:
                raise InputError(f"unknown colour order {order!r} | known: {', '.join(COLOUR_ORDERS)}")
        self.configuration = configuration
        self.classes = classes
        self.pick = pick
        self.compensation = compensation
        self.schedule = schedule
        self.events = SessionEvents()
        self._stepping = threading.Lock()
        self.colour_order = colour_order
        self._given_size_hw = None if frame_size_hw is None else (int(frame_size_hw[0]), int(frame_size_hw[1]))
        self._swap_colours = graph_colour_order != colour_order
        count = checked_threads(threads)
        self._runner: Runner = open_runner(Path(root), configuration, device=device, threads=count)
        self._runner.activate()
        try:
            self._check_size()
            self._set_frame_size(frame_size_hw or configuration.knobs.size_hw)
        except BaseException:
            self._runner.deactivate()
            raise

    @property
    def device(self) -> str:
        """Device string."""
        return self._runner.device

    @property
    def threads(self) -> int:
        """CPU threads that one step may use."""
        return self._runner.threads

    @property
    def frame_size_hw(self) -> tuple[int, int]:
        """Height and width of the frames that `step` takes."""
        return self._frame_size_hw

    @property
    def labels_size_hw(self) -> tuple[int, int]:
        """Height and width of the label maps that `step` gives."""
        height, width = self._runner.labels.shape
        return height, width

    @property
    def device_ms(self) -> float | None:
        """Milliseconds that the device itself counted for the last step; None where it does not count."""
        return self._runner.device_ms

    def step(self, frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Labels of the next frame of the video, as the network gives them: `compensation` is the loop's to apply.

        Who calls `step` alone does best to load with compensation="none", so that the pick reckons with labels that
        nobody moves; `edgeseg.runtime.Compensator` moves them in a loop of one's own.

        Args:
            frame: uint8 `(H, W, 3)` of `frame_size_hw`, in `colour_order`, 0-255; read only during the call.
            out: uint8 `(h, w)` to write the labels to instead of a new array.

        Returns:
            uint8 `(h, w)`: label values of the bundle's classes. A fresh array that the caller owns, or `out`.

        Raises:
            InputError: frame or `out` has another shape or dtype.
            DeviceError: the session is closed, or the device failed.
        """
        self._check_frame(frame)
        with self._stepping:
            self._fill(frame)
            self._runner.infer()
            if out is None:
                return self._runner.labels.copy()
            if out.shape != self.labels_size_hw or out.dtype != np.uint8:
                raise InputError(f"out is {_kind(out)} | expected uint8 {self.labels_size_hw}")
            np.copyto(out, self._runner.labels)
        return out

    def reset(self) -> None:
        """Forget the frames so far: the next step is the first of a new video."""
        self._runner.reset()

    def take_frames_of(self, frame_size_hw: tuple[int, int], *, changed: bool = False) -> None:
        """Take frames of `frame_size_hw` from now on, unless the session was given a frame size.

        Args:
            changed: a source's frames have another size from now on: they are taken in any case.

        Raises:
            InputError: the session was given another frame size.
        """
        asked = (int(frame_size_hw[0]), int(frame_size_hw[1]))
        given = self._given_size_hw
        if given is not None and given != asked and not changed:
            raise InputError(
                f"the source's frames are {asked[0]} x {asked[1]} | the session was loaded for "
                f"{given[0]} x {given[1]}: leave frame_size_hw out, or give the source's"
            )
        if asked != self._frame_size_hw:
            self._set_frame_size(asked)

    def close(self) -> None:
        """Free graphs and buffers. May be called twice. What a step that hangs on another thread uses is left to it."""
        if not self._stepping.acquire(blocking=False):
            _log.warning("a step of %s does not return | its session was left behind", self.configuration.name)
            return
        try:
            self._runner.deactivate()
        finally:
            self._stepping.release()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set_frame_size(self, frame_size_hw: tuple[int, int]) -> None:
        height, width = frame_size_hw
        if height < 1 or width < 1:
            raise InputError(f"frame_size_hw is positive | got {height} x {width}")
        own_height, own_width = self.configuration.knobs.size_hw
        self._frame_size_hw = (int(height), int(width))
        self._resizes = self._frame_size_hw != (own_height, own_width)
        shrinks = height >= own_height and width >= own_width
        self._interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR

    def _check_size(self) -> None:
        got, expected = self._runner.image.shape[:2], self.configuration.knobs.size_hw
        if got != expected:
            self._runner.deactivate()
            raise ArtifactError(
                f"{self.configuration.name}: its graphs take {got[0]} x {got[1]}, the manifest says "
                f"{expected[0]} x {expected[1]} | export the bundle again"
            )

    def _check_frame(self, frame: np.ndarray) -> None:
        expected = (*self._frame_size_hw, 3)
        if not isinstance(frame, np.ndarray) or frame.shape != expected or frame.dtype != np.uint8:
            is_picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape[2:] == (3,)
            advice = (
                f"resize it, or load the session with frame_size_hw={frame.shape[:2]}" if is_picture else "0 to 255"
            )
            raise InputError(f"a frame is {_kind(frame)} | expected uint8 {expected} {self.colour_order}: {advice}")

    def _fill(self, frame: np.ndarray) -> None:
        """Write the frame into the runner's buffer, resized and with its channels in the graphs' order."""
        image = self._runner.image
        if self._resizes:
            height, width = image.shape[:2]
            cv2.resize(frame, (width, height), dst=image, interpolation=self._interpolation)
            if self._swap_colours:
                cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image)
        elif self._swap_colours:
            cv2.cvtColor(frame, cv2.COLOR_RGB2BGR, dst=image)
        else:
            np.copyto(image, frame)


def _kind(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
