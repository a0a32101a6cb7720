"""`edgeseg eval`: score a checkpoint or a bundle on labelled video."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeseg.config import Compensation
    from edgeseg.export.accuracy import EvaluationData
    from edgeseg.export.evaluation import Evaluation


@click.command(name="eval")
@click.argument("artifact")
@click.option("--data", required=True, metavar="SPEC", help="Labelled video: a folder, or 'street'.")
@click.option("--split", default="val", show_default=True, help="Split of --data.")
@click.option("--configuration", metavar="NAME", help="The one configuration of a bundle to score.  [default: all]")
@click.option("--size", metavar="HxW", help="Input size of a checkpoint.  [default: as it was trained]")
@click.option("--max-offset", default=8, show_default=True, help="Last delay that is scored, in frames.")
@click.option(
    "--radius", "radii", type=float, multiple=True, default=(3.0,), help="Trimap radius in pixels.  [default: 3]"
)
@click.option(
    "--compensation",
    metavar="NAMES",
    help="Also with labels moved to the present: names, all or none.  [default: none]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    artifact: str,
    data: str,
    split: str,
    configuration: str | None,
    size: str | None,
    max_offset: int,
    radii: tuple[float, ...],
    compensation: str | None,
    as_json: bool,
) -> None:
    """Score ARTIFACT, a checkpoint (in PyTorch) or a bundle (its graphs, in the runtime).

    mIoU over frames of delay, moving-object mIoU, IoU per class, mIoU near label boundaries (trimap), and for networks
    with a state the mIoU after a warm-up (ABT). A split that the network was trained on is refused.

    With --compensation the same labels are scored once more, moved along the motion in the image to the frame that
    they are scored against, with the frames up to the one before it.
    """
    import json

    from edgeseg.config import parse_compensations
    from edgeseg.data.open import open_dataset
    from edgeseg.errors import InputError
    from edgeseg.export.accuracy import EvaluationData
    from edgeseg.export.evaluation import check_radii

    check_radii(radii)
    if not 0 <= max_offset <= 60:
        raise InputError(f"--max-offset lies between 0 and 60 frames | got {max_offset}")
    compensations = parse_compensations(compensation or "none")
    evaluation_data = EvaluationData.open(open_dataset(data), split)
    if _is_bundle(artifact):
        if size is not None:
            raise InputError(
                f"--size is for checkpoints, and {artifact} is a bundle of fixed sizes | use --configuration"
            )
        results = _bundle_results(artifact, evaluation_data, configuration, max_offset, radii, compensations)
    else:
        if configuration is not None:
            raise InputError(f"--configuration is for bundles, and {artifact} is a checkpoint | leave it out")
        results = [_checkpoint_result(artifact, evaluation_data, size, max_offset, radii, compensations)]
    facts = {
        "data_set": evaluation_data.dataset.name,
        "split": split,
        "fps": evaluation_data.fps,
        "frames": evaluation_data.labelled_frames,
    }
    if as_json:
        click.echo(json.dumps({**facts, "results": [result.as_dict() for result in results]}))
    else:
        click.echo(f"{facts['data_set']} {split}: {facts['frames']} labelled frames at {facts['fps']:g} frames/s")
        for result in results:
            _print(result)


def _is_bundle(artifact: str) -> bool:
    return artifact.rstrip("/").endswith(".edgeseg") or Path(artifact).is_dir()


def _bundle_results(
    artifact: str,
    data: "EvaluationData",
    name: str | None,
    max_offset: int,
    radii: tuple[float, ...],
    compensations: "tuple[Compensation, ...]",
) -> "list[Evaluation]":
    from edgeseg.bundle import Bundle
    from edgeseg.cli.export_progress import ExportProgress
    from edgeseg.export.accuracy import expected_runs
    from edgeseg.export.evaluation import evaluate_configuration
    from edgeseg.shipped import bundle_path

    bundle = Bundle.open(bundle_path(artifact))
    entries = [bundle.configuration(name)] if name is not None else list(bundle.configurations)
    bundle.verify({file for entry in entries for file in entry.files})
    results = []
    with ExportProgress() as progress:
        for entry in entries:
            data.check_network(bundle.classes, entry.notes.get("trained_on", {}), entry.name)
            progress.stage(entry.name, expected_runs(data, stateful=entry.knobs.stateful, max_offset=max_offset))
            results.append(
                evaluate_configuration(
                    bundle.root,
                    entry,
                    data,
                    max_offset=max_offset,
                    radii_px=radii,
                    compensations=compensations,
                    on_frame=progress.advance,
                )
            )
    return results


def _checkpoint_result(
    artifact: str,
    data: "EvaluationData",
    size: str | None,
    max_offset: int,
    radii: tuple[float, ...],
    compensations: "tuple[Compensation, ...]",
) -> "Evaluation":
    from edgeseg.optional import require

    for module in ("torch", "safetensors", "onnx"):
        require(module, extra="export")
    from edgeseg.cli.export_progress import ExportProgress
    from edgeseg.cli.options import parse_size_hw
    from edgeseg.export.evaluation import evaluate_checkpoint
    from edgeseg.shipped import checkpoint_path

    with ExportProgress() as progress:
        progress.stage(artifact, (max_offset + 1) * sum(len(entry.video) for entry in data.videos))
        return evaluate_checkpoint(
            checkpoint_path(artifact),
            data,
            size_hw=parse_size_hw(size) if size else None,
            max_offset=max_offset,
            radii_px=radii,
            compensations=compensations,
            on_frame=progress.advance,
        )


def _print(result: "Evaluation") -> None:
    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"

    def scores(values: Sequence[float | None]) -> str:
        return "  ".join("    -" if value is None else f"{value:.3f}" for value in values)

    click.echo(f"\n{result.name}")
    click.echo(f"  mIoU             {text(result.miou[0])}   by frequency {text(result.frequency_weighted_iou)}")
    click.echo(f"  pixel accuracy   {text(result.pixel_accuracy)}   mean of classes {text(result.mean_class_accuracy)}")
    click.echo(f"  moving objects   {text(result.movable_miou[0])}")
    for radius, value in result.trimap_miou.items():
        click.echo(f"  trimap {radius:g} px".ljust(19) + text(value))
    if result.asymptotic_miou is not None:
        click.echo(f"  after warm-up    {text(result.asymptotic_miou)}")
    click.echo("  delay, frames    " + "  ".join(f"{k:5d}" for k in range(len(result.miou))))
    click.echo("  mIoU             " + scores(result.miou))
    click.echo("  moving objects   " + scores(result.movable_miou))
    for entry in result.compensated:
        click.echo(f"  moved by {entry.compensation.name}")
        click.echo("  mIoU             " + scores(entry.miou))
        click.echo("  moving objects   " + scores(entry.movable_miou))
    for name, value in result.iou.items():
        click.echo(f"  {name:<16} {text(value)}")
