"""`edgeseg info`: what a bundle, checkpoint or device profile holds, and what a network costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeseg.bundle import BundleConfiguration
    from edgeseg.device_profile import DeviceProfile
    from edgeseg.models.complexity import Complexity
    from edgeseg.training.checkpoint import CheckpointMeta


@click.command(name="info")
@click.argument("artifact")
@click.option("--verify", is_flag=True, help="Also compare every file of a bundle with its hash.")
@click.option("--size", metavar="HxW", help="Input size for a network's or checkpoint's GMACs.")
@click.option("--classes", type=click.IntRange(min=1), help="Classes of a network named.  [default: 19]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(artifact: str, verify: bool, size: str | None, classes: int | None, as_json: bool) -> None:
    """Say what ARTIFACT holds: a bundle (folder), a checkpoint (.safetensors), a device profile (.json); or what a
    network costs, by its name (segmenter_ti).

    GMACs are counted in two ways: plain (one multiply-accumulate of a convolution, matrix or attention product counts
    one), and as the theses' tables have it (LayerNorm counts 5 and a bilinear resize 4 per output element as well, the
    last resize to the input's size included).
    """
    import json

    from edgeseg.cli.options import parse_size_hw
    from edgeseg.errors import ArtifactError, InputError
    from edgeseg.shipped import bundle_path

    path = bundle_path(artifact)
    rows: list[dict[str, Any]] = []
    size_hw = parse_size_hw(size) if size else None
    if not path.exists() and _is_network(artifact):
        if verify:
            raise InputError(f"--verify is for bundles | got the network {artifact}")
        facts = _network_facts(artifact, classes or 19, size_hw or (512, 512), as_json)
    elif classes is not None:
        raise InputError(f"--classes is for a network's name; {artifact} has its own classes | leave it out")
    elif not path.exists():
        raise ArtifactError(
            f"nothing at {path} | give a bundle folder, a .safetensors checkpoint, a .json profile or a network's name"
        )
    elif size_hw and path.suffix != ".safetensors":
        raise InputError(f"--size is for networks and checkpoints | got {path}")
    elif path.is_dir():
        facts, rows = _bundle_facts(path, verify)
    elif verify:
        raise InputError(f"--verify is for bundles | got {path}")
    elif path.suffix == ".safetensors":
        meta = _checkpoint_meta(path)
        cost = _checkpoint_cost(meta, size_hw)
        facts = _checkpoint_facts(path, meta, cost)
        if as_json:
            facts = {"checkpoint": str(path), **meta.as_dict(), "complexity": cost.as_dict()}
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
    from edgeseg.cli.export_precision import kept_layers
    from edgeseg.cli.export_programs import programs_text

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
    if programs := programs_text(bundle.configurations):
        facts["programs"] = programs
    if kept := kept_layers(bundle.configurations):
        facts["layers"] = "; ".join(kept)
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
                "compensated": {each.compensation.name: list(each.miou) for each in accuracy.compensated}
                if accuracy
                else {},
                "on": f"{accuracy.data_set} {accuracy.split} {accuracy.fps:g}/s" if accuracy else "",
                **_precision_facts(entry),
            }
        )
    return facts, rows


def _precision_facts(entry: "BundleConfiguration") -> dict[str, Any]:
    from edgeseg.cli.export_precision import precision_cells, precision_facts, precision_notes

    cells = precision_cells(entry)
    return {
        "drop": cells["drop"],
        "lower precision": cells["layers"],
        "calibrated": entry.calibration.text if entry.calibration else "",
        "precision notes": precision_notes(entry),
        "precision": precision_facts(entry),
    }


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
        **_board_rows(profile),
    }
    tells_energy = any(entry.energy_mj is not None for entry in profile.entries)
    rows = [
        {
            "configuration": entry.name + (f" {entry.compensation.name}" if entry.compensation.moves else ""),
            "p50 ms": f"{entry.percentile_ms(50):.1f}",
            "p90 ms": f"{entry.percentile_ms(90):.1f}",
            "p99 ms": f"{entry.percentile_ms(99):.1f}",
            **({"mJ": "" if entry.energy_mj is None else f"{entry.energy_mj:.0f}"} if tells_energy else {}),
            "samples": str(len(entry.samples_ms)),
            "stable": "yes" if entry.stable else "no",
            "left early": "yes" if entry.skipped else "",
        }
        for entry in profile.entries
    ]
    return facts, rows


def _board_rows(profile: "DeviceProfile") -> dict[str, str]:
    """Power mode, heat and power of a board that tells them, and why the profile is invalid, if it is."""
    board, mode = profile.facts.get("board", {}), profile.facts.get("power_mode")
    seen = [] if mode is None else [f"power mode {mode['name']}"]
    if "hottest_c" in board:
        seen.append(f"at most {board['hottest_c']:.0f} C")
    if "mean_power_mw" in board:
        seen.append(f"{board['mean_power_mw'] / 1e3:.1f} W in the mean")
    rows = {"board": ", ".join(seen)} if seen else {}
    return (
        rows
        if profile.invalid_reason is None
        else {**rows, "INVALID": f"its clocks were cut: {profile.invalid_reason}"}
    )


def _checkpoint_meta(path: Path) -> "CheckpointMeta":
    from edgeseg.optional import require

    require("torch", extra="train")
    require("safetensors", extra="train")
    from edgeseg.training.checkpoint import read_meta

    return read_meta(path)


def _is_network(name: str) -> bool:
    from edgeseg.models.registry import NETWORKS

    return name in NETWORKS


def _network_facts(name: str, classes: int, size_hw: tuple[int, int], as_json: bool) -> dict[str, Any]:
    from edgeseg.optional import require

    require("torch", extra="train")
    from edgeseg.models.complexity import named_complexity
    from edgeseg.models.registry import network_options

    known = network_options(name)
    cost = named_complexity(name, classes, size_hw, {"size_hw": size_hw} if "size_hw" in known else {})
    if as_json:
        return {"network": name, "classes": classes, "options": known, "complexity": cost.as_dict()}
    return {"network": name, "classes": classes, "options": ", ".join(known), **_cost_facts(cost)}


def _checkpoint_cost(meta: "CheckpointMeta", size_hw: tuple[int, int] | None) -> "Complexity":
    from edgeseg.models.complexity import named_complexity

    known = meta.trained_on.get("size_hw") or meta.options.get("size_hw")
    height, width = size_hw or known or (512, 512)
    return named_complexity(meta.architecture, len(meta.classes), (int(height), int(width)), meta.options)


def _cost_facts(cost: "Complexity") -> dict[str, str]:
    at = f"at {cost.size_hw[0]} x {cost.size_hw[1]}"
    return {
        "parameters": f"{cost.parameters / 1e6:.2f} M",
        "GMACs": f"{cost.macs / 1e9:.2f} {at}, all channels and tokens",
        "GMACs as in the theses": f"{cost.table_macs / 1e9:.2f} (LayerNorm 5, bilinear resize 4 per element)",
    }


def _checkpoint_facts(path: Path, meta: "CheckpointMeta", cost: "Complexity") -> dict[str, Any]:
    """What a person asks of a checkpoint; `--json` gives all of its metadata."""
    options = ", ".join(f"{key} {value}" for key, value in meta.options.items())
    ahead = f"labels {meta.target_offset} frames ahead" if meta.target_offset else "labels of its own frame"
    facts = {
        "checkpoint": f"{path}, {path.stat().st_size / 1e6:.1f} MB",
        "network": f"{meta.architecture}, {options}" if options else meta.architecture,
        "input": f"{meta.input_frames} frame{'s' if meta.input_frames > 1 else ''}, {meta.frames_text}",
        "output": ahead,
        **_cost_facts(cost),
        "classes": f"{len(meta.classes)}: {', '.join(meta.classes.names)}",
        "masks": _words({key: value for key, value in meta.cwm.items() if key != "masked"}) if meta.cwm else "none",
        "token plans": _token_plans_text(meta),
        "int8": meta.int8.text if meta.int8 else "",
        "trained on": _words({key: value for key, value in meta.trained_on.items() if key != "before"}),
        "trained before on": "; ".join(_words(each) for each in meta.trained_on.get("before", ())),
        "scores": _words({key: value for key, value in meta.scores.items() if key != "iou"}),
        "recipe": str(meta.recipe.get("name", "")),
    }
    return {key: value for key, value in facts.items() if value}


def _token_plans_text(meta: "CheckpointMeta") -> str:
    """Which plans an export can give this network's tokens; empty when it was trained for none."""
    from edgeseg.models.registry import complete_options

    ways = []
    if meta.auxiliary is not None:
        own = meta.auxiliary["layers"]
        after = _layers(own) if own else "any layer but the last"
        ways.append(f"after {after}, trained for {meta.auxiliary.get('criterion', 'pruning')}")
    if meta.options.get("prune_heads"):
        layers = complete_options(meta.architecture, meta.options)["prune_layers"]
        ways.append(f"after {_layers(layers)} by --method prune")
    return "; ".join(ways)


