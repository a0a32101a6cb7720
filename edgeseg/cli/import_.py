"""`edgeseg import`: weights that other code trained become a checkpoint."""

from typing import TYPE_CHECKING, Any

import click

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.classes import ClassSet
    from edgeseg.training.foreign_weights.importer import ImportReport

FORMATS = ("auto", "timm", "augreg", "segmenter", "mmseg", "cwm", "torchvision")
"""`edgeseg.training.foreign_weights.formats.FORMATS`, which help texts must not import."""


@click.command(name="import")
@click.argument("file")
@click.option("--network", metavar="NAME", required=True, help="Network to put them into, such as segmenter_ti.")
@click.option("--classes", metavar="SET", required=True, help="camvid, cityscapes, NAME,NAME,..., a data set or file.")
@click.option("--out", metavar="CKPT", required=True, help="Checkpoint to write (.safetensors).")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Option of the network, such as network.size_hw=[512,1024].",
)
@click.option("--partial", is_flag=True, help="Take what fits; what is missing keeps fresh weights.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="auto", show_default=True, help="What FILE is.")
@click.option(
    "--mean", metavar="R,G,B", help="Mean of frames scaled to 0-1, in --colour-order.  [default: the format's]"
)
@click.option("--std", metavar="R,G,B", help="Their deviation.  [default: the format's]")
@click.option("--colour-order", type=click.Choice(["RGB", "BGR"]), default="RGB", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report, with all names, as JSON.")
def command(
    file: str,
    network: str,
    classes: str,
    out: str,
    settings: tuple[str, ...],
    partial: bool,
    form: str,
    mean: str | None,
    std: str | None,
    colour_order: str,
    as_json: bool,
) -> None:
    """Put the weights in FILE into a network, and write a checkpoint that export and train --start-from take.

    \b
    timm         ViT in timm's naming: .safetensors, .pth, .bin
    augreg       ViT of Google's code: .npz
    segmenter    checkpoint of Segmenter's authors
    mmseg        Segmenter, SETR-naive or SegViT of MMSegmentation
    cwm          SwiftNet-R18 of fast-cwm-segmentation, or of SwiftNet's authors
    torchvision  ResNet-18, the backbone of swiftnet_r18

    Only tensors are read: a file that holds other objects is refused. Names that do not fit are refused too, unless
    --partial is given: a backbone alone needs it. --verbose lists all names.

    \b
    edgeseg import Ti_16.npz --network segmenter_ti --classes camvid --set network.size_hw=[192,256] \\
        --set network.decoder=linear --partial --out ti16.safetensors
    edgeseg train camvid-vit --data CAMVID --start-from ti16.safetensors
    """
    from edgeseg.atomic import check_writable
    from edgeseg.cli.options import check_different_files
    from edgeseg.optional import require

    if not out.endswith(".safetensors"):
        raise InputError(f"--out is a .safetensors file | got {out}")
    check_different_files(FILE=file, out=out)
    options, colours = _options(settings), {"mean": _colour("--mean", mean), "std": _colour("--std", std)}
    if colours["std"] is not None and min(colours["std"]) <= 0:
        raise InputError(f"--std is more than 0 | got {std}")
    class_set = _class_set(classes)
    check_writable(out)
    require("torch", extra="train")
    require("safetensors", extra="train")
    from edgeseg.training.checkpoint import save_checkpoint
    from edgeseg.training.foreign_weights.importer import import_weights, require_complete

    imported = import_weights(
        file, network, class_set, options=options, form=form, colour_order=colour_order, **colours
    )
    accepted = partial or imported.report.complete
    if not accepted:
        _print(imported.report, None, as_json=as_json)
        require_complete(imported.report)
    save_checkpoint(out, imported.network, imported.meta)
    _print(imported.report, out, as_json=as_json)


def _options(settings: tuple[str, ...]) -> dict[str, Any]:
    """`network.KEY=VALUE`, the value as in TOML, or else a word.

    Raises:
        InputError: another table than network, a key twice, or no `=`.
    """
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    options: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        name = key.strip().removeprefix("network.")
        if not separator or not key.strip().startswith("network.") or not name.isidentifier():
            raise InputError(f"--set {setting} is not readable | expected network.OPTION=VALUE")
        if name in options:
            raise InputError(f"--set gives network.{name} twice | give it once")
        try:
            options[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            options[name] = text
    return options


def _colour(option: str, text: str | None) -> tuple[float, float, float] | None:
    import math

    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
        if all(map(math.isfinite, (red, green, blue))):
            return red, green, blue
    except ValueError:
        pass
    raise InputError(f"{option} is three numbers, such as 0.5,0.5,0.5 | got {text!r}")


def _class_set(text: str) -> "ClassSet":
    """What `--classes` names: a set we know, names with commas, a data set, or a file of names.

    Raises:
        InputError: none of these.
    """
    from pathlib import Path

    from edgeseg.classes import CAMVID, CITYSCAPES, ClassSet, distinct_colours
    from edgeseg.data.open import is_simulator, open_dataset

    known = {"camvid": CAMVID, "cityscapes": CITYSCAPES}
    path = Path(text).expanduser()
    if text in known:
        return known[text]
    if is_simulator(text) or path.is_dir():
        return open_dataset(text).classes
    if path.is_file():
        return _classes_of_file(path)
    names = tuple(name.strip() for name in text.split(","))
    if len(names) < 2 or not all(names):
        raise InputError(
            f"--classes {text}: no class set, data set or file of that name | known: {', '.join(known)} | or give "
            "NAME,NAME,..., a data set's folder, or a file with a name per line"
        )
    return ClassSet(names, distinct_colours(len(names)))


def _classes_of_file(path: Any) -> "ClassSet":
    """Classes of a `dataset.toml` or another .toml with a table [classes], or else of a text of one name per line."""
    import sys

    from edgeseg.classes import ClassSet, distinct_colours

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".toml":
            names = tuple(line.strip() for line in text.splitlines() if line.strip())
            return ClassSet(names, distinct_colours(len(names)))
        table = tomllib.loads(text).get("classes")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"--classes {path} is not readable ({error}) | expected text or TOML") from error
    if not isinstance(table, dict):
        raise InputError(f"--classes {path} has no table [classes] | add one with names = [...]")
    return ClassSet.from_dict(table)


def _print(report: "ImportReport", out: str | None, *, as_json: bool) -> None:
    """The report on standard output; of a refused import (`out` None) only where all names were asked for."""
    import json

    from edgeseg.cli.tables import print_facts
    from edgeseg.training.checkpoint import frames_text

    verbose = bool(click.get_current_context().find_root().params.get("verbose"))
    if as_json:
        click.echo(json.dumps({"checkpoint": out, **report.as_dict()}, indent=1))
        return
    if out is None and not verbose:
        return
    differing = [f"{name} {theirs} in the file, {ours} here" for name, theirs, ours in report.differing]
    rows = {
        "matched": list(report.matched),
        "missing (fresh)": list(report.missing),
        "other shape (fresh)": differing,
        "unused": list(report.unused),
        "left out": [f"{name} ({why})" for name, why in report.dropped.items()],
    }
    facts = {
        **({"checkpoint": out} if out else {}),
        "network": ", ".join([report.network, *(f"{key} {value}" for key, value in report.options.items())]),
        "from": f"{report.file} ({report.format})",
        **(
            {"told by the file": ", ".join(f"{k} {v}" for k, v in report.told_by_file.items())}
            if report.told_by_file
            else {}
        ),
        "frames": frames_text(report.mean, report.std, report.colour_order),
        **{what: _count(names, all_names=verbose, few=what != "matched") for what, names in rows.items()},
        **({"notes": "; ".join(report.notes)} if report.notes else {}),
    }
    print_facts(facts)


def _count(names: list[str], *, all_names: bool, few: bool) -> str:
    if all_names and names:
        return "\n".join([str(len(names)), *names])
    shown = names[:2] if few else []
    more = ", ..." if len(names) > len(shown) > 0 else ""
    return f"{len(names)}{': ' if shown else ''}{', '.join(shown)}{more}"
