"""The engine cache: the folder `NAME.engines/` beside a bundle, with what TensorRT made of its graphs.

An engine runs only with the library version and on the GPU that it was built for, so each lies beside a record that
says so. The engine file itself is what the library wrote, loadable by its other tools; nothing is glued into it. A
record is written last and names its engine file, so an engine is there whole or not at all. A record that was damaged
since is as good as none, with a warning. Nothing is ever unpickled.
"""

import hashlib
import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeseg.atomic import atomic_file, write_text
from edgeseg.bundle import BundleConfiguration, file_sha256
from edgeseg.classes import file_name_safe
from edgeseg.errors import ArtifactError
from edgeseg.runtime.engine_key import DEVICE_FAMILIES, EngineHost, EngineKey

FORMAT, FORMAT_VERSION = "edgeseg-engine", 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineRecord:
    """One engine of the cache."""

    path: Path
    """The engine file."""
    configuration: str
    role: str
    key: EngineKey
    sha256: str
    """Of the engine file."""
    size_bytes: int
    built_at: str
    """ISO 8601, UTC."""
    build_s: float
    layers: tuple[Mapping[str, Any], ...] = ()
    """What the engine is made of, where the build told: `edgeseg.export.layer_report.Layer.as_dict` of each layer."""

    def read(self) -> bytes:
        """The engine's bytes.

        Raises:
            ArtifactError: they are not those that were written.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"engine {self.path} cannot be read ({error.strerror}) | {_again(self)}") from error
        self._refuse(self._damage(len(content), hashlib.sha256(content).hexdigest()))
        return content

    def verify(self) -> None:
        """Compare the engine file's size and SHA-256 with the record.

        Raises:
            ArtifactError: the file is missing, truncated or changed.
        """
        self._refuse(self.problem())

    def problem(self) -> str | None:
        """What is wrong with the engine file, which is missing, truncated or changed; None when nothing is."""
        if not self.path.is_file():
            return f"engine {self.path} is missing"
        size = self.path.stat().st_size
        return self._damage(size, file_sha256(self.path) if size == self.size_bytes else "")

    def _damage(self, size: int, sha256: str) -> str | None:
        if size != self.size_bytes:
            return f"engine {self.path} is damaged | got {size} bytes, expected {self.size_bytes}"
        if sha256 != self.sha256:
            return f"engine {self.path} is damaged | its SHA-256 is not its record's"
        return None

    def _refuse(self, problem: str | None) -> None:
        if problem is not None:
            raise ArtifactError(f"{problem} | {_again(self)}")


def graph_sha256(configuration: BundleConfiguration, role: str) -> str:
    """What stands for one graph and its weights: changes with any file of its configuration."""
    return hashlib.sha256(f"{role} {configuration.digest}".encode()).hexdigest()


def engine_folder(root: Path) -> Path:
    """The cache of the bundle at `root`: `street.engines` beside `street.edgeseg`."""
    # An absolute path, so that a bundle named "." has a name.
    root = root.absolute() if root.name else root.resolve()
    return root.with_name(root.name.removesuffix(".edgeseg") + ".engines")


def engine_path(root: Path, configuration: str, role: str, key: EngineKey, sha256: str) -> Path:
    """Where the engine of that content lies."""
    return engine_folder(root) / f"{_stem(configuration, role, key)}-{sha256[:8]}.engine"


def timing_cache_path(root: Path, library: str, version: str, gpu: str) -> Path:
    """Where the builder keeps what it measured of kernels, for the next build with that version on that GPU."""
    return engine_folder(root) / file_name_safe(f"{library}-{version}-{gpu}.timing")


def store_engine(
    root: Path,
    configuration: BundleConfiguration,
    role: str,
    key: EngineKey,
    plan: bytes | memoryview,
    *,
    build_s: float,
    layers: Sequence[Mapping[str, Any]] = (),
) -> EngineRecord:
    """Put an engine into the cache of the bundle at `root`, in the place of one with the same key.

    Engines of the same graph's earlier contents, which nothing can use any more, are removed.

    Raises:
        InputError: the folder beside the bundle cannot be written, or the disk is full; the cache is as it was.
    """
    sha256 = hashlib.sha256(plan).hexdigest()
    record = EngineRecord(
        path=engine_path(root, configuration.name, role, key, sha256),
        configuration=configuration.name,
        role=role,
        key=key,
        sha256=sha256,
        size_bytes=len(plan),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_s=round(build_s, 3),
        layers=tuple(layers),
    )
    with atomic_file(record.path) as temporary:
        temporary.write_bytes(plan)
    write_text(_record_path(root, configuration.name, role, key), json.dumps(_as_dict(record), indent=1) + "\n")
    _tidy(root, configuration.name, role, record)
    return record


def stored_engine(root: Path, configuration: BundleConfiguration, role: str, key: EngineKey) -> EngineRecord | None:
    """The engine of exactly that key, verified; None when there is none, or it or its record is damaged (a warning)."""
    path = _record_path(root, configuration.name, role, key)
    if not path.is_file():
        return None
    try:
        record = _read_record(path)
        problem = record.problem()
    except ArtifactError as error:
        problem = str(error)
    if problem is not None:
        _log.warning("%s: it is built again", problem)
        return None
    return record


def find_engine(
    root: Path,
    configuration: BundleConfiguration,
    role: str,
    host: EngineHost,
    *,
    options: Mapping[str, Any] | None = None,
) -> EngineRecord:
    """The engine of a graph that runs on `host`, verified; of several the one that was built last.

    Args:
        root: the bundle's folder.
        options: builder options that it must have been built with; None for any.

    Raises:
        ArtifactError: none was built, or not for this graph, host or options (the message says what for), or it is
            damaged. Each message ends in the command that builds it.
    """
    wanted = graph_sha256(configuration, role)
    records, damaged = _records(root, configuration.name, role)
    fitting, against = [], damaged.copy()
    for record in sorted(records, key=lambda record: record.built_at, reverse=True):
        reason = record.key.misfit(host)
        if reason is None and record.key.graph_sha256 != wanted:
            reason = "it is of an earlier content of the graph"
        if reason is None and options is not None and dict(record.key.options) != dict(options):
            reason = f"it has other builder options ({_difference(record.key.options, options)})"
        if reason is None:
            fitting.append(record)
        else:
            against.append(f"built for {record.key.built_for}: {reason}")
    if not fitting:
        found = "; ".join(dict.fromkeys(against)) or f"{engine_folder(root)} has none of it"
        raise ArtifactError(
            f"no engine of {configuration.name} ({role}) fits {host} | {found} | build it here: "
            f"{build_command(root, host.device, configuration.name)}"
        )
    for reason in damaged:
        _log.warning("%s: another one is taken", reason)
    fitting[0].verify()
    return fitting[0]


def build_command(root: Path, device: str, configuration: str) -> str:
    """The command that builds the engines of a configuration."""
    return f"edgeseg build {shlex.quote(str(root))} --device {device} --configuration {configuration}"


def _again(record: EngineRecord) -> str:
    family = next(family for family, library in DEVICE_FAMILIES.items() if library == record.key.library)
    root = record.path.parent.with_suffix(".edgeseg")
    return f"build it again: {build_command(root, f'{family}:0', record.configuration)}"


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    return ", ".join(f"{name} {found.get(name)} instead of {wanted.get(name)}" for name in names)


def _stem(configuration: str, role: str, key: EngineKey) -> str:
    return f"{configuration}.{role}.{key.library}.{key.digest}"


def _record_path(root: Path, configuration: str, role: str, key: EngineKey) -> Path:
    return engine_folder(root) / f"{_stem(configuration, role, key)}.json"


def _record_paths(root: Path, configuration: str, role: str) -> Iterator[Path]:
    folder = engine_folder(root)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        # Library and digest follow; a configuration's name may have dots in it, and may be another's beginning.
        if path.suffix == ".json" and path.stem.rsplit(".", 2)[0] == f"{configuration}.{role}":
            yield path


def _records(root: Path, configuration: str, role: str) -> tuple[list[EngineRecord], list[str]]:
    """The records of a graph's engines, and what is wrong with those that are damaged."""
    records, damaged = [], []
    for path in _record_paths(root, configuration, role):
        try:
            records.append(_read_record(path))
        except ArtifactError as error:
            damaged.append(str(error))
    return records, damaged


