"""The bundle: a folder `NAME.edgeseg/` with graphs, weights and a manifest that describes and hashes them.

The manifest is written last and the folder appears by one rename, so a bundle exists whole or not at all. Reading one
checks the format version, the manifest's own checksum and every name (no path leaves the folder); `verify` compares the
files with their sizes and SHA-256.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgeseg.accuracy import Accuracy
from edgeseg.atomic import write_text
from edgeseg.calibration_record import Calibration
from edgeseg.classes import ClassSet
from edgeseg.config import UNCOMPENSATED, Compensation, Configuration
from edgeseg.errors import ArtifactError, EdgesegError
from edgeseg.metrics.latency_aware import AccuracyTable

FORMAT = "edgeseg-bundle"
MAJOR, MINOR = 1, 2
MANIFEST = "manifest.json"


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
        return tuple(sorted(_files_of(self.graphs, self.programs)))


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
        return _sha256_of_text("\n".join(sorted(f"{entry.name} {entry.digest}" for entry in self.configurations)))

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
        return _inside(self.root, file)

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
        root = Path(root)
        path = root / MANIFEST
        if not root.exists():
            raise ArtifactError(f"no bundle at {root} | make one: edgeseg export CHECKPOINT --out {root}")
        if not path.is_file():
            raise ArtifactError(f"{root} is not a bundle | expected a file {MANIFEST} in it")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ArtifactError(f"{path} is not readable ({error}) | export or copy the bundle again") from error
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ArtifactError(f"{path} is not an edgeseg manifest | expected format {FORMAT!r}")
        version = values.get("format_version")
        if not (isinstance(version, list) and len(version) == 2 and version[0] == MAJOR):
            raise ArtifactError(
                f"{path} has format version {version} | this edgeseg reads {MAJOR}.x: update it, or export again"
            )
        if values.get("checksum") != _checksum(values):
            raise ArtifactError(f"{path} was changed after it was written | export or copy the bundle again")
        try:
            return _parse(root, values)
        except EdgesegError as error:
            raise ArtifactError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{path} is damaged ({error!r}) | export or copy the bundle again") from error


def manifest_dict(bundle: Bundle) -> dict[str, Any]:
    """The manifest of `bundle`, JSON-ready; `Bundle.open` reads it back."""
    values = {
        "format": FORMAT,
        "format_version": [MAJOR, MINOR],
        "name": bundle.name,
        "created_at": bundle.created_at,
        "versions": dict(bundle.versions),
        "classes": bundle.classes.as_dict(),
        "input": {"name": "image", "dtype": "uint8", "layout": "NHWC", "colour_order": bundle.colour_order},
        "output": {"name": "labels", "dtype": "uint8", "layout": "NHW"},
        "files": {name: vars(record).copy() for name, record in sorted(bundle.files.items())},
        "configurations": [_configuration_dict(entry) for entry in bundle.configurations],
    }
    return {**values, "checksum": _checksum(values)}


def save_manifest(bundle: Bundle) -> None:
    """Write the manifest of a bundle whose files are in place, whole or not at all.

    Raises:
        ArtifactError: the folder cannot be written to.
    """
    write_text(bundle.root / MANIFEST, json.dumps(manifest_dict(bundle), indent=1) + "\n")


def configuration_digest(graphs: Mapping[str, Graph], files: Mapping[str, FileRecord]) -> str:
    """SHA-256 over roles and file hashes: equal digests run the same arithmetic."""
    lines = [
        f"{role} {files[graph.file].sha256} {' '.join(files[name].sha256 for name in graph.weights)}"
        for role, graph in sorted(graphs.items())
    ]
    return _sha256_of_text("\n".join(lines))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _checksum(values: dict[str, Any]) -> str:
    content = {key: value for key, value in values.items() if key != "checksum"}
    return _sha256_of_text(json.dumps(content, sort_keys=True, separators=(",", ":")))


def _sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _inside(root: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
        raise ArtifactError(f"file name {name!r} leaves the bundle | the manifest is damaged or was tampered with")
    path = root / pure
    if not path.resolve().is_relative_to(root.resolve()):
        raise ArtifactError(f"file {name!r} is a link out of the bundle | the bundle is damaged or was tampered with")
    return path


def _configuration_dict(entry: BundleConfiguration) -> dict[str, Any]:
    accuracy = entry.accuracy
    return {
        "name": entry.name,
        "digest": entry.digest,
        "knobs": entry.knobs.as_dict(),
        "graphs": {role: {**vars(graph), "weights": list(graph.weights)} for role, graph in entry.graphs.items()},
        "sequence": {"first": entry.first, "then": list(entry.then)},
        "links": [vars(link).copy() for link in entry.links],
        "parity": vars(entry.parity).copy() if entry.parity else None,
        "calibration": entry.calibration.as_dict() if entry.calibration else None,
        "accuracy": accuracy.as_dict() if accuracy else None,
        "notes": dict(entry.notes),
        "programs": {
            form: {"files": dict(each.files), "parity": vars(each.parity).copy() if each.parity else None}
            for form, each in entry.programs.items()
        },
    }


def _parse(root: Path, values: dict[str, Any]) -> Bundle:
    files = {name: FileRecord(str(record["sha256"]), int(record["bytes"])) for name, record in values["files"].items()}
    for name in files:
        _inside(root, name)
    colour_order = values["input"]["colour_order"]
    if colour_order not in ("RGB", "BGR"):
        raise ArtifactError(f"unknown colour order {colour_order!r} | known: RGB, BGR")
    configurations = tuple(_parse_configuration(entry, files) for entry in values["configurations"])
    if not configurations:
        raise ArtifactError("the bundle has no configurations | export it again")
    names = [entry.name for entry in configurations]
    if len(set(names)) != len(names):
        raise ArtifactError("two configurations have the same name | export the bundle again")
    classes = ClassSet.from_dict(values["classes"])
    return Bundle(
        root,
        str(values["name"]),
        classes,
        colour_order,
        configurations,
        files,
        values["versions"],
        values["created_at"],
    )


def _parse_configuration(values: dict[str, Any], files: Mapping[str, FileRecord]) -> BundleConfiguration:
    knobs = Configuration.from_dict(values["knobs"])
    graphs = {
        role: Graph(graph["file"], tuple(graph["weights"]), int(graph["macs"]), int(graph["parameters"]))
        for role, graph in values["graphs"].items()
    }
    programs = {
        form: Programs(dict(each["files"]), Parity(**each["parity"]) if each["parity"] else None)
        for form, each in values.get("programs", {}).items()
    }
    missing = sorted(_files_of(graphs, programs) - set(files))
    if missing:
        raise ArtifactError(f"{knobs.name} names files without a hash: {', '.join(missing)}")
    first, then = values["sequence"]["first"], tuple(values["sequence"]["then"])
    links = tuple(StateLink(**link) for link in values["links"])
    roles = {first, *then, *(role for link in links for role in (link.from_role, link.to_role))}
    if not then or roles - set(graphs):
        raise ArtifactError(
            f"{knobs.name} names roles without a graph: {', '.join(sorted(roles - set(graphs))) or 'none'}"
        )
    incomplete = sorted(form for form, each in programs.items() if set(each.files) != set(graphs))
    if incomplete:
        raise ArtifactError(
            f"{knobs.name} has no program for some of its roles: {', '.join(incomplete)} | export again"
        )
    digest = configuration_digest(graphs, files)
    if digest != values["digest"]:
        raise ArtifactError(f"{knobs.name}: the digest is not that of its files | export or copy the bundle again")
    parity = values["parity"]
    return BundleConfiguration(
        knobs=knobs,
        graphs=graphs,
        first=first,
        then=then,
        links=links,
        digest=digest,
        parity=Parity(**parity) if parity else None,
        accuracy=Accuracy.from_dict(values["accuracy"]) if values["accuracy"] else None,
        notes=values["notes"],
        programs=programs,
        calibration=Calibration.from_dict(values["calibration"]) if values["calibration"] else None,
    )


def _files_of(graphs: Mapping[str, Graph], programs: Mapping[str, Programs]) -> set[str]:
    names = {name for graph in graphs.values() for name in (graph.file, *graph.weights)}
    return names | {name for each in programs.values() for name in each.files.values()}
