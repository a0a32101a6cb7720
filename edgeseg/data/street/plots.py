"""What stands along a street: plots of 12 m on either side, each drawn from the seed, its side and its number alone."""

from dataclasses import dataclass, field

import numpy as np

from edgeseg.data.street import sprites, textures
from edgeseg.data.street.style import BUILDING, POLE, ROAD, TREE, Colour, Style, generator
from edgeseg.data.street.textures import Texture

PLOT_M = 12.0
JUNCTION_EVERY = 9
FLAT, FRONT, SPRITE = 0, 1, 2
"""Kinds of surface: one colour; a texture in perspective (fronts run along the road); an upright picture."""


@dataclass
class Surfaces:
    """Four-cornered surfaces, gathered as lists. Corners run top near, top far, bottom far, bottom near (or the like).

    `order_m` tells the place along the road by which surfaces are painted, far ones first.
    """

    corners: list[np.ndarray] = field(default_factory=list)
    order_m: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    colours: list[np.ndarray] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    pictures: list[Texture | None] = field(default_factory=list)

    def flat(self, corners: list[tuple[float, float, float]], colour: np.ndarray, label: int, order_m: float) -> None:
        """A surface of one colour (lit RGB)."""
        self._add(np.array(corners, float), order_m, FLAT, colour, label, None)

    def upright(
        self, lateral: float, bottom: float, along: float, width: float, height: float, picture: Texture
    ) -> None:
        """A picture that faces the camera, `lateral` being its middle."""
        left, right, top = lateral - width / 2, lateral + width / 2, bottom + height
        corners = np.array([(left, top, along), (right, top, along), (right, bottom, along), (left, bottom, along)])
        self._add(corners, along, SPRITE, picture.mean_rgb, picture.label, picture)

    def front(self, lateral: float, height: float, near: float, far: float, order_m: float, picture: Texture) -> None:
        """A textured wall along the road."""
        corners = np.array([(lateral, height, near), (lateral, height, far), (lateral, 0, far), (lateral, 0, near)])
        self._add(corners, order_m, FRONT, picture.mean_rgb, picture.label, picture)

    def _add(
        self, corners: np.ndarray, order_m: float, kind: int, colour: np.ndarray, label: int, picture: Texture | None
    ) -> None:
        self.corners.append(corners)
        self.order_m.append(order_m)
        self.kinds.append(kind)
        self.colours.append(colour)
        self.labels.append(label)
        self.pictures.append(picture)

    def scene(self) -> "Scene":
        """The surfaces as arrays."""
        count = len(self.labels)
        return Scene(
            corners=np.array(self.corners, float).reshape(count, 4, 3),
            order_m=np.array(self.order_m, float),
            kinds=np.array(self.kinds, np.uint8),
            fills=np.column_stack([np.array(self.colours, float).reshape(count, 3), np.array(self.labels, float)]),
            pictures=tuple(self.pictures),
        )


@dataclass(frozen=True)
class Scene:
    """N surfaces as arrays."""

    corners: np.ndarray
    """float64 `(N, 4, 3)`: right of the road's middle, up, along it, in metres."""
    order_m: np.ndarray
    """float64 `(N,)`: painted from the largest down."""
    kinds: np.ndarray
    """uint8 `(N,)`: FLAT, FRONT or SPRITE."""
    fills: np.ndarray
    """float64 `(N, 4)`: lit RGB and the label."""
    pictures: tuple[Texture | None, ...]

    @classmethod
    def joined(cls, scenes: "list[Scene]") -> "Scene":
        """All surfaces of `scenes`, in order."""
        return cls(
            corners=np.concatenate([scene.corners for scene in scenes]),
            order_m=np.concatenate([scene.order_m for scene in scenes]),
            kinds=np.concatenate([scene.kinds for scene in scenes]),
            fills=np.concatenate([scene.fills for scene in scenes]),
            pictures=tuple(picture for scene in scenes for picture in scene.pictures),
        )


@dataclass(frozen=True)
class Car:
    """A car on the road: middle of its near end, whether it faces the camera, its kind and its lit colour."""

    lateral_m: float
    near_m: float
    front: bool
    van: bool
    colour: np.ndarray


CAR_PAINT: tuple[Colour, ...] = (
    (186, 188, 192), (36, 38, 44), (232, 232, 230), (120, 26, 30), (34, 56, 104), (92, 98, 104), (168, 160, 132),
    (40, 84, 62), (196, 46, 36),
)  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """One plot: what stands on it and the cars parked before it."""

    scene: Scene
    cars: tuple[Car, ...]


