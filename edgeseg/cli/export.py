"""`edgeseg export`: networks give a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeseg.config import Compensation
    from edgeseg.export.foreign import Description
    from edgeseg.export.source import Source


@click.command(name="export")
@click.argument("network")
@click.option("--out", required=True, metavar="NAME.edgeseg", type=click.Path(path_type=Path), help="Bundle to write.")
@click.option("--checkpoint", "more", metavar="CKPT", multiple=True, help="Another checkpoint (of another width, say).")
@click.option("--data", metavar="SPEC", help="Labelled video for the accuracy table: a folder, or 'street'.")
@click.option("--split", default="val", show_default=True, help="Split of --data.")
@click.option("--max-offset", default=8, show_default=True, help="Last delay of the accuracy table, in frames.")
@click.option(
    "--compensation",
    metavar="NAMES",
    help="Accuracy tables also with labels moved to the present: names, all or none.  [default: late-warp+extrapolate]",
)
@click.option(
    "--size",
    "sizes",
    metavar="HxW",
    multiple=True,
    help="Input size; several with --sweep.  [default: as it was trained]",
)
@click.option(
    "--labels-stride", "strides", type=int, multiple=True, help="1, or the stride of the logits.  [default: 1]"
)
@click.option("--rho", "--cwm", "rhos", metavar="R", multiple=True, help="Masks: 0 to 1, dense or own.  [default: own]")
@click.option("--cwm-form", "forms", multiple=True, help="concat or split.  [default: concat]")
@click.option("--cwm-align", type=int, help="Channels per block of the masks.  [default: as it was trained]")
@click.option(
    "--plan",
    "plans",
    metavar="L:P,...",
    multiple=True,
    help="ViT: after layer L the proportion P of the tokens stops; none; published.  [default: none]",
)
@click.option(
    "--method", "methods", multiple=True, help="ViT: pause, early-exit, prune or pause-random.  [default: pause]"
)
@click.option(
    "--sweep", is_flag=True, help="Export all combinations; a checkpoint's sizes and strides are chosen when not given."
)
@click.option("--add", is_flag=True, help="Keep the configurations that --out has already.")
@click.option(
    "--precision",
    "precisions",
    metavar="P,...",
    multiple=True,
    help="fp32, fp16, int8: each configuration in all of them.  [default: fp32]",
)
@click.option(
    "--state-dtype", "state_dtypes", metavar="T,...", multiple=True, help="States: fp32, fp16.  [default: fp32]"
)
@click.option("--max-drop", type=float, help="Lower precision: mIoU that it may lose against fp32.  [default: 0.01]")
@click.option(
    "--calib", metavar="SPEC", help="Calibration: video, labels not needed, or frames .npy.  [default: that of --data]"
)
@click.option("--calib-split", metavar="SPLIT", help="Calibration: its split.  [default: train]")
@click.option("--calib-images", type=int, metavar="N", help="Calibration: frames for each graph.  [default: 64]")
@click.option("--calib-method", metavar="NAME", help="Calibration: entropy, max or percentile.  [default: entropy]")
@click.option(
    "--calib-cache",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Calibration: where it is kept for the next export.  [default: ~/.cache/edgeseg/calibration]",
)
@click.option(
    "--format",
    "formats",
    metavar="F,...",
    multiple=True,
    help="onnx, torch, torch-tensorrt: programs beside the ONNX graphs.  [default: onnx]",
)
@click.option("--weights", default="fp32", show_default=True, help="How weights of fp32 are stored: fp32 or fp16.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads that make the accuracy table.  [default: all]")
@click.option("--network-toml", type=click.Path(path_type=Path), help="Your network: classes, normalisation, size.")
@click.option("--name", help="Your network: its name in configurations.")
@click.option("--classes", metavar="A,B,...", help="Your network: class names, or camvid or cityscapes.")
@click.option(
    "--mean", nargs=3, type=float, metavar="R G B", help="Your network: mean of frames scaled to 0-1.  [default: 0 0 0]"
)
@click.option("--std", nargs=3, type=float, metavar="R G B", help="Your network: their deviation.  [default: 1 1 1]")
@click.option("--colour-order", help="Your network: RGB or BGR.  [default: RGB]")
@click.option("--input-layout", help="Your ONNX file: NCHW or NHWC, when its shape does not tell.")
@click.option("--output", help="Your ONNX file: name of the output, when there are several.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(network: str, out: Path, as_json: bool, **options: Any) -> None:
    """Export NETWORK into a bundle: a checkpoint, package.module:factory, or model.onnx.

    Every graph is compared with its network on real video; with --data its accuracy table is made. A factory is
    called without arguments, and returns a torch module that maps a float image (B, 3, H, W) to logits (B, C, h, w).
    The image is (frame / 255 - mean) / std: give --mean and --std as in your training. --network-toml is a file of the
    same: name, size_hw, mean, std, colour_order, input_layout, output, target_offset, and tables [classes] (names,
    palette, ignore_value, movable) and [trained_on] (dataset, splits).

    The accuracy tables take most of the time: each configuration runs on every frame of the split, a masked one once
    per delay. --sweep multiplies what is given by three sizes and two strides; --size and --labels-stride hold it to
    those that you want. Without a terminal, what it is at is told on standard error, stage by stage.

    \b
    edgeseg export runs/camvid/checkpoint.safetensors --data camvid --out camvid.edgeseg --sweep
    edgeseg export mynets.fcn:build --classes road,car --size 360x480 --rho 0.25 --out fcn.edgeseg
    edgeseg export runs/vit/checkpoint.safetensors --plan none --plan 3:0.4,5:0.4 --sweep --out vit.edgeseg
    edgeseg export runs/camvid/checkpoint.safetensors --data camvid --precision fp32,fp16,int8 --out camvid.edgeseg
    edgeseg export model.onnx --network-toml model.toml --data my-videos --out model.edgeseg
    edgeseg export model.onnx --mean .485 .456 .406 --std .229 .224 .225 --data my-videos --out model.edgeseg
    """
    import json

    from edgeseg.optional import require

    for module in ("torch", "onnx", "onnxscript"):
        require(module, extra="export")
    from edgeseg.atomic import check_writable
    from edgeseg.cli.export_precision import calibration_source, listed, precision_options
    from edgeseg.cli.export_progress import ExportProgress
    from edgeseg.cli.export_table import bundle_row, print_bundle
    from edgeseg.cli.options import parse_size_hw
    from edgeseg.data.open import open_dataset
    from edgeseg.export.accuracy import EvaluationData
    from edgeseg.export.bundle_writer import check_bundle_name
    from edgeseg.export.pipeline import ExportOptions, export_bundle
    from edgeseg.export.sweep import Grid, parse_plans, plan_grid
    from edgeseg.export.torch_program import program_formats

    check_bundle_name(out)
    check_writable(out, folder=True)
    precision = precision_options(options)
    choices = ExportOptions(
        options["max_offset"],
        options["weights"],
        options["add"],
        options["threads"],
        _compensations(options),
        precision,
        program_formats(listed(options["formats"])),
    )
    grid = Grid(
        tuple(parse_size_hw(text) for text in options["sizes"]),
        tuple(_rho(text) for text in options["rhos"]) or ("own",),
        options["forms"],
        options["strides"],
        options["methods"],
        parse_plans(options["plans"]),
        listed(options["precisions"]) or ("fp32",),
        listed(options["state_dtypes"]) or ("fp32",),
    )
    data = None
    if options["data"] is not None:
        data = EvaluationData.open(open_dataset(options["data"]), options["split"])
    sources = _sources(network, options, data)
    requests = plan_grid(sources, grid, sweep=options["sweep"])
    calibration = calibration_source(options, requests, data)
    with ExportProgress() as progress:
        bundle = export_bundle(requests, out, data=data, calibration=calibration, options=choices, progress=progress)
    if as_json:
        click.echo(
            json.dumps({"bundle": str(out), "configurations": [bundle_row(entry) for entry in bundle.configurations]})
        )
    else:
        print_bundle(bundle)


def _compensations(options: dict[str, Any]) -> "tuple[Compensation, ...]":
    from edgeseg.config import DEFAULT_COMPENSATIONS, parse_compensations
    from edgeseg.errors import InputError

    if options["compensation"] is None:
        return DEFAULT_COMPENSATIONS
    if options["data"] is None:
        raise InputError("--compensation adds accuracy tables, which need labelled video | give it with --data")
    return parse_compensations(options["compensation"])


def _rho(text: str) -> "float | str":
    from edgeseg.errors import InputError
    from edgeseg.export.sweep import DENSE, OWN

    if text in (DENSE, OWN):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"--rho is a number from 0 to 1, {DENSE} or {OWN} | got {text!r}") from error


def _sources(network: str, options: dict[str, Any], data: Any) -> "list[Source]":
    from edgeseg.errors import InputError
    from edgeseg.export.checkpoint_source import checkpoint_source
    from edgeseg.export.foreign import foreign_source
    from edgeseg.shipped import checkpoint_path

    description, given = _description(options)
    is_foreign = network.endswith(".onnx") or (":" in network and not network.startswith("shipped:"))
    if not is_foreign:
        if given:
            raise InputError(
                f"{given[0]} is for networks of your own, and {network} is a checkpoint, which knows it | "
                "leave it out, or give package.module:factory or model.onnx"
            )
        paths = [checkpoint_path(name) for name in (network, *options["more"])]
        return [checkpoint_source(path, cwm_align=options["cwm_align"]) for path in paths]
    if options["more"]:
        raise InputError(f"--checkpoint adds checkpoints of edgeseg, and {network} is none | export them by themselves")
    data_classes = data.dataset.classes if data else None
    return [
        foreign_source(network, description, data_classes=data_classes, cwm_align=options["cwm_align"] or 1),
    ]


def _description(options: dict[str, Any]) -> "tuple[Description, list[str]]":
    """What the options and the TOML file say about a foreign network, and the options that were given."""
    from edgeseg.export.foreign import Description, parse_classes, read_description

    names = ("name", "classes", "mean", "std", "colour_order", "input_layout", "output")
    values = {name: options[name] for name in names if options[name] is not None}
    given = ["--" + name.replace("_", "-") for name in values]
    if "classes" in values:
        values["classes"] = parse_classes(values["classes"])
    flags = Description(**values)
    path = options["network_toml"]
    if path is None:
        return flags, given
    return read_description(path).merged(flags, str(path)), ["--network-toml", *given]
