"""Writes bundles: small graphs beside one file of weights, each stored once, the manifest last, all or nothing."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeseg import __version__
from edgeseg.atomic import atomic_folder
from edgeseg.bundle import Bundle, BundleConfiguration, FileRecord, Graph, Programs, configuration_digest, file_sha256
from edgeseg.classes import ClassSet
from edgeseg.errors import ArtifactError, InputError
from edgeseg.export.graph_stats import count_macs, count_parameters
from edgeseg.export.variant import SavedPrograms, Variant
from edgeseg.manifest import MANIFEST, save_manifest

WEIGHTS = "weights.bin"
ALIGNMENT = 64
"""Offsets of weights are multiples of this, in bytes, unless they lie inside one that is stored already."""
INLINE_BYTES = 256
"""Smaller weights stay in the graph, where shape inference can read them."""


class WeightStore:
    """One growing file of tensors, each content stored once.

    A tensor that is a run of rows of a stored one (a channel slice of a masked convolution) is stored nowhere: it
    refers into the other.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0
        self._offsets: dict[bytes, int] = {}
        self._first_rows: dict[bytes, list[tuple[int, int]]] = {}

    def add(self, content: bytes, rows: int) -> int:
        """Offset of `content`, written if it is new; `rows` is the tensor's first dimension."""
        digest = hashlib.sha256(content).digest()
        if digest not in self._offsets:
            inside = self._inside_stored(content, rows)
            self._offsets[digest] = self._append(content, rows) if inside is None else inside
        return self._offsets[digest]

    def _append(self, content: bytes, rows: int) -> int:
        padding = -self._size % ALIGNMENT
        self._file.write(b"\0" * padding + content)
        offset = self._size + padding
        self._size = offset + len(content)
        row_bytes = len(content) // max(1, rows)
        for row in range(rows):
            key = hashlib.sha256(content[row * row_bytes : (row + 1) * row_bytes]).digest()
            self._first_rows.setdefault(key, []).append((offset + row * row_bytes, offset + len(content)))
        return offset

    def _inside_stored(self, content: bytes, rows: int) -> int | None:
        row = content[: len(content) // max(1, rows)]
        for offset, end in self._first_rows.get(hashlib.sha256(row).digest(), ()):
            if offset + len(content) <= end and self._read(offset, len(content)) == content:
                return offset
        return None

    def _read(self, offset: int, size: int) -> bytes:
        self._file.flush()
        self._file.seek(offset)
        content = self._file.read(size)
        self._file.seek(0, 2)
        return content


class BundleWriter:
    """A bundle in the making: graphs and weights are on disk and can be run, the manifest is not there yet."""

    def __init__(self, folder: Path, name: str, classes: ClassSet) -> None:
        self.folder = folder
        self._name = name
        self._classes = classes

    def write_graphs(self, variants: Sequence[Variant]) -> list[BundleConfiguration]:
        """Write all graphs and weights; the configurations as the manifest will hold them.

        Raises:
            InputError: there are no variants, or two have the same name.
        """
        names = [variant.name for variant in variants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise InputError(
                f"two configurations have the same name: {', '.join(twice)} | export them into bundles of their own"
                if twice
                else "a bundle needs at least one configuration"
            )
        stored = self._store_weights(variants)
        for variant in variants:
            for form, saved in variant.programs.items():
                for role, content in saved.content.items():
                    (self.folder / program_file(variant.name, role, form)).write_bytes(content)
        records: dict[str, FileRecord] = {}
        for file in sorted(self.folder.iterdir()):
            records[file.name] = FileRecord(file_sha256(file), file.stat().st_size)
        self._records = records
        return [self._entry(variant, stored[variant.name]) for variant in variants]

    def finish(self, entries: Sequence[BundleConfiguration]) -> None:
        """Write the manifest for `entries`.

        Raises:
            ArtifactError: it reads back as another bundle, or not at all, so that nobody could use it.
        """
        bundle = Bundle(
            root=self.folder,
            name=self._name,
            classes=self._classes,
            colour_order="RGB",
            configurations=tuple(entries),
            files=self._records,
            versions=tool_versions(entries),
            created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        save_manifest(bundle)
        self._check_reads_back(entries)

    def _check_reads_back(self, entries: Sequence[BundleConfiguration]) -> None:
        try:
            opened = Bundle.open(self.folder)
        except ArtifactError as error:
            where = str(error).replace(str(self.folder), f"{self._name}.edgeseg")
            raise ArtifactError(f"the bundle does not open again, so it was not kept | {where}") from error
        for made, read in zip(entries, opened.configurations, strict=True):
            if read.knobs != made.knobs:
                raise ArtifactError(
                    f"the bundle has another configuration than was made, so it was not kept | got {read.name}, "
                    f"expected {made.name}"
                )

    def _store_weights(self, variants: Sequence[Variant]) -> dict[str, dict[str, bool]]:
        """Write weights.bin and the graphs; per variant and role, whether the graph refers to weights.bin."""
        copies = {
            (variant.name, role): onnx.ModelProto.FromString(model.SerializeToString())
            for variant in variants
            for role, model in variant.graphs.items()
        }
        tensors = [
            entry for model in copies.values() for entry in model.graph.initializer if _bytes(entry) >= INLINE_BYTES
        ]
        with open(self.folder / WEIGHTS, "w+b") as file:
            store = WeightStore(file)
            # Whole tensors come before the slices that lie inside them.
            for entry in sorted(tensors, key=_bytes, reverse=True):
                _make_external(entry, store)
        external: dict[str, dict[str, bool]] = {}
        for (name, role), model in copies.items():
            uses = any(entry.data_location == TensorProto.EXTERNAL for entry in model.graph.initializer)
            external.setdefault(name, {})[role] = uses
            # Shapes of inner tensors follow from the fixed input shape: every reader infers them again.
            del model.graph.value_info[:]
            (self.folder / graph_file(name, role)).write_bytes(model.SerializeToString(deterministic=True))
        if not any(uses for roles in external.values() for uses in roles.values()):
            (self.folder / WEIGHTS).unlink()
        return external

    def _entry(self, variant: Variant, external: dict[str, bool]) -> BundleConfiguration:
        graphs = {
            role: Graph(
                file=graph_file(variant.name, role),
                weights=(WEIGHTS,) if external[role] else (),
                macs=count_macs(model),
                parameters=count_parameters(model),
            )
            for role, model in variant.graphs.items()
        }
        return BundleConfiguration(
            knobs=variant.knobs,
            graphs=graphs,
            first=variant.first,
            then=variant.then,
            links=variant.links,
            digest=configuration_digest(graphs, self._records),
            parity=variant.parity,
            accuracy=variant.accuracy,
            notes=variant.notes,
            programs={
                form: Programs({role: program_file(variant.name, role, form) for role in saved.content}, saved.parity)
                for form, saved in variant.programs.items()
            },
            calibration=variant.calibration,
        )


@contextmanager
def writing_bundle(out: Path, classes: ClassSet) -> Iterator[BundleWriter]:
    """A writer in a temporary folder that becomes the bundle `out` when the block ends well, and vanishes otherwise.

    Raises:
        InputError: `out` does not end in .edgeseg, its parent is not writable, or the disk is full.
    """
    check_bundle_name(out)
    with atomic_folder(out) as folder:
        yield BundleWriter(folder, out.name.removesuffix(".edgeseg"), classes)


def check_bundle_name(out: Path) -> None:
    """Raises:
    InputError: `out` does not end in .edgeseg, or is there and no bundle.
    """
    if out.suffix != ".edgeseg":
        raise InputError(f"--out must end in .edgeseg | got {out}")
    if out.exists() and not (out / MANIFEST).is_file():
        raise InputError(f"--out {out} is there and is not a bundle, so it is not replaced | choose another name")


def read_variants(bundle: Bundle) -> list[Variant]:
    """The configurations of a bundle with their weights, to be written into another one.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    return [read_variant(bundle, entry) for entry in bundle.configurations]


def read_variant(bundle: Bundle, entry: BundleConfiguration) -> Variant:
    """One configuration of a bundle, with its weights.

    Raises:
        ArtifactError: a file of it is missing or damaged.
    """
    bundle.verify(entry.files)
    return Variant(
        knobs=entry.knobs,
        graphs={role: onnx.load(str(bundle.path(graph.file))) for role, graph in entry.graphs.items()},
        first=entry.first,
        then=entry.then,
        links=entry.links,
        notes=entry.notes,
        programs={
            form: SavedPrograms(
                {role: bundle.path(file).read_bytes() for role, file in each.files.items()}, each.parity
            )
            for form, each in entry.programs.items()
        },
        parity=entry.parity,
        accuracy=entry.accuracy,
        calibration=entry.calibration,
    )


def graph_file(configuration: str, role: str) -> str:
    """File name of a graph."""
    return f"{configuration}.{role}.onnx"


def program_file(configuration: str, role: str, form: str) -> str:
    """File name of a graph in the form of another library."""
    return f"{configuration}.{role}.{form}.pt2"


def tool_versions(entries: Sequence[BundleConfiguration]) -> dict[str, str]:
    """Versions of what makes a bundle of `entries`; those of a lower precision are what ModelOpt decides."""
    versions = {"edgeseg": __version__}
    quantiser = [] if all(entry.knobs.is_exact for entry in entries) else ["nvidia-modelopt"]
    for package in ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", *quantiser):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _bytes(entry: TensorProto) -> int:
    return int(np.prod(entry.dims)) * onnx.helper.tensor_dtype_to_np_dtype(entry.data_type).itemsize


def _make_external(entry: TensorProto, store: WeightStore) -> None:
    content = np.ascontiguousarray(numpy_helper.to_array(entry)).tobytes()
    offset = store.add(content, int(entry.dims[0]) if entry.dims else 1)
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        entry.ClearField(name)
    entry.data_location = TensorProto.EXTERNAL
    del entry.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", len(content))):
        entry.external_data.add(key=key, value=str(value))
