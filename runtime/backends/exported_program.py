"""Reads an ExportedProgram (`.pt2`) as data: operators by name, their arguments, and the weights as numpy arrays.

Not by `torch.export.load`. That one unpickles (weights, constants and example inputs that the archive marks so) and
evaluates expressions and guards that the archive holds as text: a bundle from elsewhere could run anything. Here
the graph is read from its JSON and the weights from their bytes; what is not plain data is refused. Nothing of the file
is ever executed: which operators it may name is for the backend to say.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.errors import ArtifactError

SCHEMA_MAJOR = 8
"""Version of the program's JSON that is read; torch 2.13 writes 8.20."""
NAMES_FILE = "edgeseg.json"
"""Extra file of the archive: `inputs` and `outputs`, the names of the program's tensors in their order."""
DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
}
"""ScalarType of the schema -> numpy's name."""
_STRIDED = 7
_PLAIN = frozenset(("as_int", "as_ints", "as_bool", "as_bools", "as_string"))


@dataclass(frozen=True)
class Ref:
    """An argument that is the tensor called `name`."""

    name: str


@dataclass(frozen=True)
class Dtype:
    """An argument that is a dtype, by numpy's name."""

    name: str


@dataclass(frozen=True)
class Place:
    """An argument that is the device: wherever the program runs."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    """numpy's name."""


@dataclass(frozen=True)
class Call:
    """One operator with its arguments: plain values, `Ref`, `Dtype`, `Place`, None, or lists of `Ref` and None."""

    operator: str
    """`namespace.name.overload`, such as `aten.conv2d.default`."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[str, ...]


@dataclass(frozen=True)
class ExportedProgram:
    """A graph of operators in the order of their execution."""

    calls: tuple[Call, ...]
    weights: Mapping[str, np.ndarray]
    """By the name that the calls use."""
    inputs: tuple[str, ...]
    """Names that the calls use, in the order of the program's arguments."""
    outputs: tuple[str, ...]
    input_names: tuple[str, ...]
    """What the inputs are called outside, as in the ONNX graph."""
    output_names: tuple[str, ...]
    specs: Mapping[str, TensorSpec]
    """Of every tensor of the graph, by the name that the calls use."""


def read_program(path: Path) -> ExportedProgram:
    """Read the program that `edgeseg export --format torch` wrote to `path`.

    Raises:
        ArtifactError: missing or damaged, of an unknown schema, or with anything that is not plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing | the bundle is incomplete: export or copy it again") from error
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error} | export the bundle again with --format torch") from error
    except (OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is not readable as a program ({error!r}) | export or copy it again") from error


def _read(archive: zipfile.ZipFile) -> ExportedProgram:
    # The archive's one folder has any name.
    folder = archive.namelist()[0].partition("/")[0]
    values = json.loads(archive.read(f"{folder}/models/model.json"))
    names = json.loads(archive.read(f"{folder}/extra/{NAMES_FILE}"))
    if archive.read(f"{folder}/byteorder") != b"little":
        raise ArtifactError("the weights are not little-endian")
    version = values["schema_version"]["major"]
    if version != SCHEMA_MAJOR:
        raise ArtifactError(f"the program has schema {version}, this edgeseg reads {SCHEMA_MAJOR}")
    graph, signature = values["graph_module"]["graph"], values["graph_module"]["signature"]
    inputs, weights = _inputs(archive, folder, signature["input_specs"])
    outputs = tuple(_user_output(spec) for spec in signature["output_specs"])
    if len(names["inputs"]) != len(inputs) or len(names["outputs"]) != len(outputs):
        raise ArtifactError("the names of inputs and outputs are not those of the graph")
    return ExportedProgram(
        calls=tuple(_call(node) for node in graph["nodes"]),
        weights=weights,
        inputs=inputs,
        outputs=outputs,
        input_names=tuple(map(str, names["inputs"])),
        output_names=tuple(map(str, names["outputs"])),
        specs={name: _spec(meta) for name, meta in graph["tensor_values"].items()},
    )


def _inputs(
    archive: zipfile.ZipFile, folder: str, specs: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names of the program's arguments, and its weights by the name that the graph has for them."""
    stored = {kind: _tensors(archive, f"{folder}/data/{kind}") for kind in ("weights", "constants")}
    inputs, weights = [], {}
    for spec in specs:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            inputs.append(_ref(content["arg"]).name)
        elif kind in ("parameter", "buffer"):
            weights[content["arg"]["name"]] = stored["weights"][content[f"{kind}_name"]]
        elif kind == "tensor_constant":
            weights[content["arg"]["name"]] = stored["constants"][content["tensor_constant_name"]]
        else:
            raise ArtifactError(f"the program has an input that is no tensor ({kind})")
    return tuple(inputs), weights


