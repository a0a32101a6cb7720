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

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edgeseg.bundle import BundleConfiguration, Parity, Programs
from edgeseg.config import Configuration
from edgeseg.errors import DeviceError, EdgesegError, InputError, ParityError
from edgeseg.export.cached_video import fit_frame
from edgeseg.export.parity import FRAMES, MINIMUM_AGREEMENT, STATEFUL_FRAMES, ParityVideo
from edgeseg.export.rewrites.graph_index import GraphIndex
from edgeseg.export.torch_operators import DTYPES, OPERATORS, node_of
from edgeseg.export.variant import Reference, SavedPrograms, Variant
from edgeseg.runtime.backends.exported_program import NAMES_FILE
from edgeseg.runtime.backends.torch_library import import_torch_tensorrt, missing_gpu
from edgeseg.runtime.session import Session

FORMATS = ("onnx", "torch", "torch-tensorrt")
"""What `--format` takes. The ONNX graphs are always there."""
MINIMUM_LOW_AGREEMENT = 0.99
"""Share of pixels with the labels of the graphs in a lower precision, where a rounding may go the other way."""
PROGRAM_DEVICES = {"torch": "torch:cpu", "torch-tensorrt": "torch-tensorrt:0"}
"""Form of a program -> device that it is checked on."""


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


class GraphModule(nn.Module):
    """A fixed-shape ONNX graph as a module: its inputs in their order -> a tuple of its outputs.

    Constants are buffers; what depends on constants alone is computed once, here.

    Raises:
        InputError: an operator, or a use of one, without a form in PyTorch.
    """

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        index = GraphIndex(model)
        graph = index.model.graph
        self.inputs = [entry.name for entry in graph.input]
        self.outputs = [entry.name for entry in graph.output]
        self._examples = [torch.zeros(index.shapes[name], dtype=DTYPES[index.dtypes[name]]) for name in self.inputs]
        known = {name: torch.from_numpy(np.array(value)) for name, value in index.constants.items()}
        self._nodes = []
        for proto in graph.node:
            if proto.output[0] in known:
                continue
            node = node_of(proto, index.constants, index.shapes.get(proto.output[0], ()))
            if proto.domain not in ("", "ai.onnx") or proto.op_type not in OPERATORS:
                raise node.refused("the operator is not among those that are")
            if all(name in known for name in proto.input if name):
                made = _outputs(OPERATORS[proto.op_type](node, [known.get(name) for name in proto.input]))
                known.update(zip(proto.output, made, strict=True))
                index.constants.update((name, known[name].numpy()) for name in proto.output)
            else:
                self._nodes.append(node)
        self._names: dict[str, str] = {}
        for name in {name: None for node in self._nodes for name in node.proto.input if name in known}:
            self._names[name] = f"constant{len(self._names)}"
            self.register_buffer(self._names[name], known[name].contiguous())

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes and dtypes, all zero."""
        return tuple(self._examples)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Any] = dict(zip(self.inputs, inputs, strict=True))
        values.update((name, getattr(self, buffer)) for name, buffer in self._names.items())
        for node in self._nodes:
            proto = node.proto
            made = OPERATORS[proto.op_type](node, [values[name] if name else None for name in proto.input])
            values.update(zip(proto.output, _outputs(made), strict=False))
        return tuple(values[name] for name in self.outputs)


def _outputs(made: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


def export_program(model: ModelProto) -> tuple[torch.export.ExportedProgram, GraphModule]:
    """The graph as an ExportedProgram, and the module it was made from.

    Raises:
        InputError: see `GraphModule`.
    """
    module = GraphModule(model).eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, module.examples, strict=False)
    except EdgesegError:
        raise
    except Exception as error:
        raise InputError(
            f"graph {model.graph.name} cannot be exported as a program of PyTorch ({_one_line(error)}) | "
            "leave torch out of --format"
        ) from error
    return program, module


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
                f"graph {model.graph.name} cannot be compiled by Torch-TensorRT | {_one_line(error)} | "
                "leave torch-tensorrt out of --format"
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


def check_programs(
    entry: BundleConfiguration, reference: Reference, video: ParityVideo, *, folder: Path
) -> Mapping[str, Programs]:
    """The programs of `entry` in `folder`, each form run over the video and compared as `check_parity` compares graphs.

    In full precision it is held against the network, `reference`; in a lower one against the graphs that it was made
    from, for there the network gives other labels.

    Raises:
        ParityError: labels agree on too few pixels of a step.
    """
    checked = {}
    for form, programs in entry.programs.items():
        if entry.knobs.is_exact:
            parity = _agreement(form, entry, reference, video, folder, MINIMUM_AGREEMENT)
        else:
            with GraphReference(folder, entry) as graphs:
                parity = _agreement(form, entry, graphs, video, folder, MINIMUM_LOW_AGREEMENT)
        checked[form] = replace(programs, parity=parity)
    return checked


class GraphReference:
    """The graphs of a configuration as what its programs are held against."""

    def __init__(self, folder: Path, entry: BundleConfiguration) -> None:
        self._session = Session(folder, entry, device="cpu", threads=1)

    def reset(self) -> None:
        """Forget all state."""
        self._session.reset()

    def step(self, frame_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 `(H, W, 3)` RGB -> labels uint8 `(h, w)`; logits are inside the graph."""
        return self._session.step(frame_rgb), None

    def __enter__(self) -> "GraphReference":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def _agreement(
    form: str, entry: BundleConfiguration, reference: Reference, video: ParityVideo, folder: Path, minimum: float
) -> Parity:
    count = STATEFUL_FRAMES if entry.knobs.stateful else FRAMES
    frames = [fit_frame(frame, entry.knobs.size_hw) for frame in video.frames_rgb[:count]]
    reference.reset()
    total = 0.0
    with Session(folder, entry, device=PROGRAM_DEVICES[form], threads=1) as session:
        for step, frame in enumerate(frames):
            agreement = float((session.step(frame) == reference.step(frame)[0]).mean())
            if not agreement >= minimum:
                raise ParityError(
                    f"{entry.name}: the {form} program {entry.role_at(step)} differs from "
                    f"{'the network' if entry.knobs.is_exact else 'its graph'} at step {step} | labels agree on "
                    f"{100 * agreement:.2f} % of the pixels, expected at least {100 * minimum:.1f} % | "
                    "nothing was written"
                )
            total += agreement
    return Parity(video.name, len(frames), total / len(frames), None)


def _names(module: GraphModule) -> str:
    return json.dumps({"inputs": module.inputs, "outputs": module.outputs})


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
