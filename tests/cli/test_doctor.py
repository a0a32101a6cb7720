import json

from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.runtime import doctor
from support.backends import SimulatedTensorrt


def test_doctor_finds_the_cpu_usable_and_says_why_others_are_not():
    values = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    findings = {finding["what"]: finding for finding in values["findings"]}
    assert findings["device cpu"]["state"] == "usable"
    assert findings["device cuda:0"]["state"] == "usable" or "onnxruntime-gpu" in findings["device cuda:0"]["detail"]
    assert values["machine"]["cores"] >= 1


def test_doctor_warns_when_both_onnxruntime_packages_are_installed(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "1.20")
    assert [finding.state for finding in doctor.examine()].count("warning") == 1


def test_doctor_says_what_is_missing_for_tensorrt():
    findings = {finding.what: finding for finding in doctor.examine()}
    assert {f"device {family}:0" for family in ("tensorrt", "tensorrt-rtx", "ort-tensorrt")} <= findings.keys()
    library = findings["TensorRT"]
    assert library.state == "usable" or "edgeseg[tensorrt]" in library.detail
    memory = findings["GPU memory"]
    assert memory.state == "usable" or ("cuda-python" in memory.detail and "pycuda" in memory.detail)


def test_doctor_tells_the_libraries_of_a_gpu(monkeypatch):
    SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", "pycuda")
    findings = {finding.what: finding for finding in doctor.examine()}
    assert findings["device tensorrt:0"].state == "usable"
    assert findings["TensorRT"].detail.startswith("10.3.0")
    assert "pycuda" in findings["GPU memory"].detail
