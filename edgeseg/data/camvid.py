"""CamVid in the layout of the SegNet tutorial: driving video with 11 classes (Brostow et al., PRL 2009).

`ROOT/{train,val,test}/` hold images (.png or .jpg), `ROOT/{train,val,test}annot/` a label PNG of the same name for
each: values 0 to 10, and 11 where nothing is counted. File names are `<recording>_<frame number>`, numbered at 30 Hz.
"""

from collections.abc import Sequence
from pathlib import Path

from edgeseg.classes import CAMVID
from edgeseg.data.image_files import LABEL_SUFFIXES, image_files
from edgeseg.data.image_video import ImageVideo
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError

DENSE_FPS = 15.0
"""The val split: every second frame of a 30 Hz video, all labelled."""
STILLS_FPS = 1.0
"""The train and test splits: one labelled frame per second."""

_SPLITS = ("train", "val", "test")
_LAYOUT = (
    "train/ and trainannot/, val/ and valannot/ (test/ and testannot/ may be there), images .png or .jpg, labels .png"
)


class CamVid(Dataset):
    """CamVid: `val` is one dense video at 15 frames per second; `train` and `test` are stills at 1 Hz, one video per
    recording.

    Only file names are read here. Every image has its label map; a split that is not in the folder is not listed.
    """

    classes = CAMVID

    def __init__(self, root: str | Path) -> None:
        """Find the splits in the folder `root`.

        Raises:
            InputError: the folder is missing or holds no CamVid split, an image has no label map (or the reverse), or
                two splits share a frame.
        """
        self.name = "camvid"
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root}: no such folder | expected CamVid: {_LAYOUT}")
        self._files = {split: files for split in _SPLITS if (files := _paired_files(root, split))}
        if not self._files:
            raise InputError(f"{root}: no CamVid images found | expected {_LAYOUT}")
        _refuse_shared_frames(self._files)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._files)

    def videos(self, split: str) -> Sequence[Video]:
        self._check_split(split)
        files = self._files[split]
        if split == "val":
            return (_video(f"val_{_recording(files[0][0])}", DENSE_FPS, files),)
        recordings: dict[str, list[tuple[Path, Path]]] = {}
        for pair in files:
            recordings.setdefault(_recording(pair[0]), []).append(pair)
        return tuple(_video(f"{split}_{name}", STILLS_FPS, pairs) for name, pairs in recordings.items())


def _video(name: str, fps: float, files: list[tuple[Path, Path]]) -> ImageVideo:
    frames, labels = zip(*files, strict=True)
    return ImageVideo(name, fps, CAMVID, frames, labels)


def _recording(frame: Path) -> str:
    """`0016E5` of `0016E5_07959.png`."""
    return frame.stem.rpartition("_")[0] or "recording"


def _paired_files(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Images of a split with their label maps, in the order of the names."""
    frames = image_files(root / split)
    labels = {path.stem: path for path in image_files(root / f"{split}annot", LABEL_SUFFIXES)}
    for frame in frames:
        if frame.stem not in labels:
            raise InputError(
                f"{frame}: image without label map | expected {root / f'{split}annot' / f'{frame.stem}.png'} | "
                "every CamVid image is labelled: copy the data set again"
            )
    orphans = sorted(labels.keys() - {frame.stem for frame in frames})
    if orphans:
        raise InputError(
            f"{labels[orphans[0]]}: label map without image | expected {root / split / orphans[0]}.png or .jpg | "
            "copy the data set again"
        )
    return [(frame, labels[frame.stem]) for frame in frames]


def _refuse_shared_frames(files: dict[str, list[tuple[Path, Path]]]) -> None:
    split_of: dict[str, str] = {}
    for split, pairs in files.items():
        for frame, _ in pairs:
            other = split_of.setdefault(frame.stem, split)
            if other != split:
                raise InputError(
                    f"{frame}: the same frame is in {other}/ | a network is never scored on what it was trained on"
                )
