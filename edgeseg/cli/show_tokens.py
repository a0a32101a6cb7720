"""`edgeseg show --image`: which tokens of a transformer stop after which layer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle, BundleConfiguration
    from edgeseg.classes import ClassSet
    from edgeseg.export.variant import Variant


@dataclass(frozen=True)
class TokenChoice:
    """Which graph to look into, as given on the command line."""

    configuration: str | None
    """Of a bundle."""
    plan: str | None
    """Of a checkpoint, as the next two."""
    method: str | None
    size: str | None


def show_tokens(artifact: str, image: str, choice: TokenChoice, out: str, as_json: bool) -> None:
    """Write the picture of `image` going through the bundle or checkpoint `artifact`, and say what it shows.

    Raises:
        EdgesegError: something is missing, damaged, or does not fit; nothing was written then.
    """
    import json

    from edgeseg.optional import require

    for module in ("torch", "onnx", "onnxscript"):
        require(module, extra="export")
    from edgeseg.data.image_files import read_frame_rgb
    from edgeseg.export.token_stages import token_stages
    from edgeseg.runtime.plot import check_plot_path
    from edgeseg.runtime.token_picture import save_token_picture

    check_plot_path(out)
    frame_rgb = read_frame_rgb(Path(image))
    variant, classes = (
        _of_checkpoint(artifact, choice) if artifact.endswith(".safetensors") else _of_bundle(artifact, choice)
    )
    stages = token_stages(variant, frame_rgb, classes)
    save_token_picture(stages, out)
    tokens = int(stages.stops[0].ran.sum())
    if as_json:
        facts = {"configuration": stages.name, "tokens": tokens, "tokens_after_layer": stages.counts, "picture": out}
        click.echo(json.dumps(facts, indent=1))
        return
    click.echo(f"configuration  {stages.name}")
    went_on = ", ".join(f"{count} after layer {layer}" for layer, count in stages.counts.items())
    click.echo(f"tokens         {tokens}, then {went_on}, of {stages.layers} layers")
    click.echo(f"picture        {out}")


def _of_checkpoint(path: str, choice: TokenChoice) -> "tuple[Variant, ClassSet]":
    from edgeseg.cli.options import parse_size_hw
    from edgeseg.errors import InputError
    from edgeseg.export.checkpoint_source import checkpoint_source
    from edgeseg.export.sweep import Grid, plan_grid
    from edgeseg.token_plan import TokenPlan

    if choice.configuration is not None:
        raise InputError(f"--configuration is for bundles, and {path} is a checkpoint | give --plan 3:0.4,5:0.4")
    if choice.plan is None:
        raise InputError("a checkpoint has no token plan of its own | add --plan 3:0.4,5:0.4, for example")
    grid = Grid(
        sizes_hw=(parse_size_hw(choice.size),) if choice.size else (),
        methods=(choice.method,) if choice.method else (),
        plans=(TokenPlan.parse(choice.plan),),
    )
    (request,) = plan_grid([checkpoint_source(Path(path))], grid, sweep=False)
    return request.source.variant(request.knobs), request.source.facts.classes


def _of_bundle(name: str, choice: TokenChoice) -> "tuple[Variant, ClassSet]":
    from edgeseg.bundle import Bundle
    from edgeseg.errors import InputError
    from edgeseg.export.bundle_writer import read_variant
    from edgeseg.shipped import bundle_path

    for option in ("plan", "method", "size"):
        if getattr(choice, option) is not None:
            raise InputError(
                f"--{option} is for checkpoints, and {name} is a bundle, whose graphs are made | choose one with "
                "--configuration, or give the checkpoint"
            )
    bundle = Bundle.open(bundle_path(name))
    return read_variant(bundle, _configuration(bundle, choice.configuration)), bundle.classes


def _configuration(bundle: "Bundle", name: str | None) -> "BundleConfiguration":
    """The one named, or the most accurate of those with a plan by which the image decides."""
    from edgeseg.errors import InputError

    if name is not None:
        return bundle.configuration(name)
    planned = [entry for entry in bundle.configurations if entry.knobs.plan is not None]
    seeing = [entry for entry in planned if entry.knobs.method != "pause-random"]
    if planned and not seeing:
        raise InputError(
            f"{bundle.name}: where tokens stop, places are drawn by lot, whatever the image shows | export with "
            "--method pause, early-exit or prune"
        )
    if not planned:
        raise InputError(
            f"{bundle.name}: all tokens go through all layers in every configuration | export a ViT with "
            "--plan 3:0.4,5:0.4, or give its checkpoint with --plan"
        )
    return max(seeing, key=lambda entry: entry.accuracy.miou[0] if entry.accuracy else -1.0)
