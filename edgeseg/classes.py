"""Label sets: names, colours, the ignored value, and which classes move by themselves."""

import re
from dataclasses import dataclass, field

import numpy as np

from edgeseg.errors import InputError


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set, in the order of their label values.

    Names are unique. The palette has one RGB colour (0-255) per class.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_value: int = 255
    """Label value that no metric and no loss counts; outside `[0, len(names))`."""
    movable: tuple[str, ...] = field(default=())
    """Names of the classes that move by themselves, for the moving-object mIoU [C 4.D.2]."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= 254:
            raise InputError(f"a class set needs 1 to 254 names | got {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            raise InputError(f"class names must be unique | got {', '.join(self.names)}")
        if len(self.palette) != len(self.names):
            raise InputError(
                f"the palette needs one colour per class | got {len(self.palette)} for {len(self.names)} classes"
            )
        for colour in self.palette:
            if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
                raise InputError(f"a palette colour is three values from 0 to 255 | got {colour}")
        if not 0 <= self.ignore_value <= 255 or self.ignore_value < len(self.names):
            raise InputError(
                f"ignore_value lies between the number of classes ({len(self.names)}) and 255 | got {self.ignore_value}"
            )
        unknown = sorted(set(self.movable) - set(self.names))
        if unknown:
            raise InputError(f"movable names unknown classes: {', '.join(unknown)} | known: {', '.join(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def movable_indices(self) -> tuple[int, ...]:
        """Label values of the movable classes."""
        return tuple(self.names.index(name) for name in self.movable)

    @property
    def palette_rgb(self) -> np.ndarray:
        """uint8 `(256, 3)` RGB look-up table; label values without a class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table

    def as_dict(self) -> dict[str, object]:
        """JSON-ready form, read back by `from_dict`."""
        return {
            "names": list(self.names),
            "palette": [list(colour) for colour in self.palette],
            "ignore_value": self.ignore_value,
            "movable": list(self.movable),
        }

    @classmethod
    def from_dict(cls, values: dict) -> "ClassSet":
        """Inverse of `as_dict`; also reads the `[classes]` table of a `dataset.toml`.

        Raises:
            InputError: a key is missing, or the values contradict each other.
        """
        try:
            names = tuple(str(name) for name in values["names"])
            palette = values.get("palette")
            colours = (
                tuple((int(r), int(g), int(b)) for r, g, b in palette) if palette else distinct_colours(len(names))
            )
            return cls(names, colours, int(values.get("ignore_value", 255)), tuple(values.get("movable", ())))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"classes are not readable ({error!r}) | expected names, palette, ignore_value, movable"
            ) from error


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """`count` RGB colours that are easy to tell apart: the bit-interleaved colour map of PASCAL VOC, black left out."""
    colours = []
    for index in range(1, count + 1):
        colour, bits = [0, 0, 0], index
        for shift in range(7, -1, -1):
            for channel in range(3):
                colour[channel] |= (bits & 1) << shift
                bits >>= 1
        colours.append((colour[0], colour[1], colour[2]))
    return tuple(colours)


def file_name_safe(name: str) -> str:
    """`name` with everything but letters, digits, dot, dash and underscore replaced by a dash."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


CAMVID = ClassSet(
    names=("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignore_value=11,
    movable=("car", "pedestrian", "bicyclist"),
)
"""The 11 classes of CamVid in the SegNet order (Brostow et al., PRL 2009); the simulator `street` uses them too."""

CITYSCAPES = ClassSet(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
        "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
        (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
        (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    ignore_value=255,
    movable=("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)  # fmt: skip
"""The 19 evaluated classes of Cityscapes by train id (Cordts et al., CVPR 2016)."""
