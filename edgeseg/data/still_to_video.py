"""A labelled still turned into a short driving video with exact labels.

The still is taken for the inside of a straight box: ground, two walls and a ceiling that run to the vanishing point.
The camera then drives into it. In such a box the depth of a pixel depends on its offset (x, y) from the vanishing point
alone,

    1 / depth = max(below * y, beside * |x|, above * -y),

and stays the same function while the camera advances, since the box looks alike from everywhere. So after a way s the
pixel at offset q shows what was at

    q / (1 + s / depth(q))

in the still: near things (low and at the sides) grow fast, the distance near the vanishing point hardly moves, and each
pixel comes from nearer to the vanishing point than it lies, that is from inside the still. Image and labels are sampled
by the same map, so the labels are exact for the video that is shown. Slow yaw and pitch shift the view, never further
than the still reaches.

Driving forward only ever looks further in: frames after the still show its middle, enlarged. Frames before the still
show it smaller, with a rim that nothing is known of: its border pixels go on there, and its labels are ignored.
"""

import cv2
import numpy as np

from edgeseg.data.video import Video
from edgeseg.errors import InputError

BELOW, BESIDE, ABOVE = 1.0, 0.75, 0.45
"""Inverse depth at one image height below, one width beside and one height above the vanishing point (1 / way unit)."""
SPEED_PER_S = 1.7
"""Middle speed in way units per second; calibrated on CamVid's stills (see `still_to_video`)."""
SPEED_SPREAD = 0.6
"""Speeds are drawn uniformly from the middle speed times 1 - spread to 1 + spread."""
_NEAREST = 0.05
"""Depth that nothing shown is nearer than, as a share of its depth in the still."""


