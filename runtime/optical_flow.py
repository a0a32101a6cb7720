"""Dense optical flow between consecutive frames, on small grey images: the back ends and the check of their result."""

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from edgeseg.errors import EdgesegError, InputError
from edgeseg.runtime.nvidia_flow import open_nvidia, open_vpi

FlowFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(newer, older), uint8 `(h, w)` each -> float32 `(h', w', 2)`: for the pixels of `newer`, their way (x, y) to `older`,
in its pixels. h' and w' are h and w, or a fraction of them: one way then stands for a cell of pixels."""

FRAME_PIXELS_MAX = 1_000_000
"""Larger frames count as a half, a third, ... of themselves before the divisor, so that a flow's cost is bounded."""
FLOW_SIDE_MIN = 32
"""Pixels that the shorter side needs: below, DIS has no pyramid and OpenCV ends the process on some sizes."""
GRID_PX = 16
GRID_WINDOW_PX = 9
GRID_ITERATIONS = 2
"""Lucas-Kanade on a regular grid: pixels between points, side of the window, steps per pyramid level.

True labels of CamVid val, 180 x 240, a tenth more time than dis-ultrafast: mIoU one to six frames late .857 to .740
beside .847 to .701; at 120 x 160, in half of the time, .854 to .728. Denser grids score up to .01 more; a median filter
takes .01 to .03 away.
"""
GRID_TOP_SIDE_MIN = 11
"""The pyramid ends where the shorter side would have fewer pixels. With the least side of 20 motion by a tenth of the
picture's width is lost, with 40 by a twentieth; with 11 it is found up to a seventh, which is more than DIS finds."""
FIELD_STRIDE = 4
"""The flow is kept at a quarter of its resolution: no score on CamVid falls, and composing costs a sixteenth."""
STATIC_GREY_LEVELS = 1.5
"""Where two frames differ by less than this on average over 5 x 5 cells, nothing moves: that is camera noise."""
STATIC_NOISE_FACTOR = 1.7
"""Nor where they differ by less than this many times the noise. In still scenes with noise of sigma 1 to 8, whatever
their contrast, 99 of 100 cells stay below; on CamVid half of all cells differ by twice what warping leaves, or more."""
MISMATCH_SHARE = 0.3
"""Mean difference left after warping, in standard deviations of the frame, from which two frames show different scenes.

Measured on CamVid: at most .12 from one frame to the next and .30 eight frames (half a second) apart; between
recordings .42 and more in 95 of 100 pairs.
"""
MISMATCH_GREY_LEVELS = 8.0
"""A smaller difference is noise, however little contrast the frame has."""
_LK_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, GRID_ITERATIONS, 0.03)
_RELATIVE_MAP: int | None = getattr(cv2, "WARP_RELATIVE_MAP", None)
"""Newer OpenCV adds each pixel's own place itself, which is faster."""


def _dis(preset: int) -> FlowFunction:
    engine = cv2.DISOpticalFlow.create(preset)
    return lambda newer, older: engine.calc(newer, older, None)  # type: ignore[call-overload]


def _farneback() -> FlowFunction:
    def flow(newer: np.ndarray, older: np.ndarray) -> np.ndarray:
        out = np.empty((*newer.shape, 2), np.float32)
        return cv2.calcOpticalFlowFarneback(newer, older, out, 0.5, 4, 15, 2, 5, 1.1, 0)

    return flow


def _lucas_kanade() -> FlowFunction:
    """One way per `GRID_PX` x `GRID_PX` pixels, by pyramids. For a point that is lost, its neighbours stand."""

    def flow(newer: np.ndarray, older: np.ndarray) -> np.ndarray:
        height, width = newer.shape
        points = _grid_points((height, width))
        levels = max(0, int(math.log2(min(height, width) / GRID_TOP_SIDE_MIN)))
        found, status, _ = cv2.calcOpticalFlowPyrLK(  # type: ignore[call-overload]
            newer,
            older,
            points.reshape(-1, 1, 2),
            None,
            winSize=(GRID_WINDOW_PX, GRID_WINDOW_PX),
            maxLevel=levels,
            criteria=_LK_STOP,
        )
        ways = found.reshape(points.shape) - points
        known = status.reshape(points.shape[:2])
        return ways if known.all() else _filled(ways, known)

    return flow


