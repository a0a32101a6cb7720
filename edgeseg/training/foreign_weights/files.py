"""Tensors of files that other tools wrote: safetensors, PyTorch and NumPy's npz. Nothing in a file is ever executed.

What a file is shows in its first bytes; its name does not matter.
"""

import codecs
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgeseg.errors import InputError

_NESTED_UNDER = ("state_dict", "model", "model_state_dict", "state_dict_ema", "network")
"""Keys under which training codes keep the state dict beside optimiser and counters."""

_LOOKED_AT, _SHOWN = 512, 60
"""Bytes of a file by which its kind is told, and letters of a text that a message shows."""


def read_foreign_tensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of `path` by name, on the CPU; floats as float32; `module.` of a parallel training left out.

    Raises:
        InputError: no such file, a folder, empty, truncated, holds pickled objects, no tensors, or numbers that are
            not finite.
    """
    place = Path(path)
    try:
        kind = _kind_of(place)
        tensors = {"safetensors": _read_safetensors, "torch": _read_torch, "npz": _read_npz}[kind](place)
    except OSError as error:
        raise InputError(f"{path}: weights cannot be read ({error.strerror or error}) | give another file") from error
    if not tensors:
        raise InputError(f"{path}: holds no tensors | expected a state dict, safetensors, or .npz of arrays")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds numbers that are not finite | the file is damaged, or so trained")
    return _without_parallel_prefix(tensors)


def _kind_of(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a file of weights | give a file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file | give a .pth, .pt, .bin, .npz or .safetensors file")
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    if not start:
        raise InputError(f"{path}: an empty file | copy it again")
    if start[8:9] == b"{" and not start.startswith(b"PK"):
        return "safetensors"
    if start.startswith(b"PK") and _zip_names(path)[0].endswith(".npy"):
        return "npz"
    if text := _text(start):
        raise InputError(
            f"{path}: a text file ({text.splitlines()[0][:_SHOWN]!r}) | expected a .pth, .pt, .bin, .npz or "
            ".safetensors file | a page or a pointer may have been fetched in its place: fetch the file itself"
        )
    return "torch"


def _text(start: bytes) -> str:
    """The text that a file begins with; empty when it is none. No file of tensors begins with text alone."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return ""
    return text.strip() if all(each.isprintable() or each.isspace() for each in text) else ""


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist() or [""]
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a whole file ({error}) | it is truncated or damaged: copy it again") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(str(path), framework="pt") as file:
            if "edgeseg" in (file.metadata() or {}):
                raise InputError(f"{path}: already a checkpoint of edgeseg | export it, or --start-from it, as it is")
            return {name: _as_float(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise InputError(
            f"{path}: not a whole safetensors file ({error}) | it is truncated or damaged: copy it again"
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The one place that reads PyTorch's format: `weights_only` refuses everything but tensors and plain values.

    NumPy scalars are allowed as well (training codes keep a best score as one): they are numbers of a fixed type.
    """
    scalars: list[Any] = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64))]
    scalars += [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(scalars), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (tensors only)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a damaged pickle raises whatever its bytes ask for
        raise InputError(f"{path}: {_torch_reason(error)}") from error
    found = dict(_state_dict_of(content))
    return {name: _as_float(tensor) for name, tensor in found.items()}


def _torch_reason(error: Exception) -> str:
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked:
        return (
            f"holds a pickled object ({asked[1]}), which is not read: it could run code | save its tensors alone "
            "where the file comes from, torch.save(network.state_dict(), ...), and import that"
        )
    # What PyTorch says is about its own options and reader, and leads nowhere.
    return "not a whole PyTorch, npz or safetensors file | it is truncated, damaged or something else"


def _state_dict_of(content: Any) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(content, Mapping):
        return
    tensors = [(str(name), value) for name, value in content.items() if isinstance(value, Tensor)]
    if tensors:
        yield from tensors
        return
    for key in _NESTED_UNDER:
        if isinstance(content.get(key), Mapping):
            yield from _state_dict_of(content[key])
            return


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _from_numpy(archive[name]) for name in archive.files}
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path}: holds a pickled object, which is not read: it could run code | save arrays of numbers only"
            ) from error
        raise InputError(f"{path}: not a whole npz file ({error}) | it is truncated or damaged") from error


def _from_numpy(array: np.ndarray) -> Tensor:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        # NumPy has no bfloat16: JAX's arrays of it come back as two bytes without a type.
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).float()
    return _as_float(torch.from_numpy(np.array(array)))


def _as_float(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


def _without_parallel_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors
