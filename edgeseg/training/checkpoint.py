"""Checkpoints: one safetensors file with the weights and, in its header, JSON that says what they are.

Reading a checkpoint parses numbers and JSON; nothing in the file is ever executed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgeseg.atomic import atomic_file
from edgeseg.classes import ClassSet
from edgeseg.errors import ArtifactError, InputError
from edgeseg.manifest import MANIFEST
from edgeseg.models.cwm import generator_from_dict, swap_convolutions
from edgeseg.models.reductions import add_auxiliary_decoder
from edgeseg.models.registry import NETWORKS, build_network
from edgeseg.training.trained_int8 import TrainedInt8

FORMAT_VERSION = 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Colour = tuple[float, float, float]
_HEADER_KEY = "edgeseg"
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".bin")


@dataclass(frozen=True)
class CheckpointMeta:
    """What the weights of a checkpoint are, and what they were trained on."""

    architecture: str
    """Name in `edgeseg.models.registry.NETWORKS`."""
    options: dict[str, Any]
    """Options of its builder, `width` for one."""
    classes: ClassSet
    input_frames: int = 1
    """1, or 2 when the network takes the frame before as well."""
    mean: Colour = IMAGENET_MEAN
    """Subtracted from frames scaled to 0-1, per colour in `colour_order`."""
    std: Colour = IMAGENET_STD
    """Divides what is left."""
    colour_order: str = "RGB"
    target_offset: int = 0
    """Frames ahead that the network was trained to predict."""
    frame_stride: int = 1
    """Frames from one input to the next in training."""
    cwm: dict[str, Any] | None = None
    """None for a dense network; else the mask generator (`generator`, `rho`, `align`) and the names `masked`."""
    auxiliary: dict[str, Any] | None = None
    """None without an auxiliary decoder; else its `layers` (empty when all share one) and what it was trained for."""
    int8: TrainedInt8 | None = None
    """The rounding that the network was trained with; None for one that was trained in float."""
    trained_on: dict[str, Any] = field(default_factory=dict)
    """Data set, splits, fps, size_hw."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Scores on the validation split when the checkpoint was written."""
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def frames_text(self) -> str:
        """How frames are normalised, in words."""
        return frames_text(self.mean, self.std, self.colour_order)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, with the format's version."""
        converted = {"classes": self.classes.as_dict(), "int8": self.int8.as_dict() if self.int8 else None}
        return {"format_version": FORMAT_VERSION, **asdict(self), **converted}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "CheckpointMeta":
        """Inverse of `as_dict`; `where` names the file in errors.

        Raises:
            ArtifactError: unknown version, or a key is missing or unreadable.
        """
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{where}: checkpoint format {version} | expected {FORMAT_VERSION} | use the edgeseg that wrote it"
            )
        fields = {key: value for key, value in values.items() if key != "format_version"}
        try:
            fields["classes"] = ClassSet.from_dict(fields["classes"])
            fields["int8"] = TrainedInt8.from_dict(fields["int8"]) if fields.get("int8") else None
            for key in ("mean", "std"):
                red, green, blue = fields[key]
                fields[key] = (float(red), float(green), float(blue))
            return cls(**fields)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{where}: metadata of the checkpoint is not readable | {error}") from error


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A network with its weights, in evaluation mode on the CPU, and what it is; in float, also if trained for INT8."""

    network: nn.Module
    meta: CheckpointMeta


def frames_text(mean: Colour, std: Colour, colour_order: str) -> str:
    """How frames are normalised, in words: `RGB, mean 0.5 0.5 0.5, deviation 0.5 0.5 0.5`."""
    numbers = (" ".join(f"{value:.4g}" for value in colour) for colour in (mean, std))
    return "{}, mean {}, deviation {}".format(colour_order, *numbers)


def save_checkpoint(path: Path | str, network: nn.Module, meta: CheckpointMeta) -> None:
    """Write weights and metadata to `path`, whole or not at all.

    Raises:
        InputError: `path` is not writable or the disk is full.
    """
    write_tensors(path, network.state_dict(), meta.as_dict())


def load_checkpoint(path: Path | str, *, cwm: bool = True) -> LoadedCheckpoint:
    """Build the network that `path` holds and load its weights.

    Args:
        cwm: whether the convolutions that were masked in training are swapped for masked ones; False gives the dense
            network with the same weights and layer names.

    Raises:
        ArtifactError: missing, truncated or foreign file, unknown architecture or version, weights that do not fit.
    """
    tensors, header = read_tensors(path)
    meta = CheckpointMeta.from_dict(header, str(path))
    if meta.architecture not in NETWORKS:
        raise ArtifactError(
            f"{path}: unknown architecture {meta.architecture!r} | known: {', '.join(NETWORKS)} | update edgeseg"
        )
    try:
        network = build_network(meta.architecture, len(meta.classes), **meta.options)
        if meta.auxiliary is not None:
            add_auxiliary_decoder(network, len(meta.classes), tuple(meta.auxiliary["layers"]))
        load_weights(network, tensors, str(path))
        if cwm and meta.cwm is not None:
            generator = generator_from_dict({key: value for key, value in meta.cwm.items() if key != "masked"})
            swap_convolutions(network, meta.cwm["masked"], generator)
    except (InputError, KeyError) as error:
        raise ArtifactError(f"{path}: checkpoint contradicts itself | {error}") from error
    return LoadedCheckpoint(network.eval(), meta)


def read_meta(path: Path | str) -> CheckpointMeta:
    """The metadata of the checkpoint `path`, without its weights.

    Raises:
        ArtifactError: missing, truncated or foreign file, or unknown version.
    """
    return CheckpointMeta.from_dict(read_tensors(path, header_only=True)[1], str(path))


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy `tensors` into `network`; names and shapes must be those of the network.

    Raises:
        ArtifactError: they are not; the message names the first few.
    """
    expected = network.state_dict()
    problems = [f"{name} missing" for name in expected if name not in tensors]
    problems += [f"{name} not in the network" for name in tensors if name not in expected]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ArtifactError(f"{where}: weights are of another architecture | {'; '.join(problems[:3])}{more}")
    network.load_state_dict(dict(tensors))


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors with a JSON header as one safetensors file, whole or not at all.

    The same tensors and header give the same bytes.
    """
    payload = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={_HEADER_KEY: json.dumps(header, sort_keys=True)},
    )
    with atomic_file(path) as temporary:
        temporary.write_bytes(payload)


def read_tensors(path: Path | str, *, header_only: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON header of a file that `write_tensors` wrote; no tensors with `header_only`.

    Raises:
        ArtifactError: the file is missing, truncated, or not written by edgeseg.
    """
    if (Path(path) / MANIFEST).is_file():
        raise ArtifactError(
            f"{path}: a bundle, expected a checkpoint | give the .safetensors file that it was exported from"
        )
    if Path(path).is_dir():
        raise ArtifactError(f"{path}: a folder, not a checkpoint | expected a .safetensors file in it, perhaps")
    if not Path(path).is_file():
        raise ArtifactError(f"{path}: no such checkpoint | expected a .safetensors file written by 'edgeseg train'")
    if Path(path).suffix in _PICKLES:
        raise ArtifactError(
            f"{path}: a pickled PyTorch file, which is not read | expected a .safetensors file written by 'edgeseg "
            "train' | weights of a ViT or SwiftNet: edgeseg import | a network of yours: load it in a "
            "function of your own, and export package.module:function"
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            names = [] if header_only else list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{path}: not a whole safetensors file ({error}) | it is truncated or damaged: copy or train it again"
        ) from error
    if _HEADER_KEY not in metadata:
        raise ArtifactError(f"{path}: safetensors without edgeseg's metadata | expected one written by 'edgeseg train'")
    try:
        header = json.loads(metadata[_HEADER_KEY])
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: metadata is not JSON ({error}) | the file is damaged") from error
    if not isinstance(header, dict):
        raise ArtifactError(
            f"{path}: metadata is {type(header).__name__}, expected a JSON object | the file is damaged"
        )
    return tensors, header