@lru_cache(maxsize=4)
def _grid_points(size_hw: tuple[int, int]) -> np.ndarray:
    """float32 `(rows, columns, 2)`: centres (x, y) of cells some `GRID_PX` wide that share an image evenly."""
    rows, columns = (-(-side // GRID_PX) for side in size_hw)
    x = (np.arange(columns, dtype=np.float32) + 0.5) * size_hw[1] / columns - 0.5
    y = (np.arange(rows, dtype=np.float32) + 0.5) * size_hw[0] / rows - 0.5
    return np.dstack(np.meshgrid(x, y)).astype(np.float32)


def _filled(ways: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`ways`, float32 `(h, w, 2)`, with those that are not `known` replaced by the mean of their known neighbours."""
    weights = known.astype(np.float32)
    near = cv2.blur(ways * weights[..., None], (3, 3))
    share = np.maximum(cv2.blur(weights, (3, 3)), np.finfo(np.float32).eps)
    return np.where(known[..., None] > 0, ways, near / share[..., None])


_FLOWS: dict[str, Callable[[], FlowFunction]] = {
    "dis-ultrafast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST),
    "dis-fast": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_FAST),
    "dis-medium": lambda: _dis(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),
    "farneback": _farneback,
    "lucas-kanade": _lucas_kanade,
    "nvidia": open_nvidia,
    "vpi": open_vpi,
}


def open_flow(name: str) -> FlowFunction:
    """The flow of that name, with its own buffers: to be used by one thread at a time.

    Raises:
        InputError: no flow has that name.
        MissingPackageError, DeviceError: its library or its hardware is not on this machine.
    """
    if name not in _FLOWS:
        raise InputError(f"unknown flow {name!r} | known: {', '.join(_FLOWS)}")
    return _FLOWS[name]()


def unusable_reason(name: str) -> str | None:
    """Why the flow of that name cannot be used on this machine; None when it can.

    Raises:
        InputError: no flow has that name.
    """
    if name not in _FLOWS:
        raise InputError(f"unknown flow {name!r} | known: {', '.join(_FLOWS)}")
    try:
        open_flow(name)
    except EdgesegError as error:
        return str(error)
    return None


def flow_size_hw(frame_hw: tuple[int, int], divisor: int) -> tuple[int, int] | None:
    """Height and width that the flow of frames of `frame_hw` is computed at; None when the frames are too small for it.

    That is 1 / divisor of the frame, or of what is left of it after `FRAME_PIXELS_MAX`; less is divided where a side
    would be shorter than `FLOW_SIDE_MIN`.
    """
    height, width = frame_hw
    reduction = 1
    while (height // reduction) * (width // reduction) > FRAME_PIXELS_MAX:
        reduction += 1
    divisor *= reduction
    while divisor > reduction and min(height, width) // divisor < FLOW_SIDE_MIN:
        divisor -= 1
    small = height // divisor, width // divisor
    return small if min(small) >= FLOW_SIDE_MIN else None


def grey(frame_rgb: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """uint8 RGB `(H, W, 3)` as uint8 `(h, w)` of `size_hw`, by area averages. Always a new array."""
    image = cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)
    if image.shape == size_hw:
        return image
    return cv2.resize(image, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_AREA)


def motion_field(flow: np.ndarray, newer: np.ndarray, older: np.ndarray) -> np.ndarray | None:
    """What is kept of a flow: at a quarter of the resolution, in its own pixels, zero where only noise changes.

    Args:
        flow: float32 `(h', w', 2)`, pixels, from `newer` to `older`.
        newer, older: the grey frames, uint8 `(h, w)`.

    Returns:
        float32 `(h // 4, w // 4, 2)`: ways (x, y) in the field's own pixels. None when `older`, moved by the flow, does
        not show what `newer` shows: another scene.
    """
    height, width = newer.shape
    size_hw = height // FIELD_STRIDE, width // FIELD_STRIDE
    field: np.ndarray = cv2.resize(flow, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    seen = np.ascontiguousarray(newer[::FIELD_STRIDE, ::FIELD_STRIDE][: size_hw[0], : size_hw[1]])
    left = cv2.absdiff(seen, sample(older, field + grid_xy(size_hw, FIELD_STRIDE)))
    if not _same_scene(seen, left):
        return None
    moves = _moving(_cell_change(newer, older, size_hw), left)
    return _times(cv2.copyTo(field, moves), size_hw[1] / width, size_hw[0] / height)


def _same_scene(seen: np.ndarray, left: np.ndarray) -> bool:
    """Whether `left`, the differences that warping leaves, is little beside the contrast of what is `seen`."""
    mean_left = cv2.mean(left)[0]
    return bool(mean_left < MISMATCH_GREY_LEVELS or mean_left < MISMATCH_SHARE * cv2.meanStdDev(seen)[1][0, 0])


def _cell_change(newer: np.ndarray, older: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """float32 of `size_hw`: mean difference of the frames around each cell, 5 x 5 cells wide."""
    change = cv2.absdiff(newer, older)
    half_wh = newer.shape[1] // 2, newer.shape[0] // 2  # halving twice is faster than a quarter at once
    for size_wh in (half_wh, size_hw[::-1]):
        change = cv2.resize(change, size_wh, interpolation=cv2.INTER_AREA)
    return cv2.boxFilter(change, cv2.CV_32F, (5, 5))


def _moving(change: np.ndarray, left: np.ndarray) -> np.ndarray:
    """uint8, 255 where the frames differ by more than noise.

    Noise differs as much after warping as before. So its level is at most what warping leaves in half of the picture,
    and at most what differs in the calmest twentieth, unless nine tenths of the picture are that calm: then the calmest
    part is saturated. A flow that explains nothing, as it follows noise, is thereby no motion, however it is scaled.
    """
    left_means = np.sort(cv2.boxFilter(left, cv2.CV_32F, (5, 5))[2::5, 2::5], axis=None)
    changes = np.sort(change[2::5, 2::5], axis=None)
    noise = float(left_means[len(left_means) // 2])
    if changes[9 * len(changes) // 10] > STATIC_NOISE_FACTOR * noise:
        noise = min(noise, float(changes[len(changes) // 20]))
    threshold = max(STATIC_GREY_LEVELS, STATIC_NOISE_FACTOR * noise)
    return cv2.compare(change, threshold, cv2.CMP_GE)  # type: ignore[call-overload]


@lru_cache(maxsize=8)
def grid_xy(size_hw: tuple[int, int], stride: int = 1) -> np.ndarray:
    """float32 `(h, w, 2)`: each pixel's own place (x, y), times `stride`. Read-only: one array serves all calls."""
    x, y = np.meshgrid(np.arange(size_hw[1], dtype=np.float32), np.arange(size_hw[0], dtype=np.float32))
    grid = stride * np.dstack([x, y])
    grid.flags.writeable = False
    return grid


def sample(image: np.ndarray, places_xy: np.ndarray, *, nearest: bool = False) -> np.ndarray:
    """`image` read at `places_xy`, float32 `(h, w, 2)` in its pixels; beyond the border the border's value stands."""
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.remap(image, places_xy, None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def sample_along(image: np.ndarray, ways_xy: np.ndarray, *, nearest: bool = False) -> np.ndarray:
    """`image` read where the ways, float32 of its own size `(h, w, 2)` in its pixels, lead from each pixel."""
    if _RELATIVE_MAP is None:
        return sample(image, ways_xy + grid_xy((ways_xy.shape[0], ways_xy.shape[1])), nearest=nearest)
    how = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | _RELATIVE_MAP
    return cv2.remap(image, ways_xy, None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def scaled(field: np.ndarray, size_hw: tuple[int, int], factor: float = 1.0) -> np.ndarray:
    """A motion field as float32 `(h, w, 2)` of `size_hw`, in its pixels, times `factor`."""
    height, width = field.shape[:2]
    ways = _times(field, factor * size_hw[1] / width, factor * size_hw[0] / height)
    return ways if (height, width) == size_hw else cv2.resize(ways, size_hw[::-1], interpolation=cv2.INTER_LINEAR)


def _times(field: np.ndarray, x: float, y: float) -> np.ndarray:
    """The field with its components times x and y."""
    return cv2.multiply(field, (x, y, 0.0, 0.0))  # type: ignore[call-overload]


def consistent(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Forward-backward check: uint8 `(h, w)`, 1 where going there and back ends near the start.

    Near: squared distance below 1 % of the squared lengths plus half a pixel of the field (Sundaram et al., 2010).

    Args:
        forward, backward: motion fields from newer to older and from older to newer, `(h, w, 2)`.
    """
    back = sample_along(backward, forward)
    apart = ((forward + back) ** 2).sum(-1)
    lengths = (forward**2).sum(-1) + (back**2).sum(-1)
    return (apart <= 0.01 * lengths + 0.5).astype(np.uint8)