def _layers(numbers: Sequence[int]) -> str:
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _words(values: Mapping[str, Any]) -> str:
    def word(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return " x ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return ", ".join(f"{key} {word(value)}" for key, value in values.items())


def _print(facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    from edgeseg.cli.tables import print_facts, print_rows

    if rows and "compensated" in rows[0]:
        facts, rows = _folded(facts, rows)
    print_facts(facts)
    if rows:
        click.echo()
        print_rows(rows)


def _folded(facts: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a terminal has room for: of the tables of moved labels the best, and said once what is the same for all."""
    best = [max(row["compensated"].items(), key=lambda item: sum(item[1][1:]), default=None) for row in rows]
    data = {row["on"] for row in rows}
    shown = []
    for row, moved in zip(rows, best, strict=True):
        left_out = {"compensated", "precision", "precision notes", "calibrated", *(("on",) if len(data) == 1 else ())}
        # Columns about precision are for bundles that have a lower one.
        left_out |= {name for name in ("drop", "lower precision") if not any(row[name] for row in rows)}
        cells = {key: value for key, value in row.items() if key not in left_out}
        if any(best):
            cells["moved k=1,2,3"] = " ".join(f"{value:.3f}" for value in moved[1][1:4]) if moved else ""
        shown.append(cells)
    if len(data) == 1 and "" not in data:
        facts = {**facts, "scored on": data.pop()}
    calibrated = dict.fromkeys(row["calibrated"] for row in rows if row["calibrated"])
    if calibrated:
        facts = {**facts, "calibrated": "; ".join(calibrated)}
    notes = [f"{row['configuration']}: {text}" for row in rows for text in row["precision notes"]]
    if notes:
        facts = {**facts, "precision": "; ".join(notes)}
    ways = dict.fromkeys(moved[0] for moved in best if moved)
    if ways:
        facts = {**facts, "moved by": f"{' or '.join(ways)}"}
    return facts, shown
