"""From what a user writes, a name or a folder, to a data set."""

from pathlib import Path
from typing import Any

from edgeseg.data.video import Dataset
from edgeseg.errors import InputError

SIMULATOR = "street"

_LAYOUTS = (
    "dataset.toml (frames/ and labels/ of your own)",
    "leftImg8bit/ or leftImg8bit_sequence/ (Cityscapes)",
    "trainannot/, valannot/ or testannot/ (CamVid)",
)


def open_dataset(spec: str | Path, **options: Any) -> Dataset:
    """Open the data set that `spec` names: `street` for the simulator, or a folder whose layout is recognised.

    A folder called `street` is written `./street` or `Path("street")`. Options go to the simulator (`size_hw`, `fps`,
    `seed`, ...); folders take none.

    Raises:
        InputError: there is no such folder, it is empty, its layout is not known or not whole, or options were given
            for a folder.
    """
    if spec == SIMULATOR:
        from edgeseg.data.street import StreetDataset

        return StreetDataset(**options)
    root = Path(spec).expanduser()
    if not root.is_dir():
        what = "a file" if root.exists() else "no such folder"
        raise InputError(f"{spec}: {what} | expected '{SIMULATOR}' or a folder with {'; '.join(_LAYOUTS)}")
    if options:
        raise InputError(
            f"{spec}: options {', '.join(sorted(options))} are for '{SIMULATOR}' | a folder is read as it is"
        )
    return _recognised(root)


def _recognised(root: Path) -> Dataset:
    if (root / "dataset.toml").exists():
        from edgeseg.data.folder import FolderDataset

        return FolderDataset(root)
    if (root / "leftImg8bit").is_dir() or (root / "leftImg8bit_sequence").is_dir():
        from edgeseg.data.cityscapes import Cityscapes

        return Cityscapes(root)
    if any((root / f"{split}annot").is_dir() for split in ("train", "val", "test")):
        from edgeseg.data.camvid import CamVid

        return CamVid(root)
    found = sorted(path.name for path in root.iterdir())
    content = f"it holds {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}" if found else "it is empty"
    raise InputError(f"{root}: not a data set that is known | {content} | looked for {'; '.join(_LAYOUTS)}")
