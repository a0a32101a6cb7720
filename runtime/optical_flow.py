"""Dense optical flow between consecutive frames, on small grey images: the back ends and the check of their result."""

from collections.abc import Callable

import cv2
import numpy as np

from edgeseg.config import FLOWS
from edgeseg.errors import InputError

FlowFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(newer, older), uint8 `(h, w)` each -> float32 `(h, w, 2)`: for each pixel of `newer`, its way (x, y) to `older`."""

FLOW_PIXELS_MAX = 200_000
"""Flow is never computed on more pixels than this: a larger frame is divided further, so that its cost is bounded."""
FLOW_SIDE_MIN = 32
"""Pixels that the shorter side needs: below, DIS has no pyramid and OpenCV ends the process on some sizes."""
FIELD_STRIDE = 4
"""The flow is kept at a quarter of its resolution: no score on CamVid falls, and composing costs a sixteenth."""
STATIC_GREY_LEVELS = 2.0
"""Where two frames differ by less than this on average over 5 x 5 cells, nothing moves: that is camera noise."""
MISMATCH_SHARE = 0.3
"""Mean difference left after warping, in standard deviations of the frame, from which two frames show different scenes.

Measured on CamVid: at most .12 from one frame to the next and .30 eight frames (half a second) apart; between
recordings .42 and more in 95 of 100 pairs.
"""
MISMATCH_GREY_LEVELS = 8.0
"""A smaller difference is noise, however little contrast the frame has."""


def _dis(preset: int) -> FlowFunction:
    engine = cv2.DISOpticalFlow.create(preset)
    return lambda newer, older: engine.calc(newer, older, None)  # type: ignore[call-overload]


def _farneback() -> FlowFunction:
    def flow(newer: np.ndarray, older: np.ndarray) -> np.ndarray:
        out = np.empty((*newer.shape, 2), np.float32)
        return cv2.calcOpticalFlowFarneback(newer, older, out, 0.5, 4, 15, 2, 5, 1.1, 0)

    return flow


_FLOWS: dict[str, Callable[[], FlowFunction]] = {
    "dis-ultrafast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "dis-fast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "dis-medium": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "farneback": _farneback,
}


def open_flow(name: str) -> FlowFunction:
    """The flow of that name, with its own buffers: to be used by one thread at a time.

    Raises:
        InputError: no flow has that name.
    """
    if name not in _FLOWS:
        raise InputError(f"unknown flow {name!r} | known: {', '.join(FLOWS)}")
    return _FLOWS[name]()


def flow_size_hw(frame_hw: tuple[int, int], divisor: int) -> tuple[int, int] | None:
    """Height and width that the flow of frames of `frame_hw` is computed at; None when the frames are too small for it.

    The divisor is raised until the size has at most `FLOW_PIXELS_MAX` pixels, and lowered as long as a side would be
    shorter than `FLOW_SIDE_MIN`.
    """
    height, width = frame_hw
    while (height // divisor) * (width // divisor) > FLOW_PIXELS_MAX:
        divisor += 1
    while divisor > 1 and min(height, width) // divisor < FLOW_SIDE_MIN:
        divisor -= 1
    small = height // divisor, width // divisor
    return small if min(small) >= FLOW_SIDE_MIN and small[0] * small[1] <= FLOW_PIXELS_MAX else None


def grey(frame_rgb: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """uint8 RGB `(H, W, 3)` as uint8 `(h, w)` of `size_hw`, by area averages. Always a new array."""
    image = cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)
    if image.shape == size_hw:
        return image
    return cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_AREA)


def motion_field(flow: np.ndarray, newer: np.ndarray, older: np.ndarray) -> np.ndarray:
    """What is kept of a flow: shares of the image, at a quarter of the resolution, zero where nothing changes.

    Args:
        flow: float32 `(h, w, 2)`, pixels, from `newer` to `older`.
        newer, older: the grey frames, uint8 `(h, w)`.

    Returns:
        float32 `(h // 4, w // 4, 2)`: ways in units of the image's width (x) and height (y).
    """
    height, width = newer.shape
    size_wh = width // FIELD_STRIDE, height // FIELD_STRIDE
    field: np.ndarray = cv2.resize(flow, size_wh, interpolation=cv2.INTER_LINEAR)
    change = cv2.resize(cv2.absdiff(newer, older), size_wh, interpolation=cv2.INTER_AREA)
    moves = cv2.threshold(cv2.blur(change, (5, 5)), STATIC_GREY_LEVELS - 1, 255, cv2.THRESH_BINARY)[1]
    return _times(cv2.copyTo(field, moves), 1 / width, 1 / height)


def grid_xy(size_hw: tuple[int, int]) -> np.ndarray:
    """float32 `(h, w, 2)`: each pixel's own place (x, y)."""
    x, y = np.meshgrid(np.arange(size_hw[1], dtype=np.float32), np.arange(size_hw[0], dtype=np.float32))
    return np.dstack([x, y])


