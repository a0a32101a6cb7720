"""The runtime and all leaves import where torch, onnx and tensorrt do not exist."""

import subprocess
import sys

import pytest

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "tensorrt", "matplotlib", "safetensors", "openvino"}:
            raise ImportError(f"{name} is blocked by the test")

sys.meta_path.insert(0, Blocker())
"""

EVERYTHING = """
import importlib, pkgutil
import edgeseg.bundle, edgeseg.data, edgeseg.metrics, edgeseg.runtime, edgeseg.shipped
names = ["edgeseg." + name for name in ("atomic", "classes", "config", "device_profile", "errors", "optional")]
for package in (edgeseg.data, edgeseg.metrics, edgeseg.runtime):
    names += [entry.name for entry in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    importlib.import_module(name)
for name in edgeseg.runtime.__all__:
    getattr(edgeseg.runtime, name)
assert "edgeseg.runtime.backends.onnxruntime_backend" in names
"""

LIGHT = """
import edgeseg.runtime
heavy = {"onnxruntime", "cv2", "numpy", "rich"} & set(sys.modules)
assert not heavy, heavy
assert set(edgeseg.runtime.__all__) <= set(dir(edgeseg.runtime))
"""

HELP = """
from click.testing import CliRunner
from edgeseg.cli import COMMANDS, main
for command in COMMANDS:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0, result.output
heavy = {"onnxruntime", "cv2"} & set(sys.modules)
assert not heavy, heavy
"""

STEP = """
import numpy as np
import edgeseg.runtime as runtime
with runtime.load(sys.argv[1], configuration="plain_32x48") as session:
    assert session.step(np.zeros((32, 48, 3), np.uint8)).shape == (32, 48)
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code, *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("code", [EVERYTHING, LIGHT, HELP], ids=["every module", "import edgeseg.runtime", "help"])
def test_imports_work_when_torch_onnx_and_tensorrt_cannot_be_imported(code):
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_a_bundle_runs_when_torch_onnx_and_tensorrt_cannot_be_imported(bundle):
    result = run(STEP, str(bundle.root))
    assert result.returncode == 0, result.stderr


def test_the_blocker_blocks():
    assert "blocked by the test" in run("import torch").stderr
