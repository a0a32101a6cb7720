"""Files and folders that exist whole or not at all: written beside their place, synced, then renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.errors import InputError


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """A temporary path in the folder of `path`; renamed to `path` when the block ends well, removed when it does not.

    Raises:
        InputError: the folder does not exist and cannot be made, is not writable, or the disk is full.
    """
    target = Path(path)
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            _sync(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A temporary folder beside `path`; takes the place of `path` when the block ends well, removed when it does not.

    An existing folder at `path` is replaced at the end, not before.

    Raises:
        InputError: the parent folder is not writable, or the disk is full.
    """
    target = Path(path)
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            os.chmod(temporary, 0o777 & ~_umask())
            if target.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
                os.replace(target, old / target.name)
                os.replace(temporary, target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, target)
            _sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(
    path: Path | str, *, folder: bool = False, room_bytes: int = 0, shown: Path | str | None = None
) -> None:
    """Refuse a place that cannot be written before the work rather than after it; nothing is left there.

    Args:
        path: file that will be written, or folder with `folder`.
        room_bytes: what will be written at most; the disk must have as much free.
        shown: what the user named, for the message, where that is not `path`.

    Raises:
        InputError: its folder cannot be made or written, it is a folder where a file is to be, or the disk is full.
    """
    target = Path(path)
    made = [parent for parent in target.parents if not parent.exists()]
    with _disk_errors(target, shown):
        if not folder and target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            os.close(descriptor)
            os.unlink(name)
            free_bytes = shutil.disk_usage(target.parent).free
            if free_bytes < room_bytes:
                raise OSError(errno.ENOSPC, f"{free_bytes} bytes are free there, up to {room_bytes} are needed")
        finally:
            for parent in made:
                if parent.is_dir():
                    parent.rmdir()


@contextmanager
def _disk_errors(target: Path, shown: Path | str | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{shown or target} cannot be written ({_reason(error, target)}) | nothing was left behind: "
            f"{_advice(error)}"
        ) from error


def _reason(error: OSError, target: Path) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        blocking = next((parent for parent in target.parents if parent.exists()), target)
        return f"{blocking} is no folder"
    return error.strerror or str(error)


def _advice(error: OSError) -> str:
    return "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
