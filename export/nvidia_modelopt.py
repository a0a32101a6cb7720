"""NVIDIA ModelOpt, as far as edgeseg uses it: silent, on the CPU, without leaving files behind.

ModelOpt answers to any library that it lacks with "install optional [onnx] dependencies", an extra that would bring
GPU packages along; here the missing library is named.
"""

import contextlib
import errno
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx

from edgeseg.errors import InputError, first_line
from edgeseg.optional import require

LIBRARIES = (
    "torch",
    "onnxruntime",
    "onnxscript",
    "onnx_graphsurgeon",
    "onnxslim",
    "polygraphy",
    "ml_dtypes",
    "lief",
    "pynvml",
    "tqdm",
)
"""What ModelOpt's work on ONNX graphs imports, from the extra `quant`."""


def modelopt(module: str) -> ModuleType:
    """The module `modelopt.<module>`.

    Raises:
        MissingPackageError: ModelOpt, or a library that it needs, is not installed.
    """
    for library in (*LIBRARIES, "modelopt"):
        require(library, extra="quant")
    with silent():
        return require(f"modelopt.{module}", extra="quant")


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Within the block ModelOpt's prints, logs and warnings go nowhere."""
    logger = logging.getLogger("modelopt")
    propagated, logger.propagate = logger.propagate, False
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.propagate = propagated


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the block, in which everything lies that ModelOpt makes by `tempfile`; gone afterwards."""
    usual = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="edgeseg-quant-") as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = usual


class _OneFeed:
    """One set of inputs, as ModelOpt takes calibration data: enough to see which nodes it would quantise."""

    def __init__(self, feed: Mapping[str, np.ndarray]) -> None:
        self._feed = dict(feed)
        self.rewind()

    def rewind(self) -> None:
        self._left = [self._feed]

    def get_first(self) -> dict[str, np.ndarray]:
        return self._feed

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


Place = tuple[int, int]
"""Position of a node, and which of its inputs."""


def int8_places(model: onnx.ModelProto, feed: Mapping[str, np.ndarray], kept: Collection[int]) -> set[Place]:
    """The inputs that ModelOpt would read as INT8, by its knowledge of what engines fuse.

    Args:
        feed: values of all inputs of the graph.
        kept: positions of nodes that are not to be quantised.

    Raises:
        MissingPackageError: ModelOpt, or a library that it needs, is not installed.
        InputError: ModelOpt cannot work on this graph, or the disk of temporary files is full.
    """
    quantization = modelopt("onnx.quantization")
    copy, names = _numbered(model)
    positions = {name: position for position, name in enumerate(names)}
    with scratch_folder() as folder, silent(), _reported("quantise"):
        onnx.save(copy, str(folder / "model.onnx"))
        quantization.quantize(
            str(folder / "model.onnx"),
            quantize_mode="int8",
            calibration_method="max",
            calibration_data_reader=_OneFeed(feed),
            calibration_eps=["cpu"],
            nodes_to_exclude=[names[position] for position in sorted(kept)],
            high_precision_dtype="fp32",
            output_path=str(folder / "quantised.onnx"),
            log_level="CRITICAL",
        )
        quantised = onnx.load(str(folder / "quantised.onnx"))
    read_as_int8 = {node.output[0] for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    return {
        (positions[node.name], number)
        for node in quantised.graph.node
        if node.name in positions and positions[node.name] not in kept
        for number, name in enumerate(node.input)
        if name in read_as_int8
    }


def half_conversion(model: onnx.ModelProto, kept: Collection[int]) -> onnx.ModelProto:
    """`model` as AutoCast converts it to float16, inputs and outputs as they are.

    Args:
        kept: positions of nodes that stay float32.

    Raises:
        MissingPackageError: ModelOpt, or a library that it needs, is not installed.
        InputError: ModelOpt cannot work on this graph, or the disk of temporary files is full.
    """
    autocast = modelopt("onnx.autocast.convert")
    copy, names = _numbered(model)
    with scratch_folder() as folder, silent(), _reported("convert"):
        onnx.save(copy, str(folder / "model.onnx"))
        converted = autocast.convert_to_mixed_precision(
            str(folder / "model.onnx"),
            low_precision_type="fp16",
            nodes_to_exclude=[names[position] for position in sorted(kept)],
            # Values were looked at already, on calibration data; AutoCast would do it on random numbers.
            data_max=np.inf,
            init_max=np.inf,
            keep_io_types=True,
        )
    original = dict(zip(names, (node.name for node in model.graph.node), strict=True))
    for node in converted.graph.node:
        node.name = original.get(node.name, node.name)
    return converted


def _numbered(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A copy whose nodes are named by position, and the names: ModelOpt takes names as patterns."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    names = [f"n{position:06d}" for position in range(len(copy.graph.node))]
    for node, name in zip(copy.graph.node, names, strict=True):
        node.name = name
    return copy, names


@contextlib.contextmanager
def _reported(verb: str) -> Iterator[None]:
    """Within the block, inside a `scratch_folder`, errors become ours."""
    try:
        yield
    except Exception as error:  # ModelOpt and the libraries under it raise assertions and classes of their own
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = Path(tempfile.gettempdir()).parent
            raise InputError(
                f"{place} is full ({error.strerror}), where the graph is worked on | make room there, or name another "
                "folder by the environment variable TMPDIR"
            ) from error
        raise InputError(f"ModelOpt cannot {verb} the graph ({type(error).__name__}: {first_line(error)})") from error
