"""The bundle: a folder `NAME.edgeseg/` with graphs, weights and a manifest that describes and hashes them.

What it holds, and `verify`, which compares the files with their sizes and SHA-256. `edgeseg.manifest` reads and writes.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgeseg.accuracy import Accuracy
from edgeseg.calibration_record import Calibration
from edgeseg.classes import ClassSet
from edgeseg.config import UNCOMPENSATED, Compensation, Configuration
from edgeseg.errors import ArtifactError
from edgeseg.metrics.latency_aware import AccuracyTable


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of one file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Graph:
    """One fixed-shape ONNX file."""

    file: str
    weights: tuple[str, ...]
    """Files that hold its weights as ONNX external data."""
    macs: int
    """Multiply-accumulates of one run."""
    parameters: int


@dataclass(frozen=True)
class StateLink:
    """An output of one role that is an input of the role that runs next."""

    from_role: str
    output: str
    to_role: str
    input: str


@dataclass(frozen=True)
class Parity:
    """What the parity check found: the network in PyTorch against its graphs in the runtime."""

    video: str
    frames: int
    label_agreement: float
    """Share of pixels with equal labels, in [0, 1]."""
    max_logit_error: float | None
    """Largest absolute difference of logits; None where the graph has none."""
    miou_fp32: float | None = None
    """mIoU without delay of the FP32 graphs with the same knobs, for a lower precision that was scored."""
    miou_drop: float | None = None
    """What the lower precision loses of it; negative when it gains."""
    max_drop: float | None = None
    """The loss that was allowed."""


@dataclass(frozen=True)
class Programs:
    """The graphs of a configuration once more, in the form of another library.

    Beside the ONNX graphs and not part of the configuration's digest: the same arithmetic, so that device profiles stay
    valid when a form is added.
    """

    files: Mapping[str, str]
    """Role -> file."""
    parity: Parity | None = None


@dataclass(frozen=True)
class BundleConfiguration:
    """One configuration of a bundle: its knobs, its graphs and how they follow each other."""

    knobs: Configuration
    graphs: Mapping[str, Graph]
    """Role -> graph."""
    first: str
    """Role of the step after a reset."""
    then: tuple[str, ...]
    """Roles of the steps that follow, in turn."""
    links: tuple[StateLink, ...]
    digest: str
    """SHA-256 over the roles and the hashes of their files: what a device profile refers to."""
    parity: Parity | None = None
    accuracy: Accuracy | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Facts for people: masks that were aligned, layers left dense, rewrites applied."""
    programs: Mapping[str, Programs] = field(default_factory=dict)
    """Form, such as `torch` -> programs of all roles."""
    calibration: Calibration | None = None
    """On which frames ranges were measured; None where none were needed."""

    @property
    def name(self) -> str:
        return self.knobs.name

    def role_at(self, step: int) -> str:
        """Role that runs at `step` steps after a reset."""
        return self.first if step == 0 else self.then[(step - 1) % len(self.then)]

    @property
    def files(self) -> tuple[str, ...]:
        """All files of this configuration, sorted."""
        return tuple(sorted(files_of(self.graphs, self.programs)))


@dataclass(frozen=True)
class Candidate:
    """A configuration and how its labels are moved: what is profiled, picked and run."""

    configuration: BundleConfiguration
    compensation: Compensation = UNCOMPENSATED

    @property
    def name(self) -> str:
        """The configuration's name, and the compensation's behind a space where labels are moved."""
        moved = f" {self.compensation.name}" if self.compensation.moves else ""
        return self.configuration.name + moved

    @property
    def table(self) -> AccuracyTable | None:
        """mIoU over k; None where it was not scored."""
        accuracy = self.configuration.accuracy
        return accuracy.table_of(self.compensation) if accuracy else None


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, its manifest read and checked. `verify` checks the files."""

    root: Path
    name: str
    classes: ClassSet
    colour_order: str
    """`RGB` or `BGR`: the order of the channels that the graphs take."""
    configurations: tuple[BundleConfiguration, ...]
    files: Mapping[str, FileRecord]
    versions: Mapping[str, str]
    """Tools that made the bundle."""
    created_at: str

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all configurations."""
        return text_sha256("\n".join(sorted(f"{entry.name} {entry.digest}" for entry in self.configurations)))

    def configuration(self, name: str) -> BundleConfiguration:
        """The configuration called `name`.

        Raises:
            ArtifactError: there is none; the message lists those that there are.
        """
        for entry in self.configurations:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.configurations)
        raise ArtifactError(f"{self.root.name} has no configuration {name!r} | it has: {known}")

    def candidates(self, compensations: Sequence[Compensation] | None = None) -> tuple[Candidate, ...]:
        """Every configuration with each of `compensations`; by default with those that it has accuracy tables for."""
        return tuple(
            Candidate(entry, compensation)
            for entry in self.configurations
            for compensation in (
                compensations or (entry.accuracy.compensations if entry.accuracy else (UNCOMPENSATED,))
            )
        )

    def path(self, file: str) -> Path:
        """Path of one of the bundle's files.

        Raises:
            ArtifactError: the name is not a plain one inside the bundle.
        """
        return path_inside(self.root, file)

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Compare size and SHA-256 of `names` (all files by default) with the manifest.

        Raises:
            ArtifactError: a file is missing, of another size or of another content.
        """
        for name in sorted(self.files if names is None else names):
            record = self.files[name]
            path = self.path(name)
            if not path.is_file():
                raise ArtifactError(f"{path} is missing | the bundle is incomplete: export or copy it again")
            size = path.stat().st_size
            if size != record.bytes:
                raise ArtifactError(
                    f"{path} is damaged | got {size} bytes, expected {record.bytes}: copy the bundle again"
                )
            if file_sha256(path) != record.sha256:
                raise ArtifactError(f"{path} is damaged | its SHA-256 is not the manifest's: copy the bundle again")

    @classmethod
    def open(cls, root: Path | str) -> "Bundle":
        """Read and check the manifest of the bundle folder `root`.

        Raises:
            ArtifactError: no bundle there, an unknown major version, or a manifest that contradicts itself.
        """
        from edgeseg.manifest import read_manifest  # which makes bundles, and so needs this module

        return read_manifest(Path(root))


def configuration_digest(graphs: Mapping[str, Graph], files: Mapping[str, FileRecord]) -> str:
    """SHA-256 over roles and file hashes: equal digests run the same arithmetic."""
    lines = [
        f"{role} {files[graph.file].sha256} {' '.join(files[name].sha256 for name in graph.weights)}"
        for role, graph in sorted(graphs.items())
    ]
    return text_sha256("\n".join(lines))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def path_inside(root: Path, name: str) -> Path:
    """Path of the file `name` of a bundle at `root`.

    Raises:
        ArtifactError: the name leads out of the bundle, by itself or by a link.
    """
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
        raise ArtifactError(f"file name {name!r} leaves the bundle | the manifest is damaged or was tampered with")
    path = root / pure
    if not path.resolve().is_relative_to(root.resolve()):
        raise ArtifactError(f"file {name!r} is a link out of the bundle | the bundle is damaged or was tampered with")
    return path


def files_of(graphs: Mapping[str, Graph], programs: Mapping[str, Programs]) -> set[str]:
    """All files of a configuration's graphs and of its programs."""
    names = {name for graph in graphs.values() for name in (graph.file, *graph.weights)}
    return names | {name for each in programs.values() for name in each.files.values()}
