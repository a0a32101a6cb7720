"""Your own labelled video: a folder of `frames/`, `labels/` and a small `dataset.toml`.

    ROOT/dataset.toml
    ROOT/frames/<split>/<video>/*.png|jpg     frames in the order of their names
    ROOT/labels/<split>/<video>/*.png         label map of the frame with the same name; frames may lack one

A level may be left out: images directly in `frames/<split>/` are that split's only video, and images directly in
`frames/` are the only video of the split `val`. `labels/` always mirrors `frames/`. `dataset.toml`:

    name = "my-road"
    fps = 15.0                                # of every video, as the frames are stored

    [classes]
    names = ["road", "car"]                   # in the order of the label values: 0, 1, ...
    palette = [[128, 64, 128], [64, 0, 128]]  # RGB; may be left out
    ignore_value = 255                        # not counted; 255 when left out
    movable = ["car"]                         # for the moving-object mIoU; may be left out
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.classes import ClassSet
from edgeseg.data.image_files import LABEL_SUFFIXES, image_files
from edgeseg.data.image_video import ImageVideo
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DESCRIPTION_FILE = "dataset.toml"

_LAYOUT = f"{DESCRIPTION_FILE}, frames/<split>/<video>/*.png|jpg and labels/<split>/<video>/*.png"
_KEYS = {"name", "fps", "classes"}
_CLASS_KEYS = {"names", "palette", "ignore_value", "movable"}


class FolderDataset(Dataset):
    """Videos in `frames/` with label maps in `labels/`, described by `dataset.toml` (layout: see the module).

    Only file names are read here, images when they are asked for.
    """

    def __init__(self, root: str | Path) -> None:
        """Read `dataset.toml` and list the files of `root`.

        Raises:
            InputError: the description is missing or wrong, there are no frames or no labels, a label map belongs to no
                frame, or a folder mixes images and subfolders.
        """
        root = Path(root)
        self.name, self._fps, self.classes = _read_description(root / DESCRIPTION_FILE)
        for folder in (root / "frames", root / "labels"):
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder | expected {_LAYOUT}")
        self._videos = {
            split: tuple(self._video(root, video) for video in videos)
            for split, videos in _split_folders(root / "frames").items()
        }
        if not self._videos:
            raise InputError(f"{root / 'frames'}: no images found | expected {_LAYOUT}")
        used = {path for videos in self._videos.values() for video in videos for path in video.label_paths if path}
        stray = sorted({path for path in (root / "labels").rglob("*") if path.suffix.lower() in LABEL_SUFFIXES} - used)
        if stray:
            raise InputError(
                f"{stray[0]}: label map without frame | expected an image of the same place and name in frames/"
            )
        if not used:
            raise InputError(f"{root / 'labels'}: no label maps found | expected {_LAYOUT}")

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._videos)

    def videos(self, split: str) -> Sequence[Video]:
        self._check_split(split)
        return self._videos[split]

    def _video(self, root: Path, folder: Path) -> ImageVideo:
        place = folder.relative_to(root / "frames")
        labels = {path.stem: path for path in image_files(root / "labels" / place, LABEL_SUFFIXES)}
        frames = image_files(folder)
        name = "_".join(place.parts) or self.name
        return ImageVideo(name, self._fps, self.classes, frames, [labels.get(frame.stem) for frame in frames])


def _split_folders(frames: Path) -> dict[str, list[Path]]:
    """Folders with images, by split; a folder without any image is left out."""
    if _holds_images(frames):
        return {"val": [frames]}
    splits = {}
    for split in _subfolders(frames):
        videos = [split] if _holds_images(split) else [video for video in _subfolders(split) if _holds_images(video)]
        if videos:
            splits[split.name] = videos
    return splits


def _holds_images(folder: Path) -> bool:
    images = bool(image_files(folder))
    if images and _subfolders(folder):
        raise InputError(f"{folder}: images and subfolders side by side | expected {_LAYOUT}")
    return images


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read_description(path: Path) -> tuple[str, float, ClassSet]:
    """Name, frame rate and classes from `dataset.toml`."""
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}) | expected {_LAYOUT}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML | {error}") from error
    _check_keys(values, _KEYS, f"{path}")
    classes = values["classes"]
    if not isinstance(classes, dict):
        raise InputError(f"{path}: classes is not a table | expected [classes] with names")
    _check_keys(classes, _CLASS_KEYS, f"{path} [classes]", required={"names"})
    name, fps = values["name"], values["fps"]
    if not isinstance(name, str) or not name:
        raise InputError(f"{path}: name is not a text | got {name!r}")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not math.isfinite(fps) or fps <= 0:
        raise InputError(f"{path}: fps is not a frame rate | got {fps!r}, expected a positive number")
    try:
        return name, float(fps), ClassSet.from_dict(classes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check_keys(values: dict[str, Any], known: set[str], where: str, required: set[str] | None = None) -> None:
    missing, unknown = sorted((required or known) - values.keys()), sorted(values.keys() - known)
    if missing or unknown:
        got = "; ".join(
            f"{what} {', '.join(keys)}" for what, keys in (("missing", missing), ("unknown", unknown)) if keys
        )
        raise InputError(f"{where}: {got} | known keys: {', '.join(sorted(known))}")
