"""`edgeseg doctor`: what can run here, and why the rest cannot."""

from typing import Any

import click

from edgeseg.cli.camera_options import camera_options
from edgeseg.cli.options import FRAME_RATE


@click.command(name="doctor")
@click.option("--camera", "source", metavar="SRC",
              help="Examine a camera instead: what it offers, and the rate, size and age of its frames.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0.2), default=3.0, show_default=True,
              help="How long the camera is watched.")  # fmt: skip
@click.option("--fps", type=FRAME_RATE, help="Frame rate asked of the camera.  [default: its own]")
@camera_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    source: str | None, seconds: float, fps: float | None, camera_arguments: dict[str, Any], as_json: bool
) -> None:
    """Say which backends and devices are usable here and why the others are not, and which packages are installed."""
    if source is not None:
        _examine_camera(source, seconds, {"fps": fps, **camera_arguments}, as_json=as_json)
        return
    import json

    from edgeseg.cli.tables import print_facts
    from edgeseg.runtime.device import device_facts
    from edgeseg.runtime.doctor import examine

    findings = examine()
    facts = device_facts()
    if as_json:
        values = {"findings": [vars(finding) for finding in findings], "machine": facts}
        click.echo(json.dumps(values, indent=1))
        return
    width = max(len(finding.what) for finding in findings)
    marks = {"usable": "ok ", "unusable": " - ", "warning": " ! "}
    for finding in findings:
        click.echo(f"{marks[finding.state]} {finding.what:{width}}  {finding.detail}")
    click.echo()
    print_facts({key: _flat(value) for key, value in facts.items()})


def _examine_camera(source: str, seconds: float, options: dict[str, Any], *, as_json: bool) -> None:
    import json

    from edgeseg.cli.tables import print_facts
    from edgeseg.runtime.camera_report import examine_camera

    report = examine_camera(source, seconds=seconds, **options)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1))
        return

    def figures(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.1f}" for name, value in values.items()) + " ms"

    print_facts(
        {
            "camera": report.source,
            "offers": "; ".join(map(str, report.modes)) or "cannot be asked",
            "size": f"{report.size_hw[0]}x{report.size_hw[1]}",
            "frame rate": f"{report.fps:.1f} frames/s measured, {report.told_fps:.5g} {report.fps_origin}",
            "period": figures(report.period_ms),
            "age": f"{figures(report.age_ms)} when read; exposure, the camera's encoder and the network not included",
            "first frame": f"{report.first_frame_s:.2f} s after opening",
            "events": ", ".join(f"{count} {name}" for name, count in vars(report.counts).items()),
        }
    )


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
