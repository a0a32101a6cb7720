"""The real TensorRT for RTX, as far as it works without a GPU: it parses graphs and builds engines."""

from pathlib import Path

import onnx
import pytest

from edgeseg.errors import DeviceError
from edgeseg.export.build_options import BuildOptions, BuildTarget
from edgeseg.export.tensorrt_build import BuiltEngine, build_engine
from edgeseg.runtime.backends.tensorrt_library import library_problem, load_library


def rtx_target() -> BuildTarget:
    """The library without a GPU; the test is skipped where it is not installed."""
    problem = library_problem("tensorrt_rtx")
    if problem is not None:
        pytest.skip(problem)
    return BuildTarget("tensorrt-rtx:0", load_library("tensorrt_rtx"), None)


def build(graph: onnx.ModelProto | Path) -> BuiltEngine:
    """The engine of a graph, or of a file that may have its weights beside it."""
    content = graph if isinstance(graph, Path) else graph.SerializeToString()
    return build_engine(content, "graph", rtx_target(), BuildOptions())


def why_not_built(graph: onnx.ModelProto | Path) -> str | None:
    """None when `build` builds it, otherwise what is said against it."""
    try:
        build(graph)
    except DeviceError as error:
        return str(error)
    return None