class StillVideo(Video):
    """Video made from one still, every frame labelled; frames are made when asked for and are always the same."""

    def __init__(
        self,
        frame_rgb: np.ndarray,
        labels: np.ndarray,
        frames: int,
        fps: float,
        drive: "Drive",
        ignore_value: int,
        name: str,
        still_index: int,
    ) -> None:
        self.name = name
        self.fps = fps
        self.size_hw = (frame_rgb.shape[0], frame_rgb.shape[1])
        self._still_rgb = frame_rgb
        self._still_labels = labels
        self._frames = frames
        self._drive = drive
        self._ignore_value = ignore_value
        self._still_index = still_index
        self._latest_map: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        x, y = self.source_xy(index)
        return cv2.remap(self._still_rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def labels(self, index: int) -> np.ndarray:
        x, y = self.source_xy(index)
        border = cv2.BORDER_CONSTANT
        return cv2.remap(self._still_labels, x, y, cv2.INTER_NEAREST, borderMode=border, borderValue=self._ignore_value)

    def source_xy(self, index: int) -> np.ndarray:
        """Where each pixel of frame `index` lies in the still: float32 `(2, H, W)`, x then y, in pixels."""
        if not 0 <= index < self._frames:
            raise InputError(f"{self.name} has no frame {index} | it has frames 0 to {self._frames - 1}")
        latest = self._latest_map
        if latest is None or latest[0] != index:
            latest = (index, self._drive.source_xy(self.size_hw, (index - self._still_index) / self.fps))
            self._latest_map = latest
        return latest[1]


class Drive:
    """One seeded drive into a still: vanishing point, speed, acceleration, yaw and pitch.

    Lengths are shares of the image's height and width, times seconds since the still was taken.
    """

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.vanishing_yx = (random.uniform(0.38, 0.52), random.uniform(0.4, 0.6))
        self.speed_per_s = SPEED_PER_S * random.uniform(1 - SPEED_SPREAD, 1 + SPEED_SPREAD)
        self.acceleration_per_s2 = self.speed_per_s * random.uniform(-0.2, 0.2)
        self.pitch_amplitude = random.uniform(0, 0.01)
        self.pitch_hz = random.uniform(0.8, 2.0)
        self.yaw_per_s = random.uniform(-0.12, 0.12)

    def way(self, time_s: float) -> float:
        """Way driven since the still was taken, negative before it; a camera comes to rest, it never backs up."""
        if self.acceleration_per_s2 < 0:
            time_s = min(time_s, -self.speed_per_s / self.acceleration_per_s2)
        elif self.acceleration_per_s2 > 0:
            time_s = max(time_s, -self.speed_per_s / self.acceleration_per_s2)
        return self.speed_per_s * time_s + self.acceleration_per_s2 * time_s**2 / 2

    def source_xy(self, size_hw: tuple[int, int], time_s: float) -> np.ndarray:
        """Where each pixel lies in the still: float32 `(2, H, W)`, x then y, in pixels."""
        height, width = size_hw
        way = self.way(time_s)
        centre_y, centre_x = self.vanishing_yx
        pitch = self.pitch_amplitude * np.sin(2 * np.pi * self.pitch_hz * time_s)
        # Pixel centres; the still's own outermost ones are the limits that no source may cross.
        low_y, high_y = 0.5 / height - centre_y, 1 - 0.5 / height - centre_y
        low_x, high_x = 0.5 / width - centre_x, 1 - 0.5 / width - centre_x
        shift_y, shift_x = pitch, self.yaw_per_s * time_s
        if time_s >= 0:
            shift_y = np.clip(shift_y, -_slack(-low_y, ABOVE, way), _slack(high_y, BELOW, way))
            shift_x = np.clip(shift_x, -_slack(-low_x, BESIDE, way), _slack(high_x, BESIDE, way))
        y = np.linspace(low_y, high_y, height, dtype=np.float32) + np.float32(shift_y)
        x = np.linspace(low_x, high_x, width, dtype=np.float32) + np.float32(shift_x)
        inverse_depth_y = np.maximum(y * np.float32(BELOW), y * np.float32(-ABOVE))
        inverse_depth_x = np.abs(x) * np.float32(BESIDE)
        inverse_depth = np.maximum(inverse_depth_y[:, None], inverse_depth_x[None, :])
        # What was behind the still's camera has no place in it: far outside is as good as any.
        shrink = 1 / np.maximum(1 + np.float32(way) * inverse_depth, np.float32(_NEAREST))
        source = np.empty((2, height, width), np.float32)
        np.multiply(x[None, :], shrink * np.float32(width), out=source[0])
        np.multiply(y[:, None], shrink * np.float32(height), out=source[1])
        source[0] += np.float32(centre_x * width - 0.5)
        source[1] += np.float32(centre_y * height - 0.5)
        return source


def still_to_video(
    frame_rgb: np.ndarray,
    labels: np.ndarray,
    *,
    frames: int,
    fps: float,
    seed: int,
    ignore_value: int,
    name: str = "still",
    still_index: int = 0,
) -> StillVideo:
    """Drive into a labelled still: a video of `frames` frames at `fps`, the still itself being frame `still_index`.

    The pace is that of real video: labels[t-k] scored against labels[t], k = 1 to 4 at 15 frames per second, give mIoU
    .745, .644, .581, .536 on nine-frame videos made of CamVid's 367 training stills, and .743, .643, .580, .543 on its
    val video. Different seeds drive differently; the same seed and still give the same video.

    Args:
        frame_rgb: uint8 `(H, W, 3)` RGB, 0-255.
        labels: uint8 `(H, W)`.
        frames: Length of the video, at least 1.
        fps: Frames per second: fewer frames per second move further from one to the next.
        seed: Chooses vanishing point, speed, yaw and pitch.
        ignore_value: Label of pixels from outside the still; only frames before it look there.
        name: Name of the video.
        still_index: Which frame is the still as it is.

    Raises:
        InputError: still and labels do not fit each other, `frames` or `fps` is not positive, or there is no frame
            `still_index`.
    """
    if frame_rgb.dtype != np.uint8 or frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or 0 in frame_rgb.shape:
        raise InputError(
            f"{name}: not an image | got {frame_rgb.dtype} {frame_rgb.shape}, expected uint8 (H, W, 3) RGB"
        )
    if labels.dtype != np.uint8 or labels.shape != frame_rgb.shape[:2]:
        raise InputError(
            f"{name}: labels do not fit the still | got {labels.dtype} {labels.shape}, "
            f"expected uint8 {frame_rgb.shape[:2]}"
        )
    if frames < 1 or not fps > 0:
        raise InputError(f"{name}: frames and fps must be positive | got frames {frames}, fps {fps}")
    if not 0 <= still_index < frames:
        raise InputError(f"{name}: the still is none of the frames | got {still_index}, expected 0 to {frames - 1}")
    return StillVideo(frame_rgb, labels, frames, fps, Drive(seed), ignore_value, name, still_index)


def _slack(reach: float, inverse_depth: float, way: float) -> float:
    """How far the view may shift to a border at distance `reach` from the vanishing point without looking past it."""
    stretched = 1 - way * inverse_depth * reach
    return reach / stretched - reach if stretched > 1e-3 else float("inf")
