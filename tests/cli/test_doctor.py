import json

from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.runtime import doctor


def test_doctor_finds_the_cpu_usable_and_says_why_others_are_not():
    values = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    findings = {finding["what"]: finding for finding in values["findings"]}
    assert findings["device cpu"]["state"] == "usable"
    assert findings["device cuda:0"]["state"] == "usable" or "onnxruntime-gpu" in findings["device cuda:0"]["detail"]
    assert values["machine"]["cores"] >= 1


def test_doctor_warns_when_both_onnxruntime_packages_are_installed(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "1.20")
    assert [finding.state for finding in doctor.examine()].count("warning") == 1
