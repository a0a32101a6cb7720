"""`edgeseg tune`: a checkpoint, labelled video and this device give the token plans worth having, and the best one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeseg.cli.options import FRAME_RATE

if TYPE_CHECKING:
    from edgeseg.export.tuning import CheckpointBench
    from edgeseg.runtime.plan_grid import PlanGrid
    from edgeseg.runtime.plan_objective import Objective


@click.command(name="tune")
@click.argument("checkpoint")
@click.option("--data", metavar="SPEC", required=True, help="Labelled video: a folder, or 'street'.")
@click.option("--split", default="val", show_default=True, help="Split of --data.")
@click.option("--fps", type=FRAME_RATE, required=True, help="Frame rate of the camera, frames per second.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda:0, ...: see edgeseg doctor.")
@click.option("--size", metavar="HxW", help="Input size.  [default: as it was trained]")
@click.option("--labels-stride", type=int, default=1, show_default=True, help="1, or the stride of the logits.")
@click.option("--method", default="pause", show_default=True, help="pause, early-exit, prune or pause-random.")
@click.option("--layers", metavar="L,...|A-B", help="Layers after which tokens may stop.  [default: 3,5,7]")
@click.option("--proportions", metavar="P,...", help="Which shares of them may stop.  [default: .2,.3,.4,.6,.8]")
@click.option("--max-layers", type=int, help="Cuts of a plan at most.  [default: 3, or the number of --layers]")
@click.option("--search", default="guided", show_default=True, help="guided, greedy or exhaustive.")
@click.option("--budget", type=click.IntRange(1), metavar="N",
              help="Plans to measure at most.  [default: guided: a fifth of the grid]")  # fmt: skip
@click.option("--statistic", default="streaming", show_default=True, type=click.Choice(["streaming", "expected"]),
              help="What is maximised: sLAmIoU predicted for the loop, or LAmIoU over all samples.")  # fmt: skip
@click.option("--compensation", metavar="NAMES",
              help="Ways to move labels to the present that are chosen from too: all, none or names.  "
              "[default: late-warp+extrapolate, as export]")  # fmt: skip
@click.option("--rank-frames", type=click.IntRange(1), help="Frames that rank plans in the search.  [default: 120]")
@click.option("--max-offset", default=8, show_default=True, help="Last delay of the accuracy tables, in frames.")
@click.option("--samples", type=click.IntRange(1), help="Timed steps per plan in the search.  [default: 15]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of a step.  [default: all usable cores]")
@click.option("--frame-size", metavar="HxW",
              help="Size of the camera's frames.  [default: that of --data, whose labels "
              "are moved; the input size with --compensation none]")  # fmt: skip
@click.option("--out", metavar="NAME.edgeseg", help="Bundle to write, of the plans worth having.  [default: none]")
@click.option("--profile", metavar="FILE", help="Device profile of --out.  [default: profiles/DEVICE.json]")
@click.option("--plot", metavar="FILE", help="Plot to write, .png, .svg or .pdf.  [default: beside the profile]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(checkpoint: str, as_json: bool, **options: Any) -> None:
    """Choose the token plan of CHECKPOINT, a network on a plain ViT, with the best LAmIoU on this device.

    A plan says after which layers which share of the tokens stops. The guided search measures few plans, predicts the
    others by a model of the latency that it fits, and measures on where something could still win. The greedy one is
    the PAUMER paper's: the best single cut, then a second, until another no longer helps.

    Labels are scored and measured as they come and moved to the present by motion compensation, as edgeseg export and
    edgeseg profile do by default, and a plan is worth what the better of both gives.

    The Pareto front of latency and mIoU is then exported, scored on all of --data and measured together; with --out it
    is a bundle, with a profile that edgeseg pick and edgeseg run read.

    It takes minutes. Most of them go into scoring --rank-frames frames for each of 20 to 30 plans, about 6 seconds a
    plan for segmenter_ti at 192x256 on one core: fewer frames, --layers or --proportions are quicker. Without a
    terminal each plan is a line on standard error.

    \b
    edgeseg tune runs/vit/checkpoint.safetensors --data street --fps 15 --out vit.edgeseg
    edgeseg pick vit.edgeseg --fps 15
    """
    import json
    import sys
    from tempfile import TemporaryDirectory

    from edgeseg.cli.export_progress import ExportProgress
    from edgeseg.cli.options import measuring_bar
    from edgeseg.cli.pick_plot import is_drawn
    from edgeseg.cli.tune_output import places_of, publish
    from edgeseg.cli.tune_progress import ToldBench
    from edgeseg.cli.tune_report import print_tuning, tuning_values
    from edgeseg.optional import require
    from edgeseg.runtime.pick import pick
    from edgeseg.runtime.plan_search import pareto_front, planned_measurements, search_plans

    for module in ("torch", "onnx", "onnxscript"):
        require(module, extra="export")
    from edgeseg.export.pipeline import ExportOptions, export_bundle
    from edgeseg.export.tuning import measure, plain_points, requests_for, worth_having

    places = places_of(options)
    bench, grid = _prepared(checkpoint, options)
    exporting = ExportOptions(max_offset=options["max_offset"], threads=options["threads"], compensations=bench.ways)
    is_terminal = sys.stderr.isatty()
    with ExportProgress(line_every_s=0) as progress:
        objective = _objective(bench, options, progress)
        most = planned_measurements(options["search"], grid, options["budget"])
        progress.stage(f"{options['search']} search, at most {most} of {len(grid)} plans", most)
        result = search_plans(
            options["search"],
            grid,
            bench if is_terminal else ToldBench(bench, most),
            objective,
            budget=options["budget"],
            progress=(lambda trial: progress.advance()) if is_terminal else None,
        )
    # Apart from their places: all of it appears there at the end, or nothing does.
    with TemporaryDirectory(prefix="edgeseg-tune-") as work:
        made = {name: Path(work, name, place.name) for name, place in places.items()}
        for file in made.values():
            file.parent.mkdir()
        folder = made.get("out", Path(work) / "tune.edgeseg")
        with ExportProgress() as progress:
            bundle = export_bundle(
                requests_for(bench, worth_having(result)), folder, data=bench.data, options=exporting, progress=progress
            )
        with measuring_bar() as bar:
            profile = measure(bundle, bench.data, _in_full(bench), None, bar)
        picked = pick(bundle, profile, options["fps"], statistic=options["statistic"])
        front = pareto_front(plain_points(bundle, profile))
        if "profile" in made:
            profile.save(made["profile"])
        title = f"Token plans on {options['device']}, {options['fps']:g} frames/s"
        if "plot" in made and not is_drawn(picked, bundle, made["plot"], title=title, front=front):
            del made["plot"]
        files = {places[name]: path for name, path in made.items() if name != "out"}
        publish(files, (places["out"], folder) if "out" in places else None)
    written = {name: str(places[name]) for name in made}
    if as_json:
        values = tuning_values(result, picked, front, bench, grid)
        click.echo(json.dumps({**values, "plot": None, **written}, indent=1))
        return
    print_tuning(result, picked, front, grid)
    for name, path in written.items():
        click.echo(f"{'bundle' if name == 'out' else name}: {path}")


def _prepared(checkpoint: str, options: dict[str, Any]) -> "tuple[CheckpointBench, PlanGrid]":
    """The bench and the grid, checked before anything is measured."""
    from edgeseg.cli.options import parse_size_hw
    from edgeseg.config import parse_compensations
    from edgeseg.data.open import open_dataset
    from edgeseg.export.accuracy import EvaluationData
    from edgeseg.export.checkpoint_source import checkpoint_source
    from edgeseg.export.sweep import Grid, plan_grid
    from edgeseg.export.tuning import (
        DEFAULT_PROPORTIONS,
        SAMPLES,
        CheckpointBench,
        Measuring,
        checked_layers,
        plannable_layers,
        usable_compensations,
    )
    from edgeseg.runtime.backends.base import runner_class
    from edgeseg.runtime.plan_grid import PlanGrid
    from edgeseg.runtime.plan_search import planned_measurements
    from edgeseg.runtime.threads import checked_threads
    from edgeseg.shipped import checkpoint_path

    asked = None if options["compensation"] is None else parse_compensations(options["compensation"])
    source = checkpoint_source(checkpoint_path(checkpoint))
    sizes = (parse_size_hw(options["size"]),) if options["size"] else ()
    knobs = plan_grid([source], Grid(sizes_hw=sizes, labels_strides=(options["labels_stride"],)), sweep=False)[0].knobs
    able = plannable_layers(source, knobs, options["method"])
    layers = checked_layers(_layers(options["layers"]), able, source.facts.origin)
    proportions = _proportions(options["proportions"]) or DEFAULT_PROPORTIONS
    cuts = min(3, len(layers)) if options["max_layers"] is None else options["max_layers"]
    grid = PlanGrid(layers, proportions, cuts, source.token_stack(knobs.size_hw))
    planned_measurements(options["search"], grid, options["budget"])
    runner_class(options["device"])
    frame_size_hw = parse_size_hw(options["frame_size"]) if options["frame_size"] else None
    data = EvaluationData.open(open_dataset(options["data"]), options["split"])
    data.check_network(source.facts.classes, source.facts.trained_on, source.facts.origin)
    ways = usable_compensations(frame_size_hw or data.size_hw) if asked is None else asked
    if frame_size_hw is None and any(way.moves for way in ways):
        frame_size_hw = data.size_hw
    measuring = Measuring(
        options["fps"],
        options["device"],
        options["samples"] or SAMPLES,
        checked_threads(options["threads"]),
        frame_size_hw,
    )
    bench = CheckpointBench(
        source,
        knobs,
        options["method"],
        data,
        measuring,
        rank_frames=options["rank_frames"],
        max_offset=options["max_offset"],
        compensations=ways,
    )
    return bench, grid


def _layers(text: str | None) -> list[int] | None:
    from edgeseg.errors import InputError

    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        first, separator, last = part.partition("-")
        try:
            layers += range(int(first), int(last if separator else first) + 1)
        except ValueError as error:
            raise InputError(f"--layers is written 3,5,7 or 3-9 | got {text!r}") from error
    return layers


def _proportions(text: str | None) -> tuple[float, ...] | None:
    from edgeseg.errors import InputError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--proportions is written .2,.3,.4 | got {text!r}") from error


def _objective(bench: "CheckpointBench", options: dict[str, Any], progress: Any) -> "Objective":
    from edgeseg.runtime.plan_objective import Objective

    if len(bench.ways) > 1:
        progress.stage(f"what {len(bench.ways) - 1} compensations add to a step", 1)
    return Objective(options["fps"], bench.data.fps, bench.added_s(), options["statistic"])


def _in_full(bench: "CheckpointBench") -> Any:
    """As for a profile: more steps than the search takes."""
    from dataclasses import replace

    from edgeseg.runtime.profiler import SAMPLES

    return replace(bench.measuring, samples=max(SAMPLES, bench.measuring.samples))