class Plots:
    """The street's fixed things, made plot by plot when first seen."""

    def __init__(self, seed: int, style: Style, haze: np.ndarray) -> None:
        rng = generator(seed, 4)
        self._seed, self._style = seed, style
        self._junction_at = int(rng.integers(JUNCTION_EVERY))
        shades = {-1: style.shade_left, 1: style.shade_right}
        self._fronts = {
            side: [textures.facade(rng, style, wall, shade, haze) for wall in style.walls]
            for side, shade in shades.items()
        }
        self._fences = {
            side: [textures.fence(rng, style, shade, haze) for _ in range(2)] for side, shade in shades.items()
        }
        self._hedges = {side: self._hedge(rng, shade, haze) for side, shade in shades.items()}
        self._trees = [sprites.tree(rng, style, haze) for _ in range(4)]
        self._signs = [textures.sign(rng, style, haze, kind) for kind in (0, 1, 2, 3, 3)]
        self._lights = textures.sign(rng, style, haze, 4)
        self._plots: dict[tuple[int, int], Plot] = {}

    def _hedge(self, rng: np.random.Generator, shade: float, haze: np.ndarray) -> Texture:
        grain = rng.uniform(0.45, 1.15, (32, 96, 1)) * np.linspace(1.05, 0.6, 32)[:, None, None]
        lit = self._style.lit(self._style.foliage, shade)
        return Texture(np.clip(lit * grain, 0, 255).astype(np.uint8), TREE, haze)

    def between(self, near_m: float, far_m: float) -> list[Plot]:
        """The plots of both sides that reach into `[near_m, far_m]`."""
        if len(self._plots) > 512:
            self._plots.clear()
        found = []
        for index in range(int(near_m // PLOT_M), int(far_m // PLOT_M) + 1):
            for side in (-1, 1):
                key = (side, index)
                if key not in self._plots:
                    self._plots[key] = self._make(side, index)
                found.append(self._plots[key])
        return found

    def _make(self, side: int, index: int) -> Plot:
        rng = generator(self._seed, 5, side, index)
        surfaces, style, start = Surfaces(), self._style, index * PLOT_M
        if index % JUNCTION_EVERY == self._junction_at:
            self._junction(surfaces, side, start)
            return Plot(surfaces.scene(), ())
        zone = generator(self._seed, 6, side, index // 4)
        if zone.random() < style.building_share:
            self._building(surfaces, rng, side, start)
        else:
            self._park(surfaces, rng, side, start)
        self._furniture(surfaces, rng, side, index)
        return Plot(surfaces.scene(), tuple(self._parked(rng, side, start)))

    def _junction(self, out: Surfaces, side: int, start: float) -> None:
        """A side road, with traffic lights at its corners."""
        style = self._style
        edge, grey = style.road_half_m - 0.2, style.lit((style.asphalt,) * 3)
        near, far = start + 2.0, start + 10.0
        ground = [(edge * side, 0.0, near), (edge * side, 0.0, far), (side * 60.0, 0.0, far), (side * 60.0, 0.0, near)]
        out.flat(ground, grey, ROAD, far + 12.0)
        for along in (start + 1.2, start + 10.8):
            self._pole(out, side * (style.road_half_m + 0.6), along, 0.14, 3.2)
            out.upright(side * (style.road_half_m + 0.6), 2.2, along - 0.02, 0.48, 1.15, self._lights)

    def _building(self, out: Surfaces, rng: np.random.Generator, side: int, start: float) -> None:
        """A terraced house: front, roof, and the gable that shows where its neighbour is lower or missing."""
        style, end = self._style, start + PLOT_M
        lateral = side * (style.road_half_m + style.pavement_m + style.setback_m + rng.uniform(0, 0.5))
        height = style.height_m * rng.uniform(0.7, 1.35)
        which = int(rng.integers(len(style.walls)))
        wall = style.lit(style.walls[which], 0.7)
        back = lateral + side * 9.0
        out.flat(
            [(lateral, height, start), (back, height, start), (back, 0, start), (lateral, 0, start)],
            wall,
            BUILDING,
            start + 0.1,
        )
        out.front(lateral, height, start, end, end, self._fronts[side][which])
        if rng.random() < 0.7:
            ridge, top = lateral + side * 4.5, height + rng.uniform(1.6, 3.0)
            tiles = style.lit(((98, 66, 56), (74, 76, 82), (110, 84, 66))[int(rng.integers(3))], 0.9)
            roof = [(lateral, height, start), (lateral, height, end), (ridge, top, end), (ridge, top, start)]
            out.flat(
                [(lateral, height, start), (ridge, top, start), (back, height, start), (back, height, start)],
                wall,
                BUILDING,
                start + 0.1,
            )
            out.flat(roof, tiles, BUILDING, end - 0.01)
        if rng.random() < 0.45 * style.sign_share:
            along, size = start + rng.uniform(1, 11), rng.uniform(0.7, 1.1)
            out.upright(
                lateral - side * (0.2 + size / 2),
                rng.uniform(2.7, 3.6),
                along,
                size,
                size,
                self._signs[int(rng.integers(3, 5))],
            )
        if style.setback_m > 0.9 and rng.random() < 0.7:
            inner = side * (style.road_half_m + style.pavement_m)
            for near in (start, start + 6.0):
                out.front(inner, 1.0, near, near + 6.0, near + 3.0, self._fences[side][0])

    def _park(self, out: Surfaces, rng: np.random.Generator, side: int, start: float) -> None:
        """A fence, trees behind it, and a hedge that closes the view."""
        inner = side * (self._style.road_half_m + self._style.pavement_m)
        out.front(inner + side * 6.0, rng.uniform(3.0, 4.5), start, start + PLOT_M, start + PLOT_M, self._hedges[side])
        fence = self._fences[side][int(generator(self._seed, 7, side, int(start) // 96).integers(2))]
        height = 1.4 + 0.6 * float(generator(self._seed, 8, side).random())
        for near in (start, start + 6.0):
            out.front(inner, height, near, near + 6.0, near + 3.0, fence)
        for offset in rng.uniform(0.5, 11.5, 3):
            tall = rng.uniform(7.0, 12.0)
            along = start + float(offset)
            lateral = inner + side * rng.uniform(2.0, 4.5)
            out.upright(lateral, -0.1, along, 0.8 * tall, tall, self._trees[int(rng.integers(4))])
            out.order_m[-1] = start + PLOT_M - 0.5 + 0.01 * (start - along)

    def _furniture(self, out: Surfaces, rng: np.random.Generator, side: int, index: int) -> None:
        """Lamps, traffic signs, bollards and street trees on the pavement."""
        style, start = self._style, index * PLOT_M
        kerb = side * (style.road_half_m + 0.55)
        if (index + (2 if side > 0 else 0)) % 4 == 0:
            along = start + rng.uniform(3, 9)
            self._pole(out, kerb, along, 0.16, 7.2)
            arm = [
                (kerb, 7.3, along),
                (kerb - side * 1.8, 7.5, along),
                (kerb - side * 1.8, 7.35, along),
                (kerb, 7.1, along),
            ]
            out.flat(arm, style.lit((96, 98, 100)), POLE, along)
        if rng.random() < style.sign_share:
            along, size = start + rng.uniform(0.5, 11.5), rng.uniform(0.75, 1.05)
            self._pole(out, kerb + side * 0.2, along, 0.08, 2.3 + size / 2)
            out.upright(kerb + side * 0.2, 2.2, along - 0.02, size, size, self._signs[int(rng.integers(4))])
        if rng.random() < 0.12:
            for step in range(4):
                self._pole(out, kerb - side * 0.2, start + 1.0 + 2.6 * step, 0.13, 1.0)
        if rng.random() < style.tree_share:
            tall, along = rng.uniform(4.8, 7.4), start + rng.uniform(1, 11)
            out.upright(kerb + side * 0.4, 0.0, along, 0.8 * tall, tall, self._trees[int(rng.integers(4))])

    def _pole(self, out: Surfaces, lateral: float, along: float, width: float, height: float) -> None:
        """A post with a lit and a shaded half."""
        for share, tone in ((0.5, 0.75), (0.0, 1.1)):
            left, right = lateral + width * (share - 0.5), lateral + width * share
            corners = [(left, height, along), (right, height, along), (right, 0.0, along), (left, 0.0, along)]
            out.flat(corners, self._style.lit((92, 95, 98), tone), POLE, along)

    def _parked(self, rng: np.random.Generator, side: int, start: float) -> list[Car]:
        style = self._style
        towards = side != (1 if style.mirrored else -1)
        cars = []
        for near in (start + 0.5, start + 6.4):
            present, colour, van = (
                rng.random() < style.parked_share,
                int(rng.integers(len(CAR_PAINT))),
                rng.random() < 0.15,
            )
            if style.parking and present:
                lateral = side * (style.road_half_m - 1.05 + rng.uniform(-0.1, 0.1))
                cars.append(Car(lateral, near + rng.uniform(0, 0.5), towards, bool(van), style.lit(CAR_PAINT[colour])))
        return cars


def zebra(out: Surfaces, style: Style, along_m: float) -> None:
    """A zebra crossing of 3 m that begins at `along_m`."""
    white = style.lit((206, 206, 200))
    for step in range(int(2 * style.road_half_m)):
        left = step - style.road_half_m + 0.2
        corners = [
            (left, 0, along_m),
            (left, 0, along_m + 3.0),
            (left + 0.55, 0, along_m + 3.0),
            (left + 0.55, 0, along_m),
        ]
        out.flat([(float(x), float(y), float(z)) for x, y, z in corners], white, ROAD, along_m + 30.0)
