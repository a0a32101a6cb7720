"""TensorRT and TensorRT for RTX as one: import, version, log. The API of 10.0 to 11.x is the same as far as it is used.

The library tells failures by None and a line of its log, so the log is kept for our exceptions. It keeps the first
logger that a process gives it, whoever gave it: there is one per library, which forwards.
"""

import importlib
import logging
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType, ModuleType
from typing import Any

from edgeseg.errors import DeviceError
from edgeseg.runtime.backends import cuda_driver
from edgeseg.runtime.engine_key import LIBRARIES

OLDEST_MAJOR = 10
LAYERS = "Layers:"
"""How the message begins that lists an engine's layers, at the end of a detailed build."""
_log = logging.getLogger("edgeseg.tensorrt")
_MODULES = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Library -> modules that hold it: the package of bindings alone has a name of its own."""
_INSTALL = {
    "tensorrt": "on a Jetson it comes with JetPack, elsewhere: pip install 'edgeseg[tensorrt]'",
    "tensorrt_rtx": "pip install 'edgeseg[tensorrt-rtx]'",
}
_OLD_DRIVER = ("error: 35", "insufficient", "driver version")
"""What the library's log says when the driver is older than its CUDA."""


class TensorrtLibrary:
    """A library that can be used: version 10 or later."""

    def __init__(self, name: str, module: ModuleType) -> None:
        """
        Args:
            name: one of `engine_key.LIBRARIES`.
            module: its module.
        """
        self.name, self.module = name, module
        self.title = LIBRARIES[name]
        self.version = str(module.__version__)
        self.logger = _logger(module)

    def runtime(self, options: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """A `Runtime`, which makes engines of bytes.

        Args:
            options: what the engines were built with, `EngineKey.options`.

        Raises:
            DeviceError: the library does not start on the current GPU.
        """
        self.logger.errors.clear()
        try:
            runtime = self.module.Runtime(self.logger)
        except Exception as error:  # pybind11 raises TypeError where the library gives nothing
            raise DeviceError(f"{self.title} {self.version} does not start | {self.why(str(error))}") from error
        if options.get("dla") is not None:
            runtime.DLA_core = options["dla"]
        if options.get("version_compatible"):
            # The runtime of the version that built the engine comes with it.
            runtime.engine_host_code_allowed = True
        return runtime

    def deserialize(self, runtime: Any, content: bytes, what: str) -> Any:
        """An `ICudaEngine` of an engine file's content.

        Raises:
            DeviceError: the library refuses it.
        """
        self.logger.errors.clear()
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise DeviceError(f"{self.title} {self.version} refuses the engine of {what} | {self.why()}")
        return engine

    def why(self, otherwise: str = "it says nothing") -> str:
        """The last error in the library's log since it was cleared."""
        said = self.logger.errors[-1] if self.logger.errors else otherwise
        if any(words in said.lower() for words in _OLD_DRIVER):
            newest = ".".join(map(str, cuda_driver.cuda_version()))
            return f"the NVIDIA driver is too old for it, it supports CUDA {newest}: update the driver ({said})"
        return said


def load_library(name: str) -> TensorrtLibrary:
    """The library called `name`.

    Raises:
        DeviceError: it is not installed, cannot be loaded, or is too old; the message says which.
    """
    module = _module(name)
    if isinstance(module, str):
        raise DeviceError(f"{LIBRARIES[name]} cannot be used here | {module}")
    return TensorrtLibrary(name, module)


def library_problem(name: str) -> str | None:
    """Why the library called `name` cannot be used, as one clause; None when it can."""
    module = _module(name)
    return module if isinstance(module, str) else None


def _module(name: str) -> ModuleType | str:
    """The module, or why there is none."""
    title, reasons = LIBRARIES[name], []
    for candidate in _MODULES[name]:
        try:
            module = importlib.import_module(candidate)
        except ModuleNotFoundError as error:
            if error.name != candidate:
                reasons.append(f"{title} is installed, but {error.name} is missing")
            continue
        except Exception as error:  # its loader raises OSError, RuntimeError and others for missing libraries
            reasons.append(f"{title} is installed, but cannot be loaded: {error}")
            continue
        version = str(getattr(module, "__version__", ""))
        if name == "tensorrt" and not version.partition(".")[0].isdecimal():
            return f"the module {candidate} has no version: it is not {title}"
        if name == "tensorrt" and int(version.partition(".")[0]) < OLDEST_MAJOR:
            return (
                f"{title} {version} is too old, needed is {OLDEST_MAJOR}.0 or later: on a Jetson, JetPack 6.1 or later"
            )
        return module
    return reasons[0] if reasons else f"{title} is not installed: {_INSTALL[name]}"


@lru_cache
def _logger(module: ModuleType) -> Any:
    severity = module.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
        severity.VERBOSE: logging.DEBUG,
    }

    class Logger(module.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            """Lines since it was cleared."""
            self.layers = ""
            """The last list of an engine's layers."""

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(" ".join(message.split()))
            if message.startswith(LAYERS):
                self.layers = message
            # Errors become exceptions where they are one: the library also logs what it then works around.
            _log.log(min(level, logging.INFO), message)

    return Logger()
