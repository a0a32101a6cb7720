"""PyTorch and Torch-TensorRT as libraries: whether they are there, imported when they are asked for."""

import contextlib
import importlib
import importlib.util
import io
from typing import Any

from edgeseg.errors import MissingPackageError
from edgeseg.optional import require


def import_torch() -> Any:
    """The package torch.

    Raises:
        MissingPackageError: it is not installed.
    """
    return require("torch", extra="train")


def import_torch_tensorrt() -> Any:
    """The package torch_tensorrt.

    Raises:
        MissingPackageError: it is not installed, or the TensorRT that it needs.
    """
    try:
        # Without TensorRT it raises a plain Exception, and prints advice where results are printed.
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module("torch_tensorrt")
    except Exception as error:
        raise MissingPackageError(
            f"torch_tensorrt cannot be imported ({' '.join(str(error).split()):.200}) | it needs TensorRT and the "
            "torch of its own version | install them: pip install 'edgeseg[torch-tensorrt]'"
        ) from error


def missing(package: str) -> str | None:
    """None when `package` is installed, otherwise that it is not; nothing is imported."""
    try:
        found = importlib.util.find_spec(package) is not None
    except ImportError:
        found = False
    return None if found else f"{package} is not installed"


def missing_gpu(index: int) -> str | None:
    """None when torch can use GPU `index`, otherwise why not."""
    try:
        torch = import_torch()
    except MissingPackageError as error:
        return str(error)
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no GPU or no driver"
    count = torch.cuda.device_count()
    return None if index < count else f"torch finds {count} GPU{'' if count == 1 else 's'}"
