"""The real TensorRT for RTX, as far as it works without a GPU: it parses graphs and builds engines."""

import importlib
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest


@lru_cache
def tensorrt_rtx() -> ModuleType:
    """The library, or the test is skipped."""
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = str(error)
    pytest.skip(f"TensorRT for RTX is not installed ({reason}): pip install 'edgeseg[tensorrt-rtx]'")


def why_not_built(graph: onnx.ModelProto | Path) -> str | None:
    """Parse a graph, or a file that may have its weights beside it, and build its engine, strongly typed.

    Returns:
        None, or what the library says against it.
    """
    trt, logger = tensorrt_rtx(), _logger()
    logger.errors.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if isinstance(graph, Path):
        parsed = parser.parse_from_file(str(graph))
    else:
        parsed = parser.parse(graph.SerializeToString())
    if not parsed:
        return "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors)) or "not parsed"
    if builder.build_serialized_network(network, builder.create_builder_config()) is None:
        return "; ".join(logger.errors) or "not built"
    return None


@lru_cache
def _logger() -> Any:
    """One for the process: the library keeps the first that it is given."""
    trt = tensorrt_rtx()

    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Logger()
