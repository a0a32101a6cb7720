"""From a scene to pixels: every painted pixel gets its colour and its label in one stroke, so the labels are exact.

The canvas is uint8 `(H, W, 4)`: RGB and the label. Lens blur, vignette and noise come last and touch the colours alone.
"""

import math
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np

from edgeseg.data.street import sprites, textures
from edgeseg.data.street.camera import Pose
from edgeseg.data.street.plots import FLAT, FRONT, Car, Scene
from edgeseg.data.street.style import PAVEMENT, ROAD, Style, generator
from edgeseg.data.street.textures import Texture, haze_at, haze_share

VIEW_M = 150.0
NOISE_SHIFTS = 64
_NEAR_M = 1.0
_FAR_GROUND_M = 220.0
_SHIFT = 3
_SMALL_CAR_PX, _SMALL_PICTURE_PX, _SMALL_FRONT_PX = 20.0, 6.0, 8


class Painter:
    """Paints scenes of one street at one size; keeps the buffers and the textures between frames."""

    def __init__(self, seed: int, style: Style, size_hw: tuple[int, int], haze: np.ndarray) -> None:
        rng = generator(seed, 10)
        height, width = size_hw
        self._style, self._size_hw, self._haze, self._seed = style, size_hw, haze, seed
        self._ground = textures.ground_levels(rng, style)
        self._sky, self._sky_labels, self._sky_px_per_rad, self._sky_origin = textures.sky_panorama(rng, style)
        shadow = style.lit((style.asphalt,) * 3, 0.42)
        self._bodies = {
            (side, front, van): sprites.car_body(
                side, front, van, (float(shadow[0]), float(shadow[1]), float(shadow[2]))
            )
            for side in (-1, 1)
            for front in (False, True)
            for van in (False, True)
        }
        self._columns = np.arange(width, dtype=np.float32)
        self._rows = np.arange(height, dtype=np.float32)
        self._vignette, self._noise = _lens_and_sensor(size_hw)

    def paint(self, pose: Pose, scene: Scene, cars: list[Car]) -> np.ndarray:
        """The canvas, uint8 `(H, W, 4)`, of `scene` and `cars` seen from `pose`, before lens and sensor."""
        canvas = np.empty((*self._size_hw, 4), np.uint8)
        self._paint_sky(canvas, pose)
        self._paint_ground(canvas, pose)
        corners = scene.corners.copy()
        starts = corners[:, 0, 2].copy()
        np.maximum(corners[..., 2], pose.along_m + _NEAR_M, out=corners[..., 2])
        pixels, depths = pose.project(corners)
        ends = np.array([car.near_m for car in cars])
        bodies = self._car_polygons(pose, cars)
        jobs = np.argsort(np.concatenate([-scene.order_m, -ends]), kind="stable")
        visible = self._visible(pixels, corners, scene.kinds, starts, pose)
        nearest = depths.min(axis=1)
        share = haze_share(nearest)[:, None]
        fills = scene.fills.copy()
        fills[:, :3] += ((self._haze - fills[:, :3]) * share).round()
        flat, kinds = fills.tolist(), scene.kinds.tolist()
        fixed = _fixed_point(pixels)
        for job in jobs.tolist():
            if job >= len(kinds):
                for polygon, fill in bodies[job - len(kinds)]:
                    cv2.fillConvexPoly(canvas, polygon, fill, cv2.LINE_8, _SHIFT)
            elif visible[job]:
                picture = scene.pictures[job]
                if picture is None or kinds[job] == FLAT:
                    cv2.fillConvexPoly(canvas, fixed[job], flat[job], cv2.LINE_8, _SHIFT)
                elif kinds[job] == FRONT:
                    length = scene.corners[job][1, 2] - scene.corners[job][0, 2]
                    skipped = (corners[job, 0, 2] - scene.corners[job][0, 2]) / length
                    self._paint_front(canvas, pixels[job], fixed[job], flat[job], picture, float(nearest[job]), skipped)
                else:
                    self._paint_upright(canvas, pixels[job], flat[job], picture, float(nearest[job]))
        return canvas

    def _visible(
        self, pixels: np.ndarray, corners: np.ndarray, kinds: np.ndarray, starts: np.ndarray, pose: Pose
    ) -> np.ndarray:
        """Which surfaces reach into the picture: bool `(N,)`."""
        height, width = self._size_hw
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        inside = (high[:, 0] >= 0) & (low[:, 0] < width) & (high[:, 1] >= 0) & (low[:, 1] < height)
        ahead = corners[..., 2].max(axis=1) > pose.along_m + _NEAR_M + 1e-6
        upright = (kinds != FRONT) & (corners[:, 0, 2] == corners[:, 1, 2]) & (corners[:, 0, 2] == corners[:, 2, 2])
        return inside & ahead & (~upright | (starts > pose.along_m + _NEAR_M)) & (starts < pose.along_m + VIEW_M)

    def _paint_sky(self, canvas: np.ndarray, pose: Pose) -> None:
        """Sky and far silhouette, above and a little below the horizon."""
        height, width = self._size_hw
        horizon = pose.centre_xy[1] + pose.focal_px * math.tan(pose.pitch)
        bottom = min(max(int(horizon + 0.02 * height + abs(pose.roll) * width) + 3, 1), height)
        scale = self._sky_px_per_rad / pose.focal_px
        cos, sin = scale * math.cos(pose.roll), scale * math.sin(pose.roll)
        across, middle_x = pose.centre_xy[0], self._sky_origin[0] + pose.heading * self._sky_px_per_rad
        inverse = np.array(
            [
                [cos, sin, middle_x - cos * across - sin * horizon],
                [-sin, cos, self._sky_origin[1] + sin * across - cos * horizon],
            ]
        )
        flags = cv2.WARP_INVERSE_MAP
        size_wh, border = (width, bottom), cv2.BORDER_REPLICATE
        canvas[:bottom] = cv2.warpAffine(self._sky, inverse, size_wh, flags=flags | cv2.INTER_LINEAR, borderMode=border)
        canvas[:bottom, :, 3] = cv2.warpAffine(self._sky_labels, inverse, size_wh, flags=flags, borderMode=border)

    def _paint_ground(self, canvas: np.ndarray, pose: Pose) -> None:
        """Road and pavements: each pixel's ray meets the ground, and its distance from the middle is the label."""
        height, width = self._size_hw
        turned = pose.rotation.T
        right, up, ahead = (
            np.array([row[0], -row[1], row[2]])
            @ np.array([[1, 0, -pose.centre_xy[0]], [0, 1, -pose.centre_xy[1]], [0, 0, pose.focal_px]])
            for row in turned
        )
        horizons = -(up[2] + up[0] * np.array([0.0, width - 1.0])) / up[1]
        top = min(max(math.ceil(horizons.min()), 0), height - 1)
        rows, columns = self._rows[top:, None], self._columns[None]

        def plane(coefficients: np.ndarray) -> np.ndarray:
            across, down, constant = (np.float32(value) for value in coefficients)
            return (down * rows + constant) + across * columns

        falling = plane(up)
        limit = np.float32(-pose.height_m * pose.focal_px / _FAR_GROUND_M)
        scale = np.float32(-pose.height_m) / np.minimum(falling, limit)
        along = plane(ahead) * scale
        near = np.minimum(along, np.float32(160.0))
        linear, square, cube = (np.float32(value) for value in pose.bend)
        lateral = plane(right) * scale
        lateral -= ((cube * near + square) * near + linear) * near
        lateral += np.float32(pose.lateral_m)
        region = canvas[top:]
        shown = self._ground_colours(pose, lateral, along)
        on_road = np.abs(lateral) <= np.float32(self._style.road_half_m)
        shown[..., 3] = np.uint8(PAVEMENT) - np.uint8(PAVEMENT - ROAD) * on_road
        above = min(max(math.ceil(horizons.max() - float(limit) / abs(up[1])) - top + 2, 0), height - top)
        keep = falling[:above] > limit
        shown[:above][keep] = region[:above][keep]
        region[:] = shown

    def _ground_colours(self, pose: Pose, lateral: np.ndarray, along: np.ndarray) -> np.ndarray:
        """RGB of the ground (and an unset fourth channel) for maps of lateral and forward metres, with haze."""
        rows, width = lateral.shape
        depths = np.maximum(along[:, width // 2], 0.1)
        levels = np.clip(np.ceil(np.log2(depths / 9.0)), 0, textures.GROUND_LEVELS - 1).astype(int)
        offset_m = pose.along_m % textures.GROUND_LENGTH_M
        map_x = lateral * np.float32(textures.GROUND_X_PER_M)
        map_x += np.float32(textures.GROUND_HALF_M * textures.GROUND_X_PER_M - 0.5)
        last = np.float32(2 * textures.GROUND_HALF_M * textures.GROUND_X_PER_M - 3)
        np.minimum(np.maximum(map_x, np.float32(2), out=map_x), last, out=map_x)
        map_y = along * np.float32(textures.GROUND_Z_PER_M)
        map_y += np.float32(offset_m * textures.GROUND_Z_PER_M - 0.5)
        shown = np.empty((rows, width, 4), np.uint8)
        edges = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), rows]
        for start, stop in pairwise(edges):
            level = int(levels[start])
            x, y = map_x[start:stop], map_y[start:stop]
            if level:
                x = x * np.float32(0.5**level) + np.float32(0.5 * 0.5**level - 0.5)
                y = y * np.float32(0.25**level) + np.float32(0.5 * 0.25**level - 0.5)
            shown[start:stop] = cv2.remap(self._ground[level], x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        far = int(np.searchsorted(-depths, -12.0))
        if far:
            share = haze_share(depths[:far]).astype(np.float32)[:, None, None]
            band = shown[:far, :, :3]
            band[:] = band + (self._haze.astype(np.float32) - band) * share
        return shown

    def _paint_front(
        self,
        canvas: np.ndarray,
        pixels: np.ndarray,
        fixed: np.ndarray,
        colour: list[float],
        picture: Texture,
        depth_m: float,
        skipped: float,
    ) -> None:
        """A wall along the road, its texture in perspective; `skipped` is the share of its length behind the camera."""
        height, width = self._size_hw
        x0, y0 = max(int(pixels[:, 0].min()), 0), max(int(pixels[:, 1].min()), 0)
        x1, y1 = min(int(pixels[:, 0].max()) + 2, width), min(int(pixels[:, 1].max()) + 2, height)
        if x1 - x0 < _SMALL_FRONT_PX:
            cv2.fillConvexPoly(canvas, fixed, colour, cv2.LINE_8, _SHIFT)
            return
        across = abs(pixels[1, 0] - pixels[0, 0]) / max(1e-3, 1 - skipped)
        texture = picture.level(picture.size_hw[1] / max(across, 1.0) * 0.7, depth_m)
        rows, columns = texture.shape[:2]
        left = skipped * columns
        source = np.array([[left, 0], [columns, 0], [columns, rows], [left, rows]], np.float32) - np.float32(0.5)
        target = (pixels - (x0, y0)).astype(np.float32)
        warp = cv2.getPerspectiveTransform(target, source)
        patch = cv2.warpPerspective(
            texture,
            warp,
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(mask, fixed - (x0 << _SHIFT, y0 << _SHIFT), 255, cv2.LINE_8, _SHIFT)
        cv2.copyTo(patch, mask, canvas[y0:y1, x0:x1])

    def _paint_upright(
        self, canvas: np.ndarray, pixels: np.ndarray, colour: list[float], picture: Texture, depth_m: float
    ) -> None:
        """A picture that faces the camera: where its alpha passes one half, its colours and its label."""
        height, width = self._size_hw
        (left, top), (right, bottom) = pixels[0].tolist(), pixels[2].tolist()
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1, y1 = min(int(right) + 1, width), min(int(bottom) + 1, height)
        if x1 <= x0 or y1 <= y0:
            return
        if bottom - top < _SMALL_PICTURE_PX:
            canvas[y0:y1, x0:x1] = colour
            return
        texture = picture.level(picture.size_hw[0] / max(bottom - top, 1e-3), depth_m)
        rows, columns = texture.shape[:2]
        step_x, step_y = columns / max(right - left, 1e-3), rows / max(bottom - top, 1e-3)
        inverse = np.array(
            [[step_x, 0, (x0 + 0.5 - left) * step_x - 0.5], [0, step_y, (y0 + 0.5 - top) * step_y - 0.5]]
        )
        size_wh, flags = (x1 - x0, y1 - y0), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = cv2.warpAffine(texture, inverse, size_wh, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.threshold(cv2.extractChannel(patch, 3), 127, 255, cv2.THRESH_BINARY)[1]
        patch[..., 3] = picture.label
        cv2.copyTo(patch, mask, canvas[y0:y1, x0:x1])

    def _car_polygons(self, pose: Pose, cars: list[Car]) -> list[list[tuple[np.ndarray, list[float]]]]:
        """Polygons (fixed-point pixels) and fills of each car, back to front; few for a small one, none out of view."""
        points, fills, counts = [], [], []
        light = np.minimum(np.array(self._style.light), 1.0)
        for car in cars:
            ahead = car.near_m - pose.along_m
            across = abs(car.lateral_m - pose.lateral_m)
            if not -4.0 < ahead < VIEW_M - 20 or across > 3 + 1.2 * (ahead + 5) * self._size_hw[1] / pose.focal_px:
                counts.append(0)
                continue
            body = self._bodies[(-1 if car.lateral_m > pose.lateral_m else 1, car.front, car.van)]
            small = pose.focal_px * 1.5 / max(ahead, 1.0) < _SMALL_CAR_PX
            chosen: slice | np.ndarray = body.coarse if small else slice(None)
            share = haze_at(ahead)
            colours = np.minimum(body.paint[chosen, None] * car.colour + body.fixed[chosen] * light, 255.0)
            points.append(body.points[chosen] + (car.lateral_m, 0.0, car.near_m))
            fills.append(
                np.concatenate([(colours * (1 - share) + self._haze * share).round(), body.label[chosen, None]], axis=1)
            )
            counts.append(len(colours))
        if not points:
            return [[] for _ in cars]
        corners = np.concatenate(points)
        np.maximum(corners[..., 2], pose.along_m + _NEAR_M, out=corners[..., 2])
        pixels, _ = pose.project(corners)
        polygons = list(zip(_fixed_point(pixels), np.concatenate(fills).tolist(), strict=True))
        ends = np.cumsum(counts).tolist()
        return [polygons[end - count : end] for end, count in zip(ends, counts, strict=True)]

    def develop(self, canvas: np.ndarray, time_s: float) -> np.ndarray:
        """The frame of a canvas: lens blur, vignette, automatic exposure and sensor noise. uint8 `(H, W, 3)` RGB."""
        height, width = self._size_hw
        frame = cv2.cvtColor(canvas, cv2.COLOR_RGBA2RGB)
        frame = cv2.GaussianBlur(frame, (3, 3), 0.55)
        gain = self._style.exposure * (1 + 0.04 * math.sin(0.31 * time_s))
        frame = cv2.multiply(frame, self._vignette, scale=gain / 255)
        dx, dy = (int(value) for value in generator(self._seed, 11, round(time_s * 90000)).integers(0, NOISE_SHIFTS, 2))
        noise = self._noise[dy : dy + height, dx : dx + width]
        return cv2.addWeighted(frame, 1.0, noise, self._style.noise, -128 * self._style.noise)


@lru_cache(maxsize=4)
def _lens_and_sensor(size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The vignette, uint8 `(H, W, 3)`, and a picture of noise around 128 that is a little larger than a frame."""
    height, width = size_hw
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 255 * (1 - 0.16 * (x * x + y * y) ** 1.3)
    shape = (height + NOISE_SHIFTS, width + NOISE_SHIFTS, 3)
    noise = np.clip(generator(0, 12, height, width).normal(128, 28, shape), 0, 255).astype(np.uint8)
    return np.repeat(np.clip(vignette, 0, 255).astype(np.uint8)[..., None], 3, axis=2), noise


def _fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Pixel coordinates as int32 with _SHIFT fractional bits, kept far from overflow."""
    return (np.clip(pixels, -20000, 20000) * (1 << _SHIFT)).round().astype(np.int32)
