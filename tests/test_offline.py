"""Nothing is left behind for others, and nobody is called: what libraries would do by themselves is off."""

import os
import subprocess
import sys
from pathlib import Path

# Those by which ONNX Runtime is silent anyway.
SILENT_ANYWAY = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "TF_BUILD", "GITHUB_ACTIONS", "JENKINS_URL")
LOADS_ONNX_RUNTIME = "import edgeseg.runtime.backends.onnxruntime_backend"


def left_behind(folder: Path, code: str) -> list[str]:
    """Files that a new process with that code leaves in its home and its folder of temporary files."""
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in SILENT_ANYWAY}
    kept = {name: value for name, value in kept.items() if not name.startswith("XDG_")}
    environment = {**kept, "HOME": str(home), "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, timeout=60)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_onnx_runtime_leaves_nothing_behind_when_edgeseg_loads_it(tmp_path):
    assert left_behind(tmp_path, LOADS_ONNX_RUNTIME) == []


def test_telemetry_is_as_the_user_says_when_the_variable_is_set():
    code = "import os, edgeseg; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["0"]
