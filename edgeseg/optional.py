"""Optional packages: imported when they are needed, or an error that names the command that installs them."""

import importlib
from types import ModuleType

from edgeseg.errors import MissingPackageError


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module`, which the extra `edgeseg[extra]` installs.

    Raises:
        MissingPackageError: the module, or one that it needs, is not installed. Nothing is ever installed by itself.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{module} cannot be imported ({error}) | install it: pip install 'edgeseg[{extra}]'"
        ) from error
