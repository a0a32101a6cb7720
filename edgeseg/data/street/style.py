"""What makes one street differ from the next: light, palette, layout and density, all drawn from the seed."""

from dataclasses import dataclass

import numpy as np

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)
"""Label values, in the order of `edgeseg.classes.CAMVID`."""

Colour = tuple[float, float, float]

_SKIES: tuple[tuple[Colour, Colour], ...] = (  # zenith, horizon
    ((96, 146, 212), (206, 222, 238)),
    ((128, 168, 214), (226, 232, 236)),
    ((176, 184, 194), (222, 225, 228)),
    ((150, 158, 170), (196, 198, 200)),
    ((110, 138, 190), (244, 222, 194)),
)
_WALLS: tuple[Colour, ...] = (
    (158, 96, 76), (176, 122, 92), (196, 172, 138), (214, 204, 184), (150, 144, 136), (188, 158, 120), (122, 86, 74),
    (226, 222, 212), (168, 166, 172), (140, 120, 104),
)  # fmt: skip
_FOLIAGE: tuple[Colour, ...] = ((74, 104, 48), (92, 112, 56), (58, 92, 52), (120, 112, 58), (108, 92, 66))


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers that depend on `seed` and on the integers of `stream` alone (negative ones allowed)."""
    words = [seed & 0xFFFFFFFF, seed >> 32, *(value & 0xFFFFFFFF for value in stream)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


@dataclass(frozen=True)
class Style:
    """The look and the layout of one street. Colours are RGB, 0-255; lengths in metres."""

    sky_top: Colour
    sky_horizon: Colour
    light: Colour
    """Colour of the light: every albedo is multiplied by it."""
    shade_left: float
    shade_right: float
    """Share of the light that reaches the facades of either side."""
    asphalt: float
    pavement: Colour
    walls: tuple[Colour, ...]
    foliage: Colour
    mirrored: bool
    """Whether traffic keeps to the right."""
    parking: bool
    road_half_m: float
    pavement_m: float
    setback_m: float
    height_m: float
    building_share: float
    tree_share: float
    parked_share: float
    sign_share: float
    walker_share: float
    cyclist_share: float
    oncoming_share: float
    bend_m: float
    bend_period_m: float
    exposure: float
    noise: float

    @property
    def lane_m(self) -> float:
        """Distance of the middle of a lane from the middle of the road."""
        return 1.75

    @classmethod
    def from_seed(cls, seed: int) -> "Style":
        """The style of street `seed`."""
        rng = generator(seed, 1)
        top, horizon = _SKIES[int(rng.integers(len(_SKIES)))]
        brightness, warmth = rng.uniform(0.78, 1.08), rng.uniform(-0.06, 0.06)
        shadow = rng.uniform(0.5, 0.85)
        sunny_left = bool(rng.integers(2))
        parking = bool(rng.random() < 0.4)
        tint = rng.uniform(-8, 8, 3)
        picks = rng.permutation(len(_WALLS))[:5]
        foliage = np.array(_FOLIAGE[int(rng.integers(len(_FOLIAGE)))]) * rng.uniform(0.8, 1.2)
        return cls(
            sky_top=top,
            sky_horizon=horizon,
            light=(brightness * (1 + warmth), brightness, brightness * (1 - warmth)),
            shade_left=1.0 if sunny_left else shadow,
            shade_right=shadow if sunny_left else 1.0,
            asphalt=rng.uniform(70, 116),
            pavement=(150 + tint[0], 146 + tint[1], 140 + tint[2]),
            walls=tuple(_WALLS[int(pick)] for pick in picks),
            foliage=(float(foliage[0]), float(foliage[1]), float(foliage[2])),
            mirrored=bool(rng.integers(2)),
            parking=parking,
            road_half_m=rng.uniform(5.5, 5.9) if parking else rng.uniform(3.5, 4.1),
            pavement_m=rng.uniform(3.0, 5.0),
            setback_m=rng.uniform(0.0, 2.0),
            height_m=rng.uniform(8.5, 13.0),
            building_share=rng.uniform(0.45, 0.8),
            tree_share=rng.uniform(0.2, 0.6),
            parked_share=rng.uniform(0.2, 0.55),
            sign_share=rng.uniform(0.35, 0.6),
            walker_share=rng.uniform(0.35, 0.8),
            cyclist_share=rng.uniform(0.35, 0.8),
            oncoming_share=rng.uniform(0.3, 0.7),
            bend_m=rng.uniform(0, 9) * rng.choice([-1, 1]),
            bend_period_m=rng.uniform(420, 700),
            exposure=rng.uniform(0.92, 1.06),
            noise=rng.uniform(0.12, 0.3),
        )

    def lit(self, colour: Colour, shade: float = 1.0) -> np.ndarray:
        """`colour` under this street's light: float `(3,)`, 0-255."""
        return np.clip(np.array(colour) * np.array(self.light) * shade, 0, 255)
