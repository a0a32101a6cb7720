"""`edgeseg doctor`: what can run here, and why the rest cannot."""

import click


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(as_json: bool) -> None:
    """Say which backends and devices are usable here and why the others are not, and which packages are installed."""
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


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
