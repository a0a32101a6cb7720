"""Cityscapes (Cordts et al., CVPR 2016): 30-frame snippets at 17 Hz, the 20th frame of each labelled, 19 classes.

Folders as the data set's archives unpack: `leftImg8bit_sequence/<split>/<city>/` (all 30 frames) or
`leftImg8bit/<split>/<city>/` (the labelled frames alone) with `gtFine/<split>/<city>/`. A snippet is found by its
labelled frame; files are named `<city>_<sequence>_<frame>_<kind>.png`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgeseg.classes import CITYSCAPES
from edgeseg.data.image_files import read_label_map
from edgeseg.data.image_video import ImageVideo
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError

FPS = 17.0
SNIPPET_FRAMES = 30
LABELLED_INDEX = 19
"""Place of the labelled frame in its snippet (the 20th frame)."""

_STILLS, _SEQUENCES, _LABELS = "leftImg8bit", "leftImg8bit_sequence", "gtFine"
_SPLITS = ("train", "val", "test")
_LABEL_KINDS = ("gtFine_labelIds", "gtFine_labelTrainIds")
_NAME = re.compile(r"(?P<city>.+)_(?P<sequence>\d{6})_(?P<frame>\d{6})_(?P<kind>.+)\.png")
_LAYOUT = f"{_STILLS}/<split>/<city>/ or {_SEQUENCES}/<split>/<city>/, with {_LABELS}/<split>/<city>/"

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the 19 evaluated classes, in the order of their train ids."""
LAST_LABEL_ID = 33


def _train_id_table() -> np.ndarray:
    table = np.full(256, CITYSCAPES.ignore_value, np.uint8)
    table[list(LABEL_IDS)] = np.arange(len(LABEL_IDS), dtype=np.uint8)
    return table


_TRAIN_ID = _train_id_table()


class _Snippet(NamedTuple):
    city: str
    sequence: str
    frame: int
    """Number of the labelled frame within its sequence."""

    def file_name(self, kind: str, frame: int | None = None) -> str:
        return f"{self.city}_{self.sequence}_{self.frame if frame is None else frame:06d}_{kind}.png"


class CityscapesVideo(ImageVideo):
    """One snippet; label ids become train ids when they are read."""

    def _read_labels(self, path: Path) -> np.ndarray:
        stored = read_label_map(path)
        if path.stem.endswith("labelTrainIds"):
            return stored
        unknown = (stored > LAST_LABEL_ID) & (stored != CITYSCAPES.ignore_value)
        if unknown.any():
            raise InputError(
                f"{path}: label id {int(stored[unknown][0])} on {int(unknown.sum())} pixels | "
                f"expected the label ids of Cityscapes, 0 to {LAST_LABEL_ID}"
            )
        return _TRAIN_ID[stored]


class Cityscapes(Dataset):
    """Cityscapes: one video per snippet, its 20th frame labelled; without the sequence folder, videos of that one
    frame.

    The labels of `test` are withheld by the data set's authors (the files there are blank), so its videos have none. A
    split that is not in the folder is not listed.
    """

    classes = CITYSCAPES

    def __init__(self, root: str | Path) -> None:
        """Find the splits in the folder `root`; snippets are listed when a split is first asked for.

        Raises:
            InputError: the folder is missing, or has none of the folders of Cityscapes.
        """
        self.name = "cityscapes"
        self._root = Path(root)
        if not self._root.is_dir():
            raise InputError(f"{root}: no such folder | expected Cityscapes: {_LAYOUT}")
        self._splits = tuple(split for split in _SPLITS if self._has_frames(split))
        if not self._splits:
            raise InputError(f"{root}: no Cityscapes images found | expected {_LAYOUT}, split train, val or test")
        self._videos: dict[str, tuple[Video, ...]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        return self._splits

    def videos(self, split: str) -> Sequence[Video]:
        """The snippets of `split`, in the order of city, sequence and frame.

        Raises:
            InputError: no such split, a snippet's frame or label map is missing, or nothing says which frames are
                labelled.
        """
        self._check_split(split)
        if split not in self._videos:
            self._videos[split] = tuple(self._list_videos(split))
        return self._videos[split]

    def _has_frames(self, split: str) -> bool:
        return any(any((self._root / kind / split).glob("*/*.png")) for kind in (_STILLS, _SEQUENCES))

    def _list_videos(self, split: str) -> list[CityscapesVideo]:
        labels = _label_files(self._root / _LABELS / split)
        snippets = sorted({*_snippets(self._root / _STILLS / split, _STILLS), *labels})
        if not snippets:
            raise InputError(
                f"{self._root}: the labelled frames of {split} are not known | "
                f"expected {_LABELS}/{split}/<city>/ or {_STILLS}/{split}/<city>/ beside {_SEQUENCES}"
            )
        if split == "test":
            labels = {}
        dense = any((self._root / _SEQUENCES / split).glob("*/*.png"))
        listed = {
            name for city in {snippet.city for snippet in snippets} for name in self._list_city(split, city, dense)
        }
        return [self._video(split, snippet, labels, listed, dense) for snippet in snippets]

    def _list_city(self, split: str, city: str, dense: bool) -> set[str]:
        folder = self._root / (_SEQUENCES if dense else _STILLS) / split / city
        return set(os.listdir(folder)) if folder.is_dir() else set()

    def _video(
        self, split: str, snippet: _Snippet, labels: dict[_Snippet, Path], listed: set[str], dense: bool
    ) -> CityscapesVideo:
        first = snippet.frame - LABELLED_INDEX
        numbers = range(first, first + SNIPPET_FRAMES) if dense else (snippet.frame,)
        folder = self._root / (_SEQUENCES if dense else _STILLS) / split / snippet.city
        names = [snippet.file_name(_STILLS, number) for number in numbers]
        for name in names:
            if name not in listed:
                raise InputError(f"{folder / name}: frame missing | unpack the archive of the data set again")
        if split != "test" and snippet not in labels:
            expected = self._root / _LABELS / split / snippet.city / snippet.file_name(_LABEL_KINDS[0])
            raise InputError(f"{expected}: label map missing | unpack gtFine_trainvaltest.zip into {self._root}")
        label_paths = [labels.get(snippet) if number == snippet.frame else None for number in numbers]
        name = f"{snippet.city}_{snippet.sequence}_{snippet.frame:06d}"
        return CityscapesVideo(name, FPS, CITYSCAPES, [folder / name for name in names], label_paths)


def _label_files(folder: Path) -> dict[_Snippet, Path]:
    """Label map of every labelled frame; label ids are preferred to train ids where both exist."""
    found: dict[_Snippet, Path] = {}
    for kind in reversed(_LABEL_KINDS):
        found |= _snippets(folder, kind)
    return found


def _snippets(folder: Path, kind: str) -> dict[_Snippet, Path]:
    """Files `<city>/<city>_<sequence>_<frame>_<kind>.png` of a split's folder."""
    found = {}
    for path in folder.glob(f"*/*_{kind}.png"):
        match = _NAME.fullmatch(path.name)
        if match is None or match["kind"] != kind:
            raise InputError(f"{path}: not a Cityscapes file name | expected <city>_<sequence>_<frame>_{kind}.png")
        found[_Snippet(match["city"], match["sequence"], int(match["frame"]))] = path
    return found
