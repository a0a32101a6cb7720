"""The manifest of a bundle: `manifest.json`, what is written and what is refused when it is read.

The manifest is written last and the folder appears by one rename, so a bundle exists whole or not at all. Reading one
checks the format version, the manifest's own checksum and every name (no path leaves the folder).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeseg.accuracy import Accuracy
from edgeseg.atomic import write_text
from edgeseg.bundle import (
    Bundle,
    BundleConfiguration,
    FileRecord,
    Graph,
    Parity,
    Programs,
    StateLink,
    configuration_digest,
    files_of,
    path_inside,
    text_sha256,
)
from edgeseg.calibration_record import Calibration
from edgeseg.classes import ClassSet
from edgeseg.config import Configuration
from edgeseg.errors import ArtifactError, EdgesegError

FORMAT = "edgeseg-bundle"
MAJOR, MINOR = 1, 2
MANIFEST = "manifest.json"


def read_manifest(root: Path) -> Bundle:
    """The bundle in the folder `root`, as its manifest has it.

    Raises:
        ArtifactError: no bundle there, an unknown major version, or a manifest that contradicts itself.
    """
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


def _checksum(values: dict[str, Any]) -> str:
    content = {key: value for key, value in values.items() if key != "checksum"}
    return text_sha256(json.dumps(content, sort_keys=True, separators=(",", ":")))


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
        path_inside(root, name)
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
    missing = sorted(files_of(graphs, programs) - set(files))
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
