"""`edgeseg train`: a recipe and a data set give a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click


class _WithRecipes(click.Command):
    """Its help ends with the recipes that are shipped."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from edgeseg.training.recipe_file import recipe_summaries

        with formatter.section("Recipes"):
            formatter.write_dl(list(recipe_summaries().items()))


@click.command(name="train", cls=_WithRecipes)
@click.argument("recipe")
@click.option("--data", metavar="PATH", help="Data set: a folder, or 'street' for the simulator.")
@click.option(
    "--out", metavar="DIR", help="Folder for checkpoint, state and log.  [default: runs/RECIPE, runs/RECIPE-qat]"
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a value of the recipe, such as optimiser.steps=500.",
)
@click.option(
    "--start-from", metavar="CKPT", help="Checkpoint whose weights are the first ones, and its normalisation."
)
@click.option("--qat", is_flag=True, help="Train --start-from's network for INT8, with its rounding in it.")
@click.option("--resume", is_flag=True, help="Go on from the state in --out.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:0.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    recipe: str,
    data: str | None,
    out: str | None,
    overrides: tuple[str, ...],
    start_from: str | None,
    qat: bool,
    resume: bool,
    device: str,
    as_json: bool,
) -> None:
    """Train a network by RECIPE: one that is shipped (see below) or a .toml file.

    With --qat (quantisation-aware training) a trained network goes on at a low rate, by the recipe that it was trained
    by, for few steps (the recipe's table [qat]); edgeseg export --precision int8 then uses the ranges that it was
    trained with.

    Ctrl-C (or SIGTERM) stops after the current step and leaves a state that --resume goes on from.
    """
    import json
    from pathlib import Path

    from edgeseg.data.open import open_dataset
    from edgeseg.errors import InputError
    from edgeseg.optional import require
    from edgeseg.training.recipe_file import load_recipe

    if data is not None:
        overrides = (*overrides, f"data.path={json.dumps(data)}")
    loaded = load_recipe(recipe, overrides, qat=qat)
    if not loaded.data.path:
        raise InputError(f"recipe {loaded.name} names no data set | give it with --data PATH")
    folder = Path(out) if out else Path("runs") / (f"{loaded.name}-qat" if qat else loaded.name)
    dataset = open_dataset(loaded.data.path, **loaded.data.options)
    require("torch", extra="train")
    require("safetensors", extra="train")
    from edgeseg.training.loop import CHECKPOINT_FILE, STATE_FILE, train
    from edgeseg.training.optimiser import read_counters
    from edgeseg.training.progress import ProgressBar

    begun = None
    if resume and (folder / STATE_FILE).exists():
        begun = read_counters(folder / STATE_FILE)["step"]
    elif resume:
        click.echo(f"no state in {folder} to resume: starting anew", err=True)
    with _stop_on_signal() as asked, ProgressBar(loaded.name, loaded.optimiser.steps) as bar:
        result = train(
            loaded,
            dataset,
            folder,
            device=device,
            start_from=start_from,
            resume=resume,
            reporter=bar,
            should_stop=lambda: bool(asked),
        )
    if not result.finished:
        click.echo(f"stopped after step {result.step} | go on with the same command and --resume", err=True)
        raise SystemExit(128 + asked[0])
    if result.step == begun:
        click.echo(
            f"nothing to resume: all {begun} steps of the training in {folder} are done | train on from its weights "
            f"with --start-from {folder / CHECKPOINT_FILE} and another --out",
            err=True,
        )
    miou = result.scores["miou"]
    if as_json:
        click.echo(json.dumps({"checkpoint": str(result.checkpoint), "step": result.step, "scores": result.scores}))
    else:
        click.echo(f"{result.checkpoint}  val mIoU {miou:.4f} after {result.step} steps")


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """The numbers of the signals so far: the first Ctrl-C or SIGTERM is only noted, the second one acts as usual."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        click.echo("stopping after this step (Ctrl-C again to stop at once)", err=True)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        restore()
