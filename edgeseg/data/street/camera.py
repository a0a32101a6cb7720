"""Where the camera is at a time: ego-motion along a winding road, camera shake, and the pinhole projection."""

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from edgeseg.data.street.style import Style, generator

CAMERA_HEIGHT_M = 1.45
FIT_RANGE_M = 160.0
"""Range over which the road ahead is described by one cubic."""

_FIT_AT = np.linspace(10.0, FIT_RANGE_M, 8)
_FIT = np.linalg.pinv(np.stack([_FIT_AT, _FIT_AT**2, _FIT_AT**3], axis=1))


@dataclass(frozen=True)
class Stop:
    """The car stands from `start_s` to `end_s` at `position_m`, before a crossing."""

    start_s: float
    end_s: float
    position_m: float


class EgoMotion:
    """Position along the road as a function of time: cruising, braking, standing at crossings, starting again."""

    def __init__(self, seed: int) -> None:
        self._rng = generator(seed, 2)
        self._times_s = [-60.0]
        self._speeds = [self._cruise()]
        self._positions_m = [-60.0 * self._speeds[0]]
        self.stops: list[Stop] = []

    def _cruise(self) -> float:
        return float(self._rng.uniform(3.3, 7.6))

    def _append(self, duration_s: float, speed: float) -> None:
        self._positions_m.append(self._positions_m[-1] + 0.5 * (self._speeds[-1] + speed) * duration_s)
        self._times_s.append(self._times_s[-1] + duration_s)
        self._speeds.append(speed)

    def extend(self, until_s: float) -> None:
        """Decide the drive up to `until_s`, always in the same order, so that it depends on the seed alone."""
        while self._times_s[-1] <= until_s:
            if self._rng.random() < 0.2:
                self._append(max(self._speeds[-1] / 2.2, 0.5), 0.0)
                stand_s = float(self._rng.uniform(2.0, 4.0))
                self.stops.append(Stop(self._times_s[-1], self._times_s[-1] + stand_s, self._positions_m[-1]))
                self._append(stand_s, 0.0)
            speed = self._cruise()
            self._append(max(abs(speed - self._speeds[-1]) / 1.8, 0.5), speed)
            self._append(float(self._rng.uniform(2.0, 6.0)), speed)

    def position_m(self, time_s: float) -> float:
        """Metres driven at `time_s`, from an arbitrary origin."""
        self.extend(time_s)
        knot = bisect_right(self._times_s, time_s) - 1
        elapsed_s = time_s - self._times_s[knot]
        slope = (self._speeds[knot + 1] - self._speeds[knot]) / (self._times_s[knot + 1] - self._times_s[knot])
        return self._positions_m[knot] + (self._speeds[knot] + 0.5 * slope * elapsed_s) * elapsed_s

    def speed(self, time_s: float) -> float:
        """Metres per second at `time_s`."""
        self.extend(time_s)
        return float(np.interp(time_s, self._times_s, self._speeds))


@dataclass(frozen=True)
class Pose:
    """The camera at one time. Points are (lateral, height, along): metres right of the road's middle, up, along it."""

    along_m: float
    lateral_m: float
    height_m: float
    rotation: np.ndarray
    """float64 `(3, 3)`: from (right, up, forward) of the road to (right, up, forward) of the camera."""
    bend: tuple[float, float, float]
    """Coefficients of d, d^2, d^3 of the road's sideways displacement at distance d ahead."""
    focal_px: float
    centre_xy: tuple[float, float]
    heading: float
    roll: float
    pitch: float
    """Radians: heading against the world, roll, and pitch (positive looks up)."""

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates float64 `(..., 2)` (x, y) and depths in metres `(...)` of points `(..., 3)`."""
        ahead = points[..., 2] - self.along_m
        near = np.minimum(ahead, FIT_RANGE_M)
        linear, square, cube = self.bend
        right = points[..., 0] - self.lateral_m + ((cube * near + square) * near + linear) * near
        up = points[..., 1] - self.height_m
        rotation = self.rotation
        depth = rotation[2, 0] * right + rotation[2, 1] * up + rotation[2, 2] * ahead
        scale = self.focal_px / np.maximum(depth, 1e-3)
        pixels = np.empty((*depth.shape, 2))
        pixels[..., 0] = self.centre_xy[0] + scale * (
            rotation[0, 0] * right + rotation[0, 1] * up + rotation[0, 2] * ahead
        )
        pixels[..., 1] = self.centre_xy[1] - scale * (
            rotation[1, 0] * right + rotation[1, 1] * up + rotation[1, 2] * ahead
        )
        return pixels, depth


class Camera:
    """A dash camera on a car that keeps its lane: `pose(time_s)` is a pure function of the seed and the time."""

    def __init__(self, seed: int, style: Style, size_hw: tuple[int, int]) -> None:
        self.ego = EgoMotion(seed)
        self._style = style
        self._phases = generator(seed, 3).uniform(0, 2 * math.pi, 12)
        height, width = size_hw
        self.focal_px = 1.02 * math.sqrt(height * width)
        self.centre_xy = ((width - 1) / 2, (height - 1) * 0.51)

    def road_m(self, along_m: np.ndarray) -> np.ndarray:
        """Sideways displacement of the road in metres, in the world."""
        wave = 2 * math.pi / self._style.bend_period_m
        return self._style.bend_m * (
            np.sin(wave * along_m + self._phases[0]) + 0.35 * np.sin(1.7 * wave * along_m + self._phases[1])
        )

    def _sway(self, time_s: float, speed: float) -> tuple[float, float, float, float]:
        """Yaw, pitch, roll (radians) and heave (metres) of the car: slow steering, and shake that grows with speed."""
        phase = self._phases
        rough = 0.15 + min(speed / 8.0, 1.3)
        yaw = 0.010 * math.sin(0.9 * time_s + phase[2]) + 0.0011 * rough * math.sin(11.3 * time_s + phase[3])
        pitch = 0.0022 * math.sin(2.1 * time_s + phase[4]) + rough * (
            0.0013 * math.sin(13.7 * time_s + phase[5]) + 0.0008 * math.sin(29.1 * time_s + phase[6])
        )
        roll = 0.004 * math.sin(1.3 * time_s + phase[7]) + 0.0012 * rough * math.sin(8.9 * time_s + phase[8])
        heave = 0.010 * rough * math.sin(9.7 * time_s + phase[9])
        return yaw, pitch, roll, heave

    def pose(self, time_s: float) -> Pose:
        """The camera at `time_s`."""
        along_m = self.ego.position_m(time_s)
        yaw, pitch, roll, heave = self._sway(time_s, self.ego.speed(time_s))
        here, before, after = self.road_m(along_m + np.array([0.0, -0.5, 0.5])).tolist()
        slope = after - before
        linear, square, cube = (_FIT @ (self.road_m(along_m + _FIT_AT) - here)).tolist()
        heading = math.atan(slope) + yaw
        side = 1.0 if self._style.mirrored else -1.0
        lateral_m = side * self._style.lane_m + 0.15 * math.sin(0.5 * time_s + self._phases[10])
        return Pose(
            along_m=along_m,
            lateral_m=lateral_m,
            height_m=CAMERA_HEIGHT_M + heave,
            rotation=_rotation(heading, pitch, roll),
            bend=(linear, square, cube),
            focal_px=self.focal_px,
            centre_xy=self.centre_xy,
            heading=heading,
            roll=roll,
            pitch=pitch,
        )


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix for right, up, forward axes: yaw to the right, then pitch up, then roll clockwise."""
    turn = np.array([[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    tilt = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    return tilt @ nod @ turn
