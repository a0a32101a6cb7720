"""`edgeseg info`: what a bundle, checkpoint or device profile holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeseg.training.checkpoint import CheckpointMeta


@click.command(name="info")
@click.argument("artifact")
@click.option("--verify", is_flag=True, help="Also compare every file of a bundle with its hash.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(artifact: str, verify: bool, as_json: bool) -> None:
    """Say what ARTIFACT holds: a bundle (folder), a checkpoint (.safetensors) or a device profile (.json)."""
    import json

    from edgeseg.errors import ArtifactError, InputError
    from edgeseg.shipped import bundle_path

    path = bundle_path(artifact)
    if not path.exists():
        raise ArtifactError(f"nothing at {path} | give a bundle folder, a .safetensors checkpoint or a .json profile")
    if path.is_dir():
        facts, rows = _bundle_facts(path, verify)
    elif verify:
        raise InputError(f"--verify is for bundles | got {path}")
    elif path.suffix == ".safetensors":
        meta = _checkpoint_meta(path)
        facts, rows = {"checkpoint": str(path), **meta.as_dict()} if as_json else _checkpoint_facts(path, meta), []
    elif path.suffix == ".json":
        facts, rows = _profile_facts(path)
    else:
        raise ArtifactError(f"{path} is none of ours | expected a bundle folder, a .safetensors or a .json file")
    if as_json:
        click.echo(json.dumps({**facts, "configurations": rows} if rows else facts, indent=1))
    else:
        _print(facts, rows)


def _bundle_facts(path: Path, verify: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from edgeseg.bundle import Bundle

    bundle = Bundle.open(path)
    if verify:
        bundle.verify()
    facts = {
        "bundle": bundle.name,
        "digest": bundle.digest,
        "created": bundle.created_at,
        "classes": f"{len(bundle.classes)}: {', '.join(bundle.classes.names)}",
        "colour order": bundle.colour_order,
        "size": f"{sum(record.bytes for record in bundle.files.values()) / 1e6:.1f} MB in {len(bundle.files)} files",
        "made by": ", ".join(f"{name} {version}" for name, version in bundle.versions.items()),
    }
    if verify:
        facts["files"] = "all as in the manifest"
    rows = []
    for entry in bundle.configurations:
        accuracy = entry.accuracy
        rows.append(
            {
                "configuration": entry.name,
                "roles": " ".join(entry.graphs),
                "GMACs": " ".join(f"{entry.graphs[role].macs / 1e9:.2f}" for role in dict.fromkeys(entry.then)),
                "parity": f"{100 * entry.parity.label_agreement:.2f} %" if entry.parity else "",
                "mIoU k=0,1,2,...": " ".join(f"{value:.3f}" for value in accuracy.miou[:4]) if accuracy else "",
                "on": f"{accuracy.data_set} {accuracy.split} {accuracy.fps:g}/s" if accuracy else "",
            }
        )
    return facts, rows


def _profile_facts(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from edgeseg.device_profile import DeviceProfile

    profile = DeviceProfile.load(path)
    size = profile.frame_size_hw
    facts = {
        "device profile": profile.device,
        "machine": f"{profile.facts.get('cpu', 'unknown')}, {profile.threads} threads",
        "of bundle": f"{profile.bundle_name} {profile.bundle_digest[:12]}",
        "measured": f"{profile.measured_at}, for {profile.fps:g} frames/s"
        + (", exhaustive" if profile.exhaustive else ""),
        "frames": f"{size[0]} x {size[1]}" if size else "each configuration's own size",
        "command": profile.command_line,
    }
    rows = [
        {
            "configuration": entry.name,
            "p50 ms": f"{entry.percentile_ms(50):.1f}",
            "p90 ms": f"{entry.percentile_ms(90):.1f}",
            "p99 ms": f"{entry.percentile_ms(99):.1f}",
            "samples": str(len(entry.samples_ms)),
            "stable": "yes" if entry.stable else "no",
            "left early": "yes" if entry.skipped else "",
        }
        for entry in profile.entries
    ]
    return facts, rows


def _checkpoint_meta(path: Path) -> "CheckpointMeta":
    from edgeseg.optional import require

    require("torch", extra="train")
    require("safetensors", extra="train")
    from edgeseg.training.checkpoint import read_meta

    return read_meta(path)


def _checkpoint_facts(path: Path, meta: "CheckpointMeta") -> dict[str, Any]:
    """What a person asks of a checkpoint; `--json` gives all of its metadata."""
    options = ", ".join(f"{key} {value}" for key, value in meta.options.items())
    ahead = f"labels {meta.target_offset} frames ahead" if meta.target_offset else "labels of its own frame"
    facts = {
        "checkpoint": f"{path}, {path.stat().st_size / 1e6:.1f} MB",
        "network": f"{meta.architecture}, {options}" if options else meta.architecture,
        "input": f"{meta.input_frames} frame{'s' if meta.input_frames > 1 else ''}, {meta.colour_order}",
        "output": ahead,
        "classes": f"{len(meta.classes)}: {', '.join(meta.classes.names)}",
        "masks": _words({key: value for key, value in meta.cwm.items() if key != "masked"}) if meta.cwm else "none",
        "trained on": _words(meta.trained_on),
        "scores": _words({key: value for key, value in meta.scores.items() if key != "iou"}),
        "recipe": str(meta.recipe.get("name", "")),
    }
    return {key: value for key, value in facts.items() if value}


def _words(values: Mapping[str, Any]) -> str:
    def word(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return " x ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return ", ".join(f"{key} {word(value)}" for key, value in values.items())


def _print(facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from edgeseg.cli.tables import print_facts, print_rows

    print_facts(facts)
    if rows:
        click.echo()
        print_rows(rows)
