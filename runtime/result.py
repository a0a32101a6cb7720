"""What the camera loop gives: a result per label map, and a summary of the run."""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.runtime.loop_session import SessionEvent

if TYPE_CHECKING:
    from edgeseg.runtime.detections import Detections
    from edgeseg.runtime.warp_stage import CompensationSummary


@dataclass(frozen=True)
class Result:
    """One label map of the loop. Times in seconds on the source's clock."""

    frame_index: int
    captured_at: float
    """When the frame was captured."""
    published_at: float
    """When its labels could be read."""
    step_ms: float
    """What `Session.step` took."""
    labels: np.ndarray
    """uint8 `(h, w)`, owned by the receiver."""
    frame_rgb: np.ndarray
    """uint8 `(H, W, 3)` RGB, the frame that the labels were computed from; with compensation the newest frame that was
    known when they were moved, read-only, because the network may be reading it too."""
    configuration: str
    source_index: int
    """The frame that the labels were computed from; `frame_index` without compensation."""
    source_at: float
    """When that frame was captured."""
    stands_for: float
    """The time that the labels show. As the network gives them: `source_at`, or later where it was trained to
    anticipate. Moved ones: the newest frame, or with a compensation that extrapolates the next one, which is the first
    frame that can be there when they are read."""
    moved_px: float = 0.0
    """How far the pixels moved: root mean square over the picture, in pixels of the label map."""
    invalid_share: float | None = None
    """Share of pixels that were hidden in the frame that the labels come from; None where that is not checked: it is
    when such pixels are marked, or the loop was told to check the consistency."""
    fallback: str | None = None
    """Why the labels were left as they were, when they should have been moved."""
    warp_ms: float = 0.0
    """What the stage took that moves labels, from the frame or the labels that made it start."""
    classes: ClassSet | None = None
    """Names and colours of the label values; None where the session's bundle tells none."""

    @property
    def age_s(self) -> float:
        """How old the labels were when they could first be read: since the capture of frame `frame_index`, or of frame
        `source_index` where they should have been moved and were left as they were (`fallback`)."""
        return self.published_at - (self.captured_at if self.fallback is None else self.source_at)

    # The rest is computed when it is asked for, each time anew: whoever shows no picture pays for none.

    def overlay(self, *, opacity: float = 0.5, legend: bool = False) -> np.ndarray:
        """The labels' colours over the frame: uint8 `(H, W, 3)` RGB at the camera's size, a new array.

        Args:
            opacity: 0 shows the frame, 1 the colours.
            legend: write the names of the classes that occur into the upper left corner.

        Raises:
            InputError: the classes are not known.
        """
        from edgeseg.runtime.overlay import overlay

        return overlay(self.frame_rgb, self.labels, self._known_classes(), opacity=opacity, legend=legend)

    def labels_at_frame_size(self) -> np.ndarray:
        """The labels at the camera's size, uint8 `(H, W)`, by the nearest pixel; `labels` itself where that is it."""
        from edgeseg.runtime.overlay import resize_labels

        return resize_labels(self.labels, (self.frame_rgb.shape[0], self.frame_rgb.shape[1]))

    def class_shares(self) -> dict[str, float]:
        """Share of each class, also of those that do not occur, of all pixels of `labels`: 0 to 1.

        They sum up to less than 1 where pixels have no class, as invalid ones that were marked.

        Raises:
            InputError: the classes are not known.
        """
        classes = self._known_classes()
        counts = np.bincount(self.labels.ravel(), minlength=256)
        return {name: float(counts[value] / self.labels.size) for value, name in enumerate(classes.names)}

    def detections(self, *, classes: tuple[str, ...] | None = None, min_area_px: int = 16) -> "Detections":
        """Connected regions of the movable classes as detections: `edgeseg.runtime.detections.detections`."""
        from edgeseg.runtime.detections import detections

        return detections(self.labels_at_frame_size(), self._known_classes(), of=classes, min_area_px=min_area_px)

    def _known_classes(self) -> ClassSet:
        if self.classes is None:
            raise InputError(
                "this result does not tell its classes | its session has none: call "
                "edgeseg.runtime.overlay.overlay(frame_rgb, labels, classes) with your own"
            )
        return self.classes


@dataclass(frozen=True)
class LoopSummary:
    """What a loop did. Percentiles over the last 65,536 results."""

    configuration: str
    source: str
    source_fps: float
    seconds: float
    """From the first frame's capture on: opening a source takes its time, and is none of the loop's."""
    results: int
    frames_captured: int
    frames_dropped: int
    """Captured frames that a newer one replaced before the worker was free."""
    frames_missed: int
    """Frames that the source skipped because nobody took them in time."""
    results_dropped: int
    """Results that a slow reader did not take."""
    step_ms: dict[str, float]
    """p50, p90, p99 and max of what a step took, in ms."""
    age_ms: dict[str, float]
    """The same of the results' age when they were published, in ms: `Result.age_s`."""
    compensation: "CompensationSummary | None" = None
    """What compensation did; None without."""
    schedule: str = "latest-frame"
    """Name of the schedule that the worker kept to."""
    reconnects: int = 0
    """How often the camera was lost and came back."""
    stalls: int = 0
    """How often it was open and gave nothing."""
    corrupt_frames: int = 0
    """Its pictures that could not be used; they are not among the frames."""
    camera_is_lost: bool = False
    """Whether it is lost now, or was when the loop ended."""
    session_events: dict[str, int] = field(default_factory=dict)
    """How often the session was `switched` to another configuration, `restarted` after a step that hung, or `reset`
    where the video broke off, and how often a configuration was `left out` because it could not be loaded."""
    source_fps_origin: str = "told"
    """Where `source_fps` is known from: `Source.fps_origin`."""
    frames_left: int = 0
    """Captured frames that nobody computed any more, because the loop was stopped; a source that ends, or fails, stops
    nothing."""
    results_left: int = 0
    """Results that nobody had taken when it was stopped."""
    last_events: tuple[SessionEvent, ...] = ()
    """The last of these, with the reasons."""

    @property
    def fps(self) -> float:
        """Results per second."""
        return self.results / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        compensation = None if self.compensation is None else self.compensation.as_dict()
        events = [asdict(event) for event in self.last_events]
        return {**vars(self), "compensation": compensation, "last_events": events, "fps": self.fps}
