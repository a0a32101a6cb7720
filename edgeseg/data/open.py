"""From what a user writes, a name or a folder, to a data set."""

import inspect
import re
from pathlib import Path
from typing import Any

from edgeseg.data.video import Dataset
from edgeseg.errors import InputError

SIMULATOR = "street"
_SIMULATOR_SPEC = re.compile(r"street(?::(?P<height>\d+)x(?P<width>\d+))?(?:@(?P<fps>\d+(?:\.\d+)?))?")

_LAYOUTS = (
    "dataset.toml (frames/ and labels/ of your own)",
    "leftImg8bit/ or leftImg8bit_sequence/ (Cityscapes)",
    "trainannot/, valannot/ or testannot/ (CamVid)",
)


def open_dataset(spec: str | Path, **options: Any) -> Dataset:
    """Open the data set that `spec` names: the simulator, or a folder whose layout is recognised.

    The simulator is written `street`, `street:540x720` (size), `street@30` (frames per second) or `street:540x720@30`;
    a folder of such a name `./street` or `Path("street")`. Options go to the simulator (`size_hw`, `fps`, `videos`,
    `frames`, see `edgeseg.data.street.StreetDataset`); folders take none.

    Raises:
        InputError: there is no such folder, it is empty, its layout is not known or not whole, or an option is unknown,
            given twice, or given for a folder.
    """
    simulated = _SIMULATOR_SPEC.fullmatch(spec) if isinstance(spec, str) else None
    if simulated:
        return _simulator(simulated, options)
    root = Path(spec).expanduser()
    if not root.is_dir():
        what = "a file" if root.exists() else "no such folder"
        raise InputError(f"{spec}: {what} | expected '{SIMULATOR}[:HxW][@FPS]' or a folder with {'; '.join(_LAYOUTS)}")
    if options:
        raise InputError(
            f"{spec}: options {', '.join(sorted(options))} are for '{SIMULATOR}' | a folder is read as it is"
        )
    return _recognised(root)


def is_simulator(spec: object) -> bool:
    """Whether `open_dataset` takes `spec` for the simulator."""
    return isinstance(spec, str) and _SIMULATOR_SPEC.fullmatch(spec) is not None


def _simulator(spec: re.Match[str], options: dict[str, Any]) -> Dataset:
    from edgeseg.data.street import StreetDataset

    in_spec: dict[str, Any] = {}
    if spec["height"]:
        in_spec["size_hw"] = (int(spec["height"]), int(spec["width"]))
    if spec["fps"]:
        in_spec["fps"] = float(spec["fps"])
    twice = sorted(set(in_spec) & set(options))
    if twice:
        raise InputError(f"{spec.string} and the options both give {', '.join(twice)} | give it once")
    known = list(inspect.signature(StreetDataset).parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"{SIMULATOR} has no option {', '.join(unknown)} | known: {', '.join(known)}")
    return StreetDataset(**in_spec, **options)


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