def _as_dict(record: EngineRecord) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "configuration": record.configuration,
        "role": record.role,
        "key": {**asdict(record.key), "compute_capabilities": list(record.key.compute_capabilities)},
        "engine": {"file": record.path.name, "sha256": record.sha256, "bytes": record.size_bytes},
        "built_at": record.built_at,
        "build_s": record.build_s,
        "layers": list(record.layers),
    }


def _read_record(path: Path) -> EngineRecord:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT or values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {values['format']!r} version {values['format_version']!r}")
        key, engine = values["key"], values["engine"]
        record = EngineRecord(
            path=path.with_name(Path(engine["file"]).name),
            configuration=str(values["configuration"]),
            role=str(values["role"]),
            key=EngineKey(**{**key, "compute_capabilities": tuple(key["compute_capabilities"])}),
            sha256=str(engine["sha256"]),
            size_bytes=int(engine["bytes"]),
            built_at=str(values["built_at"]),
            build_s=float(values["build_s"]),
            layers=tuple(values["layers"]),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ArtifactError) as error:
        raise ArtifactError(f"engine record {path} is not readable ({error!r})") from error
    if _stem(record.configuration, record.role, record.key) != path.stem:
        raise ArtifactError(f"engine record {path} was changed after it was written")
    return record


def _tidy(root: Path, configuration: str, role: str, kept: EngineRecord) -> None:
    """Remove engines of this graph that no record names, those of its earlier contents, and damaged records."""
    named = {kept.path}
    for path in _record_paths(root, configuration, role):
        try:
            record = _read_record(path)
        except ArtifactError:
            path.unlink(missing_ok=True)
            continue
        if record.key.graph_sha256 != kept.key.graph_sha256:
            path.unlink(missing_ok=True)
        else:
            named.add(record.path)
    for path in engine_folder(root).glob("*.engine"):
        if path.stem.rsplit(".", 2)[0] == f"{configuration}.{role}" and path not in named:
            path.unlink(missing_ok=True)
