"""What moves on a street: cars, cyclists and pedestrians, each a function of the seed and the time."""

import math
from bisect import bisect_left

import numpy as np

from edgeseg.data.street import sprites
from edgeseg.data.street.camera import EgoMotion, Stop
from edgeseg.data.street.plots import CAR_PAINT, Car, Surfaces, zebra
from edgeseg.data.street.style import Style, generator
from edgeseg.data.street.textures import Texture

_ONCOMING, _CYCLISTS, _CYCLISTS_BACK, _WALKERS, _CROSSERS = range(20, 25)
_WALK_CYCLE_S, _PEDAL_CYCLE_S = 1.05, 0.9
_CROSSING_SPEED = 1.6


class Traffic:
    """Streams of road users. A stream is an endless row of slots that move at one speed; the seed fills some."""

    def __init__(self, seed: int, style: Style, ego: EgoMotion, haze: np.ndarray) -> None:
        self._seed, self._style, self._ego, self._haze = seed, style, ego, haze
        rng = generator(seed, 9)
        self._side = 1 if style.mirrored else -1
        self._leads_s = (float(rng.uniform(1.3, 2.4)),) if rng.random() < 0.45 else ()
        self._lead_paint = style.lit(CAR_PAINT[int(rng.integers(len(CAR_PAINT)))])
        self._lead_van = bool(rng.random() < 0.15)
        self._slots: dict[tuple[int, ...], np.ndarray] = {}
        self._pictures: dict[tuple[int, int, int], Texture] = {}

    def _slot(self, *stream: int) -> np.ndarray:
        """Eight uniform numbers that belong to a slot."""
        if stream not in self._slots:
            if len(self._slots) > 4096:
                self._slots.clear()
            self._slots[stream] = generator(self._seed, *stream).random(8)
        return self._slots[stream]

    def _stream(
        self, name: int, lane: int, spacing_m: float, speed: float, time_s: float, near_m: float, far_m: float
    ) -> list[tuple[int, float, np.ndarray]]:
        """Number, place along the road and random numbers of the slots between `near_m` and `far_m`."""
        drift = speed * time_s
        found = []
        for index in range(math.floor((near_m - drift) / spacing_m), math.ceil((far_m - drift) / spacing_m)):
            slot = self._slot(name, lane, index)
            found.append((index, (index + 0.8 * float(slot[0])) * spacing_m + drift, slot))
        return found

    def cars(self, time_s: float, along_m: float) -> list[Car]:
        """Oncoming cars, and the one ahead: it drives what we shall drive a little later, so it brakes before we do."""
        style, cars = self._style, []
        for _, near, slot in self._stream(_ONCOMING, 0, 22.0, -8.5, time_s, along_m - 6, along_m + 130):
            if slot[1] < style.oncoming_share:
                lateral = -self._side * (style.lane_m + 0.2 * float(slot[2]))
                colour = style.lit(CAR_PAINT[int(slot[3] * len(CAR_PAINT))])
                cars.append(Car(lateral, near, True, bool(slot[4] < 0.15), colour))
        for headway_s in self._leads_s:
            near = self._ego.position_m(time_s + headway_s) + 6.5
            lateral = self._side * style.lane_m + 0.15 * math.sin(0.4 * time_s)
            cars.append(Car(lateral, near, False, self._lead_van, self._lead_paint))
        return cars

    def people(self, time_s: float, along_m: float) -> Surfaces:
        """Cyclists, pedestrians on the pavements and on the crossings, and the crossings' stripes."""
        out = Surfaces()
        self._cyclists(out, time_s, along_m)
        self._walkers(out, time_s, along_m)
        self._crossers(out, time_s, along_m)
        return out

    def _cyclists(self, out: Surfaces, time_s: float, along_m: float) -> None:
        style = self._style
        edge = style.road_half_m - (2.2 if style.parking else 0.6)
        for name, speed, side in ((_CYCLISTS, 4.2, self._side), (_CYCLISTS_BACK, -4.4, -self._side)):
            for index, along, slot in self._stream(name, 0, 17.0, speed, time_s, along_m, along_m + 80):
                if slot[1] < style.cyclist_share:
                    lateral = side * (edge - 0.25 * float(slot[2])) + 0.08 * math.sin(1.7 * time_s + index)
                    phase = int((time_s / _PEDAL_CYCLE_S + float(slot[3])) * sprites.PHASES) % sprites.PHASES
                    picture = self._picture(2, int(slot[4] * 8), phase)
                    out.upright(lateral, -0.1, along, 0.98, 2.02, picture)

    def _walkers(self, out: Surfaces, time_s: float, along_m: float) -> None:
        style = self._style
        room = style.pavement_m - 1.2
        for side in (-1, 1):
            for direction in (-1, 1):
                lane = 2 * side + direction
                for index, along, slot in self._stream(
                    _WALKERS, lane, 8.0, 1.35 * direction, time_s, along_m, along_m + 60
                ):
                    busy = 0.3 + 0.9 * float(self._slot(_WALKERS, 100 + lane, index // 5)[0])
                    if slot[1] < style.walker_share * busy:
                        lateral = side * (style.road_half_m + 0.75 + room * float(slot[2]))
                        self._person(
                            out, lateral, along, time_s + 3 * float(slot[3]), int(slot[4] * 16), False, float(slot[5])
                        )

    def _crossers(self, out: Surfaces, time_s: float, along_m: float) -> None:
        """People who cross before us: on the zebra where we stand, or far enough ahead. Never with a car between."""
        self._ego.extend(time_s + 25)
        wait_m = self._style.road_half_m + 0.8
        stops = self._ego.stops
        for number in range(bisect_left(stops, along_m - 10, key=_place), bisect_left(stops, along_m + 90, key=_place)):
            stop = stops[number]
            if stop.start_s > time_s + 25:
                break
            zebra(out, self._style, stop.position_m + 4.5)
            for person in range(0 if self._leads_s else 3):
                slot = self._slot(_CROSSERS, person, number)
                start_s = stop.start_s - 2.5 + 2.0 * float(slot[0])
                self._crosser(out, slot, start_s, stop.position_m + 4.6 + 2.8 * float(slot[1]), time_s, wait_m)
        if not self._leads_s:
            for number in range(math.floor(time_s / 10) - 2, math.floor(time_s / 10) + 3):
                slot = self._slot(_CROSSERS, 50, number)
                start_s = 10 * (number + 0.5 * float(slot[0]))
                place_m = self._ego.position_m(start_s + 2 * wait_m / _CROSSING_SPEED + 1.5)
                if slot[5] < 0.6 and 2 < place_m - along_m < 70:
                    self._crosser(out, slot, start_s, place_m, time_s, wait_m)

    def _crosser(
        self, out: Surfaces, slot: np.ndarray, start_s: float, along: float, time_s: float, wait_m: float
    ) -> None:
        direction = 1 if slot[2] < 0.5 else -1
        walked = min(max((time_s - start_s) * _CROSSING_SPEED, 0.0), 2 * wait_m)
        moving = 0 < walked < 2 * wait_m
        self._person(
            out,
            direction * (walked - wait_m),
            along,
            time_s if moving else 0.0,
            int(slot[3] * 16),
            moving,
            float(slot[4]),
        )

    def _person(
        self, out: Surfaces, lateral: float, along: float, step_s: float, variant: int, sideways: bool, tall: float
    ) -> None:
        phase = int(step_s / _WALK_CYCLE_S * sprites.PHASES) % sprites.PHASES
        picture = self._picture(int(sideways), variant, phase)
        height = 1.82 + 0.25 * tall
        out.upright(lateral, -0.09, along, height / 2, height, picture)

    def _picture(self, kind: int, variant: int, phase: int) -> Texture:
        key = (kind, variant, phase)
        if key not in self._pictures:
            self._pictures[key] = (
                sprites.cyclist(variant, phase, self._style, self._haze)
                if kind == 2
                else sprites.pedestrian(variant, phase, kind == 1, self._style, self._haze)
            )
        return self._pictures[key]


def _place(stop: Stop) -> float:
    return stop.position_m
