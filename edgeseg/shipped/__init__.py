"""What ships in the package: a small network trained on the simulator `street` alone, and a ready-made bundle of it.

Wherever edgeseg takes the path of a checkpoint or a bundle, `shipped:street` names these.
"""

from pathlib import Path

from edgeseg.errors import InputError

PREFIX = "shipped:"
FOLDER = Path(__file__).parent
BUNDLES = {"street": "street.edgeseg"}
CHECKPOINTS = {"street": "street.safetensors"}


def bundle_path(name: Path | str) -> Path:
    """The path that `name` means: a shipped bundle for `shipped:NAME`, else `name` itself.

    Raises:
        InputError: no bundle of that name ships.
    """
    return _resolve(name, BUNDLES, "bundle")


def checkpoint_path(name: Path | str) -> Path:
    """The path that `name` means: a shipped checkpoint for `shipped:NAME`, else `name` itself.

    Raises:
        InputError: no checkpoint of that name ships.
    """
    return _resolve(name, CHECKPOINTS, "checkpoint")


def _resolve(name: Path | str, known: dict[str, str], what: str) -> Path:
    text = str(name)
    if not text.startswith(PREFIX):
        return Path(name)
    if text.removeprefix(PREFIX) not in known:
        names = ", ".join(PREFIX + entry for entry in known)
        raise InputError(f"no {what} {text!r} ships with edgeseg | known: {names}")
    return FOLDER / known[text.removeprefix(PREFIX)]
