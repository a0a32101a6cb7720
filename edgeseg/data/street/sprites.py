"""Pictures of what grows and what moves: trees, walking pedestrians, pedalling cyclists, and car bodies."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.data.street.style import BICYCLIST, CAR, PEDESTRIAN, ROAD, TREE, Style
from edgeseg.data.street.textures import Texture

PHASES = 8
"""Pictures per walking or pedalling cycle."""
CLOTHES = (
    (36, 38, 44), (58, 66, 92), (124, 44, 44), (196, 190, 180), (64, 84, 66), (142, 116, 84), (176, 58, 40),
    (44, 92, 140), (222, 210, 60), (96, 72, 104),
)  # fmt: skip
SKIN = ((224, 184, 156), (196, 150, 118), (120, 84, 62))
_DARK = (30, 31, 34)


def tree(rng: np.random.Generator, style: Style, haze: np.ndarray) -> Texture:
    """A tree, 4 : 5: trunk, branches and a crown of clustered foliage, lit from above, with holes."""
    width, height = 128, 160
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:] = np.array(style.foliage) * 0.7
    alpha = np.zeros((height, width), np.uint8)
    bark = np.array((84, 70, 58)) * rng.uniform(0.7, 1.1)
    for end in ((64, 70), (42, 60), (88, 62)):
        cv2.line(alpha, (64, 112), end, 255, 5)
        cv2.line(rgb, (64, 112), end, bark.tolist(), 5)
    cv2.rectangle(alpha, (60, 100), (68, height), 255, -1)
    cv2.rectangle(rgb, (60, 100), (68, height), bark.tolist(), -1)
    squeeze = rng.uniform(0.75, 1.0)
    for step in range(150):
        angle, radius = rng.uniform(0, 2 * math.pi), math.sqrt(rng.random())
        x, y = 64 + squeeze * 54 * radius * math.cos(angle), 58 + 50 * radius * math.sin(angle)
        axes = (int(rng.uniform(4, 11)), int(rng.uniform(3, 8)))
        gain = (0.55 + 0.55 * step / 150) * (1.2 - y / 190) * rng.uniform(0.85, 1.15)
        colour = (np.array(style.foliage) * gain).tolist()
        cv2.ellipse(rgb, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        cv2.ellipse(alpha, (int(x), int(y)), axes, 0, 0, 360, 255, -1)
    for _ in range(60):
        hole = (int(rng.integers(8, 120)), int(rng.integers(8, 104)))
        cv2.circle(alpha, hole, int(rng.integers(1, 3)), 0, -1)
    rgb += (rng.standard_normal((height, width)) * 9)[..., None]
    return Texture(np.clip(rgb * np.array(style.light), 0, 255).astype(np.uint8), TREE, haze, alpha)


class _Figure:
    """Limbs drawn alike into a picture and its alpha, in units of a 100 pixel tall person."""

    def __init__(self, width: int) -> None:
        self.rgb = np.full((112, width, 3), 60, np.uint8)
        self.alpha = np.zeros((112, width), np.uint8)
        self.middle = width / 2

    def limb(self, points: list[tuple[float, float]], thickness: int, colour: tuple[int, int, int]) -> None:
        """A chain of thick strokes."""
        chain = [np.array([(self.middle + x, y + 6) for x, y in points]).round().astype(np.int32)]
        cv2.polylines(self.rgb, chain, False, colour, thickness + 2)
        cv2.polylines(self.alpha, chain, False, 255, thickness)

    def ball(self, x: float, y: float, axes: tuple[int, int], colour: tuple[int, int, int], line: int = -1) -> None:
        """An ellipse, filled or `line` pixels thick."""
        centre = (round(self.middle + x), round(y + 6))
        cv2.ellipse(self.rgb, centre, axes, 0, 0, 360, colour, line)
        cv2.ellipse(self.alpha, centre, axes, 0, 0, 360, 255, line)

    def texture(self, label: int, style: Style, haze: np.ndarray) -> Texture:
        """The figure under the street's light."""
        shaded = self.rgb * np.linspace(1.05, 0.8, self.rgb.shape[1])[None, :, None]
        return Texture(np.clip(shaded * np.array(style.light), 0, 255).astype(np.uint8), label, haze, self.alpha)