def sample(image: np.ndarray, places_xy: np.ndarray, *, nearest: bool = False) -> np.ndarray:
    """`image` read at `places_xy`, float32 `(h, w, 2)` in its pixels; beyond the border the border's value stands."""
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.remap(image, places_xy, None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def scaled(field: np.ndarray, size_hw: tuple[int, int], factor: float = 1.0) -> np.ndarray:
    """A motion field as float32 `(h, w, 2)` of `size_hw`, in its pixels, times `factor`."""
    height, width = size_hw
    scaled_field = _times(field, factor * width, factor * height)
    if field.shape[:2] == size_hw:
        return scaled_field
    return cv2.resize(scaled_field, (width, height), interpolation=cv2.INTER_LINEAR)


def _times(field: np.ndarray, x: float, y: float) -> np.ndarray:
    """The field with its components times x and y. By whole rows: numpy is six times slower over an axis of two."""
    height, width = field.shape[:2]
    row = np.empty(2 * width, np.float32)
    row[0::2], row[1::2] = x, y
    return (np.ascontiguousarray(field).reshape(height, -1) * row).reshape(field.shape)


def frames_match(field: np.ndarray, newer: np.ndarray, older: np.ndarray, grid: np.ndarray) -> bool:
    """Whether `older`, moved by the motion field, shows what `newer` shows; judged on the field's own pixels.

    Args:
        field: as `motion_field` returns it.
        newer, older: uint8 grey frames `(h, w)`.
        grid: `grid_xy` of the field's size, for speed.
    """
    height, width = field.shape[:2]
    places = (grid + scaled(field, (height, width))) * FIELD_STRIDE
    seen = newer[::FIELD_STRIDE, ::FIELD_STRIDE][:height, :width]
    left = cv2.absdiff(np.ascontiguousarray(seen), sample(older, places))
    mean_left = cv2.mean(left)[0]
    return bool(mean_left < MISMATCH_GREY_LEVELS or mean_left < MISMATCH_SHARE * cv2.meanStdDev(seen)[1][0, 0])


def consistent(forward: np.ndarray, backward: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Forward-backward check: uint8 `(h, w)`, 1 where going there and back ends near the start.

    Near: squared distance below 1 % of the squared lengths plus half a pixel of the field (Sundaram et al., 2010).

    Args:
        forward, backward: motion fields from newer to older and from older to newer, `(h, w, 2)`.
        grid: `grid_xy` of the fields' size.
    """
    size_hw = forward.shape[0], forward.shape[1]
    there = scaled(forward, size_hw)
    back = sample(scaled(backward, size_hw), grid + there)
    apart = ((there + back) ** 2).sum(-1)
    lengths = (there**2).sum(-1) + (back**2).sum(-1)
    return (apart <= 0.01 * lengths + 0.5).astype(np.uint8)