def _tensors(archive: zipfile.ZipFile, folder: str) -> dict[str, np.ndarray]:
    """Name -> tensor of `data/weights` or `data/constants`."""
    config = json.loads(archive.read(f"{folder}/model_{folder.rpartition('/')[2]}_config.json"))["config"]
    tensors = {}
    for name, entry in config.items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise ArtifactError(f"{name} is stored as a pickled object, which is never loaded")
        meta = entry["tensor_meta"]
        spec = _spec(meta)
        content = np.frombuffer(archive.read(f"{folder}/{entry['path_name']}"), spec.dtype)
        strides = np.zeros(spec.shape, spec.dtype).strides
        given = [_size(stride) * content.itemsize for stride in meta["strides"]]
        padded = any(ours != theirs for ours, theirs, side in zip(strides, given, spec.shape, strict=True) if side > 1)
        if padded or _size(meta["storage_offset"]) or content.size != int(np.prod(spec.shape)):
            raise ArtifactError(f"{name} is not stored row by row in a file of its own")
        tensors[name] = content.reshape(spec.shape)
    return tensors


def _user_output(spec: Mapping[str, Any]) -> str:
    ((kind, content),) = spec.items()
    if kind != "user_output":
        raise ArtifactError(f"the program changes something besides its outputs ({kind})")
    return _ref(content["arg"]).name


def _call(node: Mapping[str, Any]) -> Call:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for entry in node["inputs"]:
        value = _argument(entry["arg"])
        if entry["kind"] == 2:
            kwargs[entry["name"]] = value
        else:
            args.append(value)
    results = []
    for entry in node["outputs"]:
        results += [each["name"] for each in entry["as_tensors"]] if "as_tensors" in entry else [_ref(entry).name]
    return Call(node["target"].removeprefix("torch.ops."), tuple(args), kwargs, tuple(results))


def _argument(argument: Mapping[str, Any]) -> Any:
    ((kind, content),) = argument.items()
    if kind in _PLAIN:
        return content
    if kind in ("as_float", "as_floats"):
        # JSON has no infinity: it is a text then.
        return float(content) if kind == "as_float" else [float(each) for each in content]
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return Ref(content["name"])
    if kind == "as_tensors":
        return [Ref(each["name"]) for each in content]
    if kind == "as_optional_tensors":
        return [_argument(each) for each in content]
    if kind == "as_scalar_type":
        return Dtype(_dtype(content))
    if kind == "as_device":
        return Place()
    if kind == "as_layout" and content == _STRIDED:
        return None
    raise ArtifactError(f"an operator has an argument that is no plain value ({kind} {content!r:.60})")


def _ref(argument: Mapping[str, Any]) -> Ref:
    value = _argument(argument)
    if not isinstance(value, Ref):
        raise ArtifactError(f"an input or output of the program is no tensor ({argument!r:.60})")
    return value


def _spec(meta: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(tuple(_size(side) for side in meta["sizes"]), _dtype(meta["dtype"]))


def _size(side: Mapping[str, Any]) -> int:
    if "as_int" not in side:
        raise ArtifactError(f"a size is not fixed ({side!r:.60})")
    return int(side["as_int"])


def _dtype(number: int) -> str:
    if number not in DTYPES:
        raise ArtifactError(f"a tensor has a dtype that is not read here (ScalarType {number})")
    return DTYPES[number]