def pedestrian(variant: int, phase: int, sideways: bool, style: Style, haze: np.ndarray) -> Texture:
    """A person 1 : 2, seen from the front or the back, or from the side; `phase` of PHASES of the walking cycle."""
    coat, trousers = CLOTHES[variant % 10], CLOTHES[(variant * 7 + 3) % 8]
    skin, hair = SKIN[variant % 3], ((40, 30, 24), (104, 76, 48), (150, 146, 140))[variant // 3 % 3]
    swing = math.sin(2 * math.pi * phase / PHASES)
    figure = _Figure(56)
    for side in (-1, 1):
        reach = side * swing
        if sideways:
            knee, foot = (8 * reach, 74 - 2 * abs(reach)), (15 * reach - 2, 97 - 5 * max(0.0, -reach))
            figure.limb([(0, 52), knee, foot, (foot[0] + 5, foot[1])], 8, trousers)
            figure.limb([(0, 24), (-7 * reach, 40), (-10 * reach + 4, 52)], 6, coat)
        else:
            lift = 5 * max(0.0, reach)
            figure.limb([(4 * side, 52), (5 * side, 74 - lift), (5 * side, 98 - 1.6 * lift)], 8, trousers)
            figure.limb([(9 * side, 23), (13 * side, 38), (12 * side, 52 - 0.6 * lift)], 6, coat)
    figure.ball(0, 36, (8 if sideways else 11, 20), coat)
    figure.ball(0, 9, (6, 8), skin)
    figure.ball(-1 if sideways else 0, 5, (6, 5), hair)
    return figure.texture(PEDESTRIAN, style, haze)


def cyclist(variant: int, phase: int, style: Style, haze: np.ndarray) -> Texture:
    """A rider on a bicycle, 1 : 2, seen from behind or ahead; `phase` of PHASES of the turning pedals."""
    coat, trousers = CLOTHES[(variant * 3 + 1) % 10], CLOTHES[variant % 5]
    figure = _Figure(56)
    figure.ball(0, 82, (3, 19), _DARK)
    figure.limb([(0, 58), (0, 80)], 3, (150, 40, 40))
    figure.limb([(-14, 46), (14, 46)], 3, _DARK)
    for side in (-1, 1):
        pedal = 9 * math.sin(2 * math.pi * phase / PHASES) * side
        figure.limb([(5 * side, 54), (9 * side, 66 + 0.5 * pedal), (6 * side, 84 + pedal)], 8, trousers)
        figure.limb([(9 * side, 24), (14 * side, 36), (12 * side, 46)], 6, coat)
    figure.ball(0, 37, (11, 19), coat)
    figure.ball(0, 10, (6, 8), SKIN[variant % 3])
    figure.ball(0, 6, (7, 6), ((220, 216, 208), _DARK, (190, 40, 40))[variant % 3])
    return figure.texture(BICYCLIST, style, haze)


@dataclass(frozen=True)
class CarBody:
    """Convex polygons of a car seen from one end and one side, back to front.

    `points` is float64 `(P, 8, 3)`: right, up, away from the near end's middle, in metres. `paint` tells the share of
    the car's own colour per polygon, `fixed` float64 `(P, 3)` the rest of the colour (RGB, unlit), `label` the classes.
    """

    points: np.ndarray
    paint: np.ndarray
    fixed: np.ndarray
    label: np.ndarray
    coarse: np.ndarray
    """Indices of the polygons that suffice when the car is a few pixels tall."""


def _disc(x: float, radius: float, z: float) -> list[tuple[float, float, float]]:
    angles = np.arange(8) * math.pi / 4
    return [(x, radius + radius * math.sin(angle), z + radius * math.cos(angle)) for angle in angles]


def car_body(side: int, front: bool, van: bool, asphalt: tuple[float, float, float]) -> CarBody:
    """The body with its visible flank at `side` (-1 left, 1 right); `front`: it comes towards the camera."""
    length, half, top, belt = (4.9, 0.95, 2.05, 1.15) if van else (4.2, 0.87, 1.46, 0.88)
    rise0, rise1 = (0.1, 0.5) if van else ((0.75, 1.55) if front else (0.2, 0.85))
    tail0, tail1 = (0.9, 0.4) if van else ((0.25, 0.85) if front else (0.9, 1.7))
    x, narrow = side * half, 0.85 * half
    glass, lamp = (38, 46, 56), (236, 234, 220) if front else (186, 26, 26)
    rows: list[tuple[list[tuple[float, float, float]], float, tuple[float, float, float], int, bool]] = []

    def add(
        points: list[tuple[float, float, float]],
        paint: float,
        fixed: tuple[float, float, float] = (0, 0, 0),
        label: int = CAR,
        coarse: bool = False,
    ) -> None:
        rows.append((points + points[-1:] * (8 - len(points)), paint, fixed, label, coarse))

    def end(y0: float, y1: float, w0: float, w1: float, z0: float, z1: float) -> list[tuple[float, float, float]]:
        return [(-w0, y0, z0), (w0, y0, z0), (w1, y1, z1), (-w1, y1, z1)]

    shadow = half + 0.25
    add([(-shadow, 0, -0.3), (shadow, 0, -0.3), (shadow, 0, length), (-shadow, 0, length)], 0, asphalt, ROAD, True)
    add(end(0.05, 0.3, half - 0.1, half - 0.1, 0.1, 0.1), 0, (18, 18, 20))
    add([(x, 0.22, 0), (x, 0.22, length), (x, belt, length), (x, belt, 0)], 0.72, coarse=True)
    cabin = [(x, belt, rise0), (x, belt, length - tail0), (x * 0.85, top, length - tail1), (x * 0.85, top, rise1)]
    add(cabin, 0.6, coarse=True)
    low, high = belt + 0.05, top - 0.1
    panes = [
        (x, low, rise0 + 0.3),
        (x, low, length - tail0 - 0.25),
        (x * 0.87, high, length - tail1 - 0.1),
        (x * 0.87, high, rise1 + 0.1),
    ]
    add(panes, 0, (30, 36, 44))
    middle = length * 0.52
    add([(x, low, middle), (x, low, middle + 0.12), (x * 0.87, high, middle + 0.12), (x * 0.87, high, middle)], 0.6)
    for z in (0.75, length - 0.8):
        add(_disc(x, 0.33, z), 0, (22, 22, 24))
        hub = [(px, 0.33 + (py - 0.33) * 0.55, z + (pz - z) * 0.55) for px, py, pz in _disc(x, 0.33, z)]
        add(hub, 0, (136, 138, 142))
    add(end(belt, top, half, narrow, rise0, rise1), 0.85, coarse=True)
    add(end(belt, belt + 0.01, half, half, 0.0, rise0), 1.05)
    slope = (rise1 - rise0) / (top - belt)
    add(end(low, high, 0.88 * half, 0.9 * narrow, rise0 + slope * 0.05, rise1 - slope * 0.1), 0, glass, CAR, True)
    add(end(0.24, belt, half, half, 0.0, 0.0), 0.95, coarse=True)
    add(end(0.24, 0.42, half, half, -0.03, -0.03), 0, (48, 49, 52))
    for sign in (-1, 1):
        outer, inner = sign * half * 0.97, sign * half * 0.62
        add(
            [
                (outer, belt - 0.26, -0.02),
                (inner, belt - 0.26, -0.02),
                (inner, belt - 0.1, -0.02),
                (outer, belt - 0.1, -0.02),
            ],
            0,
            lamp,
        )
    add(end(0.48, 0.6, 0.26, 0.26, -0.04, -0.04), 0, (232, 228, 214) if front else (222, 196, 84))
    return CarBody(
        points=np.array([row[0] for row in rows], float),
        paint=np.array([row[1] for row in rows], float),
        fixed=np.array([row[2] for row in rows], float),
        label=np.array([row[3] for row in rows], np.uint8),
        coarse=np.array([index for index, row in enumerate(rows) if row[4]]),
    )
