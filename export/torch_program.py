"""A graph as an ExportedProgram of PyTorch (`.pt2`), as it is or compiled by Torch-TensorRT.

The programs are made from the ONNX graphs, not from the network: so every configuration has them, whatever its source
(a checkpoint, a module, an ONNX file), precision, masks and token plan. Inputs, outputs and states are those of the
graph, so that the manifest's links hold for both. What a program computes is compared with the network as graphs are.
"""

import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto

from edgeseg.config import Configuration
from edgeseg.errors import DeviceError, InputError, one_line
from edgeseg.export.graph_module import GraphModule, export_program
from edgeseg.export.variant import SavedPrograms, Variant
from edgeseg.runtime.backends.exported_program import NAMES_FILE
from edgeseg.runtime.backends.torch_library import import_torch_tensorrt, missing_gpu

FORMATS = ("onnx", "torch", "torch-tensorrt")
"""What `--format` takes. The ONNX graphs are always there."""


def program_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Those of `names`, the values of `--format`, that are programs: the ONNX graphs are always there.

    Raises:
        InputError: an unknown name.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise InputError(f"unknown --format {unknown[0]!r} | known: {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS[1:] if name in names)


def check_formats(knobs: Iterable[Configuration], formats: Sequence[str]) -> None:
    """Refuse what cannot be made before the work rather than after it.

    Raises:
        InputError: a form that does not go with a precision.
        MissingPackageError, DeviceError: Torch-TensorRT is not there, or no GPU.
    """
    if "torch-tensorrt" not in formats:
        return
    for each in knobs:
        if each.precision == "int8":
            raise InputError(
                f"--format torch-tensorrt and --precision int8 exclude each other ({each.name}) | "
                "leave one of them out: edgeseg build makes INT8 engines of the ONNX graphs"
            )
    require_torch_tensorrt()


def with_programs(variant: Variant, formats: Sequence[str]) -> Variant:
    """`variant` with the programs of `formats`, made from its graphs.

    Raises:
        InputError: a graph has an operator without a form in PyTorch, or Torch-TensorRT cannot compile it.
        MissingPackageError, DeviceError: Torch-TensorRT is not there, or no GPU.
    """
    save: Mapping[str, Callable[[ModelProto], bytes]] = {"torch": torch_program, "torch-tensorrt": tensorrt_program}
    made = {
        form: SavedPrograms({role: save[form](graph) for role, graph in variant.graphs.items()}) for form in formats
    }
    return replace(variant, programs=made)


def torch_program(model: ModelProto) -> bytes:
    """The graph as the content of a `.pt2` file, which `edgeseg.runtime.backends.exported_program` reads.

    It holds operators, weights and names, and nothing pickled: no example inputs, and no trace of this machine's files.

    Raises:
        InputError: see `GraphModule`.
    """
    program, module = export_program(model)
    for node in program.graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key in ("val", "tensor_meta")}
    program._example_inputs = None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer, extra_files={NAMES_FILE: _names(module)})
    return buffer.getvalue()


def tensorrt_program(model: ModelProto) -> bytes:
    """The graph compiled by Torch-TensorRT for this machine's GPU, as the content of a `.pt2` file.

    Such a program holds TensorRT engines of one GPU model and library version, pickled by Torch-TensorRT: it runs by
    `torch-tensorrt:0` alone, which loads what the manifest's hash vouches for.

    Unverified: no GPU has run this yet.

    Raises:
        InputError: see `GraphModule`; or Torch-TensorRT cannot compile it.
        MissingPackageError, DeviceError: see `require_torch_tensorrt`.
    """
    compiler = require_torch_tensorrt()
    program, module = export_program(model)
    examples = tuple(example.cuda() for example in module.examples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.pt2"
        try:
            compiled = compiler.dynamo.compile(program, arg_inputs=examples, min_block_size=1)
            compiler.save(
                compiled,
                str(path),
                output_format="exported_program",
                arg_inputs=examples,
                extra_files={NAMES_FILE: _names(module)},
            )
        except Exception as error:  # Torch-TensorRT raises plain exceptions of many kinds
            raise InputError(
                f"graph {model.graph.name} cannot be compiled by Torch-TensorRT | "
                f"{type(error).__name__}: {one_line(error)} | leave torch-tensorrt out of --format"
            ) from error
        return path.read_bytes()


def require_torch_tensorrt() -> Any:
    """The package torch_tensorrt, with a GPU to compile for.

    Raises:
        MissingPackageError: it, or the TensorRT that it needs, is not installed.
        DeviceError: there is no GPU.
    """
    module = import_torch_tensorrt()
    if reason := missing_gpu(0):
        raise DeviceError(
            f"--format torch-tensorrt compiles for the GPU of this machine | {reason} | "
            "export on the device, or use --format torch"
        )
    return module


def _names(module: GraphModule) -> str:
    return json.dumps({"inputs": module.inputs, "outputs": module.outputs})
