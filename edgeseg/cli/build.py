"""`edgeseg build`: a bundle's graphs become TensorRT engines, in a cache beside the bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeseg.bundle import Bundle
    from edgeseg.export.engine_builds import EngineRow

_NOTABLE = ("int8", "fp16", "fp32")
"""Types of arithmetic that have a column of their own."""


@click.command(name="build")
@click.argument("bundle")
@click.option("--device", default="tensorrt:0", show_default=True, help="tensorrt:0, or tensorrt-rtx:0 (RTX GPUs).")
@click.option("--configuration", "configurations", metavar="NAME", multiple=True, help="Only this one.  [default: all]")
@click.option("--workspace-mb", type=int, help="Most scratch memory of a layer, in MiB.  [default: all there is]")
@click.option("--dla", type=int, metavar="N", help="Put what it can on the DLA core N, the rest on the GPU.")
@click.option("--version-compatible", is_flag=True, help="Engines that later versions take too. They carry code.")
@click.option(
    "--hardware-compatible",
    default="none",
    show_default=True,
    metavar="LEVEL",
    help="none (this GPU model), same (its compute capability) or ampere+ (Ampere and later).",
)
@click.option(
    "--compute-capability",
    "compute_capabilities",
    metavar="M.N",
    multiple=True,
    help="tensorrt-rtx: GPUs to build for, such as 7.5.  [default: 8.0 to 8.9 and from 12.0]",
)
@click.option("--optimization-level", type=int, metavar="0-5", help="0 builds fast, 5 searches long.  [default: 3]")
@click.option("--rebuild", is_flag=True, help="Build also what is there already.")
@click.option("--report", metavar="FILE", help="Write each engine's layers and their types: .json, or a plain table.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(bundle: str, device: str, report: str | None, as_json: bool, **given: Any) -> None:
    """Build the engines of BUNDLE for this device, into the folder NAME.engines beside it.

    An engine runs with the TensorRT version and on the GPU that it was built for. One that is there already, of the
    same graph and options, is used again. TensorRT for RTX builds without a GPU, for all RTX GPUs from Ampere on.

    \b
    edgeseg build street.edgeseg --device tensorrt:0
    edgeseg build street.edgeseg --device tensorrt:0 --configuration swiftnet_360x480_int8 --dla 0
    edgeseg build street.edgeseg --device tensorrt-rtx:0 --report layers.txt
    """
    import json

    from edgeseg.atomic import check_writable
    from edgeseg.bundle import Bundle
    from edgeseg.cli.options import measuring_bar
    from edgeseg.optional import require
    from edgeseg.shipped import bundle_path

    require("onnx", extra="tensorrt-rtx" if device.startswith("tensorrt-rtx") else "tensorrt")
    from edgeseg.export.build_options import BuildOptions, open_target
    from edgeseg.export.engine_builds import build_bundle

    configurations, rebuild = given.pop("configurations"), given.pop("rebuild")
    options = BuildOptions(**given)
    opened = Bundle.open(bundle_path(bundle))
    if report is not None:
        check_writable(report)
    target = open_target(device)
    with measuring_bar("building") as bar:
        rows = build_bundle(
            opened,
            target,
            options,
            configurations=configurations,
            rebuild=rebuild,
            progress=lambda name, share, phase: bar(f"{name}: {phase}", share),
        )
    if report is not None:
        _write_report(Path(report), rows)
    if as_json:
        click.echo(
            json.dumps({"bundle": str(opened.root), "device": device, "engines": [_values(row) for row in rows]})
        )
    else:
        _print(opened, rows)


def _values(row: "EngineRow") -> dict[str, Any]:
    record = row.record
    return {
        "configuration": record.configuration,
        "role": record.role,
        "engine": str(record.path),
        "bytes": record.size_bytes,
        "build_s": record.build_s,
        "reused": row.reused,
        "built_for": record.key.built_for,
        "products": row.products,
    }


def _print(bundle: "Bundle", rows: "Sequence[EngineRow]") -> None:
    from edgeseg.cli.tables import print_rows
    from edgeseg.runtime.engine_cache import engine_folder

    others = sorted({kind for row in rows for kind in row.products} - set(_NOTABLE))
    print_rows(
        [
            {
                "configuration": row.record.configuration,
                "graph": row.record.role,
                "MB": f"{row.record.size_bytes / 1e6:.1f}",
                "built in": "(was there)" if row.reused else f"{row.record.build_s:.1f} s",
                **{kind: row.products.get(kind, 0) if row.layers else "?" for kind in (*_NOTABLE, *others)},
            }
            for row in rows
        ]
    )
    click.echo("int8, fp16, fp32: convolutions and matrix products that compute in it")
    count = f"{len(rows)} engine{'' if len(rows) == 1 else 's'}"
    click.echo(f"{engine_folder(bundle.root)}: {count} for {rows[0].record.key.built_for}")


def _write_report(path: Path, rows: "Sequence[EngineRow]") -> None:
    import json

    from edgeseg.atomic import write_text
    from edgeseg.export.layer_report import report_text

    if path.suffix == ".json":
        layers = [{**_values(row), "layers": list(row.record.layers)} for row in rows]
        write_text(path, json.dumps(layers, indent=1) + "\n")
        return
    parts = [f"{row.record.configuration} ({row.record.role})\n{report_text(row.layers)}" for row in rows]
    write_text(path, "\n".join(parts))
