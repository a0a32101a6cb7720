"""Procedural textures of a street: ground, sky, facades, fences and signs, made once per video."""

import math

import cv2
import numpy as np

from edgeseg.data.street.style import BUILDING, FENCE, SIGN, SKY, TREE, Colour, Style

GROUND_HALF_M, GROUND_LENGTH_M = 16.0, 48.0
GROUND_X_PER_M, GROUND_Z_PER_M = 24, 12
GROUND_LEVELS = 5
HAZE_STEPS = 8
_BACKDROP_PER_RAD = 420.0


def haze_share(depths_m: np.ndarray) -> np.ndarray:
    """Share of the haze's colour at some distances, 0 to 1."""
    return 0.85 * (1.0 - np.exp(-np.maximum(depths_m, 0) / 150.0))


def haze_at(depth_m: float) -> float:
    """`haze_share` of one distance."""
    return 0.85 * (1.0 - math.exp(-max(depth_m, 0.0) / 150.0))


class Texture:
    """A picture with its label, its mip levels and its hazed versions, each made when first needed.

    `rgb` is uint8 `(h, w, 3)`; `alpha` (uint8 `(h, w)`, None = opaque) tells what of it exists.
    """

    def __init__(self, rgb: np.ndarray, label: int, haze: np.ndarray, alpha: np.ndarray | None = None) -> None:
        self._rgb, self._alpha, self._haze, self.label = rgb, alpha, haze, label
        self.size_hw = (rgb.shape[0], rgb.shape[1])
        self._levels: dict[tuple[int, int], np.ndarray] = {}
        self.mean_rgb = rgb.reshape(-1, 3).mean(axis=0)

    def level(self, shrink: float, depth_m: float) -> np.ndarray:
        """uint8 `(h, w, 4)` for drawing `shrink` texture pixels onto one frame pixel at `depth_m`.

        RGB, then the alpha of a picture that has one, else the label.
        """
        index = min(max(int(math.log2(max(shrink, 1e-6)) + 0.35), 0), 5)
        key = (index, round(haze_at(depth_m) * HAZE_STEPS))
        if key not in self._levels:
            size_wh = (max(2, self.size_hw[1] >> index), max(2, self.size_hw[0] >> index))
            share = key[1] / HAZE_STEPS
            rgb = cv2.resize(self._rgb, size_wh, interpolation=cv2.INTER_AREA) * (1 - share) + self._haze * share
            last = np.full(self.size_hw, self.label, np.uint8) if self._alpha is None else self._alpha
            last = np.asarray(cv2.resize(last, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
            self._levels[key] = np.dstack([rgb.astype(np.uint8), last])
        return self._levels[key]


def _clouds(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth noise, float32 `(height, width)`, mean about 0, from three octaves."""
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        size = max(1, cell >> octave)
        coarse = rng.standard_normal((height // size + 2, width // size + 2)).astype(np.float32)
        total += (
            np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32) / 1.6**octave
        )
    return total


def ground_levels(rng: np.random.Generator, style: Style) -> list[np.ndarray]:
    """The road's surface with pavements, RGBA `(h, w, 4)` uint8, at halved width and quartered length per level.

    Columns run from -GROUND_HALF_M to +GROUND_HALF_M; rows are one period of GROUND_LENGTH_M along the road.
    """
    height, width = int(GROUND_LENGTH_M * GROUND_Z_PER_M), int(2 * GROUND_HALF_M * GROUND_X_PER_M)
    lateral = (np.arange(width, dtype=np.float32) + 0.5) / GROUND_X_PER_M - GROUND_HALF_M
    along = (np.arange(height, dtype=np.float32) + 0.5) / GROUND_Z_PER_M
    tile = np.empty((height, width, 3), np.float32)
    grain = rng.standard_normal((height, width)).astype(np.float32) * 7
    tracks = 7 * (np.cos(2 * np.pi * (np.abs(lateral) - style.lane_m) / 1.6) - 0.5)
    tile[:] = (style.asphalt + grain + tracks + 5 * _clouds(rng, height, width, 96))[..., None]
    outside = np.abs(lateral) > style.road_half_m
    slabs = (np.mod(lateral, 0.6)[None] < 0.05) | (np.mod(along, 0.9)[:, None] < 0.09)
    paving = np.array(style.pavement, np.float32) + (0.6 * grain + 6 * _clouds(rng, height, width, 64))[..., None]
    tile[:, outside] = (paving - 28 * slabs[..., None])[:, outside]
    _paint_markings(tile, rng, style, lateral, along)
    shade = np.where(lateral < 0, style.shade_left, style.shade_right)
    reach = np.clip((np.abs(lateral) - 0.45 * style.road_half_m) / 1.0, 0, 1)
    tile *= (1 - reach * (1 - shade))[None, :, None]
    dapple = np.clip(_clouds(rng, height, width, 48) - 0.9, 0, 1) * np.clip(np.abs(lateral) - 1.5, 0, 1)
    tile *= (1 - 0.35 * style.tree_share * 2.5 * dapple)[..., None]
    levels = [np.clip(tile * np.array(style.light, np.float32), 0, 255).astype(np.uint8)]
    for _ in range(GROUND_LEVELS - 1):
        rows, columns = levels[-1].shape[:2]
        smaller = cv2.resize(levels[-1], (columns // 2, max(2, rows // 4)), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(smaller, np.uint8))
    return [cv2.cvtColor(level, cv2.COLOR_RGB2RGBA) for level in levels]


def _paint_markings(
    tile: np.ndarray, rng: np.random.Generator, style: Style, lateral: np.ndarray, along: np.ndarray
) -> None:
    """Centre dashes, edge lines or parking bays, and kerbs, painted into the ground tile."""
    worn = rng.uniform(0.6, 0.95)
    white = np.array((214, 214, 208), np.float32)
    dashes = np.mod(along, 6.0) < rng.uniform(2.0, 4.0)
    centre = np.abs(lateral) < 0.07
    tile[np.ix_(dashes, centre)] += worn * (white - tile[np.ix_(dashes, centre)])
    if style.parking:
        line = np.abs(np.abs(lateral) - (style.road_half_m - 2.1)) < 0.06
        bays = np.mod(along, 2.0) < 1.0
        tile[np.ix_(bays, line)] += worn * (white - tile[np.ix_(bays, line)])
    else:
        paint = np.array((206, 176, 74) if rng.random() < 0.5 else (200, 200, 196), np.float32)
        gap = style.road_half_m - np.abs(lateral)
        line = (np.abs(gap - 0.3) < 0.05) | (np.abs(gap - 0.5) < 0.05)
        tile[:, line] += 0.75 * (paint - tile[:, line])
    kerb = np.abs(np.abs(lateral) - style.road_half_m - 0.07) < 0.08
    tile[:, kerb] = tile[:, kerb] * 0.3 + 0.7 * np.array((176, 174, 170), np.float32)
    gutter = np.abs(np.abs(lateral) - style.road_half_m + 0.08) < 0.08
    tile[:, gutter] *= 0.7


def sky_panorama(rng: np.random.Generator, style: Style) -> tuple[np.ndarray, np.ndarray, float, tuple[float, float]]:
    """Sky with clouds and the far silhouette: RGBA, labels, pixels per radian, and (x, y) of straight ahead."""
    height, width, horizon = 470, 1280, 400
    ramp = np.clip(np.arange(height) / horizon, 0, 1)[:, None, None] ** 1.4
    rgb = np.array(style.sky_top) * (1 - ramp) + np.array(style.sky_horizon) * ramp
    cover = np.clip(_clouds(rng, height, width, 160) * 0.5 + rng.uniform(-0.3, 0.3), 0, 1)[..., None]
    rgb = rgb + cover * (np.array((244, 244, 246)) - rgb) * rng.uniform(0.2, 0.8)
    rgb *= np.clip(np.array(style.light) + 0.08, 0, 1.08)
    labels = np.full((height, width), SKY, np.uint8)
    far = np.array(style.sky_horizon) * np.array(style.light)
    rows = np.arange(height)[:, None]
    trees = horizon - 10 - 5 * _clouds(rng, 1, width, 40)[0] - 3 * rng.random(width)
    houses = horizon - np.repeat(rng.uniform(-4, 22, width // 20), 20)
    for top, label, colour in ((trees, TREE, style.foliage), (houses, BUILDING, style.walls[0])):
        inside = rows >= top[None]
        labels[inside] = label
        rgb[inside] = 0.42 * style.lit(colour, 0.85) + 0.58 * far + rng.normal(0, 3, (int(inside.sum()), 1))
    panorama = cv2.cvtColor(np.clip(rgb, 0, 255).astype(np.uint8), cv2.COLOR_RGB2RGBA)
    return panorama, labels, _BACKDROP_PER_RAD, (width / 2, float(horizon))


def facade(rng: np.random.Generator, style: Style, wall: Colour, shade: float, haze: np.ndarray) -> Texture:
    """A house front of 12 m: wall, storeys of windows with frames and sills, a shop or a door below."""
    width, height, storeys = 216, 180, int(rng.integers(2, 5))
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:] = np.array(wall, np.float32) + (rng.standard_normal((height, width)) * 5)[..., None]
    rgb += (4 * _clouds(rng, height, width, 40))[..., None]
    rgb[np.arange(height) % 5 == 0] *= 0.93
    storey, columns = height // storeys, int(rng.integers(3, 7))
    pane, frame = rng.uniform(30, 70), rng.uniform(150, 235)
    wide, tall = 216 / columns * rng.uniform(0.36, 0.6), storey * rng.uniform(0.48, 0.62)
    for row in range(storeys - 1):
        for column in range(columns):
            x, y = int((column + 0.5) * width / columns - wide / 2), int(row * storey + storey * 0.22)
            glint = pane + rng.uniform(-12, 40)
            x1, y1 = int(x + wide), int(y + tall)
            cv2.rectangle(rgb, (x - 2, y - 2), (x1 + 2, y1 + 3), (frame, frame, frame * 0.97), -1)
            cv2.rectangle(rgb, (x, y), (x1, y1), (glint, glint * 1.05, glint * 1.15), -1)
            cv2.line(rgb, ((x + x1) // 2, y), ((x + x1) // 2, y1), (frame, frame, frame), 2)
    _ground_floor(rgb, rng, (storeys - 1) * storey)
    rgb[:4] *= 0.6
    rgb[:, :2] *= 0.75
    return Texture(np.clip(rgb * np.array(style.light) * shade, 0, 255).astype(np.uint8), BUILDING, haze)


def _ground_floor(rgb: np.ndarray, rng: np.random.Generator, top: int) -> None:
    """A shop front with a coloured fascia, or windows and a door."""
    height, width = rgb.shape[:2]
    if rng.random() < 0.55:
        fascia = tuple(float(value) for value in rng.uniform(25, 205, 3))
        cv2.rectangle(rgb, (0, top), (width, top + 12), fascia, -1)
        for x in range(int(rng.integers(10, 60)), width - 60, 9):
            cv2.line(rgb, (x, top + 4), (x + 4, top + 8), (225, 222, 210), 2)
        cv2.rectangle(rgb, (5, top + 14), (width - 6, height - 10), (42, 44, 48), -1)
        for x in range(8, width - 30, 48):
            glow = float(rng.uniform(45, 120))
            cv2.rectangle(rgb, (x, top + 17), (x + 40, height - 14), (glow, glow * 0.96, glow * 0.85), -1)
        return
    for x in range(16, width - 40, 64):
        cv2.rectangle(rgb, (x, top + 12), (x + 30, height - 22), (205, 203, 196), -1)
        cv2.rectangle(rgb, (x + 2, top + 14), (x + 28, height - 24), (52, 56, 62), -1)
    door = tuple(float(value) for value in rng.uniform(20, 150, 3))
    cv2.rectangle(rgb, (width - 34, top + 10), (width - 12, height), door, -1)


def fence(rng: np.random.Generator, style: Style, shade: float, haze: np.ndarray) -> Texture:
    """Railings before a hedge, planks, or a brick wall with a coping: 6 m long."""
    width, height, kind = 144, 40, int(rng.integers(3))
    base: Colour = ((66, 72, 52), (140, 108, 74), (150, 92, 74))[kind]
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:] = np.array(base) + (rng.standard_normal((height, width)) * 10)[..., None]
    if kind == 0:
        rgb[:, np.arange(width) % 6 < 2] = (28, 30, 32)
        rgb[3:6] = rgb[-7:-4] = (28, 30, 32)
    elif kind == 1:
        rgb[:, np.arange(width) % 9 == 0] *= 0.55
    else:
        rgb[np.arange(height) % 5 == 0] *= 0.8
        rgb[:5] = (178, 172, 160)
    return Texture(np.clip(rgb * np.array(style.light) * shade, 0, 255).astype(np.uint8), FENCE, haze)


def sign(rng: np.random.Generator, style: Style, haze: np.ndarray, kind: int) -> Texture:
    """0 round with a red rim, 1 triangle, 2 blue disc, 3 board, 4 traffic light: square but for 4 (1 : 2.4)."""
    height, width = (96, 40) if kind == 4 else (48, 48)
    rgb, alpha = np.full((height, width, 3), 200, np.uint8), np.zeros((height, width), np.uint8)
    if kind in (0, 2):
        cv2.circle(alpha, (24, 24), 23, 255, -1)
        cv2.circle(rgb, (24, 24), 30, (204, 30, 34) if kind == 0 else (26, 74, 164), -1)
        cv2.circle(rgb, (24, 24), 15, (238, 238, 236) if kind == 0 else (40, 92, 186), -1)
        cv2.putText(rgb, str(int(rng.integers(2, 6))) + "0", (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (24, 24, 26), 2)
    elif kind == 1:
        cv2.fillConvexPoly(alpha, np.array([[24, 2], [47, 44], [1, 44]]), 255)
        rgb[:] = (206, 32, 34)
        cv2.fillConvexPoly(rgb, np.array([[24, 13], [38, 39], [10, 39]]), (240, 240, 236))
        cv2.line(rgb, (24, 22), (24, 34), (20, 20, 20), 4)
    elif kind == 3:
        alpha[6:42] = 255
        rgb[:] = ((30, 96, 62), (238, 236, 230), (34, 78, 150))[int(rng.integers(3))]
        for y in (14, 24, 34):
            cv2.line(rgb, (6, y), (int(rng.integers(24, 42)), y), (150, 150, 148), 3)
    else:
        alpha[:] = 255
        rgb[:] = (26, 27, 28)
        for y, lamp in ((18, (228, 44, 36)), (48, (92, 74, 22)), (78, (22, 74, 44))):
            cv2.circle(rgb, (20, y), 12, lamp, -1)
    lit = np.clip(rgb * np.minimum(np.array(style.light), 1.0), 0, 255).astype(np.uint8)
    return Texture(lit, SIGN, haze, alpha)
